//! The allocator of a worker whose C library has a slow one. The build of the worker enables it through a cfg; a program on
//! this machine keeps its default allocator.

#[global_allocator]
static MIMALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;
