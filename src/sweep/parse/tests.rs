use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::sweep::expand::expand;
use crate::sweep::spec::{Grouping, MethodName, ModelBatch};

const MINIMAL: &str = "[zoo]\ningredients = 'zoo/*'\n[data]\nlearn = 'learn.safetensors'\n";

fn toml(text: &str) -> Result<Spec, Vec<Fault>> {
    parse_spec_text(text, Syntax::Toml, Path::new("/work"), "sweep")
}

fn good(rest: &str) -> Spec {
    toml(&format!("{MINIMAL}{rest}")).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// The one fault of the minimal specification with more text: line within that text, column, key, words.
fn fault(rest: &str) -> (usize, usize, String, String) {
    let faults = toml(&format!("{MINIMAL}{rest}")).expect_err(rest);
    assert_eq!(faults.len(), 1, "{rest}: {faults:?}");
    let fault = &faults[0];
    (fault.place.line.saturating_sub(4), fault.place.column, fault.key.clone(), fault.what.clone())
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let spec = good("");
    assert_eq!(spec.soup.method, MethodName::MehlPlus);
    assert_eq!(spec.soup.layer_groups, Grouping::Tensor);
    assert!(matches!(spec.soup.model_batch, ModelBatch::Auto(_)));
    assert_eq!((spec.soup.inner_epochs, spec.soup.outer_epochs, spec.soup.batch), (5, 1, 128));
    assert_eq!((spec.soup.learning_rate, spec.soup.weight_decay), (0.01, 0.0));
    assert_eq!(spec.zoo.ingredients, ["/work/zoo/*"]);
    assert_eq!(spec.data.learn, Path::new("/work/learn.safetensors"));
    assert_eq!((spec.name.as_str(), spec.data.select_fraction), ("sweep", 0.3));
    assert_eq!(good("[soup]\nmethod = 'learned'").soup.learning_rate, 0.05);
    assert_eq!(good("[soup]\nmethod = 'mehl'").soup.layer_groups, Grouping::Model);
    assert_eq!(good("[compute]\nmemory = '1.5 GiB'").compute.memory_bytes, Some(3 << 29));
}

#[test]
fn a_fault_names_its_place_and_the_nearest_word() {
    let (line, column, key, what) = fault("[soup]\nlearning_rat = 0.1\n");
    assert_eq!((line, column, key.as_str()), (2, 1, "soup.learning_rat"));
    assert!(what.contains("did you mean `learning_rate`?"), "{what}");
    let (line, column, key, what) = fault("[soup]\nmethod = 'mehl++'\n");
    assert_eq!((line, column, key.as_str()), (2, 10, "soup.method"));
    assert!(what.contains("found `mehl++`; did you mean `mehl+`?"), "{what}");
    assert!(fault("[sopu]\nx = 1\n").3.contains("did you mean `soup`?"));
    assert!(fault("[soup]\nbatch = 0\n").3.contains("expected a whole number of at least 1, found 0"));
    assert!(fault("[soup]\nwarmup = 1.5\n").3.contains("from 0 to 1"));
    assert!(fault("[soup]\nlearning_rate = nan\n").3.contains("above 0"));
    assert!(
        fault("[soup]\nmethod = 'mehl'\nlayer_groups = 'tensor'\n").3.contains("expected model with method `mehl`")
    );
    assert!(fault("[compute]\ndevices = ['gpu']\n").3.contains("expected cpu, cuda or cuda:N, found `gpu`"));
    assert!(fault("[compute]\nmemory = '8 GG'\n").3.contains("8GiB"));
    assert_eq!(fault("[soup\n").0, 1);
}

#[test]
fn all_faults_are_told_at_once_in_order() {
    let text = "[zoo]\nfamily = 'vti'\n[data]\nlern = 'x'\n[soup]\npatience = -1\ninit = 3\n";
    let faults = toml(text).unwrap_err();
    let keys: Vec<&str> = faults.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["zoo.ingredients", "zoo.family", "data.learn", "data.lern", "soup.patience", "soup.init"]);
}

#[test]
fn searched_values_are_checked_like_given_ones() {
    assert!(fault("[search.space]\nlearnig_rate = [0.1]\n").3.contains("did you mean `learning_rate`?"));
    assert!(fault("[search.space]\nlearning_rate = [0.1, -1]\n").3.contains("above 0, found -1"));
    assert!(fault("[search.space]\nmethod = { choice = ['mehl', 'meld'] }\n").3.contains("did you mean `mehl`?"));
    assert!(fault("[search.space]\nlearning_rate = { log_uniform = [1e-3, 1e-1] }\n").3.contains("random"));
    assert!(fault("[search]\nstrategy = 'random'\n[search.space]\nbatch = { int = [1, 9] }\n").3.contains("missing"));
    assert!(fault("[search.space]\nbatch = { int = [1, 1000] }\nseed = { int = [1, 1000] }\n").3.contains("1000000"));
    assert!(
        fault("[search.space]\nlearning_rate = { log_unifrom = [1, 2] }\n").3.contains("did you mean `log_uniform`?")
    );
    assert!(fault("[[search.points]]\npatience = 0\n").3.contains("at least 1"));
    assert!(fault("[search.space]\nzoo.top = [0]\n").3.contains("at least 1, found 0"));
    assert!(fault("[search]\nstrategy = 'asha'\n").3.contains("grid, random"));
}

#[test]
fn yaml_and_json_mean_the_same_as_toml() {
    let rest = "name = 'n'\nseed = 3\n[zoo]\ningredients = ['a', 'b']\n[data]\nlearn = 'l'\n[soup]\nlearning_rate = 0.5\n[search.space]\nmethod = ['hl', 'mehl']\n";
    let spec = toml(rest).unwrap();
    let yaml = "name: n\nseed: 3\nzoo:\n  ingredients: [a, b]\ndata: {learn: l}\nsoup:\n  learning_rate: 0.5\nsearch:\n  space:\n    method: [hl, mehl]\n";
    let json = r#"{"name": "n", "seed": 3, "zoo": {"ingredients": ["a", "b"]}, "data": {"learn": "l"},
                  "soup": {"learning_rate": 0.5}, "search": {"space": {"method": ["hl", "mehl"]}}}"#;
    for text in [yaml, json] {
        assert_eq!(parse_spec_text(text, Syntax::Yaml, Path::new("/work"), "x").unwrap(), spec);
    }
    let faults = parse_spec_text(
        "zoo:\n  ingredients: x\ndata:\n  learn: y\nsoup:\n  batch: none\n",
        Syntax::Yaml,
        Path::new("/"),
        "x",
    );
    let fault = &faults.unwrap_err()[0];
    assert_eq!((fault.place.line, fault.place.column, fault.key.as_str()), (6, 10, "soup.batch"));
}

#[test]
fn the_identity_is_that_of_what_decides_results() {
    let base = good("").identity();
    assert_eq!(base, good("[compute]\nthreads = 1\n[search]\nmax_seconds = 5\n").identity());
    assert_ne!(base, good("[soup]\nbatch = 64\n").identity());
    assert_ne!(base, good("[search]\ngreedy_baseline = true\n").identity());
}

#[test]
fn tasks_come_in_order_and_no_task_twice() {
    let spec = good(
        "[search]\nstrategy = 'grid'\n[[search.points]]\nmethod = 'hl'\nlearning_rate = 0.5\n\
         [search.space]\nmethod = ['best', 'greedy', 'mehl', 'learned']\nzoo.top = [2, 3]\nseed = { int = [1, 2] }\n",
    );
    let ids: Vec<String> = expand(&spec).into_iter().map(|task| format!("{} {:?}", task.id, task.top)).collect();
    let expected = [
        "best None",
        "uniform None",
        "greedy None",
        "0001-hl None",
        "0002-best Some(2)",
        "0003-best Some(3)",
        "0004-greedy Some(2)",
        "0005-greedy Some(3)",
        "0006-mehl Some(2)",
        "0007-mehl Some(2)",
        "0008-mehl Some(3)",
        "0009-mehl Some(3)",
        "0010-learned Some(2)",
        "0011-learned Some(2)",
        "0012-learned Some(3)",
        "0013-learned Some(3)",
    ];
    assert_eq!(ids, expected);
    let tasks = expand(&spec);
    assert_eq!((tasks[8].soup.learning_rate, tasks[12].soup.learning_rate), (0.01, 0.05));
    assert_eq!(tasks[8].soup.layer_groups, Grouping::Model);
    assert_eq!(expand(&good("")).last().unwrap().id, "0001-mehl+");
}

#[test]
fn a_searched_method_takes_the_groups_that_go_with_it() {
    let spec = good("[soup]\nlayer_groups = 'block'\n[search.space]\nmethod = ['mehl', 'mehl+']\n");
    let groups: Vec<Grouping> = expand(&spec).iter().map(|task| task.soup.layer_groups).collect();
    assert_eq!(groups[2..], [Grouping::Model, Grouping::Block]);
}

proptest! {
    #[test]
    fn any_text_gives_a_specification_or_faults(text in ".{0,400}") {
        let _ = toml(&text);
        let _ = parse_spec_text(&text, Syntax::Yaml, Path::new("/"), "x");
    }

    #[test]
    fn any_words_in_the_right_form_give_a_specification_or_faults(
        key in "[a-z_]{1,12}", value in "(-?[0-9]{1,20}(\\.[0-9]{1,3})?|'[a-z+]{0,8}'|\\[[0-9, ]{0,8}\\]|\\{[a-z]{1,6} = \\[[0-9, .]{0,8}\\]\\})",
        table in prop::sample::select(vec!["zoo", "data", "soup", "search", "compute", "search.space", "search.points"]),
    ) {
        if let Err(faults) = toml(&format!("{MINIMAL}[{table}]\n{key} = {value}\n")) {
            prop_assert!(!faults.is_empty());
        }
    }

    #[test]
    fn samples_stay_in_their_ranges_and_do_not_depend_on_their_number(
        seed in any::<u32>(), low in 1e-4f64..1.0, factor in 1.0f64..100.0, tasks in 2usize..40,
    ) {
        let text = |tasks: usize| format!(
            "seed = {seed}\n{MINIMAL}[search]\nstrategy = 'random'\ntasks = {tasks}\n[search.space]\n\
             learning_rate = {{ log_uniform = [{low:?}, {:?}] }}\nbatch = {{ int = [3, 7] }}\nwarmup = {{ uniform = [0.25, 0.5] }}\n",
            low * factor
        );
        let all = expand(&toml(&text(tasks)).unwrap());
        prop_assert_eq!(all.len(), tasks + 2);
        for task in &all[2..] {
            prop_assert!((low..=low * factor).contains(&task.soup.learning_rate));
            prop_assert!((3..=7).contains(&task.soup.batch) && (0.25..=0.5).contains(&task.soup.warmup));
        }
        let fewer = expand(&toml(&text(tasks - 1)).unwrap());
        prop_assert_eq!(&fewer[..], &all[..all.len() - 1]);
    }
}
