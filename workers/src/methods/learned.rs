//! `learned`, `learned+`: Wortsman et al. 2022 (arXiv 2203.05482), section 3 and appendix I.
//!
//! Coefficients are a softmax, so the soup stays in the convex hull, and all ingredients are held at once. The published code builds one graph
//! over all K models; here the graph is cut at the soup and the chain rule goes on by inner products, which is the same gradient with less memory:
//! a baseline that is not weaker than the original.

use mehl_soup::checkpoint::Current;
use mehl_soup::coefficients::Coefficients;
use mehl_soup::runner::engine::EngineError;

use super::Method;
use crate::engine::train::{self, Learned as Reached, Parametrization, Position};
use crate::engine::{TaskRun, span_error};
use crate::hyperplane::{Projection, Span};

/// Learned soups.
pub struct Learned;

impl Method for Learned {
    fn run(&self, run: &mut TaskRun<'_>) -> Result<Coefficients, EngineError> {
        let (k, l) = (run.members.len(), run.mixed.group_count);
        let soup = run.task.soup.clone();
        let per_epoch = train::iterations_per_epoch(run);
        run.planned_iterations = (soup.inner_epochs as u64).saturating_mul(per_epoch as u64);
        let span = run.load(|run| {
            Span::of_ingredients(&run.inputs.zoo, &run.members, &run.mixed, run.inputs.device, run.inputs.kind)
                .map_err(span_error)
        })?;
        if run.state.current.is_none() {
            run.state.current = Some(Current::new(run.members.clone(), vec![1.0; k * l + 1], vec![]));
        }
        let softmax =
            Softmax { members: k, groups: l, masked: run.mixed.masked.clone(), learning_rate: soup.learning_rate };
        let position = Position { outer: 0, batch: 0, epochs_before: Some(0) };
        let coefficients = |run: &TaskRun<'_>, parameters: &[f64]| {
            softmax.coefficients(parameters, &run.members, run.inputs.zoo.rows())
        };
        match train::learn(run, &span, &softmax, position)? {
            Reached::Ended(parameters) => Ok(coefficients(run, &parameters)),
            Reached::AtRung(parameters) => {
                drop(span);
                let so_far = coefficients(run, &parameters);
                Err(run.stop_at_rung(&so_far))
            }
        }
    }
}

/// Parameters: logits, row-major `[K, L]`, then the inverse temperature. The soup is `sum_k softmax(logits)[k,l] theta[k,l]`.
pub struct Softmax {
    /// K.
    pub members: usize,
    /// L.
    pub groups: usize,
    /// Groups whose gradient is rounding noise.
    pub masked: Vec<bool>,
    /// Constant over the steps, as published.
    pub learning_rate: f64,
}

impl Softmax {
    /// `A` over the whole zoo: the softmax in the rows of `members`, 0 elsewhere.
    pub fn coefficients(&self, parameters: &[f64], members: &[usize], ingredients: usize) -> Coefficients {
        let a = self.coordinates(parameters);
        let mut values = vec![0.0; ingredients * self.groups];
        for (i, &k) in members.iter().enumerate() {
            values[k * self.groups..(k + 1) * self.groups].copy_from_slice(&a[i * self.groups..(i + 1) * self.groups]);
        }
        Coefficients::from_values(ingredients, self.groups, values).expect("the values have this length")
    }
}

impl Parametrization for Softmax {
    fn coordinates(&self, parameters: &[f64]) -> Vec<f64> {
        let (k, l) = (self.members, self.groups);
        let mut a = parameters[..k * l].to_vec();
        for column in 0..l {
            let largest = (0..k).map(|i| a[i * l + column]).fold(f64::NEG_INFINITY, f64::max);
            (0..k).for_each(|i| a[i * l + column] = (a[i * l + column] - largest).exp());
            let sum: f64 = (0..k).map(|i| a[i * l + column]).sum();
            (0..k).for_each(|i| a[i * l + column] /= sum);
        }
        a
    }

    fn inverse_temperature(&self, parameters: &[f64]) -> Option<f64> {
        parameters.last().copied()
    }

    /// `dL/dlogit[k,l] = a[k,l] (<theta[k,l], g[l]> - sum_j a[j,l] <theta[j,l], g[l]>)`.
    fn gradient(&self, parameters: &[f64], projection: &Projection, temperature_gradient: f64) -> Vec<f64> {
        let (k, l) = (self.members, self.groups);
        let a = self.coordinates(parameters);
        let mut gradient = vec![0.0; k * l + 1];
        for column in 0..l {
            let mean: f64 = (0..k).map(|i| a[i * l + column] * projection.dots[i * l + column]).sum();
            for i in 0..k {
                gradient[i * l + column] = a[i * l + column] * (projection.dots[i * l + column] - mean);
            }
        }
        gradient[k * l] = temperature_gradient;
        gradient
    }

    fn is_masked(&self, index: usize) -> bool {
        index < self.members * self.groups && self.masked[index % self.groups]
    }

    fn decays(&self, index: usize) -> bool {
        index < self.members * self.groups
    }

    fn learning_rate(&self, _: usize, _: usize) -> f64 {
        self.learning_rate
    }
}
