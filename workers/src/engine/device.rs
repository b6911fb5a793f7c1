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
            "compute.devices: `{name}` does not exist, this machine has {found} CUDA devices"
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

/// Whether a device has instructions for products of matrices in bf16: CPUs with AVX512-BF16 (those with AMX have it too), NVIDIA GPUs from compute capability 8.0 on.
pub fn is_fast_in_bf16(device: Device) -> bool {
    match device {
        #[cfg(target_arch = "x86_64")]
        Device::Cpu => std::is_x86_feature_detected!("avx512bf16"),
        Device::Cuda(index) => compute_capability_major(index).is_some_and(|major| major >= 8),
        _ => false,
    }
}

/// Asks the CUDA runtime that came with libtorch_cuda, if it is loaded: tch has no such question.
#[cfg(unix)]
fn compute_capability_major(index: usize) -> Option<i32> {
    type GetAttribute = unsafe extern "C" fn(*mut libc::c_int, libc::c_int, libc::c_int) -> libc::c_int;
    /// `cudaDevAttrComputeCapabilityMajor` of `driver_types.h`.
    const MAJOR: libc::c_int = 75;
    let mut major = 0;
    // SAFETY: the name is a valid C string, the symbol of that name in CUDA's runtime has this type, and `major` lives while it writes to it.
    let status = unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"cudaDeviceGetAttribute".as_ptr());
        if symbol.is_null() {
            return None;
        }
        std::mem::transmute::<*mut libc::c_void, GetAttribute>(symbol)(&mut major, MAJOR, index as libc::c_int)
    };
    (status == 0).then_some(major)
}

#[cfg(not(unix))]
fn compute_capability_major(_: usize) -> Option<i32> {
    None
}
