//! A confined process: it reads below its roots only, wherever links and patterns lead. A process of its own, for it is confined for good.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use mehl_soup::operator_file::OperatorFile;
use mehl_soup::untrusted::{self, Confinement};
use mehl_soup::zoo::Zoo;
use safetensors::Dtype;
use support::{floats, write_model};

#[test]
fn everything_that_is_confined() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
    let model = || vec![vec![floats("a", Dtype::F32, &[2], &[1.0, 2.0])]];
    for place in [&inside, &outside] {
        fs::create_dir_all(place).unwrap();
        write_model(&place.join("k1"), &model());
        fs::write(place.join("file"), "content").unwrap();
    }
    let missing = Confinement::new(&[folder.path().join("none")], []).unwrap_err().to_string();
    assert!(missing.contains("input root") && missing.contains("none"), "{missing}");
    let file = Confinement::new(&[inside.join("file")], []).unwrap_err().to_string();
    assert!(file.contains("input root"), "{file}");

    // Not confined, everything can be read.
    untrusted::check_place(&outside).unwrap();
    untrusted::open(&outside.join("file")).unwrap();
    untrusted::check_module(Path::new("m.pt"), "00").unwrap();

    // The operator's own files: one outside of the roots, one below, as Kubernetes mounts it.
    let mounted = inside.join("secrets");
    fs::create_dir_all(mounted.join("..one")).unwrap();
    fs::write(mounted.join("..one/url"), "redis://u:hunter2@h").unwrap();
    symlink("..one", mounted.join("..data")).unwrap();
    symlink("..data/url", mounted.join("url")).unwrap();
    let secrets = [OperatorFile::new(outside.join("file")), OperatorFile::new(mounted.join("url"))];
    let confinement = Confinement::new(std::slice::from_ref(&inside), ["AB12".to_string()]).unwrap();
    untrusted::confine(confinement.hiding(secrets.clone())).unwrap();
    let again = Confinement::new(std::slice::from_ref(&outside), []).unwrap();
    assert!(untrusted::confine(again).is_err(), "once confined, always so");

    let opens = |path: &Path| untrusted::open(path).map(drop).map_err(|e| (e.kind(), e.to_string()));
    let refused = |path: &Path| {
        let (kind, text) = opens(path).unwrap_err();
        assert_eq!(kind, std::io::ErrorKind::PermissionDenied, "{text}");
        assert!(text.contains("input roots") && text.contains(&path.display().to_string()), "{text}");
    };
    opens(&inside.join("file")).unwrap();
    refused(&outside.join("file"));
    refused(Path::new("/etc/passwd"));
    refused(&inside.join("../outside/file"));
    // What begins like a root is none.
    let beside = folder.path().join("inside-not");
    fs::create_dir(&beside).unwrap();
    fs::write(beside.join("file"), "").unwrap();
    refused(&beside.join("file"));
    // Links count by where they lead.
    symlink(outside.join("file"), inside.join("out")).unwrap();
    refused(&inside.join("out"));
    symlink(inside.join("file"), inside.join("in")).unwrap();
    opens(&inside.join("in")).unwrap();
    symlink(&outside, inside.join("door")).unwrap();
    refused(&inside.join("door/file"));
    // A file that is not there: whether it is, outside, is nobody's business.
    assert_eq!(opens(&inside.join("nothing")).unwrap_err().0, std::io::ErrorKind::NotFound);
    refused(&outside.join("nothing"));

    // The process reads its operator's files, and a specification cannot name them, by any name.
    assert_eq!(secrets[0].read(100).unwrap(), b"content");
    assert_eq!(secrets[1].read(100).unwrap(), b"redis://u:hunter2@h");
    refused(&outside.join("file"));
    fs::hard_link(mounted.join("..one/url"), inside.join("innocent.csv")).unwrap();
    for name in ["secrets/url", "secrets/..data/url", "secrets/..one/url", "innocent.csv"] {
        let (kind, text) = opens(&inside.join(name)).unwrap_err();
        assert_eq!(kind, std::io::ErrorKind::PermissionDenied, "{name}: {text}");
        assert!(text.contains("operator") && !text.contains("hunter2"), "{name}: {text}");
    }
    // A rotation replaces the link: the new file is hidden as well.
    fs::create_dir(mounted.join("..two")).unwrap();
    fs::write(mounted.join("..two/url"), "redis://u:next@h").unwrap();
    symlink("..two", mounted.join("..next")).unwrap();
    fs::rename(mounted.join("..next"), mounted.join("..data")).unwrap();
    assert_eq!(secrets[1].read(100).unwrap(), b"redis://u:next@h");
    assert!(opens(&mounted.join("..two/url")).unwrap_err().1.contains("operator"));
    // Of what a link leads to outside, it is not said whether it exists.
    symlink(outside.join("absent"), inside.join("dangling")).unwrap();
    let answer = |name: &str| opens(&inside.join(name)).unwrap_err().1.replace(&format!("/{name} "), "/NAME ");
    assert_eq!(answer("dangling"), answer("out"));
    refused(Path::new("/proc/self/environ"));

    // Patterns of ingredients.
    let resolve =
        |pattern: &str| Zoo::find(&[pattern.to_string()], &inside).map(|found| found.paths).map_err(|e| e.to_string());
    let text = |path: &Path| path.to_str().unwrap().to_string();
    assert_eq!(resolve("k*").unwrap().len(), 1);
    for pattern in [
        text(&outside.join("k1")),
        text(&outside.join("*")),
        "/*".into(),
        "*/../../outside/k1".into(),
        "../outside/*".into(),
    ] {
        let error = resolve(&pattern).unwrap_err();
        assert!(error.contains("input roots"), "{pattern}: {error}");
    }
    assert!(resolve("door/*").unwrap_err().contains("input roots"));
    // A wildcard that meets the link: what is behind it makes no difference.
    let error = |pattern: &str| resolve(pattern).unwrap_err().replace(pattern, "PATTERN");
    for (there, absent) in [("*/k1", "*/k7"), ("d*r/k1", "d*r/k7"), ("*/file", "*/nothing"), ("d?or/*", "d?or/*x")] {
        assert_eq!(error(there), error(absent), "{there} {absent}");
        assert!(error(there).contains("input roots"), "{there}: {}", error(there));
    }
    symlink(outside.join("k1"), inside.join("k2")).unwrap();
    assert!(resolve("k*").unwrap_err().contains("input roots"), "a link among what a pattern matches");

    // Modules.
    untrusted::check_module(Path::new("m.pt"), "ab12").unwrap();
    let error = untrusted::check_module(Path::new("m.pt"), "cd34").unwrap_err().to_string();
    assert!(error.contains("torchscript_allow") && error.contains("cd34"), "{error}");
}
