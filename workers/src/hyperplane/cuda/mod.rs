//! Mixing and projecting on NVIDIA's GPUs by kernels of our own (`kernels.cu`): one launch for all tensors of a model batch, each stored byte read once.
//!
//! libtorch's operations would make f32 copies of compact rows and go over them several times, once for each tensor. The kernels are compiled by NVRTC, which comes with
//! libtorch's CUDA part, when a device is first used; where that cannot be, libtorch's operations do the same work slower.
//!
//! They run in the default stream of the device's primary context, as all that libtorch does here: what is queued before them is done before them.

mod locked;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc;
use tch::{Device, Kind, TchError, Tensor};

pub use locked::Locked;

use super::compact::Code;

const SOURCE: &str = include_str!("kernels.cu");
/// As in `kernels.cu`.
const THREADS: u32 = 256;
/// Values that a block mixes, as in `kernels.cu`.
const MIXED: u64 = 2048;
/// Values that a block projects, as in `kernels.cu`.
const PROJECTED: u64 = 8192;
/// Warps of a block.
const WARPS: u32 = THREADS / 32;
/// Bytes that the threads of a block may share on any device.
const SHARED: u32 = 48 << 10;
/// Set to 0, it leaves the work to libtorch's operations.
pub const SWITCH: &str = "MEHL_SOUP_CUDA_KERNELS";

/// The rows of one tensor, as the kernels read them.
pub(super) struct DeviceRows<'a> {
    /// `None` for f32.
    pub code: Option<Code>,
    /// `[b, words of 4 bytes]`, contiguous.
    pub values: &'a Tensor,
    /// `[b, groups]`, bf16; where the code has scales.
    pub scales: Option<&'a Tensor>,
}

/// One tensor of a mix or a projection.
pub(super) struct Part<'a> {
    /// Its rows.
    pub rows: DeviceRows<'a>,
    /// What a mix begins with, f32; zeros without.
    pub base: Option<&'a Tensor>,
    /// Where the mix goes, or the gradient: f32 or bf16, contiguous.
    pub vector: &'a Tensor,
}

/// `Part` of `kernels.cu`, each field as the 64 bits it has there.
const FIELDS: usize = 9;

/// Compiled kernels of one device.
pub(super) struct Kernels {
    stream: Arc<CudaStream>,
    mix: [CudaFunction; 4],
    project: [CudaFunction; 4],
    finish: CudaFunction,
}

type Loaded = Result<Arc<Kernels>, String>;

static LOADED: Mutex<BTreeMap<usize, Loaded>> = Mutex::new(BTreeMap::new());

/// Compiles the kernels for a device if that has not been tried before.
///
/// # Errors
/// In words, why they cannot be had: then libtorch's operations do the work.
pub fn prepare(device: Device) -> Result<(), String> {
    kernels(device).map(drop)
}

/// The kernels of a device, if it has some and rows of so many members are for them.
pub(super) fn of(device: Device, kind: Kind, members: usize) -> Option<Arc<Kernels>> {
    let shared = (members as u64 + 1) * u64::from(WARPS) * 4;
    let fit = kind == Kind::Float && matches!(device, Device::Cuda(_)) && shared <= u64::from(SHARED);
    fit.then(|| kernels(device).ok()).flatten()
}

fn kernels(device: Device) -> Loaded {
    let Device::Cuda(index) = device else { return Err(format!("{device:?} is not a CUDA device")) };
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    loaded.entry(index).or_insert_with(|| compile(index).map(Arc::new)).clone()
}

fn compile(index: usize) -> Result<Kernels, String> {
    if std::env::var(SWITCH).is_ok_and(|value| value == "0") {
        return Err(format!("{SWITCH} is 0"));
    }
    bring_nvrtc();
    // SAFETY: both only try to load libraries by name.
    let (driver, compiler) =
        unsafe { (cudarc::driver::sys::is_culib_present(), cudarc::nvrtc::sys::is_culib_present()) };
    // Asked before, as a call to what is not there would panic.
    if !driver || !compiler {
        return Err(format!("{} is not found", if driver { "NVRTC" } else { "the driver's library" }));
    }
    let source = nvrtc::compile_ptx(SOURCE).map_err(|error| format!("NVRTC cannot compile the kernels: {error}"))?;
    let load = || -> Result<Kernels, DriverError> {
        let context = CudaContext::new(index)?;
        let module = context.load_module(source)?;
        let find = |name: &str| module.load_function(name);
        let all = |what: &str| -> Result<[CudaFunction; 4], DriverError> {
            let of = |layout: &str| find(&format!("{what}_{layout}"));
            Ok([of("f32")?, of("bf16")?, of("int8")?, of("int4")?])
        };
        Ok(Kernels {
            stream: context.default_stream(),
            mix: all("mix")?,
            project: all("project")?,
            finish: find("finish")?,
        })
    };
    load().map_err(|error| format!("the driver cannot load the kernels: {error}"))
}

/// Loads NVRTC by way of the part of libtorch that is linked to it and knows where it lies; it is then found by its name.
#[cfg(unix)]
fn bring_nvrtc() {
    // SAFETY: the argument is a valid C string; the library is libtorch's own and stays loaded.
    unsafe { libc::dlopen(c"libcaffe2_nvrtc.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
}

#[cfg(not(unix))]
fn bring_nvrtc() {}

fn layout(code: Option<Code>) -> usize {
    match code {
        None => 0,
        Some(Code::Bf16) => 1,
        Some(Code::Int8) => 2,
        Some(Code::Int4) => 3,
    }
}

/// Parts where the kernels find them.
struct Laid {
    descriptors: Tensor,
    blocks: u64,
    layout: usize,
}

/// Copies descriptions of the parts to the device, `values` of each to a block.
fn lay(parts: &[Part<'_>], values: u64) -> Result<Laid, TchError> {
    let address = |tensor: Option<&Tensor>| tensor.map_or(0, |tensor| tensor.data_ptr() as i64);
    let mut fields: Vec<i64> = Vec::with_capacity(parts.len() * FIELDS);
    let mut blocks = 0;
    for Part { rows, base, vector } in parts {
        let narrow = vector.kind() == Kind::BFloat16;
        debug_assert!(vector.is_contiguous() && (narrow || vector.kind() == Kind::Float));
        let n = vector.numel() as u64;
        let words = rows.values.size()[1] * rows.values.kind().elt_size_in_bytes() as i64 / 4;
        let groups = rows.scales.map_or(0, |scales| scales.size()[1]);
        fields.extend([
            address(Some(rows.values)),
            address(rows.scales),
            address(*base),
            address(Some(vector)),
            n as i64,
            words,
            groups,
            i64::from(narrow),
            blocks as i64,
        ]);
        blocks += n.div_ceil(values);
    }
    let device = parts.first().map_or(Device::Cpu, |part| part.vector.device());
    let layout = layout(parts.first().and_then(|part| part.rows.code));
    Ok(Laid { descriptors: Tensor::f_from_slice(&fields)?.f_to_device(device)?, blocks, layout })
}

fn grid(blocks: u64, shared: u32) -> Result<LaunchConfig, TchError> {
    let blocks = u32::try_from(blocks).ok().filter(|&blocks| blocks <= i32::MAX as u32);
    let blocks = blocks.ok_or_else(|| TchError::Torch("more values than a launch has blocks for".to_string()))?;
    Ok(LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: shared })
}

fn refused(error: DriverError) -> TchError {
    TchError::Torch(format!("CUDA: {error}"))
}

impl Kernels {
    /// Sets each part's vector to `base + sum_k x[k] rows[k]`; coordinates are `[parts, b]`.
    pub fn mix(&self, parts: &[Part<'_>], x: &[f32], b: usize) -> Result<(), TchError> {
        let laid = lay(parts, MIXED)?;
        if laid.blocks == 0 {
            return Ok(());
        }
        let x = Tensor::f_from_slice(x)?.f_to_device(laid.descriptors.device())?;
        let (descriptors, x) = (laid.descriptors.data_ptr() as u64, x.data_ptr() as u64);
        let (count, members) = (parts.len() as u32, b as u32);
        let mut launch = self.stream.launch_builder(&self.mix[laid.layout]);
        launch.arg(&descriptors).arg(&count).arg(&x).arg(&members);
        // SAFETY: the arguments are what the kernel declares; all that the descriptors point to is alive, on this device, and as large as they say, and is not
        // used for anything else before what is queued now is done: libtorch hands freed memory out again in the same stream alone.
        unsafe { launch.launch(grid(laid.blocks, members * 4)?) }.map(drop).map_err(refused)
    }

    /// For each part `<rows[k], vector>` for k in 0..b, and `|vector|^2`.
    pub fn project(&self, parts: &[Part<'_>], b: usize) -> Result<Vec<(Vec<f64>, f64)>, TchError> {
        let laid = lay(parts, PROJECTED)?;
        let (device, columns) = (laid.descriptors.device(), b as i64 + 1);
        let sums = Tensor::f_empty([laid.blocks as i64, columns], (Kind::Float, device))?;
        let out = Tensor::f_zeros([parts.len() as i64, columns], (Kind::Double, device))?;
        if laid.blocks > 0 {
            let (count, members, blocks) = (parts.len() as u32, b as u32, laid.blocks as u32);
            let descriptors = laid.descriptors.data_ptr() as u64;
            let (sums, out) = (sums.data_ptr() as u64, out.data_ptr() as u64);
            let mut launch = self.stream.launch_builder(&self.project[laid.layout]);
            launch.arg(&descriptors).arg(&count).arg(&sums).arg(&members);
            // SAFETY: as in `mix`; `sums` has a row for each block.
            unsafe { launch.launch(grid(laid.blocks, (members + 1) * WARPS * 4)?) }.map(drop).map_err(refused)?;
            let mut launch = self.stream.launch_builder(&self.finish);
            launch.arg(&descriptors).arg(&count).arg(&blocks).arg(&sums).arg(&out).arg(&members);
            let threads = parts.len() as u64 * columns as u64;
            // SAFETY: as before; `out` has a row for each part.
            unsafe { launch.launch(grid(threads.div_ceil(u64::from(THREADS)), 0)?) }.map(drop).map_err(refused)?;
        }
        let all = Vec::<f64>::try_from(out.f_view(-1)?)?;
        Ok(all.chunks(b + 1).map(|found| (found[..b].to_vec(), found[b])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that the source defines.
    fn defined(name: &str) -> u64 {
        let line = SOURCE.lines().find_map(|line| line.strip_prefix(&format!("#define {name} ")));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{name} is not in kernels.cu"))
    }

    #[test]
    fn both_sides_count_alike() {
        assert_eq!(
            (defined("THREADS"), defined("MIXED"), defined("PROJECTED")),
            (u64::from(THREADS), MIXED, PROJECTED)
        );
        assert_eq!(defined("GROUP"), crate::hyperplane::compact::GROUP as u64);
        let layouts = ["F32", "BF16", "INT8", "INT4"].map(defined);
        let codes = [None, Some(Code::Bf16), Some(Code::Int8), Some(Code::Int4)];
        assert_eq!(layouts, codes.map(|code| layout(code) as u64));
        let part = &SOURCE[SOURCE.find("struct Part {").unwrap()..];
        assert_eq!(part[..part.find("};").unwrap()].matches(';').count(), FIELDS);
    }

    #[test]
    fn without_a_device_there_are_no_kernels() {
        assert!(prepare(Device::Cpu).unwrap_err().contains("not a CUDA device"));
        assert!(of(Device::Cpu, Kind::Float, 4).is_none());
    }
}
