//! The exact mix of original ingredients.

use rayon::prelude::*;

use crate::zoo::{CHUNK, Element, Zoo, ZooError, is_mixable};

/// The soup of one tensor: `out[i] = sum_k weights[k] * theta_k[i]`, accumulated in f64 with k ascending and rounded to `T` once
/// (arXiv 2407.03641, section 3.1; weights may be negative or above 1).
///
/// Ingredients with weight 0 are not read. One weight of 1.0 and else zeros gives that ingredient's own values, for `f32` bit for bit.
/// The result does not depend on the number of threads. Memory: a few hundred kB a thread besides `out`.
/// A sum beyond f32 becomes infinite.
///
/// # Errors
/// If there is no such tensor, its dtype cannot be mixed, or `out` does not have its number of elements.
///
/// # Panics
/// If `weights` does not have one entry a row of the zoo.
pub fn mix_tensor<T: Element>(zoo: &Zoo, name: &str, weights: &[f64], out: &mut [T]) -> Result<(), ZooError> {
    check_length(zoo, name, out.len())?;
    out.par_chunks_mut(CHUNK).enumerate().try_for_each(|(i, chunk)| {
        let mut sum = vec![0.0; chunk.len()];
        mix_chunk(zoo, name, weights, i * CHUNK, &mut sum)?;
        for (to, &value) in chunk.iter_mut().zip(&sum) {
            *to = T::from_f64(value);
        }
        Ok(())
    })
}

/// The same sum, unrounded, for the elements from `start` on that fit in `out`.
///
/// # Panics
/// If there are fewer, or `weights` does not have one entry a row of the zoo.
pub(super) fn mix_range(zoo: &Zoo, name: &str, weights: &[f64], start: usize, out: &mut [f64]) -> Result<(), ZooError> {
    let chunks = out.par_chunks_mut(CHUNK).enumerate();
    chunks.map(|(i, chunk)| mix_chunk(zoo, name, weights, start + i * CHUNK, chunk)).collect()
}

fn mix_chunk(zoo: &Zoo, name: &str, weights: &[f64], start: usize, sum: &mut [f64]) -> Result<(), ZooError> {
    assert_eq!(weights.len(), zoo.rows(), "one weight a row");
    let weights = zoo.weights_of(name, weights);
    let mut theta = vec![0.0; sum.len()];
    let mut first = true;
    let rows = zoo.ingredients().iter().chain(zoo.base());
    for (ingredient, &weight) in rows.zip(&weights).filter(|(_, weight)| **weight != 0.0) {
        ingredient.read_range(name, start, &mut theta)?;
        if first {
            // Not added to zero: that would turn -0.0 into 0.0.
            sum.iter_mut().zip(&theta).for_each(|(sum, theta)| *sum = weight * theta);
            first = false;
        } else {
            sum.iter_mut().zip(&theta).for_each(|(sum, theta)| *sum += weight * theta);
        }
    }
    if first {
        sum.fill(0.0);
    }
    Ok(())
}

fn check_length(zoo: &Zoo, name: &str, found: usize) -> Result<(), ZooError> {
    let first = &zoo.ingredients()[0];
    let tensor = name.to_string();
    let Some(info) = first.info(name) else {
        return Err(ZooError::NoTensor { file: first.path().to_path_buf(), tensor });
    };
    let file = first.file_of(name).to_path_buf();
    if !is_mixable(info.dtype) {
        return Err(ZooError::WrongDtype { file, tensor, found: info.dtype });
    }
    if info.numel() != found {
        return Err(ZooError::WrongLength { file, tensor, expected: info.numel(), found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use safetensors::Dtype;

    use super::*;
    use crate::zoo::testing::{bytes, f32s, floats, open_zoo};

    /// Deterministic values of both signs and many magnitudes, more than one chunk.
    fn values(seed: u64, n: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unit = (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
            unit * 10f32.powi((state >> 33) as i32 % 7 - 3)
        };
        (0..n).map(next).collect()
    }

    #[test]
    fn the_mean_is_the_f64_sum_rounded_once() {
        let n = CHUNK + 77;
        let models: Vec<Vec<f32>> = (0..5).map(|k| values(k, n)).collect();
        let (_root, zoo) = open_zoo(&models.iter().map(|m| vec![f32s("w", &[n], m)]).collect::<Vec<_>>());
        let mut out = vec![f32::NAN; n];
        mix_tensor(&zoo, "w", &[0.2; 5], &mut out).unwrap();
        for i in 0..n {
            let mut sum = 0.2 * f64::from(models[0][i]);
            for model in &models[1..] {
                sum += 0.2 * f64::from(model[i]);
            }
            assert_eq!(out[i].to_bits(), (sum as f32).to_bits(), "element {i}");
        }
        let mut wide = vec![0.0; 50];
        mix_range(&zoo, "w", &[0.2; 5], CHUNK - 20, &mut wide).unwrap();
        assert!(wide.iter().zip(&out[CHUNK - 20..]).all(|(&sum, &rounded)| sum as f32 == rounded));
    }

    #[test]
    fn one_ingredient_alone_comes_back_bit_for_bit() {
        let special = [0.0, -0.0, f32::MIN_POSITIVE / 8.0, -f32::MAX, f32::MAX, 1.0 + f32::EPSILON];
        let (_root, zoo) = open_zoo(&[vec![f32s("w", &[6], &[3.0; 6])], vec![f32s("w", &[6], &special)]]);
        let mut out = [1.0; 6];
        mix_tensor(&zoo, "w", &[0.0, 1.0], &mut out).unwrap();
        assert_eq!(out.map(f32::to_bits), special.map(f32::to_bits));
        mix_tensor(&zoo, "w", &[0.0, 0.0], &mut out).unwrap();
        assert_eq!(out, [0.0; 6]);
    }

    #[test]
    fn halves_and_doubles_are_mixed_from_their_exact_values() {
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F64] {
            let (_root, zoo) =
                open_zoo(&[vec![floats("w", dtype, &[1.5, -2.0])], vec![floats("w", dtype, &[0.25, 4.0])]]);
            let mut out = [0.0; 2];
            mix_tensor(&zoo, "w", &[1.5, -0.5], &mut out).unwrap();
            assert_eq!(out, [2.125, -5.0], "{dtype}");
        }
    }

    #[test]
    fn what_cannot_be_mixed_is_named() {
        let model = || vec![f32s("w", &[2], &[1.0, 2.0]), bytes("steps", Dtype::I64, &[1], vec![0; 8])];
        let (_root, zoo) = open_zoo(&[model(), model()]);
        let mix = |name: &str, n: usize| mix_tensor(&zoo, name, &[0.5, 0.5], &mut vec![0.0; n]);
        assert!(matches!(mix("absent", 1), Err(ZooError::NoTensor { .. })));
        assert!(matches!(mix("steps", 1), Err(ZooError::WrongDtype { found: Dtype::I64, .. })));
        assert!(matches!(mix("w", 3), Err(ZooError::WrongLength { expected: 2, found: 3, .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Sums in another order may differ by rounding of f64, which is at most one step of the final f32.
        #[test]
        fn ingredients_may_come_in_any_order(
            weights in prop::collection::vec(-2.0..2.0f64, 4),
            order in Just(vec![0usize, 1, 2, 3]).prop_shuffle(),
        ) {
            let models: Vec<_> = (0..4).map(|k| vec![f32s("w", &[40], &values(k, 40))]).collect();
            let permuted: Vec<_> = order.iter().map(|&k| models[k].clone()).collect();
            let permuted_weights: Vec<f64> = order.iter().map(|&k| weights[k]).collect();
            let (_one, zoo) = open_zoo(&models);
            let (_two, other) = open_zoo(&permuted);
            let (mut a, mut b) = ([0f32; 40], [0f32; 40]);
            mix_tensor(&zoo, "w", &weights, &mut a).unwrap();
            mix_tensor(&other, "w", &permuted_weights, &mut b).unwrap();
            for i in 0..40 {
                prop_assert!((a[i] - b[i]).abs() <= f32::EPSILON * a[i].abs() + 1e-12, "{} {}", a[i], b[i]);
            }
        }

        #[test]
        fn the_number_of_threads_changes_nothing(weights in prop::collection::vec(-2.0..2.0f64, 3)) {
            let n = 2 * CHUNK + 5;
            let (_root, zoo) = open_zoo(&(0..3).map(|k| vec![f32s("w", &[n], &values(k, n))]).collect::<Vec<_>>());
            let mix = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut out = vec![0f32; n];
                pool.install(|| mix_tensor(&zoo, "w", &weights, &mut out)).unwrap();
                out
            };
            prop_assert!(mix(1) == mix(3));
        }
    }
}
