//! Learning rate over the steps of one model batch.

/// Cosine decay after a linear warm-up, as arXiv 2407.03641, section 4.1, uses it.
///
/// With `warmup_steps = floor(warmup * total)`: `peak * (step + 1) / warmup_steps` during the warm-up, then
/// `peak / 2 * (1 + cos(pi * (step - warmup_steps) / (total - warmup_steps)))`. `step` counts from 0.
pub fn cosine_with_warmup(peak: f64, warmup: f64, step: usize, total: usize) -> f64 {
    let warmup_steps = (warmup * total as f64).floor() as usize;
    if step < warmup_steps {
        return peak * (step + 1) as f64 / warmup_steps as f64;
    }
    let progress = (step - warmup_steps) as f64 / (total - warmup_steps).max(1) as f64;
    0.5 * (1.0 + (std::f64::consts::PI * progress).cos()) * peak
}

#[cfg(test)]
mod tests {
    use super::cosine_with_warmup;

    #[test]
    fn rises_to_the_peak_and_falls_to_nothing() {
        let rates: Vec<f64> = (0..10).map(|t| cosine_with_warmup(1.0, 0.2, t, 10)).collect();
        assert_eq!((rates[0], rates[1], rates[2]), (0.5, 1.0, 1.0));
        assert!(rates[2..].windows(2).all(|w| w[1] < w[0]) && rates[9] > 0.0 && rates[9] < 0.05);
        assert!((rates[6] - 0.5).abs() < 1e-12);
    }

    #[test]
    fn one_step_without_warmup_has_the_peak_and_all_warmup_never_divides_by_zero() {
        assert_eq!(cosine_with_warmup(0.01, 0.2, 0, 1), 0.01);
        assert!((0..4).all(|t| cosine_with_warmup(1.0, 1.0, t, 4) == (t + 1) as f64 / 4.0));
    }
}
