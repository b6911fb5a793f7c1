//! Sweeps for each objective: what is read, refused, scored, learned and said.

use std::fs;
use std::path::PathBuf;

use mehl_soup::coefficients::CoefficientsFile;
use mehl_soup::runner::engine::{EngineError, SoupEngine};
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::objective::Objective;
use mehl_soup::sweep::score::SplitScore;
use mehl_soup::sweep::spec::{Family, ZooSpec};
use mehl_soup_worker::families::{ModelInputs, Pass};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tch::{Device, Kind, Reduction, Tensor};

use crate::support::golden::{load, zoo_spec};
use crate::support::{Recorder, engine, fixture, images, run};

/// A zoo of four small ViTs, whose head has `outputs` of its four outputs, with fields in their
/// configurations; and data.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(outputs: i64, fields: &[(&str, Value)]) -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap() };
        for k in ["k0", "k1", "k2", "k3"] {
            let from = fixture(&format!("trajectories/zoo/{k}"));
            let to = scene.path("zoo").join(k);
            fs::create_dir_all(&to).unwrap();
            let mut config: Value =
                serde_json::from_str(&fs::read_to_string(from.join("config.json")).unwrap()).unwrap();
            ["id2label", "label2id"].iter().for_each(|field| drop(config.as_object_mut().unwrap().remove(*field)));
            fields.iter().for_each(|(field, value)| config[*field] = value.clone());
            fs::write(to.join("config.json"), config.to_string()).unwrap();
            let tensors = Tensor::read_safetensors(from.join("model.safetensors")).unwrap();
            let cut = |(name, tensor): (String, Tensor)| match name.starts_with("classifier.") {
                true => (name, tensor.narrow(0, 0, outputs).contiguous()),
                false => (name, tensor),
            };
            let tensors: Vec<_> = tensors.into_iter().map(cut).collect();
            Tensor::write_safetensors(&tensors, to.join("model.safetensors")).unwrap();
        }
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a split of 24 samples, whose inputs are those of the fixture unless others are given.
    fn data(&self, name: &str, given: Option<Tensor>, targets: Option<Tensor>) {
        let mut tensors = vec![("inputs", given.unwrap_or_else(inputs))];
        tensors.extend(targets.map(|targets| ("labels", targets)));
        Tensor::write_safetensors(&tensors, self.path(name)).unwrap();
    }

    fn text(&self, zoo: &str, data: &str, soup: &str) -> String {
        format!(
            "[zoo]\ningredients = ['zoo/*']\n{zoo}\n[data]\nlearn = 'learn.safetensors'\nselect = 'learn.safetensors'\n\
             {data}\n[soup]\nbatch = 6\ninner_epochs = 3\n{soup}"
        )
    }

    fn scores(&self, data: &str, soup: &str) -> Result<(Manifest, Vec<String>), EngineError> {
        self.scores_of(&self.text("allow_chance = true", data, soup))
    }

    fn scores_of(&self, text: &str) -> Result<(Manifest, Vec<String>), EngineError> {
        let (mut engine, _) = engine(self.folder.path(), text, Kind::Float);
        let mut recorder = Recorder::default();
        let manifest = engine.scores(None, &mut recorder)?;
        Ok((manifest, recorder.notes))
    }

    fn refused(&self, data: &str, soup: &str) -> String {
        let path = format!("{}/", self.folder.path().display());
        match self.scores(data, soup) {
            Err(EngineError::Input(what)) => what.replace(&path, ""),
            other => panic!("{other:?}"),
        }
    }
}

fn inputs() -> Tensor {
    let learn = Tensor::read_safetensors(fixture("trajectories/learn.safetensors")).unwrap();
    learn.into_iter().find(|(name, _)| name == "inputs").unwrap().1
}

/// The samples with another view of each: noise added.
fn tuples(texts: usize) -> Tensor {
    tch::manual_seed(3);
    let views = (0..texts).map(|text| inputs() + text as f64 * 0.3 * inputs().randn_like());
    Tensor::stack(&views.collect::<Vec<_>>(), 1)
}

fn zeros(shape: &[i64]) -> Tensor {
    Tensor::zeros(shape, (Kind::Float, Device::Cpu))
}

/// Samples of class c, as the fixture has them, have label c and the next one.
fn two_labels() -> Tensor {
    let classes = Tensor::arange(24, (Kind::Int64, Device::Cpu)).remainder(4);
    let of = |shift: i64| (&classes + shift).remainder(4).one_hot(4);
    of(0) + of(1)
}

fn names(score: &SplitScore) -> Vec<&'static str> {
    score.metrics().map(|(metric, _)| metric.name()).collect()
}

/// Runs a method, and answers the names of the values of single units that are kept.
fn learned(scene: &Scene, data: &str, soup: &str) -> (mehl_soup::runner::engine::Completion, Vec<String>) {
    let text = scene.text("allow_chance = true", data, soup);
    let (completion, _) = run(scene.folder.path(), &text, Kind::Float).unwrap();
    let bytes = completion.units.to_bytes();
    let mut kept: Vec<String> =
        SafeTensors::deserialize(&bytes).unwrap().names().iter().map(|name| name.to_string()).collect();
    kept.sort();
    (completion, kept)
}

#[test]
fn multi_label_models_are_recognised_scored_and_learned() {
    let scene = Scene::new(4, &[("problem_type", json!("multi_label_classification"))]);
    scene.data("learn.safetensors", None, Some(two_labels()));
    let (manifest, notes) = scene.scores("", "").unwrap();
    assert_eq!(manifest.objective, Objective::MultiLabel);
    let score = manifest.ingredients[0].select.unwrap();
    assert_eq!((names(&score), score.samples), (vec!["label_accuracy", "exact_match"], 24));
    assert!(notes.iter().any(|note| note.starts_with("assumed: objective `multi-label`, because of problem_type")));
    let (completion, kept) = learned(&scene, "", "method = 'mehl'\nmodel_batch = 4");
    assert_eq!(kept, ["select.exact_match", "select.label_accuracy", "select.loss"]);
    // One output is right for half of what is there, and all are learned for it: no worse than
    // where it began.
    let uniform = learned(&scene, "", "method = 'uniform'").0.scores.select.loss;
    assert!(completion.scores.select.loss < uniform, "{:?} {uniform}", completion.scores);
    // Stated for models that do not say.
    let silent = Scene::new(4, &[]);
    silent.data("learn.safetensors", None, Some(two_labels().to_kind(Kind::Float)));
    let (stated, notes) = silent.scores("objective = 'multi-label'\nmetric = 'exact_match'", "").unwrap();
    assert_eq!(stated.ingredients[0].select, manifest.ingredients[0].select);
    assert!(!notes.iter().any(|note| note.contains("objective")), "{notes:?}");
    assert_ne!(Manifest { objective: Objective::Classification, ..stated.clone() }.inputs_hash(), stated.inputs_hash());
    // Widths that differ.
    silent.data("learn.safetensors", None, Some(zeros(&[24, 3])));
    let told = silent.refused("objective = 'multi-label'", "");
    let expected = "learn.safetensors: `labels`: expected 4 labels for a sample, the number of the model's outputs, \
                    found shape [24, 3]";
    assert_eq!(told, expected);
    assert!(silent.refused("", "").starts_with("learn.safetensors: tensor `labels`: expected shape [N]"));
}

#[test]
fn models_of_one_output_are_regressions_unless_a_score_is_stated() {
    let scene = Scene::new(1, &[("id2label", json!({"0": "LABEL_0"}))]);
    let brightness = inputs().flatten(1, -1).mean_dim(&[1i64][..], false, Kind::Float);
    scene.data("learn.safetensors", None, Some(brightness.shallow_clone()));
    let (manifest, notes) = scene.scores("metric = 'spearman'", "").unwrap();
    assert_eq!(manifest.objective, Objective::Regression);
    assert!(
        notes.iter().any(|note| note.contains("objective `regression`, because of one output and no problem_type"))
    );
    assert_eq!(names(&manifest.ingredients[0].select.unwrap()), ["pearson", "spearman"]);
    let uniform = learned(&scene, "", "method = 'uniform'").0.scores.select.loss;
    for method in ["learned", "mehl"] {
        let (completion, kept) = learned(&scene, "", &format!("method = '{method}'"));
        assert_eq!(kept, ["select.loss"], "correlations are no means over samples");
        let file = CoefficientsFile::from_bytes(&completion.coefficients).unwrap();
        assert_eq!(file.about.objective.to_string(), "regression");
        assert!(completion.scores.select.loss < uniform, "{method}: {:?} {uniform}", completion.scores.select.loss);
    }
    scene.data("learn.safetensors", None, Some(&brightness + 1.0));
    assert!(scene.refused("objective = 'score'", "").contains("expected values from 0 to 1 for objective `score`"));
    scene.data("learn.safetensors", None, Some(brightness.sigmoid().view([24, 1])));
    let (manifest, _) = scene.scores("objective = 'score'", "").unwrap();
    assert_eq!(manifest.objective, Objective::Score);
    let of =
        |method: &str| learned(&scene, "objective = 'score'", &format!("method = '{method}'")).0.scores.select.loss;
    assert!(of("mehl") < of("uniform"));
    // More outputs than one.
    let wide = Scene::new(4, &[]);
    wide.data("learn.safetensors", None, Some(brightness));
    let told = wide.refused("objective = 'regression'", "");
    let expected = "learn.safetensors: expected one output of the model for a sample, [2, 1], for objective \
                    `regression`, found [2, 4]";
    assert_eq!(told, expected);
}

#[test]
fn pairs_are_scored_in_the_same_batches_whatever_score_batch_is() {
    let scene = Scene::new(4, &[]);
    fs::write(scene.path("zoo/k0/modules.json"), "[]").unwrap();
    scene.data("learn.safetensors", Some(tuples(3)), None);
    let told = scene.refused("", "");
    assert!(told.contains("expected an encoder of sentence-transformers (modules.json) as in zoo/k0"), "{told}");
    ["k1", "k2", "k3"].iter().for_each(|k| fs::write(scene.path("zoo").join(k).join("modules.json"), "[]").unwrap());
    let (manifest, notes) = scene.scores("", "").unwrap();
    assert_eq!(manifest.objective, Objective::Pairs { scale: 20.0, batch: 6, seed: 0 });
    let score = manifest.ingredients[0].select.unwrap();
    assert_eq!((names(&score), score.samples), (vec!["accuracy_at_1"], 4));
    let said = |part: &str| assert!(notes.iter().any(|note| note.contains(part)), "{part}: {notes:?}");
    said("assumed: objective `pairs`, because of an encoder of sentence-transformers");
    said("select is scored in 4 batches of 6 pairs (soup.batch)");
    let text = scene.text("allow_chance = true", "", "");
    for batch in [1, 7] {
        let (other, _) = scene.scores_of(&format!("{text}\n[compute]\nscore_batch = {batch}")).unwrap();
        assert_eq!(other.ingredients[0].select, Some(score));
    }
    for (data, soup) in [("scale = 5", ""), ("", "batch = 5")] {
        let text = scene.text("allow_chance = true", data, "");
        let text = if soup.is_empty() { text } else { text.replace("batch = 6", soup) };
        let (other, _) = scene.scores_of(&text).unwrap();
        assert_ne!(other.ingredients[0].select, Some(score));
        assert_ne!(other.inputs_hash(), manifest.inputs_hash());
    }
    let (mut planner, _) = engine(scene.folder.path(), &text, Kind::Float);
    let plan = planner.plan(&mut |_| {}).unwrap();
    assert!(plan.tasks.iter().all(|task| task.refused.is_none()) && plan.tasks.last().unwrap().iterations > 0);
    let uniform = learned(&scene, "", "method = 'uniform'").0.scores.select.loss;
    for method in ["learned", "mehl+"] {
        let (completion, kept) = learned(&scene, "", &format!("method = '{method}'"));
        assert!(completion.scores.select.loss < uniform, "{method}: {:?} {uniform}", completion.scores.select.loss);
        // All tasks are scored in the same batches, so these can be compared one by one.
        assert_eq!(kept, ["select.accuracy_at_1", "select.loss"]);
    }
}

#[test]
fn pairs_that_cannot_be_compared_are_refused_and_repeated_texts_are_told() {
    let scene = Scene::new(4, &[]);
    let of = |inputs: Tensor| scene.data("learn.safetensors", Some(inputs), None);
    of(tuples(2));
    let pairs = "objective = 'pairs'";
    let one = scene.text("allow_chance = true", pairs, "").replace("batch = 6", "batch = 1");
    let told = scene.scores_of(&one).unwrap_err().to_string();
    assert!(told.contains("soup.batch = 1: objective `pairs` compares each pair with the others"), "{told}");
    // Searched: the task is refused, not the sweep.
    let text = scene.text("allow_chance = true", pairs, "method = 'mehl'");
    let (mut engine, mut task) = engine(scene.folder.path(), &text, Kind::Float);
    let manifest = engine.scores(None, &mut Recorder::default()).unwrap();
    task.soup.batch = 1;
    let told = engine.run(&task, &manifest, None, &mut Recorder::default()).err().unwrap().to_string();
    assert!(told.contains("soup.batch = 1"), "{told}");
    // 24 pairs in batches of 23: one is left over, and learned with the others.
    let text = text.replace("batch = 6", "batch = 23");
    run(scene.folder.path(), &text, Kind::Float).unwrap();
    of(tuples(2).narrow(0, 0, 1));
    assert!(scene.refused(pairs, "").contains("learn.safetensors: expected two or more pairs"));
    of(tuples(1));
    let told = scene.refused(pairs, "");
    assert!(told.contains("tensor `inputs`: expected shape [N, texts, ...] with two or more texts"), "{told}");
    of(inputs());
    // [N, 1, 8, 8] is one text a sample.
    assert!(scene.refused(pairs, "").contains("found [24, 1, 8, 8]"));
    let repeated = tuples(2);
    repeated.narrow(0, 1, 1).copy_(&repeated.narrow(0, 0, 1));
    of(repeated);
    let text = scene.text("allow_chance = true", pairs, "").replace("batch = 6", "batch = 100");
    let (_, notes) = scene.scores_of(&text).unwrap();
    let said = |part: &str| assert!(notes.iter().any(|note| note.contains(part)), "{part}: {notes:?}");
    said("2 of 24 select pairs have a text that another pair of their batch has too");
    said("select is one batch, so its standard errors are not known");
}

#[test]
fn contradictions_are_told_with_both_values() {
    let scene = Scene::new(4, &[("problem_type", json!("regression"))]);
    scene.data("learn.safetensors", None, Some(zeros(&[24])));
    let told = scene.refused("objective = 'multi-label'", "");
    let expected = "zoo/k0/config.json: expected a model for data.objective = \"multi-label\", found problem_type \
                    `regression`, which stands for \"regression\"";
    assert_eq!(told, expected);
    let told = scene.refused("metric = 'accuracy'", "");
    let expected = "data.metric: expected one of loss, pearson, spearman with objective `regression`, found `accuracy`";
    assert_eq!(told, expected);
    let told = scene.refused("scale = 5", "");
    assert_eq!(told, "data.scale = 5: can only be used with objective `pairs`, found objective `regression`");
}

#[test]
fn ingredients_must_be_better_than_a_constant() {
    // Targets that have nothing to do with the samples.
    tch::manual_seed(9);
    let scene = Scene::new(1, &[]);
    let noise = Tensor::rand([24], (Kind::Float, Device::Cpu));
    scene.data("learn.safetensors", None, Some(noise.shallow_clone()));
    let chance = |scene: &Scene, data: &str| match scene.scores_of(&scene.text("", data, "")) {
        Err(EngineError::Input(what)) => what,
        other => panic!("{other:?}"),
    };
    for objective in ["regression", "score"] {
        let told = chance(&scene, &format!("objective = '{objective}'"));
        assert!(told.contains("so targets or preprocessing are probably wrong. On 24 select samples"), "{told}");
        assert!(told.contains("(guessing the mean target: ") && told.contains("the highest pearson is"), "{told}");
    }
    let scene = Scene::new(4, &[]);
    let labels = noise.unsqueeze(1).repeat([1, 4]).gt(0.5).to_kind(Kind::Uint8);
    scene.data("learn.safetensors", None, Some(labels));
    let told = chance(&scene, "objective = 'multi-label'");
    assert!(told.contains("(guessing by label frequencies: ") && told.contains("highest label_accuracy"), "{told}");
    let unrelated = Tensor::stack(&[inputs(), inputs().randn_like()], 1);
    scene.data("learn.safetensors", Some(unrelated), None);
    let told = chance(&scene, "objective = 'pairs'");
    assert!(told.contains("On 4 select batches") && told.contains("(guessing one of 6 candidates: 1.7918)"), "{told}");
    assert!(told.contains("accuracy_at_1") && told.contains("16.67 %"), "{told}");
    // Views of one sample are near each other.
    scene.data("learn.safetensors", Some(tuples(2)), None);
    scene.scores_of(&scene.text("", "objective = 'pairs'", "")).unwrap();
}

#[test]
fn images_have_no_other_targets() {
    let scene = Scene::new(4, &[]);
    images::folder(&scene.path("animals"), &["ant", "bee", "cat", "dog"], 3, 1);
    let image = "[data.image]\nsize = 8\nmean = 0.5\nstd = 0.5\n[soup]";
    for objective in ["multi-label", "regression", "score", "pairs"] {
        let text = scene.text("allow_chance = true", &format!("objective = '{objective}'"), "");
        let text = text.replace("learn.safetensors", "animals").replace("[soup]", image);
        let told = scene.scores_of(&text).unwrap_err().to_string();
        assert!(
            told.contains(&format!("animals: expected targets for objective `{objective}`, found images")),
            "{told}"
        );
    }
}

/// Two inputs, both tuples: each text of a sample keeps its own mask.
#[test]
fn a_torchscript_module_embeds_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let learn = Tensor::read_safetensors(fixture("text/learn.safetensors")).unwrap();
    let find = |name: &str| learn.iter().find(|(own, _)| own == name).unwrap().1.narrow(0, 0, 12);
    // Positives are what follows.
    let tuple = |name: &str| Tensor::stack(&[find(name), find(name).roll([1i64], [0i64])], 1);
    let tensors = ["input_ids", "attention_mask"].map(|name| (name, tuple(name)));
    Tensor::write_safetensors(&tensors, folder.path().join("pairs.safetensors")).unwrap();
    let text = format!(
        "[zoo]\ningredients = ['{}']\narchitecture = '{}'\nallow_chance = true\n[data]\nlearn = 'pairs.safetensors'\n\
         select = 'pairs.safetensors'\ninputs = ['input_ids', 'attention_mask']\nobjective = 'pairs'\n[soup]\nbatch = 12",
        fixture("text/zoo/*").display(),
        fixture("text/model.pt").display()
    );
    let (mut engine, _) = engine(folder.path(), &text, Kind::Double);
    let manifest = engine.scores(None, &mut Recorder::default()).unwrap();
    let spec = ZooSpec { architecture: Some(fixture("text/model.pt")), ..zoo_spec(Some(Family::Torchscript)) };
    let model = load(&[fixture("text/zoo/a.safetensors")], &spec);
    let of = |shift: i64| {
        let inputs = ["input_ids", "attention_mask"].map(|name| (name.to_string(), find(name).roll([shift], [0i64])));
        let embeddings = model.outputs(&ModelInputs::new(inputs.into()), Pass::Score.full()).unwrap().detach();
        let norms = embeddings.norm_scalaropt_dim(2, [1i64], true);
        embeddings / norms
    };
    let similarities = of(0).matmul(&of(1).tr()) * 20.0;
    let right = Tensor::arange(12, (Kind::Int64, Device::Cpu));
    let expected =
        similarities.cross_entropy_loss::<Tensor>(&right, None, Reduction::Mean, -100, 0.0).double_value(&[]);
    let found = manifest.ingredients[0].select.unwrap();
    assert!((found.loss - expected).abs() < 1e-9, "{} {expected}", found.loss);
    assert_eq!(found.samples, 1);
}
