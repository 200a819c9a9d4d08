//! The seam between a host build and a worker build. The public API is the same in both; the code behind it, which runs
//! cargo or sends requests, and its dependencies are absent from a worker. A public function crosses the seam in one of these
//! macros; `host_absent.rs` defines them for a worker.

/// Expands to an expression that only a host can evaluate.
macro_rules! host {
    ($work:expr) => {
        $work
    };
}

/// Expands to the value of a future, which is polled inside the runtime of the library.
macro_rules! host_await {
    ($work:expr) => {
        ::cloudknot_runtime::engine::inside(::std::boxed::Box::pin($work)).await
    };
}

/// Expands to a type that only a host has.
macro_rules! host_type {
    ($kind:ty) => {
        $kind
    };
}

pub(crate) use {host, host_await, host_type};
