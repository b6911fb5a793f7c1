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
    compile_calls();
}

/// What tch has no call for, in C++: `allocations.cpp` over libtorch's smallest library, `autograd.cpp`
/// over libtorch for the CPU.
fn compile_calls() {
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    let root = ["LIBTORCH_INCLUDE", "LIBTORCH"].iter().find_map(std::env::var_os).map(PathBuf::from);
    let Some(root) = root else {
        println!(
            "cargo::error=LIBTORCH does not say where libtorch is: `make setup` installs it, .cargo/config.toml names it"
        );
        return;
    };
    for (source, name) in [("src/engine/allocations.cpp", "allocations"), ("src/torch/autograd.cpp", "autograd")] {
        println!("cargo:rerun-if-changed={source}");
        cc::Build::new()
            .include(root.join("include"))
            .include(root.join("include/torch/csrc/api/include"))
            .cpp(true)
            .std("c++17")
            .warnings(false)
            .define("_GLIBCXX_USE_CXX11_ABI", "1")
            .file(source)
            .compile(name);
    }
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
}
