//! How the process uses its host's memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mehl_soup::host;

/// Between two looks at the memory in use.
const POLL_INTERVAL: Duration = Duration::from_millis(3);

/// Lets the allocator keep what an iteration frees for the next one, up to 2 GiB, instead of giving pages back and faulting them in again: a
/// backward pass allocates and frees a gradient of the whole model. Blocks of 32 MiB and more, a model batch among them, still go back at once.
/// Does nothing on other C libraries than GNU's.
pub fn keep_freed_pages() {
    #[cfg(target_env = "gnu")]
    // SAFETY: called before other threads exist; both values are within the documented ranges, and a refusal changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    }
}

/// Gives what the allocator keeps for later back to the system, so that anonymous memory tells what is in use. Does nothing on other C libraries than GNU's.
pub fn give_back_freed_pages() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The largest anonymous memory of the process, in bytes, while some work runs, looked at every few milliseconds by another thread. The kernel itself keeps only the peak of
/// all resident memory, with the maps of files that it may drop.
pub fn peak_while<R>(work: impl FnOnce() -> R) -> (R, u64) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(host::memory().anonymous);
                std::thread::sleep(POLL_INTERVAL);
            }
            peak
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, watcher.join().unwrap_or(0))
    })
}
