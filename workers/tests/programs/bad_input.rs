//! Input that cannot be used is told with file, tensor, expected and found; the exit code is 2, and nothing is half-written.

use std::fs;
use std::path::Path;

use crate::support::fixture;
use crate::support::programs::{Ended, Place, Tensors, edit, sound_spec, vit_spec};
use mehl_soup::sweep::spec::{Init, MethodName};
use mehl_soup::task::TaskState;
use safetensors::Dtype;

const WEIGHT: &str = "vit.encoder.layer.0.output.dense.weight";

/// Runs the ViT fixtures' zoo after `spoil`; it must be refused with all of `says`, and leave nothing.
fn refused_zoo(spoil: impl FnOnce(&Path), says: &[&str]) {
    let place = Place::new();
    place.copy_zoo();
    spoil(&place.path("zoo"));
    let spec = vit_spec("zoo/*", &fixture("trajectories/learn.safetensors"), "method = 'mehl+'", "");
    place.spec("sweep.toml", &spec);
    refused(&place, says);
}

/// Runs `sweep.toml`; it must be refused before there is anything worth keeping.
fn refused(place: &Place, says: &[&str]) -> Ended {
    let ended = place.run("sweep.toml", "out").expect(2).says(&["error: "]).says(says);
    assert_eq!(ended.stdout, "");
    let left: Vec<String> = place.tree("out").into_iter().filter(|f| f != ".lock" && f != "sweep.json").collect();
    assert!(left.is_empty(), "half-written: {left:?}");
    ended
}

/// Runs on the sound zoo with a learn split changed by `spoil`.
fn refused_data(spoil: impl FnOnce(&mut Tensors), says: &[&str]) {
    let place = Place::new();
    fs::copy(fixture("trajectories/learn.safetensors"), place.path("learn.safetensors")).unwrap();
    edit(&place.path("learn.safetensors"), spoil);
    let zoo = fixture("trajectories/zoo/*");
    let spec = vit_spec(zoo.to_str().unwrap(), Path::new("learn.safetensors"), "method = 'mehl+'", "");
    // Without a select split, so that it is this one that is at fault.
    let spec = spec.lines().filter(|line| !line.starts_with("select")).collect::<Vec<_>>().join("\n");
    place.spec("sweep.toml", &spec);
    refused(&place, says);
}

/// A specification that is refused before anything is started: nothing at all is written.
fn refused_spec(text: &str, says: &[&str]) {
    let place = Place::new();
    place.spec("sweep.toml", text);
    refused(&place, says);
    assert!(!place.path("out").exists());
}

#[test]
fn a_truncated_ingredient() {
    let cut = |zoo: &Path, bytes: usize| {
        let path = zoo.join("k1/model.safetensors");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - bytes]).unwrap();
    };
    refused_zoo(|zoo| cut(zoo, 1), &["zoo/k1/model.safetensors"]);
    refused_zoo(|zoo| cut(zoo, 3000), &["zoo/k1/model.safetensors"]);
    refused_zoo(|zoo| fs::write(zoo.join("k1/model.safetensors"), "").unwrap(), &["zoo/k1/model.safetensors"]);
}

#[test]
fn an_ingredient_of_a_dtype_that_cannot_be_mixed() {
    refused_zoo(
        |zoo| {
            edit(&zoo.join("k2/model.safetensors"), |tensors| {
                for (dtype, ..) in tensors.values_mut() {
                    *dtype = Dtype::I32;
                }
            });
        },
        &["zoo/k2: ", "tensors of another dtype (`classifier.bias` expected dtype F32, found I32"],
    );
}

#[test]
fn a_missing_and_an_extra_tensor() {
    let file = "k3/model.safetensors";
    refused_zoo(|zoo| edit(&zoo.join(file), |t| drop(t.remove(WEIGHT))), &["zoo/k3: 1 tensor missing", WEIGHT]);
    let extra = |zoo: &Path, name: &str| {
        edit(&zoo.join(name), |t| drop(t.insert("vit.more".into(), (Dtype::F32, vec![1], vec![0; 4]))));
    };
    refused_zoo(|zoo| extra(zoo, file), &["zoo/k3", "vit.more"]);
    // In all of them: the zoo agrees with itself, and not with the model.
    let each = |zoo: &Path| ["k0", "k1", "k2", "k3"].map(|k| extra(zoo, &format!("{k}/model.safetensors")));
    refused_zoo(|zoo| _ = each(zoo), &["zoo/k0", "vit.more", "vit"]);
}

#[test]
fn mismatched_shapes() {
    let reshape = |zoo: &Path| {
        edit(&zoo.join("k1/model.safetensors"), |t| t.get_mut(WEIGHT).unwrap().1 = vec![12, 8]);
    };
    refused_zoo(reshape, &["zoo/k1", WEIGHT, "[8, 12]", "[12, 8]"]);
}

#[test]
fn an_ingredient_that_is_not_finite() {
    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let spoil = |zoo: &Path| {
            edit(&zoo.join("k2/model.safetensors"), |t| {
                t.get_mut(WEIGHT).unwrap().2[20..24].copy_from_slice(&value.to_le_bytes());
            });
        };
        refused_zoo(spoil, &["zoo/k2/model.safetensors", WEIGHT, "finite", shown, "element 5"]);
    }
}

#[test]
fn a_zoo_with_nothing_in_it() {
    refused_zoo(|zoo| fs::remove_dir_all(zoo).unwrap(), &["zoo/*", "matches nothing"]);
    refused_zoo(
        |zoo| {
            fs::remove_dir_all(zoo).unwrap();
            fs::create_dir(zoo).unwrap();
        },
        &["zoo/*", "matches nothing"],
    );
    // Folders without a model are passed over by a glob, but not if there is nothing else, nor if they are named.
    let empty = |zoo: &Path| {
        for k in ["k0", "k1", "k2", "k3"] {
            fs::remove_file(zoo.join(k).join("model.safetensors")).unwrap();
        }
    };
    refused_zoo(empty, &["zoo/*", "no folder with a safetensors model"]);
    let place = Place::new();
    place.copy_zoo();
    empty(&place.path("zoo"));
    let learn = fixture("trajectories/learn.safetensors");
    place.spec("sweep.toml", &vit_spec("zoo/k2", &learn, "", ""));
    refused(&place, &["zoo/k2", "no weights found, expected `model.safetensors`"]);
    refused_spec(
        "[zoo]\ningredients = []\n[data]\nlearn = 'l.safetensors'",
        &["zoo.ingredients", "non-empty list", "found a list of length 0"],
    );
}

#[test]
fn an_unknown_family() {
    let configs = |zoo: &Path, change: &dyn Fn(&Path)| {
        for k in ["k0", "k1", "k2", "k3"] {
            change(&zoo.join(k).join("config.json"));
        }
    };
    let swin = |path: &Path| {
        let text = fs::read_to_string(path).unwrap().replace("\"model_type\": \"vit\"", "\"model_type\": \"swin\"");
        fs::write(path, text).unwrap();
    };
    refused_zoo(
        |zoo| configs(zoo, &swin),
        &["zoo/k0", "describes a model of an unknown family", "`swin`", "tensor names of vit: all found"],
    );
    refused_zoo(
        |zoo| configs(zoo, &|path| fs::remove_file(path).unwrap()),
        &["zoo/k0: expected the configuration of a ViT or DeiT, found none"],
    );
    refused_zoo(|zoo| configs(zoo, &|path| fs::write(path, "{").unwrap()), &["zoo/k0/config.json"]);
}

/// A dtype is called as the file calls it, not as what it was read into.
#[test]
fn inputs_that_are_bytes_are_called_u8() {
    let to_bytes = |tensors: &mut Tensors| {
        let (dtype, _, data) = tensors.get_mut("inputs").unwrap();
        (*dtype, *data) = (Dtype::U8, (0..data.len() / 4).map(|i| (i % 251) as u8).collect());
    };
    refused_data(to_bytes, &["tensor `inputs`: expected floating point values, found U8"]);
}

#[test]
fn labels_and_samples() {
    let label = |value: i64| {
        move |t: &mut Tensors| {
            t.get_mut("labels").unwrap().2[..8].copy_from_slice(&value.to_le_bytes());
        }
    };
    refused_data(label(4), &["learn.safetensors", "labels", "0 to 3", "found 4"]);
    refused_data(label(-1), &["learn.safetensors", "labels", "found -1"]);
    refused_data(
        |t| {
            t.insert("labels".into(), (Dtype::I64, vec![0], vec![]));
            t.insert("inputs".into(), (Dtype::F32, vec![0, 1, 8, 8], vec![]));
        },
        &["learn.safetensors", "expected samples, found none"],
    );
    refused_data(|t| drop(t.remove("inputs")), &["learn.safetensors", "`inputs`", "labels"]);
    refused_data(
        |t| t.get_mut("inputs").unwrap().1 = vec![24, 1, 4, 16],
        &["learn.safetensors", "inputs", "expected [1, 8, 8]", "found [1, 4, 16]"],
    );
    refused_data(|t| t.get_mut("inputs").unwrap().1 = vec![12, 1, 8, 16], &["learn.safetensors", "inputs", "24", "12"]);
    refused_data(
        |t| t.get_mut("inputs").unwrap().2[..4].copy_from_slice(&f32::NAN.to_le_bytes()),
        &["learn.safetensors", "inputs", "finite"],
    );
}

#[test]
fn a_split_that_is_no_file_or_cut_off() {
    let place = Place::new();
    place.spec("sweep.toml", &sound_spec("", "").replace("learn.safetensors'\nselect", "none.safetensors'\nselect"));
    refused(&place, &["none.safetensors", "No such file"]);
    let whole = fs::read(fixture("trajectories/learn.safetensors")).unwrap();
    fs::write(place.path("cut.safetensors"), &whole[..whole.len() - 7]).unwrap();
    let zoo = fixture("trajectories/zoo/*");
    place.spec("cut.toml", &vit_spec(zoo.to_str().unwrap(), Path::new("cut.safetensors"), "", ""));
    place.run("cut.toml", "other").expect(2).says(&["cut.safetensors", "truncated or damaged"]);
}

#[test]
fn splits_that_share_rows_are_told() {
    let place = Place::new();
    place.spec("sweep.toml", &sound_spec("method = 'uniform'", ""));
    place.run("sweep.toml", "out").expect(0).says(&["learn and select share 24 samples"]);
    assert!(place.results("out").notes.iter().any(|note| note.contains("share 24 samples")));
}

#[test]
fn a_loss_that_is_not_finite_fails_its_task_alone() {
    let place = Place::new();
    let search = "[search]\npoints = [{ learning_rate = 1e30 }, { learning_rate = 1e-2 }]";
    place.spec("sweep.toml", &sound_spec("method = 'mehl+'\nbatch = 8\nearly_stopping = false", search));
    place.run("sweep.toml", "out").expect(0).says(&["0001-mehl+ failed", "1 tasks failed"]);
    let results = place.results("out");
    let row = |id: &str| results.tasks.iter().find(|row| row.task_id == id).unwrap();
    let failed = row("0001-mehl+");
    assert_eq!(failed.state, TaskState::Failed);
    let cause = failed.cause.as_deref().unwrap();
    assert!(cause.contains("iteration") && cause.contains("learning_rate"), "{cause}");
    assert!(failed.select.is_none() && !place.path("out/tasks/0001-mehl+/coefficients.safetensors").exists());
    assert_eq!(row("0002-mehl+").state, TaskState::Succeeded);
    assert!(place.path("out/best/model.safetensors").exists());
    // It stays failed until it is asked for again.
    let again = place.run("sweep.toml", "out").expect(0);
    assert!(!again.stderr.contains("task 0001"), "{}", again.stderr);
    let retried = place.mehl_soup(&["run", "sweep.toml", "--out", "out", "--retry-failed"]).expect(0);
    assert!(retried.stderr.contains("task 0001-mehl+ starts") && !retried.stderr.contains("task 0002"));
}

#[test]
fn a_bad_start_is_told() {
    let place = Place::new();
    place.copy_zoo();
    // It is sure of itself, and wrong.
    edit(&place.path("zoo/k1/model.safetensors"), |tensors| {
        let (dtype, _, bytes) = tensors.get_mut("classifier.weight").unwrap();
        assert_eq!(*dtype, Dtype::F32);
        for value in bytes.as_chunks_mut::<4>().0 {
            *value = (f32::from_le_bytes(*value) * -1000.0).to_le_bytes();
        }
    });
    let search = "[search.space]\nmethod = ['mehl+', 'learned']\ninit = ['batch-mean', 'best']";
    let soup = "batch = 16\ninner_epochs = 1\nmodel_batch = 4";
    place.spec("sweep.toml", &vit_spec("zoo/*", &fixture("trajectories/learn.safetensors"), soup, search));
    let said = place.run("sweep.toml", "out").expect(0).stderr;
    let told: Vec<&str> = said.lines().filter(|line| line.contains("starts at a select loss of")).collect();
    let results = place.results("out");
    let started = |method: MethodName, init: Init| {
        let row = results.tasks.iter().find(|row| (row.method, row.hyperparameters.soup.init) == (method, init));
        row.unwrap().task_id.clone()
    };
    assert_eq!(told.len(), 1, "{said}");
    assert!(
        told[0].contains(&started(MethodName::MehlPlus, Init::BatchMean)) && told[0].contains("greedy"),
        "{told:?}"
    );
}

#[test]
fn specifications() {
    let with = |soup: &str, rest: &str| sound_spec(soup, rest);
    refused_spec(&with("metod = 'mehl+'", ""), &["sweep.toml:9", "soup.metod", "did you mean `method`"]);
    refused_spec(&with("method = 'mehl++'", ""), &["soup.method", "`mehl++`", "did you mean `mehl+`?"]);
    refused_spec(&with("", "[serach]"), &["serach", "did you mean `search`"]);
    refused_spec(&with("learning_rate = -1.0", ""), &["soup.learning_rate", "above 0", "found -1"]);
    refused_spec(&with("inner_epochs = 0", ""), &["soup.inner_epochs", "from 1 to", "found 0"]);
    refused_spec(&with("warmup = 2", ""), &["soup.warmup", "at most 1", "found 2"]);
    refused_spec(&with("", "[compute]\ndevices = ['tpu']"), &["compute.devices", "tpu"]);
    refused_spec(
        &with("", "[search]\nspace = { learning_rat = [1e-3] }"),
        &["learning_rat", "did you mean `learning_rate`"],
    );
    // All faults at once.
    refused_spec(&with("batch = 0\npatience = 'x'", ""), &["soup.batch", "soup.patience"]);
    refused_spec("[zoo", &["sweep.toml:1"]);
    let place = Place::new();
    place.run("none.toml", "out").expect(2).says(&["none.toml"]);
    place.mehl_soup(&["run"]).expect(2).says(&["--out"]);
    place.mehl_soup(&["inspect", "none/*"]).expect(2).says(&["none/*", "matches nothing"]);
    place.mehl_soup(&["rum"]).expect(2).says(&["run"]);
}

#[test]
fn a_device_that_is_not_there() {
    let place = Place::new();
    place.spec("sweep.toml", &sound_spec("method = 'uniform'", "[compute]\ndevices = ['cuda:99']"));
    refused(&place, &["compute.devices", "cuda:99"]);
}

#[test]
fn materialize_refuses() {
    let place = Place::new();
    place.copy_zoo();
    let spec = vit_spec("zoo/*", &fixture("trajectories/learn.safetensors"), "method = 'uniform'", "");
    place.spec("sweep.toml", &spec);
    place.run("sweep.toml", "out").expect(0);
    let uniform = "out/tasks/uniform/coefficients.safetensors";
    place.mehl_soup(&["materialize", "none", "--out", "m"]).expect(2).says(&["none", "No such file"]);
    place
        .mehl_soup(&["materialize", "sweep.toml", "--out", "m"])
        .expect(2)
        .says(&["sweep.toml", "not a coefficients file"]);
    fs::create_dir(place.path("taken")).unwrap();
    fs::write(place.path("taken/mine"), "mine").unwrap();
    for flags in [vec![], vec!["--overwrite"]] {
        let arguments: Vec<&str> = ["materialize", uniform, "--out", "taken"].into_iter().chain(flags).collect();
        place.mehl_soup(&arguments).expect(2).says(&["taken"]);
        assert_eq!(place.tree("taken"), ["mine"]);
    }
    edit(&place.path("zoo/k1/model.safetensors"), |t| t.get_mut(WEIGHT).unwrap().2[0] ^= 1);
    place.mehl_soup(&["materialize", uniform, "--out", "m"]).expect(2).says(&["k1", "changed"]);
    let zoo = ["materialize", uniform, "--out", "m", "--zoo", "zoo/*"];
    place.mehl_soup(&zoo).expect(2).says(&["k1", "not among"]);
    assert!(!place.path("m").exists());
}
