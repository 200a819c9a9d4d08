//! The allocator of a worker whose C library has a slow one. Asked for by the build of the worker, through a cfg; a
//! program on this machine keeps its own.

#[global_allocator]
static MIMALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;
