//! The next model batch is read while the current one trains, and nothing else comes of it. Alone in its process, whose reads are counted.

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

mod support;

use std::time::{Duration, Instant};

use mehl_soup::checkpoint::Checkpoint;
use mehl_soup::runner::engine::{Directive, EngineError, HostError, Progress, SoupEngine, TaskHost};
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::task::Task;
use mehl_soup::zoo::bytes_read;
use mehl_soup_worker::engine::TorchEngine;
use support::{Recorder, engine, fixture};
use tch::Kind;

const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of ingredients that were read in each model batch: from when it is loaded to its last iteration, and from there to when the next is loaded.
#[derive(Default)]
struct Reader {
    recorder: Recorder,
    learning: Vec<u64>,
    between: Vec<u64>,
    /// All bytes read when a model batch was loaded, and at its last iteration.
    loaded: u64,
    last: u64,
    /// Bytes that each iteration waits for.
    awaited: Vec<u64>,
}

impl TaskHost for Reader {
    fn progress(&mut self, progress: &Progress) -> Directive {
        let Some(at) = self.learning.len().checked_sub(1) else { return self.recorder.progress(progress) };
        let awaited = self.awaited.get(at).copied().unwrap_or(0);
        let began = Instant::now();
        while bytes_read() - self.loaded < awaited && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.last = bytes_read();
        self.learning[at] = self.last - self.loaded;
        self.recorder.progress(progress)
    }
    fn loaded(&mut self, _: Duration) {
        self.loaded = bytes_read();
        if !self.learning.is_empty() {
            self.between.push(self.loaded - self.last);
        }
        self.learning.push(0);
    }
    fn rung(&self) -> Option<u64> {
        self.recorder.rung
    }
    fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), HostError> {
        self.recorder.save(checkpoint)
    }
    fn note(&mut self, message: &str) {
        TaskHost::note(&mut self.recorder, message);
    }
}

fn stopping(rung: Option<u64>, stop_after: Option<u64>) -> Reader {
    Reader { recorder: Recorder { rung, stop_after, ..Recorder::default() }, ..Reader::default() }
}

/// Stopped every other iteration, and after each outer epoch.
fn in_pieces(engine: &mut TorchEngine, task: &Task, manifest: &Manifest) -> Vec<u8> {
    let (mut resume, mut rung): (Option<Checkpoint>, u64) = (None, 1);
    loop {
        let done = resume.as_ref().map_or(0, |state| state.totals.effort.iterations);
        let mut reader = stopping(Some(rung), Some(done + 2));
        match engine.run(task, manifest, resume.take(), &mut reader) {
            Ok(completion) => return completion.coefficients,
            Err(EngineError::Stopped) => {}
            Err(EngineError::AtRung(_)) => rung += 1,
            Err(error) => panic!("{error}"),
        }
        resume = reader.recorder.checkpoints.pop();
    }
}

#[test]
fn the_next_model_batch_is_read_while_one_trains() {
    let folder = tempfile::tempdir().unwrap();
    let learn = fixture("trajectories/learn.safetensors");
    for directions in ["f32", "int8"] {
        let spec = format!(
            "[zoo]\nallow_chance = true\ningredients = ['{}']\n[data]\nlearn = '{learn}'\nselect = '{learn}'\n\
             [soup]\nmethod = 'mehl+'\ndirection_dtype = '{directions}'\nmodel_batch = 2\nouter_epochs = 2\ninner_epochs = 2\nbatch = 20\n",
            fixture("trajectories/zoo/*").display(),
            learn = learn.display()
        );
        let (mut plain, task) = engine(folder.path(), &spec, Kind::Float);
        let manifest = plain.scores(None, &mut Recorder::default()).unwrap();
        let mut host = Reader::default();
        let expected = plain.run(&task, &manifest, None, &mut host).unwrap();
        assert_eq!(host.learning, [0; 4], "{directions}: on the CPU nothing is read meanwhile");
        // Compact directions are read once more for the fold, after they have trained.
        let (folded, all) =
            if directions == "f32" { (0, host.between[0]) } else { (host.between[0] / 2, host.between[0]) };
        let batch = all - folded;
        assert!(batch > 0);
        assert_eq!(host.between, [all; 3], "{directions}");

        let (mut ahead, task) = engine(folder.path(), &spec, Kind::Float);
        ahead.read_ahead_on_cpu();
        let mut host = Reader { awaited: vec![batch; 3], ..Reader::default() };
        let found = ahead.run(&task, &manifest, None, &mut host).unwrap();
        assert_eq!(host.learning, [batch, batch, batch, 0], "{directions}");
        assert_eq!(host.between, [folded; 3], "{directions}");
        assert_eq!(found.coefficients, expected.coefficients, "{directions}");
        assert_eq!(in_pieces(&mut ahead, &task, &manifest), expected.coefficients, "{directions}: in pieces");
    }
}
