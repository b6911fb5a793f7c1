//! Hostile specifications and coefficients files: every one ends in an error that names the file, soon and in few words.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::{blob, entry, floats, make_pipe, raw};
use mehl_soup::coefficients::{CoefficientsError, CoefficientsFile};
use mehl_soup::sweep::parse::parse_spec;
use mehl_soup::untrusted::{LARGEST_COEFFICIENTS, LARGEST_SPEC};

const LARGEST: usize = LARGEST_SPEC as usize;

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn refusal(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), text).unwrap();
        self.refusal_of(&self.path(name))
    }

    fn refusal_of(&self, path: &Path) -> String {
        let begin = Instant::now();
        let text = parse_spec(path).unwrap_err().to_string();
        assert!(begin.elapsed() < Duration::from_secs(20), "refused after {:?}", begin.elapsed());
        assert!(text.starts_with(&path.display().to_string()), "{text:.300}");
        assert!(text.len() < 64 << 10, "a message of {} bytes", text.len());
        text
    }
}

fn filled(unit: &str) -> String {
    unit.repeat(LARGEST / unit.len())
}

#[test]
fn aliases_that_multiply() {
    // Nine levels of nine: a billion laughs.
    let mut yaml = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let below = vec![format!("*a{}", level - 1); 9].join(", ");
        yaml += &format!("a{level}: &a{level} [{below}]\n");
    }
    let text = Place::new().refusal("bomb.yaml", &yaml);
    assert!(text.contains("bomb.yaml:2:10: aliases are not supported"), "{text}");
    let merge = "base: &base\n  a: 1\nzoo:\n  <<: *base\n";
    assert!(Place::new().refusal("merge.yaml", merge).contains("aliases are not supported"));
}

#[test]
fn deep_nesting() {
    let place = Place::new();
    for (name, unit, part) in [
        ("a.yaml", "- ", "nested more than 64 levels deep"),
        ("b.yaml", "[", "YAML"),
        ("c.yaml", "? ", "nested more than 64 levels deep"),
        ("d.yaml", "{a: ", "YAML"),
        ("a.json", "[", "JSON"),
        ("b.json", "{\"a\":", "JSON"),
        ("a.toml", "a=[", "TOML"),
        ("b.toml", "a={a=", "TOML"),
        ("c.toml", "a.", "TOML"),
        ("d.toml", "[a.", "TOML"),
    ] {
        let text = place.refusal(name, filled(unit));
        assert!(text.contains(part), "{name}: {text:.300}");
    }
    let whole = format!("{}{}", "[".repeat(100), "]".repeat(100));
    assert!(place.refusal("whole.json", format!("{{\"a\": {whole}}}")).contains("nested more than 64 levels deep"));
}

#[test]
fn keys_given_twice() {
    let place = Place::new();
    for (name, text) in [
        ("a.toml", "seed = 1\nseed = 2\n"),
        ("b.toml", "[zoo]\ntop = 1\n[zoo]\ntop = 2\n"),
        ("a.yaml", "seed: 1\nseed: 2\n"),
        ("a.json", "{\"seed\": 1, \"seed\": 2}"),
    ] {
        let text = place.refusal(name, text);
        assert!(text.to_lowercase().contains("duplicate"), "{name}: {text}");
    }
}

#[test]
fn texts_that_are_no_text() {
    let place = Place::new();
    for name in ["a.toml", "a.yaml", "a.json"] {
        assert!(place.refusal(name, b"name = \"\xff\xfe\"").contains("not UTF-8"), "{name}");
        place.refusal(name, "");
        place.refusal(name, "\0\0\0\0");
        place.refusal(name, "\u{feff}");
        place.refusal(name, b"PK\x03\x04 something else");
    }
}

#[test]
fn specifications_that_are_no_small_file() {
    let place = Place::new();
    let path = place.path("spec.toml");
    File::create(&path).unwrap().set_len(LARGEST_SPEC + 1).unwrap();
    assert!(place.refusal_of(&path).contains("expected at most 1048576 bytes, found 1048577"));
    fs::remove_file(&path).unwrap();
    make_pipe(&path);
    assert!(place.refusal_of(&path).contains("expected a regular file, found a pipe"));
    fs::remove_file(&path).unwrap();
    symlink("/dev/zero", &path).unwrap();
    assert!(place.refusal_of(&path).contains("expected a regular file, found a device"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(place.refusal_of(&path).contains("expected a regular file, found a folder"));
}

/// As long as a specification may be, in every format, with as many faults as fit: time must not grow with the square.
#[test]
fn the_largest_texts_are_refused_in_time_and_in_few_words() {
    let numbered = |unit: fn(usize) -> String, count: usize| (0..count).map(unit).collect::<String>();
    let one_line = filled("1,");
    let list = &one_line[..LARGEST - 80];
    let place = Place::new();
    for (name, text) in [
        ("list.toml", format!("[zoo]\ningredients = [{list}]")),
        ("accents.toml", format!("[zoo]\ningredients = ['é', {}1]", "'é',".repeat(200_000))),
        ("keys.toml", numbered(|i| format!("k{i}=1\n"), 90_000)),
        ("tables.toml", numbered(|i| format!("[t{i}]\n"), 90_000)),
        ("dotted.toml", numbered(|i| format!("a.b.c{i}=1\n"), 70_000)),
        ("array.toml", filled("[[a]]\n")),
        ("equals.toml", filled("= \n")),
        ("quotes.toml", filled("\"\"\"")),
        ("list.yaml", format!("zoo: {{ingredients: [{list}1]}}")),
        ("keys.yaml", numbered(|i| format!("k{i}: 1\n"), 80_000)),
        ("complex.yaml", numbered(|i| format!("? [a, {i}]\n: 1\n"), 50_000)),
        ("anchors.yaml", numbered(|i| format!("- &a{i} x\n"), 70_000)),
        ("items.yaml", filled("- a\n")),
        ("documents.yaml", filled("---\n")),
        ("pairs.yaml", format!("[{}]", filled("a: b,"))),
        ("block.yaml", format!("a: |\n{}", &filled(" x\n")[..LARGEST - 60])),
        ("list.json", format!("{{\"zoo\": {{\"ingredients\": [{list}1]}}}}")),
        ("keys.json", format!("{{{}\"a\":1}}", numbered(|i| format!("\"k{i}\":1,"), 80_000))),
        ("lines.json", format!("{}{{}}", &filled("\n")[..LARGEST - 10])),
        ("long-key.toml", format!("{} = 1", &filled("k")[..LARGEST - 10])),
        ("long-text.toml", format!("name = '{}'", &filled("k")[..LARGEST - 20])),
        ("long-word.toml", format!("soup.method = '{}'", &filled("k")[..LARGEST - 40])),
    ] {
        assert!(text.len() <= LARGEST + 8, "{name}: {} bytes", text.len());
        place.refusal(name, &text[..text.len().min(LARGEST)]);
    }
}

#[test]
fn a_grid_of_more_tasks_than_can_be_counted() {
    let place = Place::new();
    let seeds: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
    let text = format!(
        "zoo.ingredients = 'z/*'\ndata.learn = 'l'\n[search]\nstrategy = 'grid'\n[search.space]\nseed = [{}]\nbatch = {{ int = [1, 1000000] }}\ninner_epochs = {{ int = [1, 1000000] }}\n",
        seeds.join(",")
    );
    let text = place.refusal("grid.toml", text);
    assert!(text.contains("a grid of at most 100000 tasks"), "{text}");
}

fn materialize(place: &Place, coefficients: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mehl-soup"))
        .arg("materialize")
        .arg(coefficients)
        .arg("--out")
        .arg(place.path("out"))
        .env("MEHL_SOUP_CACHE_DIR", place.path("cache"))
        .output()
        .unwrap()
}

/// What `materialize` says of a file of these bytes: exit code 2, the file named, no output folder.
fn refused_coefficients(bytes: &[u8]) -> String {
    let place = Place::new();
    let path = place.path("coefficients.safetensors");
    fs::write(&path, bytes).unwrap();
    refused_coefficients_at(&place, &path)
}

fn refused_coefficients_at(place: &Place, path: &Path) -> String {
    let output = materialize(place, path);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("coefficients.safetensors") && said.len() < 4096, "{said:.500}");
    assert!(!said.contains('\x1b'), "{said}");
    assert!(!place.path("out").exists());
    said
}

#[test]
fn coefficients_that_are_none() {
    for bytes in [Vec::new(), b"nonsense".to_vec(), u64::MAX.to_le_bytes().to_vec(), raw("{}", 0), raw("[[", 0)] {
        assert!(refused_coefficients(&bytes).contains("not a coefficients file"));
    }
    let other = blob(&[floats("A", safetensors::Dtype::F64, &[1, 1], &[1.0])]);
    assert!(refused_coefficients(&other).contains("metadata `mehl_soup_coefficients` is missing"));
}

#[test]
fn coefficients_with_hostile_metadata() {
    let with = |about: &str| {
        let text = serde_json::Value::from(about).to_string();
        let header = format!(r#"{{"__metadata__":{{"mehl_soup_coefficients":{text}}},{}}}"#, entry("A", "[8]", 0, 8));
        raw(header, 8)
    };
    let deep = format!(r#"{{"digest":"","about":{{"version":1,"hyperparameters":{}"#, "[".repeat(1_000_000));
    for about in
        ["", "{", "[]", "{\"digest\":3}", "{\"digest\":\"\",\"about\":{\"version\":-1}}", &deep, &"[".repeat(1_000_000)]
    {
        let error = CoefficientsFile::from_bytes(&with(about)).unwrap_err();
        assert!(matches!(error, CoefficientsError::Damaged(_)), "{error}");
        refused_coefficients(&with(about));
    }
    let control = "{\"digest\":\"\\u001b[2J\",\"about\":{\"version\":1,\"\u{1b}[2J\":1}}";
    refused_coefficients(&with(control));
}

#[test]
fn coefficients_that_are_no_small_file() {
    let place = Place::new();
    let path = place.path("coefficients.safetensors");
    File::create(&path).unwrap().set_len(LARGEST_COEFFICIENTS + 1).unwrap();
    assert!(refused_coefficients_at(&place, &path).contains("expected at most 268435456 bytes"));
    fs::remove_file(&path).unwrap();
    make_pipe(&path);
    assert!(refused_coefficients_at(&place, &path).contains("expected a regular file, found a pipe"));
}

#[test]
fn names_of_others_do_not_reach_the_terminal_as_commands() {
    let place = Place::new();
    let path = place.path("coefficients.safetensors\x1b[2J");
    fs::write(&path, "nonsense").unwrap();
    let said = refused_coefficients_at(&place, &path);
    assert!(said.contains("\\u{1b}[2J"), "{said}");
}
