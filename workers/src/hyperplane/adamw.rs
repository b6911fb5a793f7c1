//! AdamW on a task's coefficients (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2), in f64.

/// Decay of the first moment.
const BETA1: f64 = 0.9;
/// Decay of the second moment.
const BETA2: f64 = 0.999;
/// Added to the root of the second moment.
const EPSILON: f64 = 1e-8;

/// One optimizer step on `parameters`, in place; the arithmetic order is that of `torch.optim.AdamW`.
///
/// `step` counts from 1. Entries of `masked` stay as they are, and so do their moments; `weight_decay` is asked for each entry.
///
/// # Panics
/// If lengths differ.
pub fn step(
    parameters: &mut [f64],
    gradient: &[f64],
    moments: (&mut [f64], &mut [f64]),
    step: usize,
    learning_rate: f64,
    weight_decay: impl Fn(usize) -> f64,
    masked: impl Fn(usize) -> bool,
) {
    let (first, second) = moments;
    assert!(gradient.len() == parameters.len() && first.len() == parameters.len() && second.len() == parameters.len());
    let correction1 = 1.0 - BETA1.powi(step as i32);
    let correction2 = (1.0 - BETA2.powi(step as i32)).sqrt();
    for i in 0..parameters.len() {
        if masked(i) {
            continue;
        }
        let g = gradient[i];
        parameters[i] *= 1.0 - learning_rate * weight_decay(i);
        first[i] += (g - first[i]) * (1.0 - BETA1);
        second[i] = second[i] * BETA2 + (1.0 - BETA2) * g * g;
        let denominator = second[i].sqrt() / correction2 + EPSILON;
        parameters[i] -= learning_rate / correction1 * first[i] / denominator;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torch 2.11:
    /// ```python
    /// p = torch.tensor([1., -2.], dtype=torch.float64, requires_grad=True)
    /// o = torch.optim.AdamW([p], lr=0.1, weight_decay=0.01)
    /// for g in ([.5, -1.], [.25, 3.], [-1., .125]):
    ///     p.grad = torch.tensor(g, dtype=torch.float64); o.step()
    /// ```
    #[test]
    fn three_steps_equal_pytorch() {
        let mut p = [1.0, -2.0];
        let (mut m, mut v) = ([0.0; 2], [0.0; 2]);
        for (t, g) in [[0.5, -1.0], [0.25, 3.0], [-1.0, 0.125]].iter().enumerate() {
            step(&mut p, g, (&mut m, &mut v), t + 1, 0.1, |_| 0.01, |_| false);
        }
        assert!((p[0] - PYTORCH[0]).abs() < 1e-15 && (p[1] - PYTORCH[1]).abs() < 1e-15, "{p:?}");
    }

    const PYTORCH: [f64; 2] = [0.824713859842936, -1.9842711864523468];

    #[test]
    fn a_masked_entry_stays() {
        let (mut p, mut m, mut v) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        step(&mut p, &[1e-7, 1e-7], (&mut m, &mut v), 1, 0.1, |_| 0.0, |i| i == 0);
        assert_eq!((p[0], m[0], v[0]), (0.0, 0.0, 0.0));
        // What the mask is for: rounding noise is blown up to a full step.
        assert!(p[1] < -0.05);
    }
}
