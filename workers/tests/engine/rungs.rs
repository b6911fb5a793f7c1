//! A task that stops at rungs and goes on ends with the same bits as one that did not, and shows at each rung what it would be if it ended there.

use crate::support::{Recorder, engine, fixture, run};
use mehl_soup::runner::engine::{EngineError, RungReached, SoupEngine};
use mehl_soup::sweep::asha::Asha;
use mehl_soup_worker::engine::TorchEngine;
use tch::Kind;

fn spec(soup: &str) -> String {
    let learn = fixture("trajectories/learn.safetensors");
    format!(
        "seed = 4\n[zoo]\nallow_chance = true\ningredients = ['{}']\n[data]\nlearn = '{learn}'\nselect = '{learn}'\n[soup]\n{soup}\n",
        fixture("trajectories/zoo/*").display(),
        learn = learn.display()
    )
}

/// Runs a task to its end, with a stop at every rung, and another after every `interval` iterations. Answers its coefficients and what it had to show.
fn through_rungs(text: &str, asha: Asha, interval: Option<u64>) -> (Vec<u8>, u64, Vec<RungReached>) {
    let folder = tempfile::tempdir().unwrap();
    let (mut one, task) = engine(folder.path(), text, Kind::Float);
    let manifest = one.scores(None, &mut Recorder::default()).unwrap();
    let mut resume = None;
    let mut reached: Vec<RungReached> = vec![];
    let mut done = 0;
    for attempt in 1..200 {
        let rung = asha.stop(reached.len() as u32, &task.soup);
        let mut recorder = Recorder { stop_after: interval.map(|n| done + n), rung, ..Recorder::default() };
        // Every other attempt is another process's.
        let mut other: TorchEngine;
        let engine = if attempt % 2 == 0 {
            other = engine(folder.path(), text, Kind::Float).0;
            &mut other
        } else {
            &mut one
        };
        match engine.run(&task, &manifest, resume.take(), &mut recorder) {
            Ok(completion) => {
                assert!(completion.exact, "{:?}", recorder.notes);
                return (completion.coefficients, completion.effort.iterations, reached);
            }
            Err(EngineError::AtRung(rung)) => {
                assert_eq!(rung.attempts, attempt);
                assert!(rung.effort.seconds > 0.0 && rung.effort.iterations > 0 && rung.model_batch > 0);
                reached.push(*rung);
            }
            Err(EngineError::Stopped) => {}
            Err(error) => panic!("{error}"),
        }
        resume = recorder.checkpoints.pop();
        done = resume.as_ref().unwrap().totals.effort.iterations;
    }
    panic!("it does not end");
}

/// `soup` has `EPOCHS` for the number that rungs count; `rungs` are the epochs of the rungs that are expected.
fn check(soup: &str, epochs: usize, asha: Asha, rungs: &[usize]) {
    let whole = |epochs: usize| {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &spec(&soup.replace("EPOCHS", &epochs.to_string())), Kind::Float).unwrap().0
    };
    let text = spec(&soup.replace("EPOCHS", &epochs.to_string()));
    let expected = whole(epochs);
    let ends: Vec<_> = rungs.iter().map(|&epochs| whole(epochs)).collect();
    for interval in [None, Some(3)] {
        let (coefficients, iterations, reached) = through_rungs(&text, asha, interval);
        assert_eq!(coefficients, expected.coefficients, "{soup}, {interval:?}");
        assert_eq!(iterations, expected.effort.iterations, "no iteration is done twice");
        assert_eq!(reached.len(), rungs.len(), "{soup}, {interval:?}");
        for (reached, end) in reached.iter().zip(&ends) {
            assert_eq!(reached.select, end.scores.select, "{soup}, {interval:?}");
            assert_eq!(reached.effort.iterations, end.effort.iterations);
        }
    }
}

#[test]
fn model_batches_stop_after_whole_outer_epochs() {
    let asha = Asha { eta: 2, grace: 1 };
    check(
        "method = 'mehl+'\nmodel_batch = 2\ninner_epochs = 2\nouter_epochs = EPOCHS\nbatch = 10",
        5,
        asha,
        &[1, 2, 4],
    );
    check("method = 'steady'\nmodel_batch = 2\ninner_epochs = 2\nouter_epochs = EPOCHS\nbatch = 10", 3, asha, &[1, 2]);
    let one =
        "method = 'mehl'\nmodel_batch = 1\ninner_epochs = 1\nouter_epochs = EPOCHS\nbatch = 20\nearly_stopping = false";
    check(one, 4, Asha { eta: 3, grace: 1 }, &[1, 3]);
}

#[test]
fn methods_that_hold_all_stop_after_inner_epochs() {
    let asha = Asha { eta: 2, grace: 1 };
    check("method = 'learned+'\ninner_epochs = EPOCHS\nbatch = 10\npatience = 100", 5, asha, &[1, 2, 4]);
    check("method = 'learned'\ninner_epochs = EPOCHS\nbatch = 10\nearly_stopping = false", 3, asha, &[1, 2]);
}

#[test]
fn the_full_gradient_method_stops_within_its_model_batch() {
    let soup = "method = 'hl+'\ninner_epochs = 3\nouter_epochs = 2\nbatch = 10\nearly_stopping = false";
    let expected = run(tempfile::tempdir().unwrap().path(), &spec(soup), Kind::Float).unwrap().0;
    let once = soup.replace("outer_epochs = 2", "outer_epochs = 1");
    let once = run(tempfile::tempdir().unwrap().path(), &spec(&once), Kind::Float).unwrap().0;
    // Rungs after 1, 2 and 4 inner epochs, and between the two outer ones.
    let (coefficients, _, reached) = through_rungs(&spec(soup), Asha { eta: 2, grace: 1 }, Some(2));
    assert_eq!(coefficients, expected.coefficients);
    assert_eq!(reached.len(), 3);
    let (coefficients, _, reached) = through_rungs(&spec(soup), Asha { eta: 3, grace: 3 }, None);
    assert_eq!(coefficients, expected.coefficients);
    assert_eq!(reached.len(), 1);
    assert_eq!(reached[0].select, once.scores.select);
}
