//! From coefficients to a model folder, and what must be left when that fails: nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Tensor, counter, entries, floats, read_file, write_model};
use half::{bf16, f16};
use mehl_soup::coefficients::{
    About, Coefficients, CoefficientsFile, IngredientRef, MaterializeError, MaterializeReport, Options, Statistic,
    materialize, mix_tensor,
};
use mehl_soup::sweep::spec::Grouping;
use mehl_soup::zoo::{LayerGroups, Layout, Zoo, ZooError};
use safetensors::Dtype;

const FROZEN: [f64; 2] = [7.0, 0.1];

/// Model k in shards of one tensor or two; mixed `a` and `b`, frozen `f`, copied `n`.
fn model(k: usize, dtype: Dtype, sharded: bool) -> Vec<Vec<Tensor>> {
    let value = |i: usize| ((i * 7 + k * 13) % 11) as f64 / 8.0 - 0.3 * k as f64;
    let a = floats("a", dtype, &[10], &(0..10).map(value).collect::<Vec<_>>());
    let b = floats("b", dtype, &[2, 3], &(10..16).map(value).collect::<Vec<_>>());
    let (f, n) = (floats("f", dtype, &[2], &FROZEN), counter("n", 5));
    if sharded { vec![vec![a, n], vec![b, f]] } else { vec![vec![a, b, f, n]] }
}

struct Setup {
    root: tempfile::TempDir,
    paths: Vec<PathBuf>,
    file: CoefficientsFile,
}

impl Setup {
    fn new(dtype: Dtype, sharded: bool) -> Self {
        Self::of(|k| model(k, dtype, sharded))
    }

    fn of(shards: impl Fn(usize) -> Vec<Vec<Tensor>>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..3).map(|k| root.path().join(format!("zoo/m{k}"))).collect();
        for (k, path) in paths.iter().enumerate() {
            write_model(path, &shards(k));
        }
        let zoo = Zoo::open(&paths).unwrap();
        let hashes = zoo.hash(None, &mut |_, _| {}).unwrap();
        let groups = LayerGroups::new(Grouping::Tensor, &Layout::new(&zoo, &hashes).unwrap());
        let ingredients = zoo.ingredients().iter().zip(&hashes.ingredients).map(|(i, h)| IngredientRef {
            name: i.name().into(),
            path: i.path().into(),
            hash: h.total.clone(),
        });
        let about = About {
            objective: Default::default(),
            version: About::VERSION,
            program: "test".into(),
            sweep: "s".into(),
            task_id: "t".into(),
            method: "mehl+".into(),
            hyperparameters: serde_json::json!({}),
            seed: 0,
            family: "vit".into(),
            ingredients: ingredients.collect(),
            tensors: groups.tensors().clone(),
            has_base: false,
            groups: groups.names,
            scores: None,
            notes: vec![],
            data: vec![],
            better_than_best_ingredient: None,
        };
        let coefficients = Coefficients::from_values(3, 2, vec![1.25, 0.1, -0.5, 0.2, 0.25, 0.7]).unwrap();
        Self { root, paths, file: CoefficientsFile { coefficients, statistics: Default::default(), about } }
    }

    fn out(&self) -> PathBuf {
        self.root.path().join("out/model")
    }

    fn options(&self) -> Options {
        Options { out: self.out(), ..Options::default() }
    }

    fn write(&self, options: &Options) -> Result<MaterializeReport, MaterializeError> {
        materialize(&self.file, options, None, &mut |_, _| {})
    }

    /// The f32 soup of a mixed tensor.
    fn soup(&self, name: &str) -> Vec<f32> {
        let zoo = Zoo::open(&self.paths).unwrap();
        let mut out = vec![0.0; zoo.ingredients()[0].info(name).unwrap().numel()];
        let column = self.file.coefficients.column(self.file.about.tensors[name]);
        mix_tensor(&zoo, name, &column, &mut out).unwrap();
        out
    }

    /// Nothing was written, and nothing is left of the attempt.
    fn assert_nothing_left(&self) {
        assert_eq!(entries(self.root.path()).iter().filter(|n| *n != "out").collect::<Vec<_>>(), ["zoo"]);
        if let Ok(mut out) = fs::read_dir(self.root.path().join("out")) {
            assert!(out.next().is_none(), "{:?}", entries(&self.root.path().join("out")));
        }
    }
}

fn cast(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|&v| v.to_le_bytes()).collect(),
    }
}

fn all_tensors(folder: &Path) -> BTreeMap<String, Tensor> {
    let files = entries(folder).into_iter().filter(|n| n.starts_with("model") && n.ends_with(".safetensors"));
    files.flat_map(|name| read_file(&folder.join(name))).collect()
}

#[test]
fn the_model_is_the_f32_soup_in_the_ingredients_dtype() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let setup = Setup::new(dtype, false);
        let report = setup.write(&setup.options()).unwrap();
        assert_eq!((report.tensors, report.mixed, report.parameters), (4, 2, 19));
        let written = all_tensors(&setup.out());
        for name in ["a", "b"] {
            assert_eq!(written[name].dtype, dtype);
            assert_eq!(written[name].data, cast(&setup.soup(name), dtype), "{name} {dtype}");
        }
        let original: BTreeMap<_, _> =
            model(0, dtype, false).remove(0).into_iter().map(|t| (t.name.clone(), t)).collect();
        assert_eq!((&written["f"], &written["n"]), (&original["f"], &original["n"]));
        assert_eq!(written["b"].shape, [2, 3]);
        let expected = ["README.md", "coefficients.safetensors", "config.json", "model.safetensors"];
        assert_eq!(entries(&setup.out()), expected);
        assert_eq!(report.files, expected);
        let coefficients = fs::read(setup.out().join("coefficients.safetensors")).unwrap();
        assert_eq!(CoefficientsFile::from_bytes(&coefficients).unwrap(), setup.file);
        assert_eq!(entries(setup.out().parent().unwrap()), ["model"]);
        // What is written is a sound ingredient.
        Zoo::open(&[setup.out()]).unwrap().hash(None, &mut |_, _| {}).unwrap();
    }
}

/// Model k with batch normalisation whose statistics differ.
fn with_statistics(k: usize) -> Vec<Vec<Tensor>> {
    let mut shards = model(k, Dtype::F32, false);
    shards[0].push(floats("bn.running_mean", Dtype::F32, &[2], &[k as f64, 1.0]));
    shards[0].push(floats("bn.running_var", Dtype::F16, &[2], &[1.0 + k as f64, 2.0]));
    shards[0].push(counter("bn.num_batches_tracked", k as i64));
    shards
}

#[test]
fn running_statistics_are_the_soups_own_and_nobody_elses() {
    let mut setup = Setup::of(with_statistics);
    let refused = |setup: &Setup, expected: &str| {
        let error = setup.write(&setup.options()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        setup.assert_nothing_left();
    };
    refused(&setup, "tensor `bn.running_mean`: expected a running statistic of the soup in the coefficients file");
    let statistic = |values: &[f32]| Statistic { shape: vec![values.len()], values: values.to_vec() };
    setup.file.statistics.insert("bn.running_mean".into(), statistic(&[0.25, -3.0]));
    setup.file.statistics.insert("bn.running_var".into(), statistic(&[0.5]));
    refused(&setup, "tensor `bn.running_var`: expected a running statistic with the shape in the ingredients");
    setup.file.statistics.insert("bn.running_var".into(), statistic(&[0.5, 8.0]));
    setup.file.statistics.insert("a".into(), statistic(&[0.5]));
    refused(&setup, "tensor `a`: expected a running statistic that differs");
    setup.file.statistics.remove("a");
    setup.write(&setup.options()).unwrap();
    let written = all_tensors(&setup.out());
    assert_eq!(written["bn.running_mean"], floats("bn.running_mean", Dtype::F32, &[2], &[0.25, -3.0]));
    assert_eq!(written["bn.running_var"], floats("bn.running_var", Dtype::F16, &[2], &[0.5, 8.0]));
    assert_eq!(written["bn.num_batches_tracked"], counter("bn.num_batches_tracked", 0));
}

#[test]
fn doubles_keep_the_sum_unrounded() {
    let setup = Setup::new(Dtype::F64, false);
    setup.write(&setup.options()).unwrap();
    let written = all_tensors(&setup.out());
    let of = |k: usize, i: usize| -> f64 {
        f64::from_le_bytes(model(k, Dtype::F64, false)[0][0].data[8 * i..8 * i + 8].try_into().unwrap())
    };
    for i in 0..10 {
        let sum: f64 = 1.25 * of(0, i) + -0.5 * of(1, i) + 0.25 * of(2, i);
        assert_eq!(written["a"].data[8 * i..8 * i + 8], sum.to_le_bytes());
    }
}

#[test]
fn another_dtype_is_that_of_all_floats_and_of_the_configuration() {
    let setup = Setup::new(Dtype::F32, true);
    setup.write(&Options { dtype: Some(Dtype::BF16), ..setup.options() }).unwrap();
    let written = all_tensors(&setup.out());
    assert_eq!(written["a"].data, cast(&setup.soup("a"), Dtype::BF16));
    assert_eq!(written["f"].data, cast(&FROZEN.map(|v| v as f32), Dtype::BF16));
    assert_eq!(written["n"].dtype, Dtype::I64);
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(setup.out().join("config.json")).unwrap()).unwrap();
    assert_eq!(config["torch_dtype"], "bfloat16");
    let refused = setup.write(&Options { dtype: Some(Dtype::I64), ..setup.options() });
    assert!(matches!(refused, Err(MaterializeError::Dtype(Dtype::I64))));
}

#[test]
fn shards_are_those_of_the_ingredients_or_as_asked() {
    let setup = Setup::new(Dtype::F32, true);
    setup.write(&setup.options()).unwrap();
    let out = setup.out();
    assert_eq!(read_file(&out.join("model-00001-of-00002.safetensors")).into_keys().collect::<Vec<_>>(), ["a", "n"]);
    let whole = all_tensors(&out);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("model.safetensors.index.json")).unwrap()).unwrap();
    assert_eq!(index["weight_map"]["b"], "model-00002-of-00002.safetensors");
    assert_eq!(index["metadata"]["total_size"], 80);
    Zoo::open(std::slice::from_ref(&out)).unwrap();

    let other = Options { max_shard_bytes: Some(1000), overwrite: true, ..setup.options() };
    setup.write(&other).unwrap();
    assert!(!out.join("model.safetensors.index.json").exists(), "the old folder's files are gone");
    assert_eq!(read_file(&out.join("model.safetensors")), whole);
    setup.write(&Options { max_shard_bytes: Some(32), ..other }).unwrap();
    assert_eq!(all_tensors(&out), whole);
    assert!(out.join("model-00003-of-00003.safetensors").exists());
    assert_eq!(entries(out.parent().unwrap()), ["model"]);
}

#[test]
fn ingredients_that_moved_are_found_by_their_contents() {
    let setup = Setup::new(Dtype::F32, false);
    fs::rename(setup.root.path().join("zoo"), setup.root.path().join("moved")).unwrap();
    assert!(matches!(setup.write(&setup.options()), Err(MaterializeError::Zoo(_))));
    let moved = |names: &[&str]| names.iter().map(|n| setup.root.path().join("moved").join(n)).collect::<Vec<_>>();
    let some = Options { zoo: Some(moved(&["m2", "m0"])), ..setup.options() };
    assert!(matches!(setup.write(&some), Err(MaterializeError::NotFound { name, candidates: 2, .. }) if name == "m1"));
    let all = Options { zoo: Some(moved(&["m2", "m0", "m1"])), ..setup.options() };
    setup.write(&all).unwrap();
    fs::rename(setup.root.path().join("moved"), setup.root.path().join("zoo")).unwrap();
    assert_eq!(all_tensors(&setup.out())["a"].data, cast(&setup.soup("a"), Dtype::F32));
}

#[test]
fn an_ingredient_that_changed_is_named() {
    let setup = Setup::new(Dtype::F32, false);
    let mut changed = model(1, Dtype::F32, false);
    changed[0][0].data[0] ^= 1;
    write_model(&setup.paths[1], &changed);
    let error = setup.write(&setup.options()).unwrap_err();
    assert!(matches!(&error, MaterializeError::Changed { name, .. } if name == "m1"), "{error}");
    setup.assert_nothing_left();
}

#[test]
fn coefficients_for_other_tensors_are_refused() {
    type Change = fn(&mut BTreeMap<String, usize>) -> Option<usize>;
    let changes: [Change; 3] = [
        |tensors| tensors.insert("f".into(), 0),
        |tensors| tensors.insert("absent".into(), 0),
        |tensors| tensors.remove("b"),
    ];
    for change in changes {
        let mut setup = Setup::new(Dtype::F32, false);
        change(&mut setup.file.about.tensors);
        assert!(matches!(setup.write(&setup.options()), Err(MaterializeError::Tensors { .. })));
        setup.assert_nothing_left();
    }
}

#[test]
fn a_value_too_large_for_half_precision_is_named_and_leaves_nothing() {
    let mut setup = Setup::new(Dtype::F16, false);
    let values = vec![1e5, 0.1, -1e5, 0.2, 1.0, 0.7];
    setup.file.coefficients = Coefficients::from_values(3, 2, values).unwrap();
    let error = setup.write(&setup.options()).unwrap_err();
    assert!(matches!(&error, MaterializeError::Overflow { tensor, dtype: Dtype::F16, .. } if tensor == "a"), "{error}");
    setup.assert_nothing_left();
    setup.write(&Options { dtype: Some(Dtype::F32), ..setup.options() }).unwrap();
}

#[test]
fn nothing_of_anybody_is_overwritten() {
    let setup = Setup::new(Dtype::F32, false);
    let refused = |options: &Options| {
        let error = setup.write(options).unwrap_err();
        assert!(matches!(error, MaterializeError::OutputExists { .. }), "{error}");
    };
    let overwrite = |out: &Path| Options { out: out.to_path_buf(), overwrite: true, ..Options::default() };
    fs::create_dir_all(setup.out()).unwrap();
    setup.write(&setup.options()).unwrap();
    refused(&setup.options());
    setup.write(&overwrite(&setup.out())).unwrap();

    let foreign = setup.root.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.txt"), "").unwrap();
    refused(&overwrite(&foreign));
    refused(&overwrite(&foreign.join("thesis.txt")));
    fs::write(setup.paths[0].join("coefficients.safetensors"), "").unwrap();
    refused(&overwrite(&setup.paths[0]));
    assert!(foreign.join("thesis.txt").exists() && setup.paths[0].join("model.safetensors").exists());
}

#[test]
fn a_file_in_place_of_the_parent_is_an_error_that_leaves_nothing() {
    let setup = Setup::new(Dtype::F32, false);
    fs::write(setup.root.path().join("file"), "mine").unwrap();
    let error = setup.write(&Options { out: setup.root.path().join("file/model"), ..setup.options() }).unwrap_err();
    assert!(matches!(error, MaterializeError::Io { .. }), "{error}");
    assert_eq!(fs::read_to_string(setup.root.path().join("file")).unwrap(), "mine");
    assert_eq!(entries(setup.root.path()), ["file", "zoo"]);
}

/// Set for the child process: where the parent laid everything out.
const CHILD: &str = "MEHL_SOUP_TEST_FULL_DISK";

/// The disk holds no more, as far as the program can see: a limit on file size, under which the weights still fit and the
/// model card does not. Ignored, the signal that comes with the limit leaves an error of `write`.
#[test]
fn a_write_that_fails_midway_leaves_nothing() {
    if let Some(root) = std::env::var_os(CHILD).map(PathBuf::from) {
        let file = CoefficientsFile::from_bytes(&fs::read(root.join("soup")).unwrap()).unwrap();
        let options = Options { out: root.join("out/model"), ..Options::default() };
        let error = materialize(&file, &options, None, &mut |_, _| {}).unwrap_err();
        assert!(matches!(&error, MaterializeError::Io { path, .. } if path.ends_with("README.md")), "{error}");
        return;
    }
    let setup = Setup::new(Dtype::F32, false);
    let soup = setup.root.path().join("soup");
    fs::write(&soup, setup.file.to_bytes()).unwrap();
    let child = Command::new("sh")
        .args([
            "-c",
            r#"trap "" XFSZ; ulimit -f 1; exec "$0" --exact materialize::a_write_that_fails_midway_leaves_nothing"#,
        ])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, setup.root.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
    fs::remove_file(soup).unwrap();
    setup.assert_nothing_left();
}

/// Once all ingredients are verified and tensors are being written.
#[test]
fn an_ingredient_that_changes_while_the_model_is_written_leaves_nothing() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 4] = [
        ("it was truncated", |path| fs::File::options().write(true).open(path).unwrap().set_len(100).unwrap()),
        ("it was modified", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, bytes).unwrap();
        }),
        ("another file", |path| {
            fs::copy(path, path.with_extension("new")).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }),
        ("No such file", |path| fs::remove_file(path).unwrap()),
    ];
    for (how, change) in changes {
        let setup = Setup::new(Dtype::F32, false);
        let weights: Vec<PathBuf> = setup.paths.iter().map(|path| path.join("model.safetensors")).collect();
        let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        let mut verified = 0;
        for path in &weights {
            let file = fs::File::options().append(true).open(path).unwrap();
            file.set_modified(hour_ago).unwrap();
            verified += 16 * 4 + 2 * 4 + 8;
        }
        let mut changed = false;
        let error = materialize(&setup.file, &setup.options(), None, &mut |done, _| {
            if done > verified && !changed {
                change(&weights[2]);
                changed = true;
            }
        });
        let error = error.unwrap_err();
        assert!(changed);
        let MaterializeError::Zoo(ZooError::Changed { file, .. }) = &error else { panic!("{how}: {error}") };
        assert_eq!(*file, weights[2]);
        assert!(error.to_string().contains(how), "expected `{how}` in: {error}");
        setup.assert_nothing_left();
    }
}
