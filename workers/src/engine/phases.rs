//! Seconds of an iteration, by phase.
//!
//! On the CPU a phase is over when its call returns. On a GPU calls only queue work: there, what is queued is timed by events that are queued around it, and these are read
//! one iteration late, when they have long passed, so that no clock makes the host wait.

use std::time::Instant;

use mehl_soup::runner::engine::PHASES;
use tch::Device;

use super::allocations::Event;

/// A part of an iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Taking a batch of data.
    Data,
    /// `w = c + sum_k x d`.
    Mix,
    /// Forward pass and loss.
    Forward,
    /// Backward pass.
    Backward,
    /// Inner products with the gradient.
    Project,
    /// The optimizer's step.
    Update,
    /// Making a checkpoint for the host.
    Snapshot,
}

impl Phase {
    const ALL: [(Self, &'static str); PHASES] = [
        (Self::Data, "data"),
        (Self::Mix, "mix"),
        (Self::Forward, "forward"),
        (Self::Backward, "backward"),
        (Self::Project, "project"),
        (Self::Update, "update"),
        (Self::Snapshot, "snapshot"),
    ];

    /// Whether it is the device's work; the others are the host's, whatever the device.
    fn is_queued(self) -> bool {
        matches!(self, Self::Mix | Self::Forward | Self::Backward | Self::Project)
    }
}

/// Sums over iterations.
#[derive(Debug, Clone, Copy, Default)]
pub struct Phases {
    /// Iterations summed.
    pub iterations: u64,
    seconds: [f64; PHASES],
}

impl Phases {
    /// Seconds of all phases, by name.
    pub fn named(&self) -> [(&'static str, f64); PHASES] {
        Phase::ALL.map(|(phase, name)| (name, self.seconds[phase as usize]))
    }

    /// What came to each phase since they were `before`.
    pub fn since(&self, before: &Self) -> [(&'static str, f64); PHASES] {
        Phase::ALL.map(|(phase, name)| (name, self.seconds[phase as usize] - before.seconds[phase as usize]))
    }

    /// These, but for one phase of others.
    pub(super) fn with(mut self, phase: Phase, of: &Self) -> Self {
        self.seconds[phase as usize] = of.seconds[phase as usize];
        self
    }
}

/// Times phases on one device.
pub struct Clock {
    device: Device,
    phases: Phases,
    /// Of the iteration at work, and of the one before, whose work has been waited for.
    queued: [Vec<Span>; 2],
}

/// Work that lies between two events.
struct Span {
    phase: Phase,
    from: Event,
    to: Event,
}

/// Where a phase began.
pub struct Begun {
    at: Instant,
    event: Option<Event>,
}

impl Clock {
    /// At zero.
    pub fn new(device: Device) -> Self {
        Self { device, phases: Phases::default(), queued: Default::default() }
    }

    /// All so far; of the device's work, without the last iteration.
    pub fn phases(&self) -> Phases {
        self.phases
    }

    /// Begins a phase.
    pub fn begin(&self, phase: Phase) -> Begun {
        let event = if phase.is_queued() { Event::record(self.device) } else { None };
        Begun { at: Instant::now(), event }
    }

    /// Ends a phase that has begun.
    pub fn end(&mut self, phase: Phase, begun: Begun) {
        match begun.event.and_then(|from| Some(Span { phase, from, to: Event::record(self.device)? })) {
            Some(span) => self.queued[0].push(span),
            None => self.phases.seconds[phase as usize] += begun.at.elapsed().as_secs_f64(),
        }
    }

    /// Adds the time of one piece of work to a phase.
    pub fn timed<R>(&mut self, phase: Phase, work: impl FnOnce() -> R) -> R {
        let begun = self.begin(phase);
        let result = work();
        self.end(phase, begun);
        result
    }

    /// What is queued from here on is the next iteration's; what was queued since the last one, to score a soup, is no iteration's.
    pub fn begin_iteration(&mut self) {
        self.queued[0].clear();
    }

    /// An iteration is over: the events of the one before are read.
    pub fn end_iteration(&mut self) {
        self.phases.iterations += 1;
        let [last, before] = &mut self.queued;
        for span in before.drain(..) {
            self.phases.seconds[span.phase as usize] += span.from.seconds_until(&span.to);
        }
        std::mem::swap(last, before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_timed_at_once() {
        let mut clock = Clock::new(Device::Cpu);
        clock.begin_iteration();
        let slept = clock.timed(Phase::Forward, || {
            let began = Instant::now();
            std::thread::sleep(std::time::Duration::from_millis(2));
            began.elapsed().as_secs_f64()
        });
        let before = clock.phases();
        assert!(before.named()[Phase::Forward as usize].1 >= slept);
        assert_eq!(before.iterations, 0);
        clock.timed(Phase::Snapshot, || ());
        clock.end_iteration();
        let since = clock.phases().since(&before);
        assert_eq!((since[Phase::Forward as usize], clock.phases().iterations), (("forward", 0.0), 1));
        let kept = clock.phases().with(Phase::Snapshot, &before);
        assert_eq!(kept.named(), before.named());
    }
}
