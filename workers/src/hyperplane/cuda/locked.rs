//! Host memory whose pages stay where they are, so that a device's driver copies from it directly.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{CudaContext, DriverError, sys};
use tch::{Device, Tensor};

/// As long as it lives, a tensor's pages are locked; the tensor has to live longer.
pub struct Locked {
    context: Arc<CudaContext>,
    /// Of the first byte.
    address: usize,
}

impl Locked {
    /// Locks a host tensor for copies to `device`. `None` for other devices than NVIDIA's, and where the driver refuses: copies take longer then, by way of pages of the
    /// driver's own.
    pub fn new(tensor: &Tensor, device: Device) -> Option<Self> {
        let Device::Cuda(index) = device else { return None };
        let bytes = tensor.numel() * tensor.kind().elt_size_in_bytes();
        // SAFETY: only tries to load the library by name. Asked before, as a call to what is not there would panic.
        if bytes == 0 || tensor.device() != Device::Cpu || !unsafe { sys::is_culib_present() } {
            return None;
        }
        let lock = || -> Result<Self, DriverError> {
            let context = CudaContext::new(index)?;
            context.bind_to_thread()?;
            let start = tensor.data_ptr();
            // SAFETY: the range is the tensor's own memory, which outlives the lock.
            unsafe { sys::cuMemHostRegister_v2(start, bytes, sys::CU_MEMHOSTREGISTER_PORTABLE) }.result()?;
            Ok(Self { context, address: start as usize })
        };
        lock().ok()
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // What is dropped cannot tell of an error; without a context there is nothing locked any more.
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: it was locked at this address, and is still there.
            let _status = unsafe { sys::cuMemHostUnregister(self.address as *mut c_void) };
        }
    }
}
