//! A task whose zoo, data and module lie in memory gives the bits of one whose files lie on disk.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use crate::memory_source::Memory;
use crate::support::images::{Scene, folder, labels, values};
use crate::support::{coefficients, fixture, run};
use mehl_soup::coefficients::Coefficients;
use mehl_soup_worker::data::Data;
use tch::Kind;

fn memory() -> &'static Memory {
    static MEMORY: OnceLock<Memory> = OnceLock::new();
    MEMORY.get_or_init(|| Memory::mounted("memory"))
}

/// Coefficients and losses of a task on the fixtures in `root`.
fn learned(root: &Path, rest: &str) -> (Coefficients, Vec<u64>) {
    let place = tempfile::tempdir().unwrap();
    let text = rest.replace("ROOT", root.to_str().unwrap());
    let (completion, recorder) = run(place.path(), &text, Kind::Float).unwrap();
    (coefficients(&completion), recorder.losses.iter().map(|loss| loss.to_bits()).collect())
}

#[track_caller]
fn learns_alike(fixtures: &str, text: &str) {
    let in_memory = Path::new("memory:/").join(fixtures);
    memory().copy_of(&fixture(fixtures), &in_memory);
    let from_files = learned(&fixture(fixtures), text);
    assert!(!from_files.1.is_empty());
    assert_eq!(learned(&in_memory, text), from_files);
}

#[test]
fn coefficients_learned_from_memory_are_those_learned_from_files() {
    learns_alike(
        "trajectories",
        "seed = 4\n[zoo]\nallow_chance = true\ningredients = ['ROOT/zoo/*']\n\
         [data]\nlearn = 'ROOT/learn.safetensors'\nselect_fraction = 0.5\n\
         [soup]\nmethod = 'mehl+'\nmodel_batch = 2\ninner_epochs = 2\nbatch = 10\n",
    );
}

#[test]
fn a_module_in_memory_computes_as_one_in_a_file() {
    learns_alike(
        "text",
        "[zoo]\nallow_chance = true\ningredients = ['ROOT/zoo/*']\nfamily = 'torchscript'\n\
         architecture = 'ROOT/model.pt'\n[data]\nlearn = 'ROOT/learn.safetensors'\n\
         select = 'ROOT/select.safetensors'\ninputs = ['input_ids', 'attention_mask']\n\
         [soup]\nmethod = 'mehl+'\nmodel_batch = 2\ninner_epochs = 2\nbatch = 20\n",
    );
}

const PLAIN: &str = "image = { resize = [8, 8], mean = 0, std = 1 }\n";

fn facts(data: &Data) -> (Vec<(String, usize)>, Vec<i64>, Vec<f32>) {
    let entries = data.entries.iter().map(|entry| (entry.hash.clone(), entry.samples)).collect();
    (entries, labels(&data.learn), values(&data.learn))
}

#[test]
fn images_from_memory_are_those_of_folders_tables_and_parquet() {
    let scene = Scene::new();
    folder(&scene.path("data/images"), &["b", "a"], 3, 0);
    fs::write(scene.path("data/images/a/readme.txt"), "text").unwrap();
    let rows = "path,label\nimages/a/0.png,1\nimages/b/1.png,0\nimages/b/2.png,1\n";
    fs::write(scene.path("data/table.csv"), rows).unwrap();
    fs::create_dir(scene.path("data/parquet")).unwrap();
    let parquet = fixture("images/parquet/data.parquet");
    for name in ["test-0.parquet", "train-0.parquet"] {
        fs::copy(&parquet, scene.path("data/parquet").join(name)).unwrap();
    }
    memory().copy_of(&scene.path("data"), Path::new("memory:/images"));
    let load =
        |root: &str, name: &str| scene.load(&format!("learn = '{root}/{name}'\nselect = '{root}/{name}'\n{PLAIN}"));
    for name in ["images", "table.csv", "parquet#train", "parquet/train-*.parquet"] {
        let expected = facts(&load("data", name).unwrap());
        assert_eq!(facts(&load("memory:/images", name).unwrap()), expected, "{name}");
        // Again, with hashes that are remembered.
        assert_eq!(facts(&load("memory:/images", name).unwrap()), expected, "{name}");
    }
    // A version of other content is not taken for the remembered one.
    let before = facts(&load("memory:/images", "images").unwrap());
    let (old, new) = (scene.path("data/images/a/0.png"), scene.path("data/images/a/1.png"));
    memory().write(Path::new("memory:/images/images/a/0.png"), &fs::read(&new).unwrap());
    assert_ne!(facts(&load("memory:/images", "images").unwrap()), before);
    fs::copy(&new, &old).unwrap();
    assert_eq!(facts(&load("memory:/images", "images").unwrap()), facts(&load("data", "images").unwrap()));

    // What leads out of a table's folder is refused in any source.
    memory().write(Path::new("memory:/images/out.csv"), b"path,label\n../trajectories/learn.safetensors,0\n");
    let error = load("memory:/images", "out.csv").err().unwrap();
    assert!(error.contains("line 2") && error.contains("points outside"), "{error}");
}
