//! Reports of run folders: what they say, and that nothing in a sweep can make a page do anything.
mod engine;
mod html;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use engine::{Zoo, effort, run, score, scores, spec};
use html::Page;
use mehl_soup::report::{Detail, ReadError, Report, chosen, plots, read_folder, render};
use mehl_soup::runner::engine::Completion;
use mehl_soup::runner::pool::HistoryPoint;
use mehl_soup::runner::run_folder::RunFolder;
use mehl_soup::sweep::csv::to_csv;
use mehl_soup::sweep::expand::expand;
use mehl_soup::sweep::metric::{Estimate, Metric};
use mehl_soup::sweep::objective::ObjectiveName;
use mehl_soup::sweep::paired::UnitScores;
use mehl_soup::sweep::results::{SweepResults, TaskOutcome};
use mehl_soup::sweep::score::SplitScore;
use mehl_soup::sweep::spec::ComputeDtype;
use mehl_soup::sweep::table;
use mehl_soup::sweep::task::Task;
use mehl_soup::task::TaskState;
use serde_json::{Value, json};

/// Largest page.
const LARGEST: usize = 5_000_000;

fn page(folder: &Path) -> Page {
    Page::read(&render(&read_folder(folder).unwrap()).unwrap())
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).unwrap();
}

#[test]
fn metrics_and_units_are_those_of_the_objective() {
    let folder = tempfile::tempdir().unwrap();
    let (root, zoo) = (folder.path().join("run"), Zoo::new(3, 4));
    let mut results = run(&root, &spec("texts", 2), &zoo, u64::MAX).unwrap();
    results.objective = ObjectiveName::Pairs;
    let estimate = |value| Estimate { value, standard_error: 0.03125 };
    let of = |loss: f64| {
        let accuracy = Metric::named("accuracy_at_1").unwrap();
        SplitScore::new(7, estimate(loss), [(accuracy, estimate(0.8125))])
    };
    for row in &mut results.tasks {
        for score in [&mut row.select, &mut row.test, &mut row.learn].into_iter().flatten() {
            *score = of(score.loss);
        }
    }
    results.ingredients.iter_mut().for_each(|ingredient| ingredient.select = ingredient.select.map(|one| of(one.loss)));
    results.compare(|_| None);
    let text = serde_json::to_string(&results).unwrap();
    assert!(text.contains(r#""objective":"pairs""#) && text.contains(r#""accuracy_at_1_standard_error":0.03125"#));
    assert_eq!(serde_json::from_str::<SweepResults>(&text).unwrap(), results);
    std::fs::write(root.join("results.json"), &text).unwrap();
    let page = page(&root);
    assert!(page.text.contains("± is one standard error over batches"), "{}", page.text);
    assert!(page.text.contains("select acc.@1 %") && page.text.contains("81.25"), "{}", page.text);
    assert!(!page.text.contains("select acc. %"));
    let csv = to_csv(&results);
    assert!(csv.starts_with("task_id,method,origin,state,select_loss,select_accuracy_at_1,test_loss,"), "{csv}");
    let table = table::render(&results, 300);
    assert!(table.contains("acc.@1 %") && table.contains("(7 batches, not used for any choice)"), "{table}");
}

#[test]
fn a_finished_sweep_shows_everything() {
    let folder = tempfile::tempdir().unwrap();
    let (root, zoo) = (folder.path().join("run"), Zoo::new(6, 9));
    let results = run(&root, &spec("digits", 6), &zoo, u64::MAX).unwrap();
    std::fs::write(root.join("results.json"), serde_json::to_vec(&results).unwrap()).unwrap();
    let page = page(&root);
    assert_eq!(page.all("h1"), ["digits"]);
    let headings = [
        "Summary",
        "Leaderboard",
        "Loss over iterations",
        "Coefficients",
        "Share of each ingredient",
        "Hyperparameters",
        "Memory and throughput",
        "Provenance",
    ];
    assert_eq!(page.all("h2"), headings);
    // 0.10 on test with errors of 0.02 each.
    let winner = &results.tasks[0];
    page.says(&format!("{} beats the best ingredient on test, by more than two standard errors.", winner.task_id));
    let rows = page.all("tr");
    let gain = |over: &str| *rows.iter().find(|row| row.starts_with(over)).unwrap();
    let by = 0.31 - winner.test.unwrap().loss;
    assert!(gain("best ingredient").contains(&format!("\u{2212}{by:.4} ± 0.0283")), "{}", gain("best ingredient"));
    for other in ["best ingredient", "uniform soup", "greedy soup"] {
        assert!(gain(other).contains(" better "), "{}", gain(other));
    }
    assert!(gain("runner-up").contains("cannot be told"), "{}", gain("runner-up"));
    let ranked: Vec<_> = rows.iter().filter(|row| !row.starts_with("runner-up")).collect();
    for row in &results.tasks {
        let line = ranked.iter().find(|line| line.split(' ').nth(1) == Some(row.task_id.as_str())).unwrap();
        assert!(line.contains(&format!("{:.4} ± 0.0200", row.select.unwrap().loss)), "{line}");
    }
    for text in ["run-05", "learn", "347", "/data/test.safetensors", &results.spec_identity, &results.inputs_hash] {
        page.says(text);
    }
    page.says("every result is bit-exact").says("Seed");
    // Scores, six curves, maps of layer-wise soups and one by task, two shares, two of effort, two of hyperparameters.
    let layerwise = results.tasks.iter().filter(|row| row.task_id.ends_with('+')).count().min(3);
    assert_eq!(page.count("svg"), 1 + 6 + layerwise + 1 + 2 + 2 + 2);
    assert!(page.all("text").contains(&"learning_rate"));
}

#[test]
fn drawings_are_files_too_and_the_same_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    run(&root, &spec("digits", 4), &Zoo::new(5, 7), u64::MAX).unwrap();
    let (first, again) = (read_folder(&root).unwrap(), read_folder(&root).unwrap());
    assert_eq!(render(&first).unwrap(), render(&again).unwrap());
    let all = plots(&first).unwrap();
    let names: BTreeSet<&str> = all.iter().map(|plot| plot.name.as_str()).collect();
    assert_eq!(names.len(), all.len(), "names of files differ");
    for (plot, same) in all.iter().zip(plots(&again).unwrap()) {
        let svg = plot.file();
        assert_eq!(svg, same.file());
        let document = roxmltree::Document::parse(&svg).unwrap_or_else(|e| panic!("{}: {e}", plot.name));
        assert_eq!(document.root_element().tag_name().namespace(), Some("http://www.w3.org/2000/svg"));
        assert!(!svg.contains("var(") && svg.contains("#ffffff"), "{}: colours of its own", plot.name);
        assert!(!svg.to_lowercase().contains("nan"), "{}", plot.name);
    }
}

#[test]
fn an_unfinished_sweep_says_so_and_shows_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    // Three baselines, one task, and half of the second.
    assert!(run(&root, &spec("digits", 4), &Zoo::new(5, 7), 60).is_none());
    let read = page(&root);
    read.says("This sweep is not finished.")
        .says("of 7 tasks have ended")
        .says("queued")
        .says("The results below can still change");
    assert!(
        render(&read_folder(&root).unwrap()).unwrap().contains("over inner epochs\""),
        "of the task that was stopped"
    );
    // Later it is, in the same folder.
    run(&root, &spec("digits", 4), &Zoo::new(5, 7), u64::MAX).unwrap();
    assert!(!page(&root).text.contains("not finished"));
}

#[test]
fn a_failed_sweep_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let zoo = Zoo { fault: Some("loss is NaN in iteration 7".into()), ..Zoo::new(5, 7) };
    run(&root, &spec("digits", 4), &zoo, u64::MAX).unwrap();
    let read = page(&root);
    read.says("No task of this sweep has succeeded (7 failed).").says("so there is no winner");
    let causes: Vec<&str> = read.all("li").into_iter().filter(|line| line.contains("loss is NaN")).collect();
    assert_eq!(causes.len(), 1, "the same cause once: {causes:?}");
    assert!(causes[0].starts_with("7 tasks"), "{causes:?}");
    read.says("run-04");
}

#[test]
fn an_empty_sweep_says_so_and_no_sweep_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let error = read_folder(&root).unwrap_err();
    assert!(matches!(&error, ReadError::NotASweep { path } if path.ends_with("run")), "{error}");
    // What a run has made before it has looked at its inputs, and after.
    drop(RunFolder::open(&root, &spec("digits", 4)).unwrap());
    page(&root).says("This sweep has no tasks yet.").says("not known yet");
    write_json(&root.join("sweep.json"), &json!({"version": 1, "identity": "0123abcd", "name": "digits"}));
    page(&root).says("This sweep has no tasks yet.").says("0123abcd").says("digits");
    std::fs::write(root.join("sweep.json"), "{").unwrap();
    let error = read_folder(&root).unwrap_err();
    assert!(matches!(&error, ReadError::Damaged { path, .. } if path.ends_with("sweep.json")), "{error}");
}

#[test]
fn files_of_other_versions_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let results = run(&root, &spec("digits", 2), &Zoo::new(3, 2), u64::MAX).unwrap();
    let path = root.join("results.json");
    // The rest of it may be anything.
    for other in [json!({"version": 2}), json!({"version": 2, "tasks": "moved"})] {
        write_json(&path, &other);
        let error = read_folder(&root).unwrap_err();
        assert!(matches!(error, ReadError::Version { found: 2, expected: 1, .. }), "{error}");
        assert!(error.to_string().contains("results.json has version 2, this program reads version 1"), "{error}");
    }
    for damaged in ["", "{", "[]", r#"{"version": "1"}"#, r#"{"version": 1}"#] {
        std::fs::write(&path, damaged).unwrap();
        let error = read_folder(&root).unwrap_err();
        assert!(matches!(&error, ReadError::Damaged { path, .. } if path.ends_with("results.json")), "{error}");
    }
    // What is only shown is noted instead.
    write_json(&path, &serde_json::to_value(&results).unwrap());
    let winner = root.join("tasks").join(&results.tasks[0].task_id);
    write_json(&winner.join("history.json"), &json!({"version": 9}));
    std::fs::write(winner.join("coefficients.safetensors"), "none").unwrap();
    page(&root).says("history.json has version 9").says("not a coefficients file");
}

/// A sweep of so many tasks, all of them with results, and what is kept of some.
fn large(tasks: usize, zoo: &Zoo) -> Report {
    let spec = spec("large", tasks);
    let all = expand(&spec);
    let completion = |task: &Task| Completion {
        dtype: ComputeDtype::F32,
        units: UnitScores::default(),
        coefficients: vec![],
        scores: scores(task),
        effort: effort(40),
        exact: true,
        model_batch: 5,
        attempts: 1,
    };
    let mut outcomes: BTreeMap<String, TaskOutcome> =
        all.iter().map(|task| (task.id.clone(), TaskOutcome::succeeded(&completion(task), 1))).collect();
    for (n, task) in all.iter().enumerate().filter(|(n, _)| n % 10 == 9) {
        let cause = format!("a cause of its own, {n} {}", "x".repeat(5000));
        outcomes.insert(task.id.clone(), TaskOutcome::failed(cause, effort(n as u64), 3));
    }
    let results = SweepResults::build(&spec, &zoo.manifest(), &all, &outcomes);
    let point = |iteration: u64| HistoryPoint {
        iteration,
        learn_loss: 1.0 / (1.0 + (iteration * 7919 % 1000) as f64),
        select_loss: Some(1.0 / (iteration + 1) as f64),
        samples_per_second: (iteration * 7919 % 1000) as f64,
        host_bytes: iteration << 20,
        device_bytes: Some(iteration << 21),
    };
    let details = chosen(&results).into_iter().map(|id| {
        let task = all.iter().find(|task| task.id == id).unwrap();
        let history = (0..1024).map(point).collect();
        Detail { history, soup: Some(zoo.soup(task)), ..Detail::new(&id) }
    });
    let details = details.collect();
    Report::new(results, Some(spec), Some(zoo.manifest()), details)
}

#[test]
fn thousands_of_tasks_stay_readable_and_small() {
    // As large as maps are drawn, and larger.
    let zoo = Zoo::new(300, 1000);
    let report = large(20_000, &zoo);
    let text = render(&report).unwrap();
    assert!(text.len() < LARGEST, "{} bytes", text.len());
    let page = Page::read(&text);
    let lines = page.all("tr").len();
    assert!((50..400).contains(&lines), "{lines} lines of tables");
    page.says("more tasks: ").says("All of them are in results.json.").says("other causes");
    page.says("And 100 more; all of them are in results.json.");
    // The baselines are shown wherever they rank.
    for baseline in ["best", "uniform", "greedy"] {
        assert!(page.all("tr").iter().any(|row| row.split(' ').nth(1) == Some(baseline)), "{baseline}");
    }
}

const HOSTILE: &[&str] = &[
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'><svg/onload=alert(1)>",
    "</style><script>alert(1)</script>",
    "</text></svg><iframe src='http://127.0.0.1/'>",
    "]]><!--",
    "--><a href='javascript:alert(1)'>x</a>",
    "&lt;b&gt; &#60;script&#62; &",
    "\" fill=\"#010200\" opacity=\"1",
    "#010206 \"#010264\" url(http://127.0.0.1/)",
    "\u{0}\u{1b}[2J\u{fffe}\u{ffff}\u{202e}\r\n",
    "../../etc/passwd",
];

/// Puts hostile texts wherever a text may be anything.
fn spoil(value: &mut Value, next: &mut impl FnMut() -> String, is_name: bool) {
    const FREE: &[&str] = &[
        "name",
        "cause",
        "generated_by",
        "spec_identity",
        "inputs_hash",
        "hash",
        "task_id",
        "notes",
        "split",
        "path",
        "architecture",
    ];
    match value {
        Value::String(text) if is_name => *text = next(),
        Value::Array(all) => all.iter_mut().for_each(|one| spoil(one, next, is_name)),
        Value::Object(all) => {
            for (key, one) in all.iter_mut() {
                spoil(one, next, FREE.contains(&key.as_str()));
            }
        }
        _ => {}
    }
}

#[test]
fn nothing_in_a_sweep_becomes_markup() {
    let mut turn = 0;
    let mut next = || {
        turn += 1;
        HOSTILE[turn % HOSTILE.len()].to_string()
    };
    for _ in 0..HOSTILE.len() {
        let mut zoo = Zoo::new(5, 7);
        zoo.ingredients.iter_mut().for_each(|name| *name = next());
        zoo.groups.iter_mut().for_each(|name| *name = next());
        let mut report = large(12, &zoo);
        let mut results = serde_json::to_value(&report.results).unwrap();
        spoil(&mut results, &mut next, false);
        for row in results["tasks"].as_array_mut().unwrap() {
            row["searched"] = json!({ next(): next(), "learning_rate": 0.1, next(): 3.5 });
            if row["state"] == "failed" {
                row["cause"] = json!(next());
            }
        }
        results["notes"] = json!([next(), next()]);
        report.results = serde_json::from_value(results).unwrap();
        for (detail, row) in report.details.iter_mut().zip(&report.results.tasks) {
            detail.task_id = row.task_id.clone();
            detail.faults.push(next());
        }
        report.family = Some(next());
        report.splits.iter_mut().for_each(|split| (split.split, split.path) = (next(), next().into()));
        let spec = report.spec.as_mut().unwrap();
        spec.name = next();
        // `Page::read` refuses what no page should have.
        let page = Page::read(&render(&report).unwrap());
        assert!(page.count("svg") > 5, "it was drawn");
        page.says("alert(1)");
        for plot in plots(&report).unwrap() {
            roxmltree::Document::parse(&plot.file()).unwrap_or_else(|e| panic!("{}: {e}", plot.name));
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_+.".contains(c);
            assert!(plot.name.chars().all(allowed) && !plot.name.starts_with('.'), "{}", plot.name);
        }
    }
}

#[test]
fn numbers_that_are_none_are_drawn_as_nothing() {
    let mut report = large(12, &Zoo::new(5, 7));
    for (n, row) in report.results.tasks.iter_mut().enumerate() {
        let wild = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, 0.0][n % 6];
        row.select = Some(score(wild));
        row.test = Some(score(wild));
        row.seconds = wild;
        row.samples_per_second = Some(wild);
    }
    for detail in &mut report.details {
        for (n, point) in detail.history.iter_mut().enumerate() {
            let wild = [f64::NAN, f64::INFINITY, f64::MAX, -f64::MAX, 0.0][n % 5];
            (point.learn_loss, point.select_loss, point.samples_per_second) = (wild, Some(wild), wild);
        }
    }
    Page::read(&render(&report).unwrap());
    // Nothing at all is a page too.
    report.results.tasks.clear();
    report.details.clear();
    Page::read(&render(&report).unwrap()).says("no tasks yet");
}

fn program(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mehl-soup"));
    let Output { status, stdout, stderr } = command.args(arguments).current_dir(folder).env_clear().output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn the_command_writes_a_page_and_its_drawings() {
    let folder = tempfile::tempdir().unwrap();
    run(&folder.path().join("run"), &spec("digits", 3), &Zoo::new(4, 3), u64::MAX).unwrap();
    let (code, stdout, stderr) =
        program(folder.path(), &["report", "run", "--out", "report.html", "--plots", "made/plots"]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "report.html\n", ""));
    let report = read_folder(&folder.path().join("run")).unwrap();
    assert_eq!(std::fs::read_to_string(folder.path().join("report.html")).unwrap(), render(&report).unwrap());
    for plot in plots(&report).unwrap() {
        let path = folder.path().join("made/plots").join(format!("{}.svg", plot.name));
        assert_eq!(std::fs::read_to_string(path).unwrap(), plot.file());
    }
    let done = |row: &&mehl_soup::sweep::results::Row| row.state == TaskState::Succeeded;
    assert_eq!(report.results.tasks.iter().filter(done).count(), 6);

    write_json(&folder.path().join("run/results.json"), &json!({"version": 3}));
    for (arguments, text) in [
        (vec!["report", "run", "--out", "x.html"], "run/results.json has version 3"),
        (vec!["report", "none", "--out", "x.html"], "none contains no sweep"),
        (vec!["report", "run"], "--out"),
    ] {
        let (code, stdout, stderr) = program(folder.path(), &arguments);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        assert!(stderr.contains(text), "{stderr}");
    }
    std::fs::remove_file(folder.path().join("run/results.json")).unwrap();
    let (code, _, stderr) = program(folder.path(), &["report", "run", "--out", "none/x.html"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("none/x.html"), "{stderr}");
    assert_eq!(read_json(&folder.path().join("run/spec.json"))["version"], 1);
}
