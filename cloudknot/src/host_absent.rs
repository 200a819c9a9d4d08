//! The seam of `host.rs` in a worker build: functions return an error, and values with a type of the host cannot exist.

macro_rules! host {
    ($($work:tt)*) => {
        $crate::error::Absent::absent()
    };
}

macro_rules! host_type {
    ($($kind:tt)*) => {
        ::std::convert::Infallible
    };
}

pub(crate) use {host, host as host_await, host_type};
