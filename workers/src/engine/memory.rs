//! What the process uses of its host's memory, and the largest model batch that fits.

use std::fs;

/// Bytes of one field of `/proc/self/status` or `/proc/meminfo`, which are in kB; 0 where there is no such file.
fn field(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Resident memory of this process, file maps included.
pub fn resident() -> u64 {
    field("/proc/self/status", "VmRSS")
}

/// Largest resident memory since [`reset_peak`] or the start.
pub fn peak_resident() -> u64 {
    field("/proc/self/status", "VmHWM")
}

/// Anonymous resident memory: without the maps of ingredients, which the system may drop.
pub fn anonymous() -> u64 {
    field("/proc/self/status", "RssAnon")
}

/// Lets [`peak_resident`] start anew. Does nothing where the system does not offer it.
pub fn reset_peak() {
    // The kernel's documentation of proc(5): writing 5 resets the high water mark.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

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

/// Gives what the allocator keeps for later back to the system, so that [`anonymous`] tells what is in use. Does nothing on other C libraries than GNU's.
pub fn give_back_freed_pages() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Memory that can be had without swapping.
pub fn available() -> u64 {
    field("/proc/meminfo", "MemAvailable")
}

/// The largest number of ingredients that fits a budget in bytes, at least 1 and at most `ingredients`.
///
/// A model batch of b holds b directions, the soup, its gradient and the centre, of `elements` values each; a quarter of the budget is left to
/// activations and everything else.
pub fn largest_model_batch(budget: u64, elements: usize, bytes_per_element: usize, ingredients: usize) -> usize {
    let model = (elements * bytes_per_element).max(1) as u64;
    let fits = (budget / 4 * 3 / model).saturating_sub(3) as usize;
    fits.clamp(1, ingredients.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_batch_follows_the_budget() {
        let model = 400 << 20;
        assert_eq!(largest_model_batch(16 << 30, 100 << 20, 4, 72), ((12u64 << 30) / model - 3) as usize);
        assert_eq!(largest_model_batch(1 << 20, 100 << 20, 4, 72), 1);
        assert_eq!(largest_model_batch(1 << 40, 100 << 20, 4, 72), 72);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident() > 1 << 20 && peak_resident() >= resident() / 2 && available() > 0);
    }
}
