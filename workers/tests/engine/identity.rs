//! What identifies an architecture stays as it is, whatever fields are called in the program: sweeps that were begun are
//! recognised by it.

use std::path::{Path, PathBuf};

use crate::support::fixture;
use crate::support::golden::{try_load, zoo_spec};
use mehl_soup::sweep::spec::ZooSpec;
use serde_json::{Map, Value};

/// Of each miniature model of the fixtures, `{"version_1": text, "version_2": JSON}`.
fn expected() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/formats/architectures.json")
}

fn found() -> Map<String, Value> {
    let mut all = Map::new();
    for family in ["vit", "clip", "timm", "resnet", "encoders"] {
        let mut folders: Vec<_> =
            std::fs::read_dir(fixture(family)).unwrap().map(|entry| entry.unwrap().path()).collect();
        folders.retain(|path| path.is_dir());
        folders.sort();
        for folder in folders {
            let path =
                if folder.join("config.json").exists() { folder.clone() } else { folder.join("model.safetensors") };
            // Those that say it themselves have two heads too.
            let spec = if family == "resnet" { zoo_spec(None) } else { ZooSpec { heads: Some(2), ..zoo_spec(None) } };
            let (_, model) = try_load(&[path], &spec).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            let name = format!("{family}/{}", folder.file_name().unwrap().to_str().unwrap());
            let both = [
                ("version_1".to_string(), model.architecture_1().into()),
                ("version_2".to_string(), model.architecture()),
            ];
            all.insert(name, Value::Object(both.into_iter().collect()));
        }
    }
    all
}

#[test]
fn architectures_are_identified_as_they_were() {
    let expected: Map<String, Value> = serde_json::from_slice(&std::fs::read(expected()).unwrap()).unwrap();
    let found = found();
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, found) in &found {
        assert_eq!(found, &expected[name], "{name}");
    }
}
