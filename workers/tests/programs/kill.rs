//! A sweep that is killed at many moments ends as one that never was.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::support::programs::{Place, assert_same_coefficients, sound_spec};
use mehl_soup::checkpoint::Checkpoint;
use mehl_soup::sweep::results::{Row, SweepResults};
use mehl_soup::task::TaskState;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Tasks with every kind of state that a checkpoint can hold.
fn sweep(checkpoint_seconds: u32) -> String {
    let soup = "batch = 4\ninner_epochs = 12\npatience = 9\nmodel_batch = 2";
    let search = "[search]\nstrategy = 'random'\ntasks = 2\npoints = [\n\
        { method = 'mehl+', outer_epochs = 2 },\n\
        { method = 'mehl', model_batch = 1, init = 'greedy' },\n\
        { method = 'hl+', layer_groups = 'block' },\n\
        { method = 'learned+' },\n\
        { method = 'learned', early_stopping = false },\n\
        { method = 'greedy' },\n]\n\
        [search.space]\nlearning_rate = { log_uniform = [1e-3, 1e-1] }\n\"zoo.top\" = { int = [2, 4] }\n\
        [compute]\nthreads = 1";
    let spec = sound_spec(soup, &format!("{search}\ncheckpoint_seconds = {checkpoint_seconds}"));
    format!("name = 'kill'\n{spec}")
}

/// A run without disturbance, in `whole`, and the same sweep with a checkpoint after each iteration, in `sweep.toml`.
fn undisturbed() -> Place {
    let place = Place::new();
    place.spec("whole.toml", &sweep(3600));
    place.run("whole.toml", "whole").expect(0);
    place.spec("sweep.toml", &sweep(0));
    place
}

/// What two runs of one sweep have in common: all but time, memory and the number of attempts.
fn essence(results: &SweepResults) -> SweepResults {
    let mut essence = results.clone();
    for row in &mut essence.tasks {
        let Row { seconds, samples_per_second, peak_host_bytes, attempts, .. } = row;
        *attempts = 0;
        *seconds = 0.0;
        *samples_per_second = None;
        *peak_host_bytes = 0;
    }
    essence
}

/// Iterations that each unfinished task has kept.
fn kept(place: &Place, out: &str) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(place.path(out).join("tasks")).into_iter().flatten();
    tasks
        .filter_map(|task| {
            let task = task.unwrap();
            let bytes = fs::read(task.path().join("checkpoint.safetensors")).ok()?;
            let checkpoint = Checkpoint::from_bytes(&bytes).expect("a kill leaves the old checkpoint or the new one");
            Some((task.file_name().into_string().unwrap(), checkpoint.totals.effort.iterations))
        })
        .collect()
}

/// Asserts that a run in `out` ended as the one in `whole`, and left nothing but what a run leaves.
fn assert_same(place: &Place, whole: &str, out: &str) {
    assert_same_coefficients(place, whole, out);
    let (expected, found) = (place.results(whole), place.results(out));
    assert!(found.tasks.iter().all(|row| row.state == TaskState::Succeeded && row.exact == Some(true)));
    // Iterations are among it: none was lost, none was counted twice.
    assert_eq!(essence(&found), essence(&expected));
    // A history is of the last attempt: one that had nothing left to learn has none.
    let has_history = |file: &String| file.ends_with("/history.json");
    let (found, expected) = (place.tree(out), place.tree(whole));
    assert!(found.iter().filter(|file| has_history(file)).all(|file| expected.contains(file)), "{found:?}");
    let rest = |files: &[String]| files.iter().filter(|file| !has_history(file)).cloned().collect::<Vec<_>>();
    assert_eq!(rest(&found), rest(&expected), "no temporary file, no checkpoint, is left");
    for file in ["best/model.safetensors", "best/coefficients.safetensors", "best/config.json", "best/README.md"] {
        assert!(place.read(&format!("{out}/{file}")) == place.read(&format!("{whole}/{file}")), "{file} differs");
    }
}

#[test]
fn killed_at_many_moments() {
    let place = undisturbed();

    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut below = |n: u64| random.next_u64() % n;
    let (mut kills, mut in_a_task, mut round) = (0, 0, 0);
    // A fast machine is done after fewer kills, and begins another time.
    while kills < 30 || in_a_task < 15 {
        round += 1;
        let out = &format!("killed-{round}");
        let mut before = BTreeMap::new();
        loop {
            let mut run = place.start("sweep.toml", out);
            if kills % 3 == 0 {
                // Anywhere: in the loader, in the scores task, between two tasks.
                std::thread::sleep(Duration::from_millis(below(600)));
            } else {
                // Within a task's work, some checkpoints further on, and then some microseconds: in the middle of a write.
                let (mut seen, mut changes, goal) = (kept(&place, out), 0, 1 + below(40));
                run.watch(|| {
                    let now = kept(&place, out);
                    changes += u64::from(now != seen);
                    seen = now;
                    changes >= goal
                });
                std::thread::sleep(Duration::from_micros(below(3000)));
            }
            let ended = run.kill();
            assert!(!ended.stderr.contains("refused"), "{}", ended.stderr);
            if ended.code.is_some() {
                assert_eq!(ended.code, Some(0), "{}", ended.stderr);
                break;
            }
            kills += 1;
            let now = kept(&place, out);
            in_a_task += usize::from(!now.is_empty());
            for (task, iterations) in &now {
                // With a checkpoint an iteration, what a kill costs is at most the iteration it falls into.
                assert!(before.get(task).is_none_or(|kept| kept <= iterations), "{task} went back: {before:?} {now:?}");
            }
            before = now;
        }
        assert_same(&place, "whole", out);
    }

    // A finished sweep is not harmed either.
    for delay in [50, 300] {
        let run = place.start("sweep.toml", "killed-1");
        std::thread::sleep(Duration::from_millis(delay));
        run.kill();
    }
    place.run("sweep.toml", "killed-1").expect(0);
    assert_same(&place, "whole", "killed-1");
}

#[test]
fn stopped_by_hand() {
    let place = undisturbed();
    let mut at_work = vec![];
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGINT] {
        let iterations = || kept(&place, "stopped").values().sum::<u64>();
        let before = iterations();
        let mut run = place.start("sweep.toml", "stopped");
        assert!(run.watch(|| iterations() >= before + 5), "over too early");
        run.signal(signal);
        let ended = run.wait().expect(130).says(&["run the same command again"]);
        assert_eq!(ended.stdout, "", "no table of a sweep that is not done");
        assert!(!place.path("stopped/best").exists() && !place.path("stopped/results.json").exists());
        at_work.push(kept(&place, "stopped").len());
    }
    // Small tasks: a signal may fall between two of them.
    assert!(at_work.iter().all(|&tasks| tasks <= 1) && at_work.contains(&1), "its checkpoint is kept: {at_work:?}");
    place.run("sweep.toml", "stopped").expect(0);
    assert_same(&place, "whole", "stopped");
}
