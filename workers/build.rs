//! Lets the worker find libtorch at run time without a variable set by hand, and tells it which one it was built for.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    let mut version = "unknown".to_string();
    if let Some(libtorch) = std::env::var_os("LIBTORCH") {
        let root = PathBuf::from(libtorch);
        // The canonical path, because the link in the build folder may be replaced by a later `make setup`.
        let root = root.canonicalize().unwrap_or(root);
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", root.join("lib").display());
        for (file, start) in [("version.py", "__version__ = '"), ("build-version", "")] {
            let file = root.join(file);
            println!("cargo:rerun-if-changed={}", file.display());
            if let Ok(text) = std::fs::read_to_string(&file)
                && let Some(found) = text.lines().find_map(|line| line.strip_prefix(start))
            {
                version = found.trim().trim_end_matches('\'').to_string();
                break;
            }
        }
    }
    println!("cargo:rustc-env=MEHL_SOUP_LIBTORCH_VERSION={version}");
    compile_allocations();
}

/// What tch has no call for, in C++ over libtorch's smallest library.
fn compile_allocations() {
    const SOURCE: &str = "src/engine/allocations.cpp";
    println!("cargo:rerun-if-changed={SOURCE}");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    let root = ["LIBTORCH_INCLUDE", "LIBTORCH"].iter().find_map(std::env::var_os).map(PathBuf::from);
    let Some(root) = root else {
        println!(
            "cargo::error=LIBTORCH does not say where libtorch is: `make setup` installs it, .cargo/config.toml names it"
        );
        return;
    };
    let mut build = cc::Build::new();
    build.include(root.join("include"));
    build
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .file(SOURCE)
        .compile("allocations");
    println!("cargo:rustc-link-lib=c10");
}
