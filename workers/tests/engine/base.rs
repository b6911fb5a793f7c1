//! The model that ingredients were fine-tuned from, as one more row of soups.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::{Recorder, coefficients, engine, fixture, run};
use mehl_soup::coefficients::{CoefficientsFile, Options, materialize};
use mehl_soup::runner::engine::{EngineError, SoupEngine};
use tch::{Kind, Tensor};

/// k0 to k2 as ingredients; k3 as their base, with a head of other classes.
struct Zoo {
    root: tempfile::TempDir,
}

impl Zoo {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for k in 0..3 {
            copy(&format!("k{k}"), &root.path().join(format!("zoo/k{k}")));
        }
        let base = root.path().join("base");
        copy("k3", &base);
        let file = base.join("model.safetensors");
        let mut tensors = Tensor::read_safetensors(&file).unwrap();
        for (name, tensor) in &mut tensors {
            if name.starts_with("classifier.") {
                *tensor = Tensor::cat(&[&*tensor, &*tensor], 0);
            }
        }
        Tensor::write_safetensors(&tensors, &file).unwrap();
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn spec(&self, base: &str, soup: &str) -> String {
        let learn = fixture("trajectories/learn.safetensors");
        format!(
            "seed = 4\n[zoo]\nallow_chance = true\ningredients = ['{}']\nbase = '{}'\n[data]\nlearn = '{learn}'\nselect = '{learn}'\n\
             [soup]\n{soup}\n",
            self.path("zoo/*").display(),
            self.path(base).display(),
            learn = learn.display()
        )
    }
}

#[test]
fn model_stock_is_that_of_an_independent_script() {
    // `fixtures/make_trajectories.py`: pair by pair, by torch.cosine_similarity, in f64.
    let text = std::fs::read_to_string(fixture("trajectories/model-stock.json")).unwrap();
    let golden: BTreeMap<String, Vec<Vec<f64>>> = serde_json::from_str(&text).unwrap();
    let zoo = Zoo::new();
    // The base with the head that it was trained with.
    copy("k3", &zoo.path("base"));
    for (groups, expected) in golden {
        let spec = zoo.spec("base", &format!("method = 'model-stock'\nlayer_groups = '{groups}'"));
        let a = coefficients(&run(&zoo.path(""), &spec, Kind::Float).unwrap().0);
        assert_eq!((a.ingredients(), a.groups()), (4, expected[0].len()), "{groups}");
        for (k, row) in expected.iter().enumerate() {
            for (l, expected) in row.iter().enumerate() {
                let found = a.get(k, l);
                assert!((found - expected).abs() < 1e-9, "{groups}: [{k}, {l}] is {found}, expected {expected}");
            }
        }
    }
}

fn copy(name: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture(&format!("trajectories/zoo/{name}/{file}")), to.join(file)).unwrap();
    }
}

#[test]
fn methods_on_the_hyperplane_move_it_and_no_other_starts_from_it() {
    let zoo = Zoo::new();
    let of = |soup: &str| {
        let (completion, recorder) = run(&zoo.path(""), &zoo.spec("base", soup), Kind::Float).unwrap();
        let a = coefficients(&completion);
        assert_eq!(a.ingredients(), 4, "{soup}");
        assert!(a.sum_error() < 1e-9, "{soup}");
        let said = recorder
            .notes
            .iter()
            .any(|note| note.contains("zoo.base: missing or of another shape: `classifier.bias` and 1 others"));
        assert!(said, "{:?}", recorder.notes);
        (0..a.groups()).map(|l| a.get(3, l)).collect::<Vec<_>>()
    };
    for method in ["best", "uniform", "greedy", "learned+"] {
        let found = of(&format!("method = '{method}'\ninner_epochs = 2\nbatch = 12"));
        assert!(found.iter().all(|v| *v == 0.0), "{method}: {found:?}");
    }
    for method in ["hl", "hl+", "mehl+", "steady"] {
        for b in [1, 2, 4] {
            let found = of(&format!(
                "method = '{method}'\nmodel_batch = {b}\ninner_epochs = 3\nbatch = 8\nearly_stopping = false"
            ));
            assert!(found.iter().any(|v| v.abs() > 1e-4), "{method}, {b}: {found:?}");
        }
    }
}

#[test]
fn what_is_written_is_what_was_scored_and_a_stopped_task_goes_on() {
    let zoo = Zoo::new();
    for soup in ["method = 'model-stock'", "method = 'steady'\nmodel_batch = 2\ninner_epochs = 2\nbatch = 8"] {
        let text = zoo.spec("base", soup);
        let (mut whole, task) = engine(&zoo.path(""), &text, Kind::Float);
        let manifest = whole.scores(None, &mut Recorder::default()).unwrap();
        assert_eq!((manifest.ingredients.len(), manifest.base.as_ref().unwrap().name.as_str()), (3, "base:base"));
        let completion = whole.run(&task, &manifest, None, &mut Recorder::default()).unwrap();

        if soup.contains("steady") {
            let mut recorder = Recorder { stop_after: Some(4), ..Recorder::default() };
            assert!(matches!(whole.run(&task, &manifest, None, &mut recorder), Err(EngineError::Stopped)));
            let (mut other, task) = engine(&zoo.path(""), &text, Kind::Float);
            let resumed = other.run(&task, &manifest, recorder.checkpoints.pop(), &mut Recorder::default()).unwrap();
            assert_eq!(resumed.coefficients, completion.coefficients);
        }

        let file = CoefficientsFile::from_bytes(&completion.coefficients).unwrap();
        let out = zoo.path(&format!("out-{}", task.soup.method));
        materialize(&file, &Options { out: out.clone(), ..Options::default() }, None, &mut |_, _| {}).unwrap();
        let card = std::fs::read_to_string(out.join("README.md")).unwrap();
        assert!(card.contains("A weighted sum of 3 fine-tuned models") && card.contains("and the model that they"));
        let learn = fixture("trajectories/learn.safetensors");
        let alone = format!(
            "[zoo]\nallow_chance = true\ningredients = ['{}']\n[data]\nlearn = '{learn}'\nselect = '{learn}'\n[soup]\nmethod = 'best'\n",
            out.display(),
            learn = learn.display()
        );
        let written = run(&zoo.path(""), &alone, Kind::Float).unwrap().0;
        let (found, expected) = (written.scores.select.loss, completion.scores.select.loss);
        assert!((found - expected).abs() < 1e-6, "{soup}: {found}, expected {expected}");
    }
}

#[test]
fn a_base_that_changed_or_is_none_is_said() {
    let zoo = Zoo::new();
    let scores = |base: &str| {
        let (mut engine, _) = engine(&zoo.path(""), &zoo.spec(base, "method = 'uniform'"), Kind::Float);
        engine.scores(None, &mut Recorder::default())
    };
    let manifest = scores("base").unwrap();
    let equal = scores("zoo/k1").unwrap();
    assert!(
        equal.notes.iter().any(|note| note == "zoo.base has the same contents as ingredient k1"),
        "{:?}",
        equal.notes
    );
    assert_ne!(equal.inputs_hash(), manifest.inputs_hash());

    let (mut other, task) = engine(&zoo.path(""), &zoo.spec("zoo/k1", "method = 'uniform'"), Kind::Float);
    let error = other.run(&task, &manifest, None, &mut Recorder::default()).unwrap_err().to_string();
    assert!(error.contains("zoo changed: expected base") && error.contains("zoo/k1"), "{error}");

    let foreign = zoo.path("foreign.safetensors");
    Tensor::write_safetensors(&[("a", Tensor::zeros([3], (Kind::Float, tch::Device::Cpu)))], &foreign).unwrap();
    let error = scores("foreign.safetensors").unwrap_err().to_string();
    assert!(error.contains("zoo.base") && error.contains("0 %"), "{error}");
    let error = scores("nowhere").unwrap_err().to_string();
    assert!(error.contains("nowhere"), "{error}");
}
