//! The exit codes of `cargo knot`. The command itself is the program of this package; the library that it calls is `cloudknot`.

pub mod exit;
