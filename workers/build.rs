//! Lets the worker find libtorch at run time without a variable set by hand.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    let Some(libtorch) = std::env::var_os("LIBTORCH") else { return };
    let lib = PathBuf::from(libtorch).join("lib");
    // The canonical path, because the link in the build folder may be replaced by a later `make setup`.
    let lib = lib.canonicalize().unwrap_or(lib);
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}
