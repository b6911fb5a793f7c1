//! Correlations of predictions and targets, and their standard errors.

use mehl_soup::sweep::metric::Estimate;

/// Samples from which on a standard error is known: Fisher's is `1 / sqrt(n - 3)`.
const FEWEST: usize = 4;
/// A column whose deviations are a smaller part of its mean is constant but for rounding; as in
/// SciPy's `pearsonr`.
const CONSTANT: f64 = 1e-13;

/// Pearson's correlation as `scipy.stats.pearsonr`, and its standard error: `atanh(r)` has `1 /
/// sqrt(n - 3)` (R. A. Fisher, On the probable error of a coefficient of correlation deduced from a
/// small sample, Metron 1, 1921), so r has `(1 - r^2) / sqrt(n - 3)`.
///
/// Where a column is constant the correlation is not defined. It is 0 then, with the error of a
/// correlation of 0: such a prediction says nothing of the targets. With fewer than four samples
/// the error is 1.
pub fn pearson(a: &[f64], b: &[f64]) -> Estimate {
    let value = correlation(a, b);
    estimate(value, a.len(), 1.0)
}

/// Spearman's correlation as `scipy.stats.spearmanr`: Pearson's of the ranks, of which equal values
/// have the mean. `atanh` of it has the standard error `sqrt((1 + r^2 / 2) / (n - 3))` (Bonett and
/// Wright, Sample size requirements for estimating Pearson, Kendall and Spearman correlations,
/// Psychometrika 65, 2000).
///
/// Constant columns and few samples are as in [`pearson`].
pub fn spearman(a: &[f64], b: &[f64]) -> Estimate {
    let value = correlation(&ranks(a), &ranks(b));
    estimate(value, a.len(), (1.0 + value * value / 2.0).sqrt())
}

/// With a factor on Fisher's standard error.
fn estimate(value: f64, samples: usize, factor: f64) -> Estimate {
    let standard_error = match samples < FEWEST {
        true => 1.0,
        false => (1.0 - value * value) * factor / ((samples - 3) as f64).sqrt(),
    };
    Estimate { value, standard_error }
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    match (direction(a), direction(b)) {
        (Some(a), Some(b)) => a.iter().zip(&b).map(|(a, b)| a * b).sum::<f64>().clamp(-1.0, 1.0),
        _ => 0.0,
    }
}

/// Deviations from the mean, of norm 1; `None` for a constant column.
fn direction(values: &[f64]) -> Option<Vec<f64>> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let mut deviations: Vec<f64> = values.iter().map(|value| value - mean).collect();
    // Of the largest first: squares of small numbers would be lost.
    let largest = deviations.iter().fold(0.0, |largest: f64, deviation| largest.max(deviation.abs()));
    if largest == 0.0 || !largest.is_finite() {
        return None;
    }
    let norm = largest * deviations.iter().map(|deviation| (deviation / largest).powi(2)).sum::<f64>().sqrt();
    if norm < CONSTANT * mean.abs() {
        return None;
    }
    deviations.iter_mut().for_each(|deviation| *deviation /= norm);
    Some(deviations)
}

/// Rank of each value from 1; equal values have the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut at = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let mean = at as f64 + (tied.len() as f64 + 1.0) / 2.0;
        tied.iter().for_each(|&place| ranks[place] = mean);
        at += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_have_the_mean_of_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [4.0, 1.0, 4.0, 2.0, 4.0]);
        // Zeros of both signs are equal.
        assert_eq!(ranks(&[0.0, -0.0, -1.0]), [2.5, 2.5, 1.0]);
    }

    #[test]
    fn perfect_correlations_have_no_error() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 6.0, 8.0, 10.0]);
        let found = pearson(&a, &b);
        assert!((found.value - 1.0).abs() < 1e-12 && found.standard_error < 1e-12, "{found:?}");
        let cubes = b.map(|b: f64| -b.powi(3));
        let found = spearman(&a, &cubes);
        assert!((found.value + 1.0).abs() < 1e-12 && found.standard_error < 1e-12, "{found:?}");
        assert!(pearson(&a, &cubes).value > -1.0 + 1e-3);
    }

    #[test]
    fn a_constant_says_nothing() {
        let constant = [0.1; 7];
        let others = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0];
        for found in [pearson(&constant, &others), spearman(&others, &constant)] {
            assert_eq!(found, Estimate { value: 0.0, standard_error: 0.5 });
        }
        assert_eq!(pearson(&[1.0], &[1.0]), Estimate { value: 0.0, standard_error: 1.0 });
        assert_eq!(pearson(&[1.0, 2.0], &[1.0, 2.0]).standard_error, 1.0);
    }

    #[test]
    fn tiny_and_huge_values_correlate_too() {
        let a = [1.0, 2.0, 4.0, 3.0];
        for scale in [1e-200, 1e200] {
            let found = pearson(&a.map(|a| a * scale), &a).value;
            assert!((found - 1.0).abs() < 1e-12, "{scale}: {found}");
        }
    }
}
