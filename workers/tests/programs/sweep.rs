//! Whole sweeps, through the programs, as a person runs them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::support::fixture;
use crate::support::programs::{Place, assert_same_coefficients, edit, read_tensors, sound_spec, vit_spec};
use mehl_soup::sweep::results::SweepResults;
use mehl_soup::sweep::task::Origin;
use mehl_soup::task::TaskState;
use serde_json::Value;

const SOUP: &str = "batch = 8\ninner_epochs = 2\nmodel_batch = 2";
const ONE_THREAD: &str = "[compute]\nthreads = 1";

/// Fields that each row of `results.json` has.
const FIELDS: [&str; 16] = [
    "task_id",
    "method",
    "hyperparameters",
    "learn",
    "select",
    "test",
    "baselines",
    "iterations",
    "seconds",
    "samples_per_second",
    "peak_device_bytes",
    "peak_host_bytes",
    "state",
    "cause",
    "exact",
    "better_than_best_ingredient",
];

/// Checks `results.json` as a reader without our types would.
fn check_results(json: &Value) {
    let rows = json["tasks"].as_array().unwrap();
    assert_eq!(json["ingredients"].as_array().unwrap().len(), 4);
    let losses: Vec<f64> = rows.iter().map(|row| row["select"]["loss"].as_f64().unwrap()).collect();
    assert!(losses.is_sorted(), "best first by select: {losses:?}");
    let best = json["ingredients"].as_array().unwrap().iter().map(|i| i["select"]["loss"].as_f64().unwrap());
    let best = best.fold(f64::INFINITY, f64::min);
    for row in rows {
        for field in FIELDS {
            assert!(row.get(field).is_some(), "no `{field}` in {row}");
        }
        assert_eq!(row["state"], "succeeded");
        for split in ["learn", "select", "test"] {
            for number in ["loss", "accuracy", "loss_standard_error", "accuracy_standard_error"] {
                assert!(row[split][number].as_f64().unwrap() >= 0.0, "{split} {number}");
            }
            assert!(row[split]["accuracy"].as_f64().unwrap() <= 1.0);
        }
        for baseline in ["best", "uniform", "greedy"] {
            assert!(row["baselines"][baseline]["loss"].is_number(), "{baseline} in {row}");
        }
        let better = row["select"]["loss"].as_f64().unwrap() < best;
        assert_eq!(row["better_than_best_ingredient"], better);
        let learns = !["best", "uniform", "greedy"].contains(&row["method"].as_str().unwrap());
        assert_eq!(row["iterations"].as_u64().unwrap() > 0, learns, "{row}");
        assert_eq!(row["samples_per_second"].as_f64().is_some_and(|speed| speed > 0.0), learns);
        assert!(row["seconds"].as_f64().unwrap() > 0.0);
        assert!(row["peak_host_bytes"].as_u64().unwrap() > 10_000_000);
        assert!(row["peak_device_bytes"].is_null(), "the CPU's memory is the host's");
        assert!(row["hyperparameters"]["learning_rate"].is_number());
    }
    check_comparisons(json);
}

/// The winner against all baselines and the runner-up, on both splits, by the loss and accuracy, sample by sample.
fn check_comparisons(json: &Value) {
    let winner = &json["tasks"][0];
    let comparisons = json["comparisons"].as_array().unwrap();
    let others: BTreeSet<&str> = comparisons.iter().map(|one| one["other"].as_str().unwrap()).collect();
    assert_eq!(comparisons.len(), others.len() * 4);
    for other in ["best", "uniform", "greedy"] {
        assert!(others.contains(other) || winner["task_id"] == other, "{others:?}");
    }
    for one in comparisons {
        assert_eq!((&one["task_id"], &one["paired"]), (&winner["task_id"], &Value::Bool(true)), "{one}");
        let row = json["tasks"].as_array().unwrap().iter().find(|row| row["task_id"] == one["other"]).unwrap();
        let (split, metric) = (one["split"].as_str().unwrap(), one["metric"].as_str().unwrap());
        let value = |row: &Value| row[split][metric].as_f64().unwrap();
        // Values of samples are kept in f32.
        assert!((one["difference"].as_f64().unwrap() - (value(winner) - value(row))).abs() < 1e-6, "{one}");
        assert!(one["standard_error"].as_f64().unwrap() >= 0.0, "{one}");
    }
}

/// The sound specification with a test split.
fn with_test(soup: &str, rest: &str) -> String {
    let learn = fixture("trajectories/learn.safetensors");
    sound_spec(soup, rest).replace("[soup]", &format!("test = '{}'\n[soup]", learn.display()))
}

#[test]
fn a_grid_with_points_on_one_device_and_on_two() {
    let place = Place::new();
    let search = "[search]\ngreedy_baseline = true\npoints = [{ method = 'learned+', learning_rate = 0.02 }]\n\
        [search.space]\nmethod = ['mehl', 'hl+']\n\"zoo.top\" = [2, 4]";
    let spec = with_test(SOUP, &format!("{search}\n{ONE_THREAD}"));
    place.spec("sweep.toml", &spec);
    let ended = place.mehl_soup(&["run", "sweep.toml", "--out", "one", "--format", "json"]).expect(0);
    let printed: Value = serde_json::from_str(&ended.stdout).expect("stdout is JSON and nothing else");
    let written: Value = serde_json::from_slice(&place.read("one/results.json")).unwrap();
    assert_eq!(printed, written);
    check_results(&written);
    let results = place.results("one");
    let ids: BTreeSet<&str> = results.tasks.iter().map(|row| row.task_id.as_str()).collect();
    let expected = ["best", "uniform", "greedy", "0001-learned+", "0002-mehl", "0003-mehl", "0004-hl+", "0005-hl+"];
    assert_eq!(ids, BTreeSet::from(expected));
    let points: Vec<_> = results.tasks.iter().filter(|row| row.origin == Origin::Point).collect();
    assert_eq!(points.len(), 1);
    assert_eq!(points[0].searched["learning_rate"], 0.02);

    // The subset: two ingredients have coefficients, the two best by select.
    let mut ranked: Vec<usize> = (0..4).collect();
    ranked.sort_by(|&a, &b| {
        let loss = |k: usize| results.ingredients[k].select.unwrap().loss;
        loss(a).total_cmp(&loss(b))
    });
    for (id, top) in [("0002-mehl", 2), ("0003-mehl", 4)] {
        let bytes = place.coefficients_of("one", id);
        let coefficients = mehl_soup::coefficients::CoefficientsFile::from_bytes(&bytes).unwrap().coefficients;
        let used: BTreeSet<usize> = (0..4).filter(|&k| coefficients.column(0)[k] != 0.0).collect();
        assert_eq!(used, ranked[..top].iter().copied().collect(), "zoo.top = {top}");
    }

    let two = spec.replace("threads = 1", "threads = 1\ndevices = ['cpu', 'cpu']");
    fs::create_dir(place.path("two")).unwrap();
    fs::write(place.path("sweep.toml"), two).unwrap();
    place.run("sweep.toml", "two").expect(0);
    assert_same_coefficients(&place, "one", "two");
}

#[test]
fn a_random_search_in_toml_yaml_and_json() {
    let place = Place::new();
    let search = "[search]\nstrategy = 'random'\ntasks = 3\n[search.space]\n\
        learning_rate = { log_uniform = [1e-3, 1e-1] }\nmethod = { choice = ['mehl+', 'learned'] }";
    place.spec("sweep.toml", &sound_spec(SOUP, &format!("{search}\n{ONE_THREAD}")));
    let table = place.run("sweep.toml", "toml").expect(0).stdout;
    for text in ["best *", "uniform *", "* baseline", "learning_rate=", "select", "±"] {
        assert!(table.contains(text), "expected `{text}` in:\n{table}");
    }
    assert!(!table.contains("task uniform starts"), "stdout is data only: {table}");
    let rates: BTreeSet<String> = place
        .results("toml")
        .tasks
        .iter()
        .filter_map(|row| Some(row.searched.get("learning_rate")?.to_string()))
        .collect();
    assert_eq!(rates.len(), 3, "three different samples: {rates:?}");

    let zoo = fixture("trajectories/zoo/*");
    let learn = fixture("trajectories/learn.safetensors");
    let yaml = format!(
        "seed: 4\nzoo:\n  allow_chance: true\n  ingredients: ['{zoo}']\ndata:\n  learn: {learn}\n  select: {learn}\n\
         soup: {{ batch: 8, inner_epochs: 2, model_batch: 2 }}\n\
         search:\n  strategy: random\n  tasks: 3\n  space:\n    learning_rate: {{ log_uniform: [0.001, 0.1] }}\n\
         \x20   method: {{ choice: [mehl+, learned] }}\ncompute: {{ threads: 1 }}\n",
        zoo = zoo.display(),
        learn = learn.display()
    );
    place.spec("sweep.yaml", &yaml);
    place.run("sweep.yaml", "yaml").expect(0);
    assert_same_coefficients(&place, "toml", "yaml");
    let json = serde_json::json!({
        "seed": 4, "zoo": { "ingredients": [zoo], "allow_chance": true }, "data": { "learn": learn, "select": learn },
        "soup": { "batch": 8, "inner_epochs": 2, "model_batch": 2 },
        "search": { "strategy": "random", "tasks": 3, "space": {
            "learning_rate": { "log_uniform": [0.001, 0.1] }, "method": { "choice": ["mehl+", "learned"] } } },
        "compute": { "threads": 1 },
    });
    place.spec("sweep.json", &json.to_string());
    place.run("sweep.json", "json").expect(0);
    assert_same_coefficients(&place, "toml", "json");
}

#[test]
fn successive_halving_ends_with_the_same_soups_as_the_whole_search() {
    let place = Place::new();
    let search = |strategy: &str| {
        let soup = "batch = 10\ninner_epochs = 1\nouter_epochs = 4\nmodel_batch = 2";
        let space = "learning_rate = { log_uniform = [1e-3, 1e-1] }";
        sound_spec(soup, &format!("[search]\nstrategy = {strategy}\ntasks = 5\n[search.space]\n{space}\n{ONE_THREAD}"))
    };
    place.spec("sweep.toml", &search("'random'"));
    place.run("sweep.toml", "whole").expect(0);
    place.spec("sweep.toml", &search("'asha'\neta = 2"));
    let ended = place.run("sweep.toml", "asha").expect(0).says(&["waits at a rung", "select loss"]);
    assert!(ended.stdout.contains("pruned"), "{}", ended.stdout);
    let (whole, asha) = (place.results("whole"), place.results("asha"));
    let mut states = BTreeMap::new();
    for row in &asha.tasks {
        *states.entry(row.state.as_str()).or_insert(0) += 1;
        let other = whole.tasks.iter().find(|other| other.task_id == row.task_id).unwrap();
        assert_eq!(row.searched, other.searched, "the same seed draws the same samples");
        if row.state == TaskState::Succeeded {
            let of = |run: &str| place.coefficients_of(run, &row.task_id);
            assert!(of("asha") == of("whole"), "{}", row.task_id);
            assert_eq!((row.select, row.iterations), (other.select, other.iterations));
        } else {
            assert!(row.select.is_some() && row.test.is_none() && row.iterations < other.iterations, "{row:?}");
            assert!(!place.path(&format!("asha/tasks/{}/checkpoint.safetensors", row.task_id)).exists());
        }
    }
    // Of five at the first rung two go on, of these one past the second; and the baselines.
    assert_eq!(states, BTreeMap::from([("pruned", 4), ("succeeded", 3)]));
    assert!(place.path("asha/best/model.safetensors").exists());
}

#[test]
fn time_that_is_over_and_more_of_it() {
    let place = Place::new();
    let search = |seconds: &str| {
        let soup = "batch = 2\ninner_epochs = 100\npatience = 100\nearly_stopping = false\nmodel_batch = 2";
        sound_spec(soup, &format!("[search]\n{seconds}\nspace = {{ method = ['mehl+', 'learned'] }}\n{ONE_THREAD}"))
    };
    place.spec("sweep.toml", &search(""));
    place.run("sweep.toml", "whole").expect(0);
    place.spec("sweep.toml", &search("max_seconds = 0.6"));
    let ended = place.run("sweep.toml", "out").expect(0).says(&["max_seconds has passed"]);
    assert!(ended.stdout.contains("queued"), "{}", ended.stdout);
    let unfinished = |results: &SweepResults| results.tasks.iter().filter(|row| row.state == TaskState::Queued).count();
    assert!(unfinished(&place.results("out")) > 0);
    place.spec("sweep.toml", &search("max_seconds = 1000"));
    place.run("sweep.toml", "out").expect(0);
    assert_eq!(unfinished(&place.results("out")), 0);
    assert_same_coefficients(&place, "whole", "out");
}

#[test]
fn a_finished_sweep_is_left_as_it_is() {
    let place = Place::new();
    place.copy_zoo();
    let learn = fixture("trajectories/learn.safetensors");
    place.spec("sweep.toml", &vit_spec("zoo/*", &learn, &format!("method = 'mehl+'\n{SOUP}"), ONE_THREAD));
    let first = place.run("sweep.toml", "out").expect(0);
    let contents = || -> Vec<_> {
        let files = place.tree("out").into_iter().filter(|file| place.path("out").join(file).is_file());
        files.map(|file| (place.read(&format!("out/{file}")), file)).collect()
    };
    let (before, wanted) = (contents(), place.results("out"));
    // Not even the zoo is needed again.
    fs::rename(place.path("zoo"), place.path("moved")).unwrap();
    let again = place.run("sweep.toml", "out").expect(0);
    assert_eq!(again.stdout, first.stdout);
    assert!(!again.stderr.contains("starts") && !again.stderr.contains("scored"), "{}", again.stderr);
    assert!(contents() == before && place.results("out") == wanted);
    // What was lost of it is made again from what is there.
    fs::remove_file(place.path("out/results.json")).unwrap();
    place.run("sweep.toml", "out").expect(0);
    assert!(contents() == before);
}

#[test]
fn a_model_is_written_from_any_coefficients() {
    let place = Place::new();
    place.copy_zoo();
    let learn = fixture("trajectories/learn.safetensors");
    place.spec("sweep.toml", &vit_spec("zoo/*", &learn, &format!("method = 'mehl+'\n{SOUP}"), ONE_THREAD));
    place.run("sweep.toml", "out").expect(0);
    let winner = place.results("out").tasks[0].task_id.clone();
    let coefficients = format!("out/tasks/{winner}/coefficients.safetensors");
    let ended = place.mehl_soup(&["materialize", &coefficients, "--out", "model"]).expect(0);
    assert_eq!(ended.stdout.trim(), "model");
    assert_eq!(place.tree("model"), place.tree("out/best"));
    for file in place.tree("model").into_iter().filter(|file| file != "README.md") {
        assert!(place.read(&format!("model/{file}")) == place.read(&format!("out/best/{file}")), "{file} differs");
    }
    // Coefficients do not know the other tasks of their sweep, so only the winner's card compares with them.
    let card = |folder: &str| String::from_utf8(place.read(&format!("{folder}/README.md"))).unwrap();
    let best = card("out/best");
    let (before, compared) = best.split_once("\n## Compared with\n").unwrap();
    let after = &compared[compared.find("\n## ").unwrap()..];
    assert!(compared.contains("| `uniform` | select |"), "{compared}");
    assert_eq!(card("model"), format!("{before}{after}"));
    assert!(place.read("model/config.json") == place.read("zoo/k0/config.json"));

    // The zoo has moved, under other names: its contents tell which is which.
    fs::create_dir(place.path("elsewhere")).unwrap();
    for (from, to) in [("k0", "z"), ("k1", "y"), ("k2", "x"), ("k3", "w")] {
        fs::rename(place.path("zoo").join(from), place.path("elsewhere").join(to)).unwrap();
    }
    place.mehl_soup(&["materialize", &coefficients, "--out", "model2"]).expect(2).says(&["zoo/k0"]);
    let moved = ["materialize", &coefficients, "--out", "model2", "--zoo", "elsewhere/*"];
    place.mehl_soup(&moved).expect(0);
    let weights = |model: &str| read_tensors(&place.path(model).join("model.safetensors"));
    assert!(weights("model2") == weights("model"));

    // Narrower, and not in place of what is there unless asked.
    let narrow: Vec<&str> = moved.iter().copied().chain(["--dtype", "bf16"]).collect();
    place.mehl_soup(&narrow).expect(2).says(&["model2", "not empty"]);
    assert!(weights("model2") == weights("model"));
    let narrow: Vec<&str> = narrow.into_iter().chain(["--overwrite"]).collect();
    place.mehl_soup(&narrow).expect(0);
    for (name, (dtype, shape, data)) in weights("model2") {
        let (_, wide_shape, wide) = &weights("model")[&name];
        assert_eq!((dtype, &shape), (safetensors::Dtype::BF16, wide_shape));
        let wide = wide.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap()));
        let rounded: Vec<u8> = wide.flat_map(|v| half::bf16::from_f32(v).to_le_bytes()).collect();
        assert!(data == rounded, "{name}");
    }
}

#[test]
fn a_torchscript_module_with_two_inputs() {
    let place = Place::new();
    let text = |file: &str| fixture("text").join(file).display().to_string();
    let spec = format!(
        "[zoo]\nallow_chance = true\ningredients = ['{}']\nfamily = 'torchscript'\narchitecture = '{}'\n\
         [data]\nlearn = '{}'\nselect = '{}'\ntest = '{}'\ninputs = ['input_ids', 'attention_mask']\n\
         [soup]\nmethod = 'mehl+'\nmodel_batch = 2\nbatch = 32\ninner_epochs = 2\n{ONE_THREAD}",
        text("zoo/*"),
        text("model.pt"),
        text("learn.safetensors"),
        text("select.safetensors"),
        text("test.safetensors")
    );
    place.spec("sweep.toml", &spec);
    let ended = place.mehl_soup(&["run", "sweep.toml", "--out", "out", "--format", "json"]).expect(0);
    let results: SweepResults = serde_json::from_str(&ended.stdout).unwrap();
    assert!(results.tasks.iter().all(|row| row.state == TaskState::Succeeded && row.test.is_some()));
    let best = &results.tasks[0];
    assert!(results.ingredients.iter().all(|i| best.select.unwrap().loss <= i.select.unwrap().loss));
    let names = |path: &Path| read_tensors(path).into_iter().map(|(n, (d, s, _))| (n, d, s)).collect::<Vec<_>>();
    assert_eq!(names(&place.path("out/best/model.safetensors")), names(&fixture("text/zoo/a.safetensors")));

    // What the sweep found good is good as an ingredient too: the same scores come out when it is scored as one.
    let model = place.path("out/best/model.safetensors").display().to_string();
    place.spec("check.toml", &spec.replace(&text("zoo/*"), &model).replace("'mehl+'", "'best'"));
    place.run("check.toml", "check").expect(0);
    let again = place.results("check");
    let scored = again.tasks.iter().find(|row| row.task_id == "best").unwrap();
    assert_eq!((scored.select, scored.test, scored.learn), (best.select, best.test, best.learn));
}

#[test]
fn inspect_shows_what_differs() {
    let place = Place::new();
    place.copy_zoo();
    let ended = place.mehl_soup(&["inspect", "zoo/*"]).expect(0);
    for text in
        ["family: vit", "k0, k1, k2, k3", "768", "F32", "differences from k0, which most ingredients match: none"]
    {
        assert!(ended.stdout.contains(text), "expected `{text}` in:\n{}", ended.stdout);
    }
    let name = "classifier.weight";
    edit(&place.path("zoo/k2/model.safetensors"), |tensors| tensors.get_mut(name).unwrap().1 = vec![8, 4]);
    let ended = place.mehl_soup(&["inspect", "zoo/*"]).expect(1);
    for text in ["k2", name, "[4, 8]", "[8, 4]"] {
        assert!(ended.stdout.contains(text), "expected `{text}` in:\n{}", ended.stdout);
    }
}
