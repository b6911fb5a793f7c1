//! Linear layers in f32 by oneDNN.
//!
//! libtorch 2.11 gives products of f32 matrices to MKL on x86, and all others to oneDNN. On
//! processors of AMD, MKL is the slower one of the two (`docs/speed.md` has both).

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use tch::{TchError, Tensor};

use super::checked;

unsafe extern "C" {
    fn mehl_soup_has_onednn() -> c_int;
    fn mehl_soup_onednn_linear(
        inputs: *const c_void,
        weight: *const c_void,
        bias: *const c_void,
        result: *mut *mut c_void,
    ) -> c_int;
}

/// Whether this libtorch has oneDNN's linear layers.
pub fn has_onednn() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    // SAFETY: takes nothing, catches its own exceptions.
    *HAS.get_or_init(|| unsafe { mehl_soup_has_onednn() } != 0)
}

/// `x W^T + b`, differentiable: `[.., out]` of x `[.., in]`, W `[out, in]` and b `[out]`, all in f32
/// on the host. The same bits for the same number of threads.
///
/// # Errors
/// What libtorch reports.
pub fn onednn_linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, TchError> {
    let mut result: *mut c_void = ptr::null_mut();
    let bias = bias.map_or(ptr::null(), |bias| bias.as_ptr().cast());
    // SAFETY: all pointers are of tensors that live as long as the call; on success `result` is a new
    // tensor, which is owned here and nowhere else.
    unsafe {
        checked(mehl_soup_onednn_linear(x.as_ptr().cast(), weight.as_ptr().cast(), bias, &raw mut result))?;
        Ok(Tensor::from_ptr(result.cast()))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn layers_and_their_gradients_are_those_of_libtorch() {
        tch::manual_seed(3);
        let leaf = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        for (rows, input, output) in [(1, 3, 5), (7, 64, 65), (130, 96, 33)] {
            let (x, weight, bias) = (leaf(&[2, rows, input]), leaf(&[output, input]), leaf(&[output]));
            for bias in [Some(&bias), None] {
                let found = onednn_linear(&x, &weight, bias).unwrap();
                let expected = x.linear(&weight, bias);
                assert_close(&found, &expected);
                let leaves: Vec<&Tensor> = [&x, &weight].into_iter().chain(bias).collect();
                let gradients = |y: &Tensor| Tensor::run_backward(&[(y * y).sum(Kind::Float)], &leaves, false, false);
                for (found, expected) in gradients(&found).iter().zip(gradients(&expected)) {
                    assert!(found.is_contiguous());
                    assert_close(found, &expected);
                }
            }
        }
        // Strided inputs, as the class token of [N, tokens, width] is.
        let (x, weight) = (leaf(&[4, 3, 8]), leaf(&[5, 8]));
        assert_close(
            &onednn_linear(&x.select(1, 0), &weight, None).unwrap(),
            &x.select(1, 0).linear(&weight, None::<Tensor>),
        );
        assert!(onednn_linear(&leaf(&[2, 3]), &leaf(&[4, 5]), None).is_err());
    }

    #[test]
    fn what_needs_no_gradient_gets_none() {
        let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
        let weight = ones(&[2, 3]).set_requires_grad(true);
        let y = onednn_linear(&ones(&[4, 3]), &weight, Some(&ones(&[2]))).unwrap();
        assert!(y.requires_grad());
        let gradients = Tensor::run_backward(&[y.sum(Kind::Float)], &[&weight], false, false);
        assert_eq!(gradients[0].double_value(&[1, 2]), 4.0);
        assert!(!tch::no_grad(|| onednn_linear(&ones(&[4, 3]), &weight, None)).unwrap().requires_grad());
    }

    fn assert_close(found: &Tensor, expected: &Tensor) {
        assert_eq!(found.size(), expected.size());
        let (difference, size) = ((found - expected).abs().max(), expected.abs().max());
        assert!(difference.double_value(&[]) <= 1e-5 * size.double_value(&[]), "{found} {expected}");
    }
}
