//! Sweeps over graphs of `python -m mehl_soup export`: killed and resumed, learned in bf16, and with data that do not fit.

use std::fs;
use std::path::Path;

use crate::support::fixture;
use crate::support::programs::{Place, Tensors, assert_same_coefficients, edit, read_tensors, write_tensors};
use mehl_soup::sweep::spec::ComputeDtype;
use mehl_soup_worker::rng;
use rand_chacha::rand_core::Rng;
use safetensors::Dtype;

const SAMPLES: usize = 24;

fn floats(count: usize, seed: u64) -> Vec<u8> {
    let mut rng = rng::generator(seed, "floats", &[]);
    (0..count).flat_map(|_| (rng.next_u32() as f32 / u32::MAX as f32 - 0.5).to_le_bytes()).collect()
}

fn split(seed: u64, side: usize) -> Tensors {
    let shape = vec![SAMPLES, 3, side, side];
    let labels = (0..SAMPLES as i64).flat_map(|i| ((i + seed as i64) % 3).to_le_bytes()).collect();
    [
        ("inputs".to_string(), (Dtype::F32, shape.clone(), floats(shape.iter().product(), seed))),
        ("labels".to_string(), (Dtype::I64, vec![SAMPLES], labels)),
    ]
    .into()
}

/// A place with a case's zoo and graph, and random data.
fn place(case: &str) -> Place {
    let place = Place::new();
    copy(&fixture("exported").join(case), &place.path("zoo"), "zoo");
    copy(&fixture("exported").join(case), &place.path("exported"), "exported");
    // Images of the smallest size that the graph takes.
    let side = if case == "renamed" { 16 } else { 32 };
    for (seed, name) in ["learn", "select"].iter().enumerate() {
        write_tensors(&place.path(&format!("{name}.safetensors")), &split(seed as u64, side));
    }
    place
}

fn copy(case: &Path, to: &Path, part: &str) {
    for entry in fs::read_dir(case.join(part)).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        match from.is_dir() {
            true => copy(from.parent().unwrap(), &to, from.file_name().unwrap().to_str().unwrap()),
            false => {
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(&from, &to).unwrap();
            }
        }
    }
}

fn spec(soup: &str, compute: &str) -> String {
    format!(
        "name = 'exported'\n[zoo]\nallow_chance = true\ningredients = ['zoo/*']\narchitecture = 'exported'\n[data]\n\
         learn = 'learn.safetensors'\nselect = 'select.safetensors'\n[soup]\nbatch = 8\n{soup}\n[compute]\n{compute}\n"
    )
}

#[test]
fn a_killed_sweep_goes_on_as_if_it_had_not_been() {
    for (case, dtype) in [("renamed", "bf16"), ("batch-norm", "bf16"), ("batch-norm", "f32")] {
        let place = place(case);
        let soup = "method = 'mehl+'\ninner_epochs = 100\npatience = 100\nlayer_groups = 'block'";
        let compute = |seconds: u32| format!("threads = 1\ndtype = '{dtype}'\ncheckpoint_seconds = {seconds}");
        place.spec("whole.toml", &spec(soup, &compute(3600)));
        place.run("whole.toml", "whole").expect(0);
        place.spec("sweep.toml", &spec(soup, &compute(0)));
        for _ in 0..2 {
            let mut run = place.start("sweep.toml", "killed");
            let mut changes = (0, None);
            run.watch(|| {
                let checkpoint = place.tree("killed/tasks").into_iter().find(|f| f.ends_with("checkpoint.safetensors"));
                let bytes = checkpoint.and_then(|file| fs::read(place.path("killed/tasks").join(file)).ok());
                let now = bytes.map(|bytes| blake3::hash(&bytes));
                changes = if now == changes.1 { changes } else { (changes.0 + 1, now) };
                changes.0 > 20
            });
            assert_eq!(run.kill().code, None, "{case}: killed too late");
        }
        place.run("sweep.toml", "killed").expect(0);
        assert_same_coefficients(&place, "whole", "killed");
        let results = place.results("killed");
        let row = results.tasks.iter().find(|row| row.method.is_on_hyperplane()).unwrap();
        let expected = if dtype == "bf16" { ComputeDtype::Bf16 } else { ComputeDtype::F32 };
        assert_eq!((row.dtype, row.exact), (Some(expected), Some(true)), "{case}");
        // The model that is written has the names of the ingredients, running statistics included.
        let written = read_tensors(&place.path("killed/best/model.safetensors"));
        let of = read_tensors(&place.path("zoo/a/model.safetensors"));
        assert_eq!(written.keys().collect::<Vec<_>>(), of.keys().collect::<Vec<_>>());
        assert!(place.read("whole/best/model.safetensors") == place.read("killed/best/model.safetensors"), "{case}");
    }
}

/// Runs after `spoil`; it must be refused with all of `says`.
fn refused(case: &str, spec: &str, spoil: impl FnOnce(&Place), says: &[&str]) {
    let place = place(case);
    place.spec("sweep.toml", spec);
    spoil(&place);
    let ended = place.run("sweep.toml", "out").expect(2).says(&["error: "]).says(says);
    assert_eq!(ended.stdout, "");
    assert!(!place.path("out/results.json").exists());
}

fn both_splits(place: &Place, change: impl Fn(&mut Tensors)) {
    for name in ["learn", "select"] {
        edit(&place.path(&format!("{name}.safetensors")), &change);
    }
}

#[test]
fn data_that_the_graph_does_not_take() {
    let sound = spec("method = 'mehl+'\ninner_epochs = 1", "threads = 1");
    let resized = |side: usize| {
        move |place: &Place| {
            both_splits(place, |tensors| {
                let shape = vec![SAMPLES, 3, side, side];
                tensors.insert("inputs".into(), (Dtype::F32, shape.clone(), floats(shape.iter().product(), 3)));
            });
        }
    };
    let says = ["learn.safetensors", "tensor `inputs`: expected [3, 16 to 32, 16 to 32]", "found [3, 8, 8]"];
    refused("renamed", &sound, resized(8), &says);
    let whole = |place: &Place| {
        both_splits(place, |tensors| {
            let (dtype, shape, _) = tensors["inputs"].clone();
            assert_eq!(dtype, Dtype::F32);
            let bytes = vec![1; shape.iter().product::<usize>() * 8];
            tensors.insert("inputs".into(), (Dtype::I64, shape, bytes));
        });
    };
    refused("renamed", &sound, whole, &["tensor `inputs`: expected floating point values, found I64"]);
    let two = sound.replace("[soup]", "inputs = ['inputs', 'mask']\n[soup]");
    let with_mask = |place: &Place| {
        both_splits(place, |tensors| {
            drop(tensors.insert("mask".into(), (Dtype::F32, vec![SAMPLES, 1], floats(SAMPLES, 4))))
        });
    };
    refused("renamed", &two, with_mask, &["expected 1 inputs as required by the model, found 2"]);
    let label = |place: &Place| {
        both_splits(place, |tensors| {
            let labels = (0..SAMPLES as i64).flat_map(|i| (i % 4).to_le_bytes()).collect();
            tensors.insert("labels".into(), (Dtype::I64, vec![SAMPLES], labels));
        });
    };
    refused("renamed", &sound, label, &["label", "3"]);
}

#[test]
fn graphs_that_do_not_fit_the_zoo() {
    let sound = spec("method = 'mehl+'\ninner_epochs = 1", "threads = 1");
    let other = |place: &Place| {
        fs::remove_dir_all(place.path("exported")).unwrap();
        copy(&fixture("exported/batch-norm"), &place.path("exported"), "exported");
    };
    refused(
        "renamed",
        &sound,
        other,
        &["only in the graph: ", "only in the ingredient: ", "python -m mehl_soup export"],
    );
    let gone = |place: &Place| fs::remove_file(place.path("exported/graph.pt")).unwrap();
    refused("renamed", &sound, gone, &["graph.pt", "make the folder again with"]);
    let torn = |place: &Place| {
        let file = place.path("exported/graph.pt");
        let bytes = fs::read(&file).unwrap();
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    };
    refused("renamed", &sound, torn, &["graph.pt: was changed after the export"]);
    let no_folder = sound.replace("'exported'", "'nowhere'");
    refused("renamed", &no_folder, |_| {}, &["nowhere"]);
}
