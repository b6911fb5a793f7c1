//! Calls into libtorch that tch does not have.
//!
//! | file | holds |
//! |---|---|
//! | `linear` | linear layers in f32 by oneDNN |
//! | `backward` | a backward pass that starts from the gradient of a tensor |
//! | `autograd.cpp` | both, in C++ over libtorch's own headers |

mod backward;
mod linear;

use std::ffi::{CStr, c_char};

use tch::TchError;

pub use backward::backward;
pub use linear::{has_onednn, onednn_linear};

unsafe extern "C" {
    fn mehl_soup_torch_failure() -> *const c_char;
}

/// What a call of `autograd.cpp` answered: 0, or why it failed.
fn checked(status: std::ffi::c_int) -> Result<(), TchError> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: a C string of this thread, which is copied before the next call.
    let message = unsafe { CStr::from_ptr(mehl_soup_torch_failure()) };
    Err(TchError::Torch(message.to_string_lossy().into_owned()))
}
