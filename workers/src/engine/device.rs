//! Devices by name.

use mehl_soup::runner::engine::EngineError;
use tch::{Cuda, Device};

/// Cores of this machine that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Bounds the threads of everything outside libtorch (reading, mixing, projecting), over all devices of this process together.
/// Only the first call counts.
pub fn limit_threads(threads: usize) {
    // That there is a pool already is what later calls find.
    drop(rayon::ThreadPoolBuilder::new().num_threads(threads).build_global());
}

/// `cpu`, `cuda` or `cuda:N`.
///
/// # Errors
/// If CUDA is asked for and cannot be used, with the reason.
pub fn parse(name: &str) -> Result<Device, EngineError> {
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => 0,
        other => other.strip_prefix("cuda:").and_then(|n| n.parse().ok()).ok_or_else(|| {
            EngineError::Input(format!("compute.devices: expected cpu, cuda or cuda:N, found `{other}`"))
        })?,
    };
    // The linker drops libtorch_cuda, which nothing refers to by name, and CUDA then looks as if it were not there. Linking it in would
    // make a program that does not start where only the CPU's part is installed.
    load_cuda().map_err(|why| EngineError::Input(format!("compute.devices: `{name}` cannot be used: {why}")))?;
    let found = Cuda::device_count();
    if index as i64 >= found {
        return Err(EngineError::Input(format!(
            "compute.devices: expected one of {found} CUDA devices, found `{name}`"
        )));
    }
    Ok(Device::Cuda(index))
}

#[cfg(unix)]
fn load_cuda() -> Result<(), String> {
    use std::ffi::CStr;
    // SAFETY: the arguments are valid C strings; the library is libtorch's own and stays loaded; dlerror's text is copied at once.
    unsafe {
        if !libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() {
            return if Cuda::is_available() {
                Ok(())
            } else {
                Err("libtorch finds no usable NVIDIA driver or GPU".to_string())
            };
        }
        let message = libc::dlerror();
        if message.is_null() {
            return Err("libtorch_cuda.so cannot be loaded".to_string());
        }
        Err(CStr::from_ptr(message).to_string_lossy().into_owned())
    }
}

#[cfg(not(unix))]
fn load_cuda() -> Result<(), String> {
    if Cuda::is_available() { Ok(()) } else { Err("libtorch finds no usable NVIDIA driver or GPU".to_string()) }
}
