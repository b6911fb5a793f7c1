//! The cache of decoded images: read once, damaged entries, the bound, leftovers, several at once.

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use support::images::{Scene, folder, picture, values};

const DATA: &str = "learn = 'learn'\nselect = 'learn'\nimage = { resize = [8, 8] }";
/// Values of an image of 3 x 8 x 8.
const IMAGE: u64 = 192;

/// One test at a time: one of them counts what the process reads.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn scene() -> Scene {
    let scene = Scene::new();
    folder(&scene.path("learn"), &["a", "b"], 3, 0);
    scene
}

/// Bytes that this process has read from files.
fn bytes_read() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

fn size(folder: &Path) -> u64 {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn a_second_load_reads_no_source() {
    let _alone = alone();
    let scene = Scene::new();
    for i in 0..6 {
        let class = scene.path("learn").join(["a", "b"][i as usize % 2]);
        fs::create_dir_all(&class).unwrap();
        picture(300, 200, i).save(class.join(format!("{i}.png"))).unwrap();
    }
    let sources = size(&scene.path("learn/a")) + size(&scene.path("learn/b"));
    assert!(sources > 300_000, "{sources}");
    // Files that changed just now are hashed again, as a change could hide in the clock's resolution.
    std::thread::sleep(Duration::from_millis(2100));
    let before = bytes_read();
    let first = scene.load(DATA).unwrap();
    let cold = bytes_read() - before;
    assert!(cold > sources, "{cold} of {sources}");
    let before = bytes_read();
    let second = scene.load(DATA).unwrap();
    let warm = bytes_read() - before;
    assert!(warm < sources / 10, "{warm} of {sources}");
    assert_eq!(values(&first.learn), values(&second.learn));
    assert_eq!(first.entries, second.entries);
    assert_eq!(scene.cached(".pixels").len(), 1);
    // Normalisation is no part of what is stored.
    let before = bytes_read();
    scene.load(&DATA.replace("[8, 8]", "[8, 8], mean = 0.1")).unwrap();
    assert!(bytes_read() - before < sources / 10);
    assert_eq!(scene.cached(".pixels").len(), 1);
    // A changed file is found out even with its times set back.
    let path = scene.path("learn/a/0.png");
    let modified = path.metadata().unwrap().modified().unwrap();
    picture(300, 200, 99).save(&path).unwrap();
    File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
    assert_ne!(scene.load(DATA).unwrap().entries, first.entries);
    assert_eq!(scene.cached(".pixels").len(), 2);
    // Remembered hashes that are damaged are not used.
    let [hashes] = scene.cached(".hashes").try_into().unwrap();
    let hashes = scene.cache().join(hashes);
    let mut bytes = fs::read(&hashes).unwrap();
    let at = bytes.len() - 40;
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    fs::write(&hashes, bytes).unwrap();
    let expected = scene.load(DATA).unwrap().entries;
    fs::remove_file(&hashes).unwrap();
    assert_eq!(scene.load(DATA).unwrap().entries, expected);
}

#[test]
fn damaged_entries_are_made_anew() {
    let _alone = alone();
    let scene = scene();
    let truth = values(&scene.load(DATA).unwrap().learn);
    let [entry] = scene.cached(".pixels").try_into().unwrap();
    let path = scene.cache().join(entry);
    let whole = fs::read(&path).unwrap();
    let trailer = 8 + 32 + 8;
    let mut damages: Vec<Vec<u8>> =
        [0, 1, trailer, whole.len() / 2, whole.len() - 1].map(|n| whole[..n].to_vec()).into();
    damages.push([whole.as_slice(), b"x"].concat());
    // Magic, hash, length, and the description itself.
    for at in [1, 20, 45, trailer + 10] {
        let mut bytes = whole.clone();
        let place = bytes.len() - at;
        bytes[place] ^= 0x40;
        damages.push(bytes);
    }
    // A length that would be beyond the file, or beyond all memory.
    for length in [whole.len() as u64, u64::MAX] {
        let mut bytes = whole.clone();
        let place = bytes.len() - trailer;
        bytes[place..place + 8].copy_from_slice(&length.to_le_bytes());
        damages.push(bytes);
    }
    for damaged in damages {
        fs::write(&path, &damaged).unwrap();
        assert_eq!(values(&scene.load(DATA).unwrap().learn), truth, "{} bytes", damaged.len());
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn the_bound_holds_and_what_is_in_use_stays() {
    let _alone = alone();
    let mut scene = scene();
    let entry = |i: u32| format!("learn = 'set{i}'\nselect = 'set{i}'\nimage = {{ resize = [8, 8] }}");
    for i in 0..4 {
        folder(&scene.path(&format!("set{i}")), &["a", "b"], 3, 1000 * (i + 1));
    }
    // Room for two entries and their descriptions.
    scene.bound = 2 * (6 * IMAGE + 300);
    let names = |scene: &Scene| scene.cached(".pixels");
    drop(scene.load(&entry(0)).unwrap());
    let [first] = names(&scene).try_into().unwrap();
    drop(scene.load(&entry(1)).unwrap());
    assert_eq!(names(&scene).len(), 2);
    let second = names(&scene).into_iter().find(|name| *name != first).unwrap();
    // The first is used again, so the second has been unused for longest.
    let back = SystemTime::now() - Duration::from_secs(60);
    for name in [&first, &second] {
        File::open(scene.cache().join(name)).unwrap().set_modified(back).unwrap();
    }
    drop(scene.load(&entry(0)).unwrap());
    let third = scene.load(&entry(2)).unwrap();
    assert_eq!(names(&scene).len(), 2);
    assert!(names(&scene).contains(&first) && !names(&scene).contains(&second));
    // Two in use: the next one is not kept, but it works, and nothing is removed under the others.
    let again = scene.load(&entry(0)).unwrap();
    let before = (values(&third.learn), values(&again.learn));
    let fourth = scene.load(&entry(3)).unwrap();
    assert_eq!((names(&scene).len(), fourth.learn.samples()), (2, 6));
    assert!(names(&scene).contains(&first));
    assert_eq!(before, (values(&third.learn), values(&again.learn)));
    assert!(fs::read_dir(scene.cache()).unwrap().all(|e| !e.unwrap().path().ends_with(".partial")));
    drop((third, again));
    assert_eq!(values(&scene.load(&entry(3)).unwrap().learn), values(&fourth.learn));
    // A bound of nothing keeps nothing new.
    scene.bound = 0;
    fs::remove_dir_all(scene.cache()).unwrap();
    assert_eq!(values(&scene.load(&entry(3)).unwrap().learn), values(&fourth.learn));
    assert!(names(&scene).is_empty());
}

#[test]
fn leftovers_of_killed_processes_are_removed() {
    let _alone = alone();
    let scene = scene();
    let truth = values(&scene.load(DATA).unwrap().learn);
    let [entry] = scene.cached(".pixels").try_into().unwrap();
    let key = entry.strip_suffix(".pixels").unwrap().to_string();
    fs::remove_file(scene.cache().join(&entry)).unwrap();
    // One of this very entry, one of another, one that is at work.
    fs::write(scene.cache().join(format!("{key}.partial")), vec![7; 100_000]).unwrap();
    fs::write(scene.cache().join("dead.partial"), "x").unwrap();
    fs::write(scene.cache().join("alive.partial"), "x").unwrap();
    let alive = File::open(scene.cache().join("alive.partial")).unwrap();
    alive.lock().unwrap();
    assert_eq!(values(&scene.load(DATA).unwrap().learn), truth);
    assert_eq!(scene.cached(".partial"), ["alive.partial"]);
    assert_eq!(scene.cached(".pixels"), [entry]);
}

#[test]
fn several_at_once_make_it_once() {
    let _alone = alone();
    let scene = Scene::new();
    folder(&scene.path("learn"), &["a", "b"], 40, 0);
    // Locks are of open files, not of processes: threads meet as processes do.
    let barrier = Barrier::new(4);
    let found: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let load = || {
            barrier.wait();
            values(&scene.load(DATA).unwrap().learn)
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(found.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!((scene.cached(".pixels").len(), scene.cached(".partial").len()), (1, 0));
}
