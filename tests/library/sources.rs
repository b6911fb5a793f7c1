//! What every source does, shown on the files of this machine and on files in memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use crate::support::memory_source::Memory;
use crate::support::{Tensor, blob, counter, floats, write_model};
use mehl_soup::coefficients::{Options, fixed_mix, materialize, merge, mix_tensor};
use mehl_soup::source::{self, BlobReader, FileSource, Head, State};
use mehl_soup::sweep::parse::{Format, parse_spec_text};
use mehl_soup::sweep::spec::Grouping;
use mehl_soup::zoo::{Depth, HashCache, Ingredient, Layout, TensorFile, Zoo, ZooError, ZooHashes, distances, inspect};
use safetensors::Dtype;

/// A folder of a source, which a test may change.
struct Place {
    root: PathBuf,
    kind: Kind,
}

enum Kind {
    /// The folder is removed with it.
    Disk {
        _folder: tempfile::TempDir,
    },
    Memory(Memory),
}

fn memory() -> &'static Memory {
    static MEMORY: OnceLock<Memory> = OnceLock::new();
    MEMORY.get_or_init(|| Memory::mounted("memory"))
}

impl Place {
    /// One in each source; `name` is the test's own.
    fn each(name: &str) -> [Self; 2] {
        let disk = tempfile::tempdir().unwrap();
        [
            Self { root: disk.path().canonicalize().unwrap(), kind: Kind::Disk { _folder: disk } },
            Self { root: PathBuf::from(format!("memory:/{name}")), kind: Kind::Memory(memory().clone()) },
        ]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn files(&self) -> &'static dyn FileSource {
        source::of(&self.root)
    }

    /// Writes a file of an hour ago, so that a change cannot hide in the resolution of the clock.
    fn write(&self, name: &str, content: &[u8]) {
        self.change(name, content);
        if let Kind::Disk { .. } = self.kind {
            let hour_ago = SystemTime::now() - Duration::from_secs(3600);
            File::options().append(true).open(self.path(name)).unwrap().set_modified(hour_ago).unwrap();
        }
    }

    fn change(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        match &self.kind {
            Kind::Disk { .. } => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            Kind::Memory(memory) => memory.write(&path, content),
        }
    }

    fn remove(&self, name: &str) {
        match &self.kind {
            Kind::Disk { .. } => fs::remove_file(self.path(name)).unwrap(),
            Kind::Memory(memory) => memory.remove(&self.path(name)),
        }
    }

    /// Paths as they are in any place.
    fn plain(&self, text: &str) -> String {
        text.replace(self.root.to_str().unwrap(), "ROOT")
    }
}

fn kind_of<T>(result: io::Result<T>) -> ErrorKind {
    result.err().expect("it was refused").kind()
}

#[test]
fn files_are_found_listed_and_read_by_parts() {
    for place in Place::each("parts") {
        let files = place.files();
        place.write("a/x.bin", b"0123456789");
        place.write("a/b/.hidden", b"");
        let path = place.path("a/x.bin");
        let Head::File(identity) = files.head(&path).unwrap() else { panic!("a file") };
        assert_eq!(identity.size, 10);
        assert_eq!(files.head(&place.path("a")).unwrap(), Head::Folder);
        assert_eq!(kind_of(files.head(&place.path("absent"))), ErrorKind::NotFound);
        assert!(files.has(&path) && files.is_file(&path) && !files.is_folder(&path));
        assert!(files.is_folder(&place.path("a/b")) && !files.has(&place.path("c")));
        let mut listed = files.list(&place.path("a")).unwrap();
        listed.sort();
        assert_eq!(listed, [place.path("a/b"), place.path("a/x.bin")]);
        assert_eq!(files.list(&place.path("a/b")).unwrap(), [place.path("a/b/.hidden")]);
        assert!(files.list(&path).is_err() && files.list(&place.path("absent")).is_err());
        assert_eq!(files.canonical(&place.path("a/b/../x.bin")).unwrap(), files.canonical(&path).unwrap());
        assert_eq!(kind_of(files.canonical(&place.path("absent"))), ErrorKind::NotFound);

        let blob = files.open(&path).unwrap();
        assert_eq!((blob.identity(), &blob.now().unwrap()), (&identity, &identity));
        let mut part = [0; 3];
        blob.read_exact_at(&mut part, 4).unwrap();
        assert_eq!(&part, b"456");
        for start in [8, 10, 11, 1 << 40] {
            assert_eq!(kind_of(blob.read_exact_at(&mut part, start)), ErrorKind::UnexpectedEof, "{start}");
        }
        blob.read_exact_at(&mut [], 10).unwrap();
        assert_eq!(kind_of(files.open(&place.path("absent"))), ErrorKind::NotFound);
        assert_eq!(kind_of(files.open(&place.path("a"))), ErrorKind::InvalidInput);

        assert_eq!(files.read(&path, 10).unwrap(), b"0123456789");
        let too_large = files.read(&path, 9).unwrap_err();
        assert_eq!(too_large.kind(), ErrorKind::FileTooLarge);
        assert_eq!(too_large.to_string(), "expected at most 9 bytes, found 10");

        let mut reader = BlobReader::new(blob, 7);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), reader.seek(SeekFrom::End(-2)).unwrap()), ("789", 8));
        assert!(reader.seek(SeekFrom::Current(-9)).is_err());
        assert_eq!(reader.read(&mut part).unwrap(), 2);
    }
}

#[test]
fn a_folders_own_files_have_plain_names() {
    for place in Place::each("own") {
        place.write("model/config.json", b"{}");
        place.write("outside", b"");
        let folder = place.files().canonical(&place.path("model")).unwrap();
        let own = |name: &str| place.files().own_file(&folder, name);
        assert_eq!(own("config.json").unwrap(), Some(folder.join("config.json")));
        for name in ["../outside", "./config.json", "..", "", "/outside"] {
            assert_eq!(own(name).unwrap(), None, "{name}");
        }
        assert_eq!(kind_of(own("absent")), ErrorKind::NotFound);
    }
}

#[test]
fn patterns_match_alike() {
    let found = Place::each("patterns").map(|place| {
        for name in ["zoo/b/model", "zoo/a/model", "zoo/.hidden/model", "zoo/notes.txt", "other/a/model", "zoo[1]/c"] {
            place.write(name, b"");
        }
        let patterns = [
            "zoo/*",
            "*/a",
            "zoo/*/model",
            "zoo/?",
            "zoo/.h*",
            "zoo/.hidden/*",
            "**/model",
            "zoo/[bc]",
            "zoo[[]1[]]/*",
            "no/*",
            "zoo/a",
        ];
        let matched = patterns.map(|pattern| {
            let paths = place.files().glob(pattern, &place.root).unwrap();
            paths.iter().map(|path| place.plain(path.to_str().unwrap())).collect::<Vec<_>>()
        });
        assert!(place.files().glob("zoo/***", &place.root).is_err());
        matched
    });
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0][0], ["ROOT/zoo/a", "ROOT/zoo/b", "ROOT/zoo/notes.txt"]);
    assert_eq!((found[0][4].len(), found[0][5].len(), found[0][6].len()), (0, 1, 3));
    assert_eq!(found[0][8], ["ROOT/zoo[1]/c"]);
}

/// Model k: mixed `a` and `b`, frozen `f`, copied `n`.
fn model(k: usize) -> [Vec<Tensor>; 2] {
    let value = |i: usize| ((i * 7 + k * 13) % 11) as f64 / 8.0 - 0.3 * k as f64;
    let many: Vec<f64> = (0..40_000).map(value).collect();
    let [a, b] = [(Dtype::F32, 40_000), (Dtype::F16, 6)].map(|(dtype, n)| floats("", dtype, &[n], &many[..n]));
    let named = |name: &str, tensor: Tensor| Tensor { name: name.into(), ..tensor };
    [vec![named("a", a), counter("n", 5)], vec![named("b", b), floats("f", Dtype::F32, &[2], &[7.0, 0.1])]]
}

/// Three models: one in two shards, one in one file, one as a file by itself.
fn fill(place: &Place) {
    let made = tempfile::tempdir().unwrap();
    write_model(&made.path().join("sharded"), &model(0));
    write_model(&made.path().join("single"), &[model(1).concat()]);
    for (folder, files) in [
        ("sharded", &["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"][..]),
        ("sharded", &["model.safetensors.index.json"]),
        ("single", &["config.json", "model.safetensors"]),
    ] {
        for file in files {
            let name = format!("{folder}/{file}");
            place.write(&format!("zoo/{name}"), &fs::read(made.path().join(&name)).unwrap());
        }
    }
    place.write("zoo/x.safetensors", &blob(&model(2).concat()));
    place.write("zoo/sharded/tokenizer.json", b"{\"tokens\": []}");
    place.write("zoo/sharded/modeling.py", b"never copied");
    place.write("zoo/sharded/README.md", b"---\nlicense: mit\n---\n");
    place.write("zoo/notes.txt", b"");
}

fn hash(zoo: &Zoo) -> ZooHashes {
    zoo.hash(None, &mut |_, _| {}).unwrap()
}

/// Everything that files of a zoo are used for, with paths as in any place.
fn use_of(place: &Place) -> (String, ZooHashes, Layout, Vec<u32>, BTreeMap<String, Vec<u8>>) {
    let found = Zoo::find(&["zoo/*".to_string()], &place.root).unwrap();
    assert_eq!(found.paths.len(), 3);
    let zoo = Zoo::open(&found.paths).unwrap();
    let (hashes, layout) = (hash(&zoo), Layout::new(&zoo, &hash(&zoo)).unwrap());
    zoo.ingredients().iter().for_each(Ingredient::read_ahead);
    let mut mixed = vec![0f32; 40_000];
    mix_tensor(&zoo, "a", &[0.5, 1.5, -1.0], &mut mixed).unwrap();
    let mut frozen = [0f64; 2];
    zoo.ingredients()[0].read("f", &mut frozen).unwrap();
    assert_eq!(frozen, [7.0, f64::from(0.1f32)]);
    let depth =
        Depth { hash: Some(None), distances: Some(Grouping::Tensor), family: None, classes_stated: false, model: None };
    let report = inspect(&found, &depth, &mut |_, _, _| {});
    let far = distances(&zoo, Grouping::Model, &mut |_, _| {}).unwrap();
    let told = format!("{}\n{}", serde_json::to_string(&report).unwrap(), serde_json::to_string(&far).unwrap());

    // As merged from what is open, and again from the paths that the written coefficients name.
    let file = fixed_mix(&zoo, &hashes, &layout, Some(&[0.5, 1.5, -1.0]), vec![]).unwrap();
    let out = tempfile::tempdir().unwrap();
    let options = |name: &str| Options { out: out.path().join(name), ..Options::default() };
    merge(&zoo, &layout, &file, &options("merged"), &mut |_, _| {}).unwrap();
    let written = materialize(&file, &options("again"), None, &mut |_, _| {}).unwrap();
    let read = |folder: &str, name: &String| fs::read(out.path().join(folder).join(name)).unwrap();
    let files: BTreeMap<String, Vec<u8>> =
        written.files.iter().map(|name| (name.clone(), read("again", name))).collect();
    assert!(files.iter().all(|(name, content)| *content == read("merged", name)));
    // Coefficients name the ingredients' paths.
    let files = files.into_iter().filter(|(name, _)| name != "coefficients.safetensors").collect();
    (place.plain(&told), hashes, layout, mixed.iter().map(|v| v.to_bits()).collect(), files)
}

#[test]
fn a_zoo_is_opened_hashed_mixed_and_written_with_the_same_bits() {
    let [disk, memory] = Place::each("zoo").map(|place| {
        fill(&place);
        use_of(&place)
    });
    assert_eq!(disk.0, memory.0, "inspected");
    assert_eq!((&disk.1, &disk.2), (&memory.1, &memory.2), "hashes and layout");
    assert_eq!(disk.3, memory.3, "mixed");
    assert_eq!(disk.4, memory.4, "written");
    let names: Vec<&str> = disk.4.keys().map(String::as_str).collect();
    assert!(names.contains(&"tokenizer.json") && !names.contains(&"modeling.py"), "{names:?}");
    assert!(String::from_utf8_lossy(&disk.4["README.md"]).contains("`mit`"));
}

fn changed<T>(result: Result<T, ZooError>, path: &Path) {
    match result {
        Err(ZooError::Changed { file, .. }) => assert_eq!(file, path),
        Err(other) => panic!("expected that it changed, found: {other}"),
        Ok(_) => panic!("a change of {} was not noticed", path.display()),
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_noticed() {
    let content = |seed: f64| blob(&[floats("w", Dtype::F32, &[3], &[seed, 2.0, 3.0])]);
    for place in Place::each("changes") {
        let (name, path) = ("w.safetensors", place.path("w.safetensors"));
        let open = || {
            place.write(name, &content(1.0));
            let zoo = Zoo::open(std::slice::from_ref(&path)).unwrap();
            hash(&zoo);
            zoo.check_unchanged().unwrap();
            (zoo, TensorFile::open(&path).unwrap())
        };
        // Of the same size, so that every byte can be read.
        let (zoo, tensors) = open();
        place.change(name, &content(9.0));
        changed(zoo.check_unchanged(), &path);
        changed(zoo.hash(None, &mut |_, _| {}).map(drop), &path);
        changed(tensors.hash(), &path);

        let (zoo, tensors) = open();
        place.change(name, &content(1.0)[..40]);
        let mut out = [0f32; 3];
        changed(zoo.ingredients()[0].read("w", &mut out), &path);
        changed(tensors.read("w"), &path);
        changed(zoo.check_unchanged(), &path);

        let (zoo, _) = open();
        place.remove(name);
        changed(zoo.check_unchanged(), &path);

        // The same of any file.
        place.write(name, b"12345");
        let blob = place.files().open(&path).unwrap();
        assert_eq!(blob.identity().compare(blob.now()), State::Same);
        place.change(name, b"54321");
        assert!(matches!(blob.identity().compare(blob.now()), State::Changed(_)));
    }
}

#[test]
fn nothing_is_written_of_a_zoo_that_changed() {
    for place in Place::each("materialize") {
        fill(&place);
        let zoo = Zoo::open(&[place.path("zoo/single"), place.path("zoo/sharded")]).unwrap();
        let hashes = hash(&zoo);
        let layout = Layout::new(&zoo, &hashes).unwrap();
        let file = fixed_mix(&zoo, &hashes, &layout, None, vec![]).unwrap();
        place.change("zoo/single/model.safetensors", &blob(&model(4).concat()));
        let out = tempfile::tempdir().unwrap();
        let options = Options { out: out.path().join("model"), ..Options::default() };
        assert!(merge(&zoo, &layout, &file, &options, &mut |_, _| {}).is_err());
        let error = materialize(&file, &options, None, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("ingredient `single` changed"), "{error}");
        assert!(fs::read_dir(out.path()).unwrap().next().is_none());
    }
}

#[test]
fn hashes_are_remembered_by_version() {
    // Of its own, so that its reads can be counted.
    let memory = Memory::mounted("memory-hashes");
    let path = PathBuf::from("memory-hashes:/w.safetensors");
    let write = |value: f64| memory.write(&path, &blob(&[floats("w", Dtype::F32, &[1000], &[value; 1000])]));
    let folder = tempfile::tempdir().unwrap();
    let cache = HashCache::at(folder.path().join("hashes"));
    let hash = || {
        let zoo = Zoo::open(std::slice::from_ref(&path)).unwrap();
        let before = memory.bytes_read();
        let hashes = zoo.hash(Some(&cache), &mut |_, _| {}).unwrap();
        (hashes, memory.bytes_read() - before)
    };
    write(1.0);
    let (first, read) = hash();
    assert_eq!(read, 4000);
    assert_eq!(hash(), (first.clone(), 0));
    write(2.0);
    let (second, read) = hash();
    assert!(second != first && read == 4000);
}

#[test]
fn a_specification_names_files_of_any_source() {
    let root = &Place::each("specification")[1];
    let text = "[zoo]\ningredients = ['memory:/zoo/*', 'zoo/*']\nbase = 'memory:/base'\n\
                [data]\nlearn = 'memory:/learn.safetensors'\nselect = 'select.safetensors'\n";
    for (folder, prefix) in [(Path::new("/folder"), "/folder"), (&root.root, "memory:/specification")] {
        let spec = parse_spec_text(text, Format::Toml, folder).unwrap();
        assert_eq!(spec.zoo.ingredients, ["memory:/zoo/*".to_string(), format!("{prefix}/zoo/*")]);
        assert_eq!(spec.zoo.base.as_deref(), Some(Path::new("memory:/base")));
        assert_eq!(spec.data.learn, Path::new("memory:/learn.safetensors"));
        assert_eq!(spec.data.select, Some(PathBuf::from(format!("{prefix}/select.safetensors"))));
    }
}
