//! Seconds of an iteration, by phase.

use std::time::Instant;

use mehl_soup::runner::engine::PHASES;

/// Sums over iterations.
#[derive(Debug, Clone, Copy, Default)]
pub struct Phases {
    /// Iterations summed.
    pub iterations: u64,
    /// Taking a batch of data.
    pub data: f64,
    /// `w = c + sum_k x d`.
    pub mix: f64,
    /// Forward pass and loss.
    pub forward: f64,
    /// Backward pass.
    pub backward: f64,
    /// Inner products with the gradient.
    pub project: f64,
    /// The optimizer's step.
    pub update: f64,
    /// Making a checkpoint for the host.
    pub snapshot: f64,
}

impl Phases {
    /// All phases, by name.
    pub fn named(&self) -> [(&'static str, f64); PHASES] {
        [
            ("data", self.data),
            ("mix", self.mix),
            ("forward", self.forward),
            ("backward", self.backward),
            ("project", self.project),
            ("update", self.update),
            ("snapshot", self.snapshot),
        ]
    }

    /// What came to each phase since they were `before`.
    pub fn since(&self, before: &Self) -> [(&'static str, f64); PHASES] {
        let mut named = self.named();
        for ((_, seconds), (_, then)) in named.iter_mut().zip(before.named()) {
            *seconds -= then;
        }
        named
    }
}

/// Adds the time of one piece of work to a phase.
pub fn timed<R>(phase: &mut f64, work: impl FnOnce() -> R) -> R {
    let began = Instant::now();
    let result = work();
    *phase += began.elapsed().as_secs_f64();
    result
}
