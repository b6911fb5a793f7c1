//! Memory that runs out in the middle of a task: the task goes on with smaller model batches. Alone in its process, whose limit it lowers.

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mehl_soup::checkpoint::Checkpoint;
use mehl_soup::runner::engine::SoupEngine;
use mehl_soup_worker::families::VitConfig;
use mehl_soup_worker::rng;
use rand_chacha::rand_core::Rng;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use support::{Recorder, engine};
use tch::Kind;

const CLASSES: i64 = 4;

/// About 34 MB of weights an ingredient.
fn config() -> serde_json::Value {
    serde_json::json!({
        "architectures": ["ViTForImageClassification"], "model_type": "vit", "patch_size": 8, "image_size": 16,
        "hidden_size": 384, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 1536,
    })
}

fn write(path: &Path, tensors: &BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn floats(shape: &[usize], scale: f32, seed: u64) -> Vec<u8> {
    let mut rng = rng::generator(seed, "floats", &[]);
    let n: usize = shape.iter().product();
    (0..n).flat_map(|_| ((rng.next_u32() as f32 / u32::MAX as f32 - 0.5) * scale).to_le_bytes()).collect()
}

fn make(folder: &Path, ingredients: u64) {
    let vit = VitConfig::from_json(&config()).unwrap();
    for k in 0..ingredients {
        let at = folder.join(format!("zoo/k{k}"));
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("config.json"), config().to_string()).unwrap();
        let tensors = vit.tensors(CLASSES).into_iter().enumerate().map(|(i, (name, shape))| {
            let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
            let bytes = floats(&shape, 0.1, 1000 * k + i as u64);
            (name, (Dtype::F32, shape, bytes))
        });
        write(&at.join("model.safetensors"), &tensors.collect());
    }
    let shape = vec![12, 3, 16, 16];
    let labels = (0..12i64).flat_map(|i| (i % CLASSES).to_le_bytes()).collect();
    let learn = BTreeMap::from([
        ("inputs".to_string(), (Dtype::F32, shape.clone(), floats(&shape, 2.0, 7))),
        ("labels".to_string(), (Dtype::I64, vec![12], labels)),
    ]);
    write(&folder.join("learn.safetensors"), &learn);
}

/// Private memory of this process that counts towards `RLIMIT_DATA`, in bytes.
fn data_size() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn allow(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a plain struct that the call only reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) }, 0);
}

#[test]
fn a_task_goes_on_with_smaller_model_batches() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), 6);
    let learn = folder.path().join("learn.safetensors");
    let spec = format!(
        "[zoo]\ningredients = ['{}']\n[data]\nlearn = '{learn}'\nselect = '{learn}'\n\
         [soup]\nmethod = 'mehl+'\nmodel_batch = 5\ninner_epochs = 2\nbatch = 6\n[compute]\ndtype = 'f32'\n",
        folder.path().join("zoo/*").display(),
        learn = learn.display()
    );
    let (mut engine, task) = engine(folder.path(), &spec, Kind::Float);
    let manifest = engine.scores(None, &mut Recorder::default()).unwrap();
    // Centre, gradient and three ingredients take five models, five ingredients seven.
    let model = fs::metadata(folder.path().join("zoo/k0/model.safetensors")).unwrap().len();
    allow(data_size() + 6 * model);
    let mut recorder = Recorder::default();
    let completion = engine.run(&task, &manifest, None, &mut recorder);
    allow(libc::RLIM_INFINITY);
    let completion = completion.unwrap_or_else(|error| panic!("{error}"));
    assert!(!completion.exact);
    let note = recorder.notes.iter().find(|note| note.contains("out of memory with 5 ingredients")).unwrap();
    assert!(note.contains("at most 3"), "{note}");
    let last: &Checkpoint = recorder.checkpoints.last().unwrap();
    assert_eq!(last.cuts, [(0, 3)]);
    assert_eq!(last.finished.iter().map(|batch| batch.members.len()).collect::<Vec<_>>(), [3, 3]);

    // A checkpoint from after the cut is gone on with as the task would have.
    let cut = recorder.checkpoints.iter().find(|c| c.cuts.len() == 1 && c.finished.len() == 1).unwrap().clone();
    let again = engine.run(&task, &manifest, Some(cut), &mut Recorder::default()).unwrap();
    assert_eq!(again.coefficients, completion.coefficients);
}
