//! What this machine says of the process: its memory, and how much it may have. Linux tells all of it below `/proc` and `/sys/fs/cgroup`; elsewhere it is 0.

use std::fs;
use std::path::Path;

/// Memory of this process, in bytes, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident, maps of files included.
    pub resident: u64,
    /// Resident without the maps of files, which the system may drop.
    pub anonymous: u64,
    /// Largest resident since [`reset_peak`] or the start.
    pub peak: u64,
}

/// Memory of this process now.
pub fn memory() -> Memory {
    told("self")
}

/// Memory of another process now; all 0 once it is gone.
pub fn memory_of(process: u32) -> Memory {
    told(&process.to_string())
}

fn told(process: &str) -> Memory {
    // One reading for all: the peak of another moment could be below what is resident.
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let resident = field(&status, "VmRSS");
    // The kernel sums both up from counters of each processor, which may be a few pages apart.
    Memory { resident, anonymous: field(&status, "RssAnon"), peak: field(&status, "VmHWM").max(resident) }
}

/// Lets the peak of [`memory`] start anew. Does nothing where the system does not offer it.
pub fn reset_peak() {
    // proc(5): writing 5 resets the high water mark.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Memory of the machine that can be had without swapping, in bytes.
pub fn available() -> u64 {
    field(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable")
}

/// Memory that this process may have, with all that is in its control groups, in bytes: the least of their limits and the machine's memory.
pub fn memory_limit() -> u64 {
    let machine = field(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal");
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    group_limit(&groups, Path::new("/sys/fs/cgroup")).map_or(machine, |limit| limit.min(machine))
}

/// Bytes of one field of a file like `/proc/self/status`, which has them in kB; 0 where it has no such field.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The least limit of the control groups that `/proc/self/cgroup` names, and of those that they are in. In a container the root is the container's own group.
fn group_limit(groups: &str, root: &Path) -> Option<u64> {
    // Version 2 has one line `0::/path`, version 1 one for each controller: `5:memory:/path`.
    let places = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_of_memory = controllers.split(',').any(|name| name == "memory");
        match controllers {
            "" => Some((root.to_path_buf(), "memory.max", path)),
            _ if is_of_memory => Some((root.join("memory"), "memory.limit_in_bytes", path)),
            _ => None,
        }
    });
    let limits = places.flat_map(|(root, file, path)| {
        let folder = root.join(path.trim_start_matches('/'));
        // A limit of version 2 that is not set reads `max`; one of version 1 is more than any machine has.
        let read = move |folder: &Path| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
        let above: Vec<_> = folder.ancestors().take_while(|at| at.starts_with(&root)).map(Path::to_path_buf).collect();
        above.into_iter().filter_map(move |at| read(&at))
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_within_its_limit() {
        let now = memory();
        assert!(now.anonymous > 1 << 16 && now.resident > 1 << 20, "{now:?}");
        assert!(now.peak >= now.resident && now.resident >= now.anonymous, "{now:?}");
        assert!(available() > 0 && memory_limit() > now.resident);
    }

    #[test]
    fn a_peak_can_begin_anew() {
        let size = 64 << 20;
        drop(std::hint::black_box(vec![1u8; size]));
        let before = memory().peak;
        reset_peak();
        assert!(memory().peak + size as u64 / 2 < before, "{before} {:?}", memory());
    }

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(group_limit("0::/a/b\n", root.path()), None);
        write("a/b/memory.max", "max\n");
        assert_eq!(group_limit("0::/a/b\n", root.path()), None);
        write("a/memory.max", "5000\n");
        write("a/b/memory.max", "7000\n");
        assert_eq!(group_limit("0::/a/b\n", root.path()), Some(5000));
        // In a container the path is `/`, and the group's own files are in the root.
        write("memory.max", "3000\n");
        assert_eq!(group_limit("0::/\n", root.path()), Some(3000));
        write("memory/c/memory.limit_in_bytes", "2000\n");
        assert_eq!(group_limit("4:cpu,cpuacct:/c\n3:memory:/c\n", root.path()), Some(2000));
        assert_eq!(group_limit("nonsense", root.path()), None);
    }
}
