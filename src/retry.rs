//! Trying again: pauses that grow, and faults that are said once.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Pauses without end: doubled from `least` to `most`, each with up to as much again, drawn at
/// random.
pub fn pauses(least: Duration, most: Duration) -> ExponentialBackoff {
    ExponentialBuilder::new().with_jitter().with_min_delay(least).with_max_delay(most).without_max_times().build()
}

/// Faults of one server. One that lasts is said once.
#[derive(Debug, Default)]
pub struct Faults {
    said: Option<String>,
}

impl Faults {
    /// Takes note of a fault, and says it unless it is the one that was said last.
    pub fn met(&mut self, fault: &impl ToString, say: impl FnOnce(&str)) {
        let text = fault.to_string();
        if self.said.as_ref() != Some(&text) {
            say(&text);
            self.said = Some(text);
        }
    }

    /// Takes note that all is well again.
    pub fn none(&mut self) {
        self.said = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_lasts_is_said_once() {
        let (mut faults, mut said) = (Faults::default(), Vec::new());
        for fault in ["full", "full", "away", "full"] {
            faults.met(&fault, |text| said.push(text.to_string()));
        }
        faults.none();
        faults.met(&"full", |text| said.push(text.to_string()));
        assert_eq!(said, ["full", "away", "full", "full"]);
    }

    #[test]
    fn pauses_grow_to_their_bound_and_never_end() {
        let (least, most) = (Duration::from_millis(10), Duration::from_millis(80));
        let all: Vec<_> = pauses(least, most).take(50).collect();
        assert_eq!(all.len(), 50);
        assert!(all.iter().all(|pause| (least..=2 * most).contains(pause)), "{all:?}");
        assert!(all[10..].iter().all(|pause| *pause >= most), "{all:?}");
    }
}
