//! What a person sees of a run: progress bars on a terminal, one line an event elsewhere. All of it on stderr.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::engine::Progress;
use crate::sweep::results::TaskOutcome;
use crate::sweep::score::SplitScore;
use crate::sweep::task::Task;
use crate::task::TaskState;

/// Told of everything that happens in a run, from several threads.
pub trait Reporter: Send + Sync {
    /// Something a person should read.
    fn note(&self, message: &str);
    /// An ingredient was scored.
    fn scored(&self, name: &str, select: &SplitScore, done: usize, total: usize);
    /// A slot (a device's thread) begins a task; `left` tasks are still to be begun.
    fn started(&self, slot: usize, task: &Task, left: usize);
    /// An iteration is done.
    fn progress(&self, slot: usize, task: &Task, progress: &Progress);
    /// A task has ended.
    fn finished(&self, slot: usize, task: &Task, outcome: &TaskOutcome);
}

/// Seconds between two lines of progress where there is no terminal.
const LINE_SECONDS: u64 = 10;

/// Reports to stderr.
pub struct Stderr {
    bars: Option<MultiProgress>,
    slots: Vec<Mutex<Slot>>,
}

struct Slot {
    bar: Option<ProgressBar>,
    last_line: Instant,
    /// When this attempt began and at which iteration, for the time that is left.
    began: Option<(Instant, u64)>,
}

impl Stderr {
    /// For so many devices.
    pub fn new(slots: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            bars: terminal.then(MultiProgress::new),
            slots: (0..slots).map(|_| Mutex::new(Slot { bar: None, last_line: Instant::now(), began: None })).collect(),
        }
    }

    fn line(&self, text: &str) {
        match &self.bars {
            // If the terminal is gone there is nobody to tell.
            Some(bars) => drop(bars.println(text)),
            None => eprintln!("{text}"),
        }
    }

    fn with_slot(&self, slot: usize, work: impl FnOnce(&mut Slot)) {
        if let Some(Ok(mut slot)) = self.slots.get(slot).map(Mutex::lock) {
            work(&mut slot);
        }
    }
}

impl Reporter for Stderr {
    fn note(&self, message: &str) {
        self.line(&format!("note: {message}"));
    }

    fn scored(&self, name: &str, select: &SplitScore, done: usize, total: usize) {
        self.line(&format!("scored {done}/{total} {name}: select {}", select.short()));
    }

    fn started(&self, slot: usize, task: &Task, left: usize) {
        let searched: Vec<String> = task.overrides.iter().map(|(key, value)| format!("{key}={value}")).collect();
        self.line(&format!("task {} starts ({left} more to come) {}", task.id, searched.join(" ")));
        self.with_slot(slot, |slot| {
            slot.began = None;
            slot.bar = self.bars.as_ref().map(|bars| {
                let bar = bars.add(ProgressBar::new(0));
                let style = "{prefix:14} {wide_bar} {pos}/{len} {msg}";
                bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_prefix(task.id.clone());
                bar
            });
        });
    }

    fn progress(&self, slot: usize, task: &Task, progress: &Progress) {
        self.with_slot(slot, |slot| {
            let now = Instant::now();
            let (began, first) = *slot.began.get_or_insert((now, progress.iterations));
            let done = progress.iterations.saturating_sub(first);
            let left = progress.planned_iterations.saturating_sub(progress.iterations);
            let rest = if done > 0 {
                let seconds = (now - began).as_secs_f64() / done as f64 * left as f64;
                format!("{} left", short(Duration::from_secs_f64(seconds.min(1e9))))
            } else {
                String::new()
            };
            let select = progress.select.map(|score| format!(" select {:.4}", score.loss)).unwrap_or_default();
            let text = format!(
                "{} loss {:.4}{select} {:.0} samples/s {:.2} GB {rest}",
                progress.stage,
                progress.learn_loss,
                progress.samples_per_second,
                (progress.host_bytes + progress.device.map_or(0, |device| device.allocated)) as f64 / 1e9
            );
            if let Some(bar) = &slot.bar {
                bar.set_length(progress.planned_iterations.max(progress.iterations));
                bar.set_position(progress.iterations);
                bar.set_message(text);
            } else if slot.last_line.elapsed() >= Duration::from_secs(LINE_SECONDS) {
                slot.last_line = now;
                eprintln!("task {} {}/{} {text}", task.id, progress.iterations, progress.planned_iterations);
            }
        });
    }

    fn finished(&self, slot: usize, task: &Task, outcome: &TaskOutcome) {
        self.with_slot(slot, |slot| {
            if let Some(bar) = slot.bar.take() {
                bar.finish_and_clear();
            }
        });
        match (&outcome.state, &outcome.scores) {
            (TaskState::Succeeded, Some(scores)) => self.line(&format!(
                "task {} done: select {}, {:.1} s",
                task.id,
                scores.select.short(),
                outcome.effort.seconds
            )),
            (TaskState::Waiting, _) => {
                let score =
                    outcome.at_rung.map(|select| format!(": select loss {:.4}", select.loss)).unwrap_or_default();
                self.line(&format!("task {} waits at a rung{score}", task.id));
            }
            _ => self.line(&format!(
                "task {} {}",
                task.id,
                outcome.cause.as_deref().map_or("stopped".to_string(), |cause| format!("failed: {cause}"))
            )),
        }
    }
}

fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}
