//! The exact soup of one tensor, from the original files.

use rayon::prelude::*;

use crate::zoo::{CHUNK, Element, Zoo, ZooError, convert};

/// Sets `out` to `sum_k weights[k] theta[k]`, k ascending, summed in f64 and rounded once to `T`.
///
/// Reads every ingredient whose weight is not 0, and holds nothing but `out` and one chunk a thread. The result does not depend on the number of
/// threads. A weight of 1 alone gives the ingredient's own values, bit for bit.
///
/// # Errors
/// If the tensor is missing, no float, or not of `out.len()` elements, in any ingredient.
///
/// # Panics
/// If there is not one weight an ingredient.
pub fn mix_tensor<T: Element>(zoo: &Zoo, name: &str, weights: &[f64], out: &mut [T]) -> Result<(), ZooError> {
    assert_eq!(weights.len(), zoo.len(), "one weight an ingredient");
    let mut terms = Vec::new();
    for (ingredient, &weight) in zoo.ingredients().iter().zip(weights).filter(|(_, weight)| **weight != 0.0) {
        let (dtype, bytes) = ingredient.float_bytes(name, out.len())?;
        terms.push((dtype, bytes, weight));
    }
    if let [(dtype, bytes, weight)] = terms[..]
        && weight == 1.0
    {
        convert(dtype, bytes, out);
        return Ok(());
    }
    out.par_chunks_mut(CHUNK).enumerate().for_each_init(
        || (vec![0f64; CHUNK], vec![0f64; CHUNK]),
        |(sum, values), (i, out)| {
            let (sum, values) = (&mut sum[..out.len()], &mut values[..out.len()]);
            sum.fill(0.0);
            for &(dtype, bytes, weight) in &terms {
                let width = dtype.bitsize() / 8;
                let start = i * CHUNK * width;
                convert(dtype, &bytes[start..start + out.len() * width], values);
                sum.iter_mut().zip(values.iter()).for_each(|(sum, value)| *sum += weight * value);
            }
            out.iter_mut().zip(sum.iter()).for_each(|(out, sum)| *out = T::from_f64(*sum));
        },
    );
    Ok(())
}
