//! `mehl-soup demo --make-zoo --texts`: zoos of text classifiers, by the programs.

use std::fs;

use crate::support::fixture;
use crate::support::programs::{Ended, Place, Running, read_tensors};
use mehl_soup::sweep::spec::MethodName;

const WORDS: [(&str, [&str; 3]); 2] = [("animal", ["cat", "dog", "owl"]), ("place", ["mat", "home", "night"])];

/// A place with `texts.jsonl`: for each class `n` texts in which its words are often.
fn place(n: usize) -> Place {
    let place = Place::new();
    let text = |class: usize, i: usize| {
        let word = |j: usize| match (i * 7 + j * 3) % 5 {
            0..3 => WORDS[class].1[(i + j) % 3],
            _ => ["the", "and", "not"][(i + j) % 3],
        };
        (0..3 + i % 6).map(word).chain([["is", "it"][i % 2]]).collect::<Vec<_>>().join(" ") + &".".repeat(i / 12)
    };
    let row = |(class, i)| serde_json::json!({ "text": text(class, i), "label": WORDS[class].0 }).to_string() + "\n";
    let rows: String = (0..n).flat_map(|i| [(0, i), (1, i)]).map(row).collect();
    place.spec("texts.jsonl", &rows);
    place
}

fn start(place: &Place, folder: &str, more: &[&str]) -> Running {
    let mut command = place.command();
    command.args(["demo", "--make-zoo", folder, "--texts", "texts.jsonl", "--ingredients", "3", "--epochs", "1..3"]);
    command.args(["--max-length", "12", "--base"]).arg(fixture("text-base")).args(more);
    Running::start(command)
}

fn make(place: &Place, folder: &str, more: &[&str]) -> Ended {
    start(place, folder, more).wait()
}

#[test]
fn a_zoo_of_text_classifiers_is_made_killed_resumed_and_swept() {
    let place = place(40);
    let made = make(&place, "zoo", &[]).expect(0).says(&["80 texts of 2 classes", "training a new head on "]);
    assert!(made.stdout.trim_end().ends_with("zoo/sweep.toml"), "{}", made.stdout);
    let ingredient = read_tensors(&place.path("zoo/zoo/run-00/model.safetensors"));
    for name in ["bert.embeddings.word_embeddings.weight", "bert.pooler.dense.weight", "classifier.bias"] {
        assert!(ingredient.contains_key(name), "{name}");
    }
    let of_base = fs::read(fixture("text-base/tokenizer.json")).unwrap();
    assert_eq!(place.read("zoo/zoo/run-02/tokenizer.json"), of_base, "the tokenizer goes along as it is");
    // A run that was killed goes on, and makes the same files.
    let mut running = start(&place, "killed", &[]);
    running.watch(|| place.path("killed/zoo/run-00").exists());
    running.kill();
    make(&place, "killed", &[]).expect(0);
    for file in place.tree("zoo").into_iter().filter(|name| place.path("zoo").join(name).is_file()) {
        if file != "sweep.toml" {
            assert!(place.read(&format!("zoo/{file}")) == place.read(&format!("killed/{file}")), "{file} differs");
        }
    }
    let spec = String::from_utf8(place.read("zoo/sweep.toml")).unwrap();
    let short = spec.replace("inner_epochs = 3", "inner_epochs = 1").replace("[zoo]", "[zoo]\nallow_chance = true");
    place.spec("zoo/sweep.toml", &short);
    place.run("zoo/sweep.toml", "run").expect(0);
    let results = place.results("run");
    assert!(results.tasks.iter().any(|task| task.method == MethodName::Steady), "every method is in the sweep");
    assert!(place.path("run/best/tokenizer.json").exists());
}

#[test]
fn what_is_wrong_is_told_before_anything_is_made() {
    let refused = |place: &Place, more: &[&str], says: &[&str]| {
        make(place, "zoo", more).expect(2).says(says);
        assert!(!place.path("zoo").exists());
    };
    refused(&place(2), &[], &["class `animal`: expected at least 5 different texts", "found 2"]);
    let two = place(8);
    two.spec("texts.jsonl", "{\"text\": \"cat\", \"label\": \"a\"}\n{\"text\": \"cat\", \"label\": \"b\"}\n");
    refused(&two, &[], &["expected one label for equal texts, found `a` and `b` for `cat`"]);
    two.spec("texts.jsonl", "{\"text\": \"cat\", \"label\": \"a\"}\n");
    refused(&two, &[], &["expected texts of at least two classes, found only `a`"]);
    two.spec("texts.jsonl", "{\"text\": 1, \"label\": \"a\"}\n");
    refused(&two, &[], &["texts.jsonl: line 1: `text`: expected a text, found a whole number"]);
    let other = place(8);
    let mut command = other.command();
    command.args(["demo", "--make-zoo", "zoo", "--texts", "texts.jsonl"]);
    Running::start(command).wait().expect(2).says(&["--base"]);
    let mut command = other.command();
    command.args(["demo", "--make-zoo", "zoo", "--texts", "texts.jsonl", "--base"]);
    command.arg(fixture("trajectories/zoo/k0"));
    Running::start(command).wait().expect(2).says(&["model_type: expected one of bert, roberta", "found vit"]);
}
