//! Names the library that has LAPACK: the system's `liblapack`, linked dynamically.

fn main() {
    println!("cargo::rustc-link-lib=dylib=lapack");
    println!("cargo::rerun-if-changed=build.rs");
}
