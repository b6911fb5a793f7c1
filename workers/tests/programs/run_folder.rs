//! Output folders that cannot be used, run full, or hold what they should not: told, and what is sound in them is left as it is.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use crate::support::fixture;
use crate::support::programs::{Place, Running, assert_same_coefficients, edit, mehl_soup, sound_spec, vit_spec};

const WEIGHT: &str = "vit.encoder.layer.0.output.dense.weight";

#[test]
fn output_folders() {
    let place = Place::new();
    place.spec("sweep.toml", &sound_spec("method = 'uniform'", ""));
    place.spec("other.toml", &sound_spec("method = 'hl'", ""));
    fs::write(place.path("file"), "mine").unwrap();
    place.run("sweep.toml", "file").expect(2).says(&["output folder", "file"]);
    place.run("sweep.toml", "file/deeper").expect(2).says(&["output folder", "file/deeper"]);
    assert_eq!(place.read("file"), b"mine");

    fs::create_dir(place.path("mine")).unwrap();
    fs::write(place.path("mine/thesis.tex"), "mine").unwrap();
    place.run("sweep.toml", "mine").expect(2).says(&["mine", "not empty"]);
    assert_eq!(place.tree("mine"), ["thesis.tex"]);

    place.run("sweep.toml", "out").expect(0);
    let before = place.tree("out");
    place.run("other.toml", "out").expect(2).says(&["out contains another sweep"]);
    let lock = File::options().write(true).open(place.path("out/.lock")).unwrap();
    lock.try_lock().unwrap();
    place.run("sweep.toml", "out").expect(2).says(&["out is in use by another run"]);
    drop(lock);
    assert_eq!(place.tree("out"), before);
    place.run("sweep.toml", "out").expect(0);
}

/// A limit on the size of a file stands for a full disk: writes beyond it fail, as they do there.
#[test]
fn a_full_disk() {
    let place = Place::new();
    // Weights of some hundred kB in the ingredients are more than the limit; coefficients and checkpoints are less.
    place.copy_zoo();
    for k in ["k0", "k1", "k2", "k3"] {
        edit(&place.path("zoo").join(k).join("model.safetensors"), |tensors| {
            for name in ["vit.encoder.layer.0.intermediate.dense.weight", WEIGHT] {
                let (_, shape, data) = tensors.get_mut(name).unwrap();
                *shape = if name == WEIGHT { vec![8, 6000] } else { vec![6000, 8] };
                *data = data.iter().copied().cycle().take(6000 * 8 * 4).collect();
            }
            let (_, shape, data) = tensors.get_mut("vit.encoder.layer.0.intermediate.dense.bias").unwrap();
            (*shape, *data) = (vec![6000], vec![0; 6000 * 4]);
        });
        let config = place.path("zoo").join(k).join("config.json");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(config, text.replace("\"intermediate_size\": 12", "\"intermediate_size\": 6000")).unwrap();
    }
    let learn = fixture("trajectories/learn.safetensors");
    place.spec(
        "sweep.toml",
        &vit_spec("zoo/*", &learn, "method = 'mehl+'\nbatch = 8", "[compute]\ncheckpoint_seconds = 0"),
    );
    let limited = |blocks: u32| {
        let mut command = Command::new("sh");
        // Without the trap the signal would end the process where a full disk only fails the write.
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" run sweep.toml --out out")]);
        command.arg(mehl_soup()).current_dir(place.path(""));
        for (key, value) in place.command().get_envs() {
            command.env(key, value.unwrap());
        }
        Running::start(command).wait()
    };
    // Nothing of some hundred bytes: not even the manifest.
    limited(1).expect(2).says(&["manifest.json", "too large"]);
    assert_eq!(place.tree("out"), [".lock", "sweep.json"]);
    // Manifest and baselines fit, a checkpoint of one coefficient a tensor does not.
    let ended = limited(8).expect(2).says(&["too large"]);
    assert!(ended.stderr.contains("0001-mehl+"), "{}", ended.stderr);
    let kept = place.coefficients_of("out", "uniform");
    assert!(!place.tree("out").iter().any(|file| file.contains("tmp")), "{:?}", place.tree("out"));
    // All tasks are done, the model is not written.
    let ended = limited(400).expect(2).says(&["out/best", "too large"]);
    assert!(ended.stdout.contains("0001-mehl+"), "the table is printed all the same: {}", ended.stdout);
    assert!(!place.path("out/best").exists());
    assert!(!place.tree("out").iter().any(|file| file.contains("tmp")), "{:?}", place.tree("out"));
    // With room it goes on, and what was kept before is as it was.
    place.run("sweep.toml", "out").expect(0);
    assert!(place.path("out/best/model.safetensors").exists());
    assert!(kept == place.coefficients_of("out", "uniform"));
}

#[test]
fn damaged_files_of_the_run_folder() {
    let place = Place::new();
    let soup = "method = 'mehl+'\nmodel_batch = 2\nbatch = 4\ninner_epochs = 6\npatience = 6";
    let text = sound_spec(soup, "[compute]\nthreads = 1\ncheckpoint_seconds = 0");
    place.spec("sweep.toml", &text);
    place.run("sweep.toml", "whole").expect(0);
    let checkpoint = place.path("out/tasks/0001-mehl+/checkpoint.safetensors");
    let spoilers: [fn(&mut Vec<u8>); 3] =
        [|bytes| *bytes.last_mut().unwrap() ^= 1, |bytes| bytes[2] ^= 0xff, |bytes| bytes.truncate(bytes.len() / 2)];
    for spoil in spoilers {
        let mut run = place.start("sweep.toml", "out");
        assert!(run.watch(|| checkpoint.exists()), "over too early");
        run.kill();
        let mut bytes = fs::read(&checkpoint).unwrap();
        spoil(&mut bytes);
        fs::write(&checkpoint, bytes).unwrap();
        place
            .run("sweep.toml", "out")
            .expect(0)
            .says(&["task 0001-mehl+: cannot use the checkpoint", "starts from the beginning"]);
        assert_same_coefficients(&place, "whole", "out");
        fs::remove_dir_all(place.path("out")).unwrap();
    }
    // The manifest decides what tasks are computed on: it is not made anew in silence.
    place.run("sweep.toml", "out").expect(0);
    let before = place.tree("out");
    for file in ["manifest.json", "sweep.json", "tasks/uniform/outcome.json"] {
        let path = place.path("out").join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        place.run("sweep.toml", "out").expect(2).says(&[file, "damaged"]);
        fs::write(&path, whole).unwrap();
        assert_eq!(place.tree("out"), before);
    }
    place.run("sweep.toml", "out").expect(0);
}

#[test]
fn inputs_that_change_while_a_sweep_is_under_way() {
    let place = Place::new();
    place.copy_zoo();
    fs::copy(fixture("trajectories/learn.safetensors"), place.path("learn.safetensors")).unwrap();
    let soup = "method = 'mehl+'\nbatch = 2\ninner_epochs = 300\npatience = 300\nmodel_batch = 2";
    place.spec("sweep.toml", &vit_spec("zoo/*", Path::new("learn.safetensors"), soup, ""));
    let mut run = place.start("sweep.toml", "out");
    assert!(run.watch(|| place.path("out/tasks/uniform/outcome.json").exists()), "over too early");
    run.signal(libc::SIGINT);
    run.wait().expect(130);
    // Results of two zoos are never mixed in one table.
    let manifest = place.read("out/manifest.json");
    for (file, tensor, says) in [
        ("zoo/k1/model.safetensors", WEIGHT, "zoo changed: expected"),
        ("learn.safetensors", "inputs", "data changed: "),
    ] {
        let sound = place.read(file);
        edit(&place.path(file), |t| t.get_mut(tensor).unwrap().2[0] ^= 1);
        let name = file.trim_end_matches("/model.safetensors");
        place.run("sweep.toml", "out").expect(2).says(&[says, name]);
        assert!(place.read("out/manifest.json") == manifest && !place.path("out/results.json").exists());
        fs::write(place.path(file), sound).unwrap();
    }
    fs::rename(place.path("zoo/k3"), place.path("k3")).unwrap();
    place.run("sweep.toml", "out").expect(2).says(&["zoo changed: expected 4 ingredients, found 3"]);
    fs::rename(place.path("k3"), place.path("zoo/k3")).unwrap();
    let mut run = place.start("sweep.toml", "out");
    assert!(run.watch(|| place.path("out/tasks/0001-mehl+/checkpoint.safetensors").exists()), "over too early");
    assert!(!run.kill().stderr.contains("changed"));
}
