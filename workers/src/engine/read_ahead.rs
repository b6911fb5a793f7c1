//! The next model batch is read while the current one trains.
//!
//! Everywhere the system is asked to read its files into its cache. For a device with memory of its own a thread reads, converts and keeps its rows as well, in host memory
//! that nothing else needs meanwhile. On the CPU it does not: the rows would take the memory of a second model batch, and the threads that train would do the work.

use std::sync::atomic::{AtomicBool, Ordering};

use mehl_soup::host;
use mehl_soup::runner::engine::EngineError;
use mehl_soup::zoo::Zoo;
use tch::{Device, Kind};

use super::TaskRun;
use super::train::Learned;
use crate::hyperplane::{Ahead, MixedTensors};

/// The part of the host's free memory that rows may be kept in.
const SHARE: u64 = 2;

/// Whether rows of so many bytes are read into the host's memory before their turn.
pub fn is_kept(device: Device, bytes: u64, on_cpu: bool) -> bool {
    let (limit, own) = (host::memory_limit(), host::memory().anonymous);
    is_kept_in(device, bytes, on_cpu, host::available().min(limit.saturating_sub(own)))
}

fn is_kept_in(device: Device, bytes: u64, on_cpu: bool, free: u64) -> bool {
    (on_cpu || device != Device::Cpu) && bytes > 0 && bytes <= free / SHARE
}

/// Reads model batches before their turn.
pub struct ReadAhead {
    kind: Kind,
    device: Device,
    on_cpu: bool,
    /// What was read, or room for it.
    ahead: Option<Ahead>,
}

impl ReadAhead {
    /// Has read nothing yet.
    pub fn new(run: &TaskRun<'_>) -> Self {
        Self { kind: run.inputs.kind, device: run.inputs.device, on_cpu: run.ahead_on_cpu, ahead: None }
    }

    /// The rows of these ingredients, if they have been read.
    pub fn rows_of(&mut self, members: &[usize]) -> Option<&mut Ahead> {
        self.ahead.as_mut().filter(|ahead| ahead.members() == members)
    }

    /// Learns, and reads the rows of `next` meanwhile. Where learning ends first, waits for the rest; where it does not end well, what was read is nothing.
    ///
    /// # Errors
    /// Those of `learn`. That something could not be read is found again when it is its turn.
    pub fn during(
        &mut self,
        run: &mut TaskRun<'_>,
        next: Option<&[usize]>,
        learn: impl FnOnce(&mut TaskRun<'_>) -> Result<Learned, EngineError>,
    ) -> Result<Learned, EngineError> {
        let Some(next) = next else {
            self.ahead = None;
            return learn(run);
        };
        let (inputs, mixed) = (run.inputs, run.mixed.clone());
        next.iter().for_each(|&k| inputs.zoo.row(k).read_ahead());
        let values = next.len() * mixed.elements();
        let have = self.ahead.take().filter(|ahead| ahead.room() >= values);
        let bytes = (values * self.kind.elt_size_in_bytes()) as u64;
        if have.is_none() && !is_kept(self.device, bytes, self.on_cpu) {
            return learn(run);
        }
        let (zoo, kind, device, stop) = (&inputs.zoo, self.kind, self.device, AtomicBool::new(false));
        std::thread::scope(|scope| {
            let reader = std::thread::Builder::new().name("read-ahead".to_string());
            let reader = reader.spawn_scoped(scope, || {
                let ahead = have.or_else(|| Ahead::new(values, kind, device).ok())?;
                read(ahead, zoo, next, &mixed, &stop)
            });
            let learned = learn(run);
            if !matches!(learned, Ok(Learned::Ended(_))) {
                stop.store(true, Ordering::Relaxed);
            }
            self.ahead = reader.ok().and_then(|reader| reader.join().ok()).flatten();
            learned
        })
    }
}

/// Reads by threads of its own: those of the process are there for whoever trains.
fn read(mut ahead: Ahead, zoo: &Zoo, members: &[usize], mixed: &MixedTensors, stop: &AtomicBool) -> Option<Ahead> {
    let threads = (rayon::current_num_threads() / 2).max(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok()?;
    pool.install(|| ahead.read(zoo, members, mixed, stop)).ok()?;
    Some(ahead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_kept_for_devices_with_memory_of_their_own() {
        let gpu = Device::Cuda(0);
        assert!(is_kept_in(gpu, 50, false, 100) && !is_kept_in(gpu, 51, false, 100));
        assert!(!is_kept_in(Device::Cpu, 50, false, 100) && is_kept_in(Device::Cpu, 50, true, 100));
        assert!(!is_kept_in(gpu, 0, false, 100));
    }
}
