//! What libtorch has allocated, as its allocators tell: on a CUDA device at any moment, on the host while a computation is watched. And moments in the work that is
//! queued on a CUDA device.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

use mehl_soup::runner::engine;
use tch::Device;

#[repr(C)]
#[derive(Default)]
struct RawMemory {
    allocated: i64,
    reserved: i64,
    peak: i64,
    free: i64,
    total: i64,
}

unsafe extern "C" {
    fn mehl_soup_cuda_memory(index: c_int, ask_device: c_int, out: *mut RawMemory) -> c_int;
    fn mehl_soup_cuda_reset_peak(index: c_int) -> c_int;
    fn mehl_soup_cuda_empty_cache() -> c_int;
    fn mehl_soup_cuda_event(index: c_int) -> *mut c_void;
    fn mehl_soup_cuda_event_seconds(from: *const c_void, to: *const c_void) -> f64;
    fn mehl_soup_cuda_event_free(event: *mut c_void);
    fn mehl_soup_watch(cuda: c_int) -> *mut c_void;
    fn mehl_soup_watch_end(handle: *mut c_void) -> usize;
    fn mehl_soup_watch_changes(handle: *mut c_void, out: *mut i64, count: usize);
    fn mehl_soup_watch_free(handle: *mut c_void);
}

/// Memory of a CUDA device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// In tensors.
    pub allocated: u64,
    /// Taken from the device, with what is kept for later tensors.
    pub reserved: u64,
    /// Largest `allocated` since [`reset_peak`] or the start.
    pub peak: u64,
    /// Free on the device, for any process; `None` where libtorch does not tell, or was not asked.
    pub free: Option<u64>,
    /// The device's own.
    pub total: Option<u64>,
}

impl From<DeviceMemory> for engine::DeviceMemory {
    fn from(memory: DeviceMemory) -> Self {
        Self { allocated: memory.allocated, reserved: memory.reserved, peak: memory.peak }
    }
}

/// Memory of a CUDA device; `None` for the host, and where libtorch's CUDA part is not in use.
pub fn device_memory(device: Device) -> Option<DeviceMemory> {
    ask(device, true)
}

/// What of a CUDA device's memory libtorch has: [`device_memory`] without `free` and `total`, for which the driver would have to be asked.
pub fn in_use(device: Device) -> Option<DeviceMemory> {
    ask(device, false)
}

fn ask(device: Device, device_too: bool) -> Option<DeviceMemory> {
    let Device::Cuda(index) = device else { return None };
    let mut raw = RawMemory::default();
    // SAFETY: `raw` is what the function writes to, laid out as it says.
    if unsafe { mehl_soup_cuda_memory(index as c_int, c_int::from(device_too), &raw mut raw) } != 0 {
        return None;
    }
    let bytes = |value: i64| u64::try_from(value).unwrap_or(0);
    let told = |value: i64| (raw.total > 0).then(|| bytes(value));
    Some(DeviceMemory {
        allocated: bytes(raw.allocated),
        reserved: bytes(raw.reserved),
        peak: bytes(raw.peak),
        free: told(raw.free),
        total: told(raw.total),
    })
}

/// Lets the peak of [`device_memory`] start anew.
pub fn reset_peak(device: Device) {
    if let Device::Cuda(index) = device {
        // SAFETY: takes a number, catches its own exceptions.
        unsafe { mehl_soup_cuda_reset_peak(index as c_int) };
    }
}

/// Gives back what CUDA's allocator keeps for later tensors.
pub fn give_back(device: Device) {
    if matches!(device, Device::Cuda(_)) {
        // SAFETY: takes nothing, catches its own exceptions.
        unsafe { mehl_soup_cuda_empty_cache() };
    }
}

/// A moment in the work that is queued on a CUDA device.
pub struct Event(NonNull<c_void>);

impl Event {
    /// After what is queued by now; `None` where nothing is queued, as on the CPU, or no event can be had.
    pub fn record(device: Device) -> Option<Self> {
        let Device::Cuda(index) = device else { return None };
        // SAFETY: takes a number, catches its own exceptions.
        NonNull::new(unsafe { mehl_soup_cuda_event(index as c_int) }).map(Self)
    }

    /// Seconds from this moment to a later one of the same device, which is waited for.
    pub fn seconds_until(&self, later: &Self) -> f64 {
        // SAFETY: both are events of `mehl_soup_cuda_event`, which live as long as these.
        unsafe { mehl_soup_cuda_event_seconds(self.0.as_ptr(), later.0.as_ptr()) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: of `mehl_soup_cuda_event`, and freed once.
        unsafe { mehl_soup_cuda_event_free(self.0.as_ptr()) };
    }
}

/// Watches what this thread's libtorch operations allocate and free on a device, the threads that they spread over included.
pub struct AllocationRecorder {
    handle: Option<NonNull<c_void>>,
    /// Bound to its thread.
    thread: PhantomData<*const ()>,
}

impl AllocationRecorder {
    /// Begins.
    pub fn new(device: Device) -> Self {
        // SAFETY: takes a number, catches its own exceptions.
        let handle = NonNull::new(unsafe { mehl_soup_watch(c_int::from(device != Device::Cpu)) });
        Self { handle, thread: PhantomData }
    }

    /// Ends, and tells each change in order: bytes allocated, below 0 where they were freed.
    pub fn end(mut self) -> Vec<i64> {
        self.close()
    }

    fn close(&mut self) -> Vec<i64> {
        let Some(handle) = self.handle.take().map(NonNull::as_ptr) else { return vec![] };
        // SAFETY: the handle is of `mehl_soup_watch`, by this thread, and nobody uses it after it is freed; `changes` has room for what is asked for.
        unsafe {
            let mut changes = vec![0; mehl_soup_watch_end(handle)];
            mehl_soup_watch_changes(handle, changes.as_mut_ptr(), changes.len());
            mehl_soup_watch_free(handle);
            changes
        }
    }
}

impl Drop for AllocationRecorder {
    fn drop(&mut self) {
        self.close();
    }
}

/// The largest sum of the first changes, 0 for none.
pub fn largest(changes: &[i64]) -> u64 {
    let sums = changes.iter().scan(0i64, |sum, change| {
        *sum += change;
        Some(*sum)
    });
    sums.max().and_then(|limit| u64::try_from(limit).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn the_largest_sum_is_seen_whatever_is_left() {
        let kept = Tensor::zeros([1 << 20], (Kind::Float, Device::Cpu));
        let watch = AllocationRecorder::new(Device::Cpu);
        let first = Tensor::zeros([1 << 20], (Kind::Float, Device::Cpu));
        drop(Tensor::zeros([2 << 20], (Kind::Float, Device::Cpu)));
        drop((first, kept));
        let second = Tensor::zeros([1 << 20], (Kind::Float, Device::Cpu));
        let peak = largest(&watch.end());
        drop(second);
        assert!((12 << 20..13 << 20).contains(&peak), "{peak}");
        // A backward pass keeps what forward gave it.
        let leaf = Tensor::ones([1 << 20], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let watch = AllocationRecorder::new(Device::Cpu);
        let loss = (&leaf * &leaf).exp().sum(Kind::Float);
        let gradient = Tensor::run_backward(&[&loss], &[&leaf], false, false);
        drop(gradient);
        let peak = largest(&watch.end());
        assert!((12 << 20..33 << 20).contains(&peak), "{peak}");
        assert!(AllocationRecorder::new(Device::Cpu).end().is_empty());
    }

    #[test]
    fn the_host_is_no_cuda_device() {
        assert_eq!(device_memory(Device::Cpu), None);
        assert_eq!(device_memory(Device::Cuda(0)), None, "nothing has loaded CUDA here");
        assert!(Event::record(Device::Cpu).is_none() && Event::record(Device::Cuda(0)).is_none());
    }
}
