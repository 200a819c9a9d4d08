//! Links the library that provides LAPACK: the system's `liblapack`, dynamically.

fn main() {
    println!("cargo::rustc-link-lib=dylib=lapack");
    println!("cargo::rerun-if-changed=build.rs");
}
