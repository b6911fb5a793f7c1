//! Hostile model folders: indexes, links, pipes, devices, configurations. Every one ends in an error that names the file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::{Tensor, blob, floats, make_pipe, write_index, write_model};
use mehl_soup::untrusted::{LARGEST_CONFIG, LARGEST_INDEX, MOST_SHARDS};
use mehl_soup::zoo::{Ingredient, Zoo, ZooError};
use safetensors::Dtype;

const INDEX: &str = "model.safetensors.index.json";

fn tensor(name: &str) -> Tensor {
    floats(name, Dtype::F32, &[1], &[1.0])
}

/// A folder with one shard, `own.safetensors`, that holds tensor `w`.
struct Folder {
    root: tempfile::TempDir,
    path: PathBuf,
}

impl Folder {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model");
        fs::create_dir_all(path.join("sub")).unwrap();
        for file in ["outside.safetensors", "model/own.safetensors", "model/sub/deep.safetensors"] {
            fs::write(root.path().join(file), blob(&[tensor("w")])).unwrap();
        }
        Self { root, path }
    }

    fn open(&self) -> Result<Ingredient, ZooError> {
        let begin = Instant::now();
        let result = Ingredient::open(&self.path);
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        result
    }

    fn open_shard(&self, shard: &str) -> Result<Ingredient, ZooError> {
        write_index(&self.path, &BTreeMap::from([("w".to_string(), shard.to_string())]));
        self.open()
    }

    fn is_outside(&self, shard: &str) {
        let error = self.open_shard(shard).unwrap_err();
        assert!(
            matches!(&error, ZooError::ShardOutside { index, shard: s } if index.ends_with(INDEX) && s == shard),
            "{shard}: {error}"
        );
    }

    fn refuses_index(&self, text: &[u8], part: &str) {
        fs::write(self.path.join(INDEX), text).unwrap();
        let error = self.open().unwrap_err();
        assert!(matches!(&error, ZooError::Malformed { file, .. } if file.ends_with(INDEX)), "{error}");
        let text = error.to_string();
        assert!(text.contains(part) && text.len() < 4096, "expected `{part}` in: {text}");
    }
}

#[test]
fn an_index_that_points_outside_its_folder() {
    let folder = Folder::new();
    folder.open_shard("own.safetensors").unwrap();
    let absolute = folder.root.path().join("outside.safetensors");
    let inside = folder.path.join("own.safetensors");
    for shard in [
        "../outside.safetensors",
        "../model/own.safetensors",
        absolute.to_str().unwrap(),
        inside.to_str().unwrap(),
        "sub/deep.safetensors",
        "./own.safetensors",
        "sub/../own.safetensors",
        "own.safetensors/",
        "..",
        ".",
        "",
        "/",
        "sub",
    ] {
        folder.is_outside(shard);
    }
}

#[test]
fn shard_names_that_no_file_can_have() {
    let folder = Folder::new();
    for shard in ["a\0b", &"n".repeat(5000), "absent.safetensors"] {
        let error = folder.open_shard(shard).unwrap_err();
        assert!(matches!(&error, ZooError::Io { .. }), "{error}");
    }
}

#[test]
fn links_out_of_the_folder() {
    let folder = Folder::new();
    symlink("../outside.safetensors", folder.path.join("link.safetensors")).unwrap();
    symlink(folder.root.path().join("outside.safetensors"), folder.path.join("absolute.safetensors")).unwrap();
    symlink("link.safetensors", folder.path.join("twice.safetensors")).unwrap();
    symlink("sub/deep.safetensors", folder.path.join("deep.safetensors")).unwrap();
    for shard in ["link.safetensors", "absolute.safetensors", "twice.safetensors", "deep.safetensors"] {
        folder.is_outside(shard);
    }
    symlink("own.safetensors", folder.path.join("inner.safetensors")).unwrap();
    folder.open_shard("inner.safetensors").unwrap();
}

#[test]
fn links_in_a_circle_and_to_nowhere() {
    let folder = Folder::new();
    symlink("b.safetensors", folder.path.join("a.safetensors")).unwrap();
    symlink("a.safetensors", folder.path.join("b.safetensors")).unwrap();
    symlink("nowhere", folder.path.join("dangling.safetensors")).unwrap();
    for shard in ["a.safetensors", "dangling.safetensors"] {
        let error = folder.open_shard(shard).unwrap_err();
        assert!(matches!(&error, ZooError::Io { path, .. } if path.ends_with(shard)), "{error}");
        let error = Ingredient::open(&folder.path.join(shard)).unwrap_err();
        assert!(matches!(&error, ZooError::Io { path, .. } if path.ends_with(shard)), "{error}");
    }
    fs::remove_file(folder.path.join(INDEX)).unwrap();
    symlink(".", folder.path.join("sub/loop")).unwrap();
    let pattern = format!("{}/**/*.safetensors", folder.root.path().display());
    Zoo::find(&[pattern], Path::new(".")).unwrap();
}

#[test]
fn weights_that_are_no_regular_file() {
    let folder = Folder::new();
    let single = folder.path.join("model.safetensors");
    let refuses = |found: &str| {
        let error = folder.open().unwrap_err();
        assert!(matches!(&error, ZooError::NotAnIngredient { path, .. } if *path == single), "{error}");
        assert!(error.to_string().contains(&format!("expected a regular file, found {found}")), "{error}");
    };
    fs::create_dir(&single).unwrap();
    refuses("a folder");
    fs::remove_dir(&single).unwrap();
    make_pipe(&single);
    refuses("a pipe");
    fs::remove_file(&single).unwrap();
    let listener = UnixListener::bind(&single).unwrap();
    refuses("a socket");
    drop(listener);
    fs::remove_file(&single).unwrap();
    symlink("/dev/zero", &single).unwrap();
    refuses("a device");
}

#[test]
fn shards_that_are_no_regular_file() {
    let folder = Folder::new();
    make_pipe(&folder.path.join("pipe.safetensors"));
    symlink("/dev/zero", folder.path.join("device.safetensors")).unwrap();
    for shard in ["pipe.safetensors", "device.safetensors"] {
        folder.is_outside(shard);
    }
}

#[test]
fn an_index_that_is_no_index() {
    let folder = Folder::new();
    for text in
        ["", "nonsense", "[]", "{}", r#"{"weight_map": 3}"#, r#"{"weight_map": {"w": 3}}"#, r#"{"weight_map": ["w"]}"#]
    {
        folder.refuses_index(text.as_bytes(), "not a shard index");
    }
    folder.refuses_index(b"{\"weight_map\": {\"\xff\": \"own.safetensors\"}}", "not a shard index");
    fs::write(folder.path.join(INDEX), r#"{"weight_map": {}}"#).unwrap();
    assert!(matches!(folder.open(), Err(ZooError::Malformed { .. })));
}

#[test]
fn an_index_with_deep_json() {
    let folder = Folder::new();
    let deep = "[".repeat(1_000_000);
    folder.refuses_index(format!(r#"{{"metadata": {deep}"#).as_bytes(), "not a shard index");
    folder.refuses_index(format!(r#"{{"weight_map": {{"w": {deep}"#).as_bytes(), "not a shard index");
    // Whole, and in a field that nobody reads.
    let metadata = format!("{deep}{}", "]".repeat(1_000_000));
    let text = format!(r#"{{"metadata": {metadata}, "weight_map": {{"w": "own.safetensors"}}}}"#);
    fs::write(folder.path.join(INDEX), text).unwrap();
    folder.open().unwrap();
}

#[test]
fn an_index_that_names_a_tensor_twice() {
    let folder = Folder::new();
    let text = br#"{"weight_map": {"w": "own.safetensors", "w": "../outside.safetensors"}}"#;
    folder.refuses_index(text, "tensor `w`: expected once, found twice");
    folder.refuses_index(br#"{"weight_map": {}, "weight_map": {}}"#, "duplicate field");
}

#[test]
fn a_file_that_the_index_names_by_two_names() {
    let folder = Folder::new();
    symlink("own.safetensors", folder.path.join("again.safetensors")).unwrap();
    let map = [("w", "own.safetensors"), ("v", "again.safetensors")];
    write_index(&folder.path, &map.map(|(t, s)| (t.to_string(), s.to_string())).into());
    let text = folder.open().unwrap_err().to_string();
    assert!(text.contains("tensor `w`: expected in one shard"), "{text}");
}

#[test]
fn an_index_larger_than_any() {
    let folder = Folder::new();
    File::create(folder.path.join(INDEX)).unwrap().set_len(LARGEST_INDEX + 1).unwrap();
    let error = folder.open().unwrap_err();
    assert!(matches!(&error, ZooError::Io { path, .. } if path.ends_with(INDEX)), "{error}");
    assert!(error.to_string().contains("expected at most 67108864 bytes, found 67108865"), "{error}");
}

#[test]
fn an_index_of_too_many_files() {
    let folder = Folder::new();
    let map: BTreeMap<String, String> =
        (0..=MOST_SHARDS).map(|i| (format!("t{i}"), format!("{i}.safetensors"))).collect();
    folder.refuses_index(
        serde_json::json!({"weight_map": map}).to_string().as_bytes(),
        "expected at most 10000 files, found 10001",
    );
}

#[test]
fn an_index_that_is_no_regular_file() {
    let folder = Folder::new();
    make_pipe(&folder.path.join(INDEX));
    let error = folder.open().unwrap_err();
    assert!(error.to_string().contains("expected a regular file, found a pipe"), "{error}");
    fs::remove_file(folder.path.join(INDEX)).unwrap();
    symlink("/dev/zero", folder.path.join(INDEX)).unwrap();
    let error = folder.open().unwrap_err();
    assert!(error.to_string().contains("expected a regular file, found a device"), "{error}");
}

#[test]
fn hostile_configurations() {
    let root = tempfile::tempdir().unwrap();
    let model = root.path().join("model");
    write_model(&model, &[vec![tensor("w")]]);
    let config = model.join("config.json");
    let says = |part: &str| {
        for path in [model.clone(), model.join("model.safetensors")] {
            let text = Ingredient::open(&path).unwrap_err().to_string();
            assert!(text.contains("config.json") && text.contains(part) && text.len() < 4096, "`{part}` in: {text}");
        }
    };
    for text in ["", "{", "nonsense", &"[".repeat(1_000_000), &"{\"a\":".repeat(1_000_000)] {
        fs::write(&config, text).unwrap();
        says("not JSON");
    }
    // Whole, and too deep to be walked.
    fs::write(&config, format!("{}{}", "[".repeat(1000), "]".repeat(1000))).unwrap();
    says("recursion limit");
    fs::write(&config, b"{\"model_type\": \"\xff\"}").unwrap();
    says("not JSON");
    File::create(&config).unwrap().set_len(LARGEST_CONFIG + 1).unwrap();
    says("expected at most 16777216 bytes");
    fs::remove_file(&config).unwrap();
    make_pipe(&config);
    says("expected a regular file, found a pipe");
    fs::remove_file(&config).unwrap();
    symlink("/dev/zero", &config).unwrap();
    says("expected a regular file, found a device");
    fs::remove_file(&config).unwrap();
    symlink("config.json", &config).unwrap();
    says("symbolic links");
    fs::remove_file(&config).unwrap();
    fs::create_dir(&config).unwrap();
    says("expected a regular file, found a folder");
}
