//! Every malformation of a zoo ends in an error that names file and tensor, and what was expected and found.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Tensor, blob, counter, floats, write_index, write_model};
use mehl_soup::zoo::{Difference, Ingredient, Zoo, ZooError};
use safetensors::Dtype;

fn f32s(name: &str, shape: &[usize], values: &[f64]) -> Tensor {
    floats(name, Dtype::F32, shape, values)
}

fn open(root: &Path, models: &[Vec<Tensor>]) -> Result<Zoo, ZooError> {
    let write = |(i, tensors): (usize, &Vec<Tensor>)| {
        let path = root.join(format!("{i}.safetensors"));
        fs::write(&path, blob(tensors)).unwrap();
        path
    };
    Zoo::open(&models.iter().enumerate().map(write).collect::<Vec<PathBuf>>())
}

#[test]
fn a_file_truncated_anywhere_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("cut.safetensors");
    let whole = blob(&[f32s("w", &[3], &[1.0, 2.0, 3.0]), counter("n", 1)]);
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Ingredient::open(&path).unwrap_err();
        assert!(matches!(&error, ZooError::Malformed { file, .. } if *file == path), "{length}: {error}");
        assert!(error.to_string().contains("cut.safetensors"), "{error}");
    }
    fs::write(&path, &whole).unwrap();
    Ingredient::open(&path).unwrap();
}

#[test]
fn all_differences_are_in_one_error() {
    let root = tempfile::tempdir().unwrap();
    let first = vec![f32s("a", &[2], &[1.0, 2.0]), f32s("b", &[2, 1], &[1.0, 2.0]), f32s("c", &[1], &[1.0])];
    let whole = |name: &str| Tensor { name: name.into(), dtype: Dtype::I32, shape: vec![2], data: vec![0; 8] };
    let second = vec![whole("a"), f32s("b", &[1, 2], &[1.0, 2.0]), f32s("d", &[1], &[1.0])];
    let third = vec![f32s("a", &[2], &[1.0, 2.0]), f32s("b", &[2, 1], &[1.0, 2.0])];
    let error = open(root.path(), &[first, second, third]).unwrap_err();
    let ZooError::Mismatch(mismatches) = &error else { panic!("{error}") };
    let found: Vec<_> = mismatches
        .list
        .iter()
        .map(|m| (m.path.file_name().unwrap().to_str().unwrap(), m.tensor.as_str(), m.difference.clone()))
        .collect();
    let expected = [
        ("1.safetensors", "a", Difference::Dtype { expected: Dtype::F32, found: Dtype::I32 }),
        ("1.safetensors", "b", Difference::Shape { expected: vec![2, 1], found: vec![1, 2] }),
        ("1.safetensors", "c", Difference::Missing),
        ("1.safetensors", "d", Difference::Extra),
        ("2.safetensors", "c", Difference::Missing),
    ];
    assert_eq!(found, expected);
    let text = error.to_string();
    let line = "1.safetensors: 1 tensor missing (`c`), 1 tensor not in the others (`d`), 1 tensor of another shape (`b` expected shape [2, 1], found [1, 2]), 1 tensor of another dtype (`a` expected dtype F32, found I32)";
    assert!(text.contains(line) && text.contains("2.safetensors: 1 tensor missing (`c`)"), "{text}");
}

#[test]
fn a_long_list_of_differences_is_cut_and_counted() {
    let root = tempfile::tempdir().unwrap();
    let many = |prefix: &str| (0..15).map(|i| f32s(&format!("{prefix}{i}"), &[1], &[1.0])).collect::<Vec<_>>();
    let others = (0..25).map(|i| many(&format!("y{i}_")));
    let zoo: Vec<_> = [many("x"), many("x")].into_iter().chain(others).collect();
    let text = open(root.path(), &zoo).unwrap_err().to_string();
    assert_eq!(text.lines().count(), 23, "one line an ingredient: {text}");
    assert!(text.contains("15 tensors missing (`x0`, `x1`, `x10`, ...)"), "{text}");
    assert!(
        text.contains("and 5 more ingredients") && text.ends_with("(mehl-soup inspect --verbose lists every tensor)"),
        "{text}"
    );
}

#[test]
fn a_nan_is_named() {
    let root = tempfile::tempdir().unwrap();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64] {
        let good = vec![floats("w", dtype, &[2], &[1.0, 2.0])];
        let bad = vec![floats("w", dtype, &[2], &[1.0, f64::NAN])];
        let zoo = open(root.path(), &[good, bad]).unwrap();
        let error = zoo.hash(None, &mut |_, _| {}).unwrap_err();
        assert!(
            matches!(&error, ZooError::NotFinite { file, tensor, element: 1, .. }
                if file.ends_with("1.safetensors") && tensor == "w"),
            "{dtype}: {error}"
        );
    }
}

#[test]
fn index_and_shards_must_agree() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (f32s("a", &[1], &[1.0]), f32s("b", &[1], &[2.0]));
    let shards = [vec![a.clone()], vec![b.clone()]];
    let one = "model-00001-of-00002.safetensors".to_string();
    let two = "model-00002-of-00002.safetensors".to_string();
    let with_map = |map: &[(&str, &String)]| {
        write_model(root.path(), &shards);
        write_index(root.path(), &map.iter().map(|(t, s)| (t.to_string(), s.to_string())).collect());
        Ingredient::open(root.path())
    };
    with_map(&[("a", &one), ("b", &two)]).unwrap();
    for map in
        [vec![("a", &two), ("b", &one)], vec![("a", &one), ("b", &two), ("c", &two)], vec![("a", &one), ("c", &two)]]
    {
        let error = with_map(&map).unwrap_err();
        assert!(matches!(error, ZooError::Malformed { .. }), "{map:?}: {error}");
    }
    write_model(root.path(), &[vec![a.clone(), f32s("c", &[1], &[3.0])], vec![a, b]]);
    let text = Ingredient::open(root.path()).unwrap_err().to_string();
    assert!(text.contains("tensor `a`: expected in one shard"), "{text}");
    fs::write(root.path().join("model.safetensors.index.json"), r#"{"weight_map": 3}"#).unwrap();
    assert!(matches!(Ingredient::open(root.path()), Err(ZooError::Malformed { .. })));
}

#[test]
fn what_is_no_ingredient_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    fs::create_dir(path("empty")).unwrap();
    fs::create_dir(path("folder.safetensors")).unwrap();
    fs::write(path("pytorch_model.bin"), "").unwrap();
    fs::write(path("empty.safetensors"), "").unwrap();
    fs::write(path("none.safetensors"), blob(&[])).unwrap();
    for name in ["empty", "folder.safetensors", "pytorch_model.bin"] {
        assert!(matches!(Ingredient::open(&path(name)), Err(ZooError::NotAnIngredient { .. })), "{name}");
    }
    for name in ["empty.safetensors", "none.safetensors"] {
        assert!(matches!(Ingredient::open(&path(name)), Err(ZooError::Malformed { .. })), "{name}");
    }
    assert!(matches!(Ingredient::open(&path("absent.safetensors")), Err(ZooError::Io { .. })));
    assert!(matches!(Zoo::open(&[]), Err(ZooError::Empty)));
    write_model(&path("model"), &[vec![f32s("w", &[1], &[1.0])]]);
    assert!(matches!(Zoo::open(&[path("model"), path("model")]), Err(ZooError::Repeated { .. })));
    fs::write(path("model/config.json"), "{").unwrap();
    assert!(matches!(Ingredient::open(&path("model")), Err(ZooError::Malformed { .. })));
}

#[test]
fn tensors_are_read_in_both_precisions_and_never_misread() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("model");
    write_model(
        &folder,
        &[
            vec![floats("h", Dtype::F16, &[3], &[0.5, -1.0, 2.0]), counter("n", 3)],
            vec![floats("d", Dtype::F64, &[1], &[0.1])],
        ],
    );
    let ingredient = Ingredient::open(&folder).unwrap();
    assert_eq!(ingredient.tensor_names().collect::<Vec<_>>(), ["d", "h", "n"]);
    assert_eq!(ingredient.shards().len(), 2);
    assert_eq!(ingredient.config().unwrap()["model_type"], "tiny");
    let (mut singles, mut double) = ([0f32; 3], [0f64]);
    ingredient.read("h", &mut singles).unwrap();
    ingredient.read("d", &mut double).unwrap();
    assert_eq!((singles, double), ([0.5, -1.0, 2.0], [0.1]));
    assert_eq!(ingredient.bytes("n").unwrap(), 3i64.to_le_bytes());
    assert!(matches!(ingredient.read("h", &mut double), Err(ZooError::WrongLength { expected: 3, found: 1, .. })));
    assert!(matches!(ingredient.read("n", &mut double), Err(ZooError::WrongDtype { .. })));
    assert!(matches!(ingredient.read("x", &mut double), Err(ZooError::NoTensor { .. })));
}
