//! Model Stock: the closed form for the mix of fine-tuned models and their base (Jang et al. 2024,
//! arXiv 2403.19522, section 4).

use rayon::prelude::*;

use super::Coefficients;
use crate::zoo::{CHUNK, Zoo, ZooError};

/// Coefficients over all rows of the zoo: with `c` the mean cosine between two members' differences to
/// the base in a layer group, and `K` members, `t = K c / (1 + (K - 1) c)`, clamped to `[0, 1]`; the
/// soup is `t` times the members' mean and `1 - t` times the base. Where a member does not differ from
/// the base, and where the base lacks all tensors of a group, `t = 1`.
///
/// `tensors` are names and layer groups of what is mixed. Reads each member twice, in chunks: some
/// hundred kB a thread, whatever the models' size. Sums are in f64, in an order that does not depend
/// on threads.
///
/// # Errors
/// If a file cannot be read.
///
/// # Panics
/// If the zoo has no base.
pub fn model_stock(
    zoo: &Zoo,
    members: &[usize],
    tensors: &[(&str, usize)],
    groups: usize,
) -> Result<Coefficients, ZooError> {
    assert!(zoo.base().is_some(), "the zoo has a base");
    let k = members.len();
    let mut squares = vec![vec![0.0; k]; groups];
    let ours: Vec<_> = tensors.iter().filter(|(name, _)| !zoo.base_lacks(name)).collect();
    for (name, group) in &ours {
        for found in of_chunks(zoo, members, name, |differences| {
            differences.iter().map(|d| d.iter().map(|v| v * v).sum::<f64>()).collect::<Vec<_>>()
        })? {
            squares[*group].iter_mut().zip(found).for_each(|(sum, more)| *sum += more);
        }
    }
    // The square of the sum of unit vectors has the K squares of 1, and each cosine twice.
    let mut of_sums = vec![0.0; groups];
    for (name, group) in &ours {
        let lengths: Vec<f64> = squares[*group].iter().map(|square| square.sqrt()).collect();
        if lengths.contains(&0.0) {
            continue;
        }
        for found in of_chunks(zoo, members, name, |differences| {
            let n = differences.first().map_or(0, Vec::len);
            let sum = |i: usize| differences.iter().zip(&lengths).map(|(d, length)| d[i] / length).sum::<f64>();
            (0..n).map(|i| sum(i).powi(2)).sum::<f64>()
        })? {
            of_sums[*group] += found;
        }
    }
    let share = |group: usize| share(k, &squares[group], of_sums[group]);
    let mut values = vec![0.0; zoo.rows() * groups];
    for group in 0..groups {
        let t = share(group);
        members.iter().for_each(|&member| values[member * groups + group] = t / k as f64);
        values[zoo.len() * groups + group] = 1.0 - t;
    }
    Ok(Coefficients::from_values(zoo.rows(), groups, values).expect("the values have this length"))
}

/// `t` of a layer group, from the squared lengths of the K differences and of the sum of their
/// directions.
fn share(k: usize, squares: &[f64], of_sum: f64) -> f64 {
    if k < 2 || squares.contains(&0.0) {
        return 1.0;
    }
    let k = k as f64;
    let c = (of_sum - k) / (k * (k - 1.0));
    let t = k * c / (1.0 + (k - 1.0) * c);
    // Of differences that cancel each other, the divisor vanishes.
    if t.is_finite() { t.clamp(0.0, 1.0) } else { 0.0 }
}

/// What `of` makes of the members' differences to the base, chunk by chunk of one tensor, in order.
fn of_chunks<R: Send>(
    zoo: &Zoo,
    members: &[usize],
    name: &str,
    of: impl Fn(&[Vec<f64>]) -> R + Sync,
) -> Result<Vec<R>, ZooError> {
    let base = zoo.row(zoo.len());
    let numel = base.info(name).map_or(0, crate::zoo::TensorInfo::numel);
    let starts: Vec<usize> = (0..numel).step_by(CHUNK).collect();
    starts
        .into_par_iter()
        .map(|start| {
            let n = CHUNK.min(numel - start);
            let mut origin = vec![0.0; n];
            base.read_range(name, start, &mut origin)?;
            let differences = members.iter().map(|&member| {
                let mut own = vec![0.0; n];
                zoo.row(member).read_range(name, start, &mut own)?;
                own.iter_mut().zip(&origin).for_each(|(own, origin)| *own -= origin);
                Ok(own)
            });
            Ok(of(&differences.collect::<Result<Vec<_>, ZooError>>()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::testing::{f32s, write_file};

    /// Of two fine-tunes and their base, with `a` in a group of its own and `b` lacking in the base.
    fn of(first: &[f32], second: &[f32], base: &[f32]) -> Vec<f64> {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, tensors: &[_]| {
            let path = root.path().join(format!("{name}.safetensors"));
            write_file(&path, tensors);
            path
        };
        let model =
            |name, values: &[f32]| write(name, &[f32s("a", &[values.len()], values), f32s("b", &[1], &[values[0]])]);
        let base = write("base", &[f32s("a", &[base.len()], base)]);
        let zoo = Zoo::open(&[model("x", first), model("y", second)]).unwrap().with_base(&base).unwrap().0;
        model_stock(&zoo, &[0, 1], &[("a", 0), ("b", 1)], 2).unwrap().values().to_vec()
    }

    fn near(found: &[f64], expected: &[f64]) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}, expected {expected:?}");
    }

    #[test]
    fn the_share_of_the_mean_follows_the_cosine() {
        // Row-major [x, y, base] by [a, b]; what the base lacks is the mean of the two.
        // At 60 degrees: c = 0.5, t = 2 * 0.5 / 1.5.
        let t = 2.0 / 3.0;
        let h = 3f32.sqrt();
        let found = of(&[3.0, 1.0], &[2.0, 1.0 + h], &[1.0, 1.0]);
        assert!(found.iter().zip([t / 2.0, 0.5, t / 2.0, 0.5, 1.0 - t, 0.0]).all(|(a, b)| (a - b).abs() < 1e-7));
        // Right angles: the base. One direction: the mean.
        near(&of(&[3.0, 1.0], &[1.0, 4.0], &[1.0, 1.0]), &[0.0, 0.5, 0.0, 0.5, 1.0, 0.0]);
        near(&of(&[3.0, 1.0], &[2.0, 1.0], &[1.0, 1.0]), &[0.5, 0.5, 0.5, 0.5, 0.0, 0.0]);
        // Opposite directions: c = -1, whose t would be below 0 or without end.
        near(&of(&[3.0, 1.0], &[0.0, 1.0], &[1.0, 1.0]), &[0.0, 0.5, 0.0, 0.5, 1.0, 0.0]);
        // No difference.
        near(&of(&[1.0, 1.0], &[0.0, 1.0], &[1.0, 1.0]), &[0.5, 0.5, 0.5, 0.5, 0.0, 0.0]);
    }
}
