//! A backward pass that starts from the gradient of a tensor.

use std::ffi::{c_int, c_void};
use std::ptr;

use tch::{TchError, Tensor};

use super::checked;

unsafe extern "C" {
    fn mehl_soup_backward(
        output: *const c_void,
        gradient: *const c_void,
        inputs: *const *const c_void,
        count: usize,
        results: *mut *mut c_void,
    ) -> c_int;
}

/// Gradients of `inputs`, from the gradient of `output`; undefined where `output` does not depend on
/// an input. Frees the graph of `output`.
///
/// # Errors
/// What libtorch reports.
pub fn backward(output: &Tensor, gradient: &Tensor, inputs: &[&Tensor]) -> Result<Vec<Tensor>, TchError> {
    let handles: Vec<*const c_void> = inputs.iter().map(|input| input.as_ptr().cast()).collect();
    let mut results: Vec<*mut c_void> = vec![ptr::null_mut(); handles.len()];
    // SAFETY: all pointers are of tensors that live as long as the call, `results` has room for as
    // many as there are inputs; on success each is a new tensor, which is owned here and nowhere else.
    unsafe {
        let (output, gradient) = (output.as_ptr().cast(), gradient.as_ptr().cast());
        checked(mehl_soup_backward(output, gradient, handles.as_ptr(), handles.len(), results.as_mut_ptr()))?;
        Ok(results.into_iter().map(|result| Tensor::from_ptr(result.cast())).collect())
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn gradients_are_those_of_the_product_with_the_given_one() {
        let leaf = |values: &[f32]| Tensor::from_slice(values).set_requires_grad(true);
        let (x, other) = (leaf(&[1.0, -2.0, 3.0]), leaf(&[1.0]));
        let given = Tensor::from_slice(&[0.5f32, 2.0, -1.0]);
        let found = backward(&(&x * &x), &given, &[&x, &other]).unwrap();
        assert_eq!(Vec::<f32>::try_from(&found[0]).unwrap(), [1.0, -8.0, -6.0]);
        assert!(!found[1].defined());
    }

    #[test]
    fn a_gradient_of_another_shape_is_refused() {
        let x = Tensor::ones([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let error = backward(&(&x * 2.0), &Tensor::ones([2], (Kind::Float, Device::Cpu)), &[&x]).unwrap_err();
        assert!(error.to_string().contains("shape"), "{error}");
    }
}
