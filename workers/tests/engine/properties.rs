//! What must hold for any zoo, shown on a small real one.

use std::path::Path;

use crate::support::{coefficients, fixture, run};
use mehl_soup::coefficients::Coefficients;
use mehl_soup::runner::engine::SoupEngine;
use mehl_soup::sweep::spec::{DirectionDtype, Grouping};
use mehl_soup::zoo::{LayerGroups, Layout, Zoo};
use mehl_soup_worker::families;
use mehl_soup_worker::hyperplane::{Directions, MixedTensors, RunningMean, Stored, slice, write_soup};
use mehl_soup_worker::rng;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

const K: usize = 4;

fn paths(names: &[&str]) -> Vec<std::path::PathBuf> {
    names.iter().map(|name| fixture("trajectories/zoo").join(name)).collect()
}

/// A specification over the ViT zoo of the fixtures.
fn spec(ingredients: &[std::path::PathBuf], soup: &str) -> String {
    let list: Vec<String> = ingredients.iter().map(|path| format!("'{}'", path.display())).collect();
    let learn = fixture("trajectories/learn.safetensors");
    format!(
        "[zoo]\nallow_chance = true\ningredients = [{}]\n[data]\nlearn = '{learn}'\nselect = '{learn}'\n[soup]\n{soup}\n",
        list.join(", "),
        learn = learn.display()
    )
}

struct Opened {
    zoo: Zoo,
    mixed: MixedTensors,
}

impl Opened {
    /// The largest `|theta|` of a mixed tensor, over all ingredients.
    fn largest(&self, tensor: usize) -> f64 {
        let mut theta = vec![0f32; self.mixed.sizes[tensor]];
        let largest_of = |k: usize| {
            self.zoo.ingredients()[k].read(&self.mixed.names[tensor], &mut theta).unwrap();
            theta.iter().fold(0f32, |largest, value| largest.max(value.abs()))
        };
        f64::from((0..K).map(largest_of).fold(0.0, f32::max))
    }
}

fn open(grouping: Grouping) -> Opened {
    let zoo = Zoo::open(&paths(&["k0", "k1", "k2", "k3"])).unwrap();
    let hashes = zoo.hash(None, &mut |_, _| {}).unwrap();
    let layout = Layout::new(&zoo, &hashes).unwrap();
    let family = families::detect(None, &zoo).unwrap();
    let spec = crate::support::golden::zoo_spec(None);
    let model = families::load(family, &spec, &zoo, &layout, Device::Cpu, Kind::Float).unwrap();
    let mixed = MixedTensors::new(&layout, &LayerGroups::new(grouping, &layout), model.as_ref());
    Opened { zoo, mixed }
}

fn mix_of(opened: &Opened, a: &Coefficients) -> Vec<Tensor> {
    let mixed = &opened.mixed;
    (0..mixed.names.len())
        .map(|i| {
            let tensor = Tensor::zeros([mixed.sizes[i] as i64], (Kind::Float, Device::Cpu));
            write_soup(&opened.zoo, &mixed.names[i], &a.column(mixed.groups[i]), &tensor).unwrap();
            tensor
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Columns of A sum to 1, and the mix that A stands for equals the chain of folds, after any sequence of folds.
    ///
    /// The stated bound: each fold rounds every element of the centre b + 1 times, and every direction three times (difference, norm, quotient), each
    /// to 2^-24 of the largest value in play; later folds scale what came before by |1 - sum beta|. So, elementwise and relative to the largest
    /// |theta|: folds * (4 b + 8) * 2^-24 * product of max(1, |1 - sum beta|), times the largest sum of |A| seen.
    #[test]
    fn folding_keeps_the_hyperplane_and_agrees_with_the_chain(
        seed in any::<u64>(),
        folds in 1usize..6,
        b in 1usize..=K,
        scale in 0.01f64..3.0,
        grouping in prop::sample::select(vec![Grouping::Model, Grouping::Block, Grouping::Tensor]),
    ) {
        let opened = open(grouping);
        let l = opened.mixed.group_count;
        let mut rng = rng::generator(seed, "test", &[]);
        let mut a = Coefficients::mean_of(K, l, &[0, 1, 2, 3]);
        let mut centre = mix_of(&opened, &a);
        let (mut growth, mut spread) = (vec![1f64; l], 1f64);
        for fold in 0..folds {
            let members = &mehl_soup_worker::methods::model_batches(seed, fold, &[0, 1, 2, 3], b)[0];
            let stored = |dtype| Stored { device: Device::Cpu, kind: Kind::Float, dtype };
            let copy = centre.iter().map(Tensor::copy).collect();
            let dtype = [DirectionDtype::Bf16, DirectionDtype::Int8, DirectionDtype::Int4][fold % 3];
            let compact = Directions::new(&opened.zoo, members, &opened.mixed, copy, stored(dtype)).unwrap();
            let whole = stored(DirectionDtype::F32);
            let directions = Directions::new(&opened.zoo, members, &opened.mixed, centre, whole).unwrap();
            assert_eq!(directions.norms, compact.norms);
            let x: Vec<f64> = directions
                .norms
                .iter()
                .map(|n| f64::from(((rng::unit(&mut rng) - 0.5) * 2.0 * scale * n) as f32))
                .collect();
            let beta: Vec<f64> =
                x.iter().zip(&directions.norms).map(|(x, n)| if *n == 0.0 { 0.0 } else { x / n }).collect();
            for (group, growth) in growth.iter_mut().enumerate() {
                let moved: f64 = (0..members.len()).map(|i| beta[i * l + group]).sum();
                *growth *= (1.0 - moved).abs().max(1.0);
            }
            a.fold(members, &beta);
            centre = directions.fold(&opened.zoo, members, &opened.mixed, &x).unwrap();
            let same = compact.fold(&opened.zoo, members, &opened.mixed, &x).unwrap();
            assert!(centre.iter().zip(&same).all(|(a, b)| a.equal(b)), "{dtype:?}: a fold is exact whatever the search was steered by");
            let largest = (0..l).map(|g| a.column(g).iter().map(|v| v.abs()).sum::<f64>()).fold(0.0, f64::max);
            spread = spread.max(largest);
        }
        prop_assert!(a.sum_error() < 1e-12 * spread, "columns sum to 1 up to {}", a.sum_error());
        let exact = mix_of(&opened, &a);
        for (i, (chain, exact)) in centre.iter().zip(&exact).enumerate() {
            let bound = folds as f64 * (4 * b + 8) as f64 * 2f64.powi(-24)
                * growth[opened.mixed.groups[i]] * spread * opened.largest(i);
            for (c, e) in slice::<f32>(chain).iter().zip(slice::<f32>(exact)) {
                prop_assert!(
                    f64::from((c - e).abs()) <= bound,
                    "{}: chain {c}, mix of A {e}, bound {bound}", opened.mixed.names[i]
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The running mean of n ingredients differs from the exact mean of their files by rounding alone.
    ///
    /// The stated bound: step j multiplies what came before by (j - 1) / j and rounds a difference and a quotient, each at
    /// most 2 / j of the largest |theta|, and a sum, each to 2^-24. So after n steps, elementwise and relative to the
    /// largest |theta|: at most (n + 8) * 2^-24, the rounding of the exact mean included.
    #[test]
    fn a_running_mean_agrees_with_the_mean_of_the_files(
        members in prop::collection::vec(0..K, 1..20),
        kept in 0usize..20,
    ) {
        let opened = open(Grouping::Model);
        let Opened { zoo, mixed } = &opened;
        let n = members.len();
        let weights = (0..K).map(|k| members.iter().filter(|&&member| member == k).count() as f64 / n as f64);
        let exact = mix_of(&opened, &Coefficients::from_values(K, 1, weights.collect()).unwrap());
        let zeros = || -> Vec<Tensor> { exact.iter().map(Tensor::zeros_like).collect() };
        // From the files at once up to some member, then one by one, as candidates that are kept.
        let (before, after) = members.split_at(kept.min(n - 1));
        let mut mean = RunningMean::new(zoo, before, mixed, Device::Cpu, Kind::Float).unwrap();
        let leaves = zeros();
        for &k in after {
            mean.write_with(zoo, k, mixed, &leaves).unwrap();
            mean.take(&leaves).unwrap();
        }
        for (i, (found, exact)) in leaves.iter().zip(&exact).enumerate() {
            let bound = (n + 8) as f64 * 2f64.powi(-24) * opened.largest(i);
            for (f, e) in slice::<f32>(found).iter().zip(slice::<f32>(exact)) {
                prop_assert!(f64::from((f - e).abs()) <= bound, "{}: {f}, exact {e}, bound {bound}", mixed.names[i]);
            }
        }
        // The bits are those of a mean that began from nothing: a resumed task goes on with the same.
        let (&last, rest) = members.split_last().unwrap();
        let whole = zeros();
        let begun = RunningMean::new(zoo, rest, mixed, Device::Cpu, Kind::Float).unwrap();
        begun.write_with(zoo, last, mixed, &whole).unwrap();
        prop_assert!(leaves.iter().zip(&whole).all(|(a, b)| a.equal(b)));
    }
}

fn finite_and_on_the_hyperplane(a: &Coefficients) {
    assert!(a.values().iter().all(|v| v.is_finite()));
    assert!(a.sum_error() < 1e-9, "{}", a.sum_error());
}

fn completes(ingredients: &[std::path::PathBuf], soup: &str) -> Coefficients {
    let folder = tempfile::tempdir().unwrap();
    let (completion, recorder) =
        run(folder.path(), &spec(ingredients, soup), Kind::Float).unwrap_or_else(|error| panic!("{soup}: {error}"));
    assert!(recorder.losses.iter().all(|loss| loss.is_finite()));
    let a = coefficients(&completion);
    finite_and_on_the_hyperplane(&a);
    a
}

const METHODS: [&str; 10] =
    ["best", "uniform", "greedy", "learned", "learned+", "hl", "hl+", "mehl", "mehl+", "steady"];

#[test]
fn one_ingredient_is_its_own_soup_by_every_method() {
    for method in METHODS {
        let a = completes(&paths(&["k1"]), &format!("method = '{method}'\ninner_epochs = 2\nbatch = 12"));
        assert!(a.values().iter().all(|v| *v == 1.0), "{method}: {:?}", a.values());
    }
}

#[test]
fn odd_numbers_of_ingredients_a_batch_work_by_every_block_method() {
    for method in ["mehl", "mehl+", "steady"] {
        // Larger than K, one, and no divisor of K.
        for b in [9, 1, 3] {
            for init in ["auto", "batch-mean", "uniform", "best", "greedy"] {
                let soup = format!(
                    "method = '{method}'\nmodel_batch = {b}\ninit = '{init}'\ninner_epochs = 2\nouter_epochs = 2\nbatch = 12\nseed = 3"
                );
                completes(&paths(&["k0", "k1", "k2", "k3"]), &soup);
            }
        }
    }
}

#[test]
fn two_equal_ingredients_never_give_nan() {
    let folder = tempfile::tempdir().unwrap();
    let twin = folder.path().join("twin");
    copy(&fixture("trajectories/zoo/k0"), &twin);
    let mut pair = paths(&["k0"]);
    pair.push(twin.clone());
    let mut three = paths(&["k0", "k1"]);
    three.push(twin);
    for method in METHODS {
        completes(&pair, &format!("method = '{method}'\ninner_epochs = 2\nbatch = 12"));
        completes(&three, &format!("method = '{method}'\nmodel_batch = 2\ninner_epochs = 2\nbatch = 12"));
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn permuting_ingredients_permutes_hl_coefficients() {
    let folder = tempfile::tempdir().unwrap();
    // Order is that of sorted paths: copies under other names are a permutation.
    let permutation = [2, 0, 3, 1];
    let mut permuted = Vec::new();
    for (place, k) in permutation.iter().enumerate() {
        let to = folder.path().join(format!("zoo/p{place}"));
        copy(&fixture(&format!("trajectories/zoo/k{k}")), &to);
        permuted.push(to);
    }
    for method in ["hl", "hl+", "steady"] {
        let soup = format!(
            "method = '{method}'\nmodel_batch = 4\ninner_epochs = 8\nbatch = 8\nearly_stopping = false\nseed = 5"
        );
        let one = tempfile::tempdir().unwrap();
        let straight = run(one.path(), &spec(&paths(&["k0", "k1", "k2", "k3"]), &soup), Kind::Double).unwrap().0;
        let other = tempfile::tempdir().unwrap();
        let shuffled = run(other.path(), &spec(&permuted, &soup), Kind::Double).unwrap().0;
        let (straight, shuffled) = (coefficients(&straight), coefficients(&shuffled));
        let mut moved = 0f64;
        for (place, &k) in permutation.iter().enumerate() {
            for l in 0..straight.groups() {
                let difference = (straight.get(k, l) - shuffled.get(place, l)).abs();
                assert!(difference < 1e-8, "{method}: A[{k}, {l}] differs by {difference}");
                moved = moved.max((straight.get(k, l) - 0.25).abs());
            }
        }
        assert!(moved > 1e-3, "{method} learned something");
    }
}

#[test]
fn a_step_goes_downhill_on_learn() {
    for method in ["learned", "learned+", "hl", "hl+", "mehl", "mehl+", "steady"] {
        let folder = tempfile::tempdir().unwrap();
        let soup = format!("method = '{method}'\ninner_epochs = 30\nbatch = 24\nearly_stopping = false");
        let ingredients = paths(&["k0", "k1", "k2", "k3"]);
        let (_, recorder) = run(folder.path(), &spec(&ingredients, &soup), Kind::Float).unwrap();
        let (first, last) = (recorder.losses[0], *recorder.losses.last().unwrap());
        assert!(last < first, "{method}: loss {first} became {last}");
    }
}

#[test]
fn early_stopping_never_ends_worse_by_select_than_the_start() {
    // A learning rate that ruins everything: standing still is the best that can be done.
    for method in ["hl+", "mehl+", "learned+", "steady"] {
        let soup = format!("method = '{method}'\nlearning_rate = 50.0\ninner_epochs = 4\nbatch = 8\ninit = 'uniform'");
        let folder = tempfile::tempdir().unwrap();
        let ingredients = paths(&["k0", "k1", "k2", "k3"]);
        let (completion, _) = run(folder.path(), &spec(&ingredients, &soup), Kind::Float).unwrap();
        let uniform = tempfile::tempdir().unwrap();
        let (baseline, _) = run(uniform.path(), &spec(&ingredients, "method = 'uniform'"), Kind::Float).unwrap();
        let (found, start) = (completion.scores.select.loss, baseline.scores.select.loss);
        assert!(found <= start * (1.0 + 1e-5), "{method}: {found} is worse than {start}");
    }
}

#[test]
fn tensors_without_gradient_keep_their_coefficients() {
    let folder = tempfile::tempdir().unwrap();
    let soup = "method = 'hl+'\ninner_epochs = 10\nbatch = 8";
    let (mut engine, task) =
        crate::support::engine(folder.path(), &spec(&paths(&["k0", "k1", "k2"]), soup), Kind::Float);
    let mut recorder = crate::support::Recorder::default();
    let manifest = engine.scores(None, &mut recorder).unwrap();
    let completion = engine.run(&task, &manifest, None, &mut recorder).unwrap();
    let file = mehl_soup::coefficients::CoefficientsFile::from_bytes(&completion.coefficients).unwrap();
    let column = file.about.tensors["vit.encoder.layer.0.attention.attention.key.bias"];
    assert!(file.coefficients.column(column).iter().all(|a| (a - 1.0 / 3.0).abs() < 1e-12));
    let other = file.about.tensors["classifier.weight"];
    assert!(file.coefficients.column(other).iter().any(|a| (a - 1.0 / 3.0).abs() > 1e-3));
    assert!(!file.about.tensors.contains_key("vit.embeddings.cls_token"), "frozen tensors have no coefficient");
}

#[test]
fn tied_parameters_of_a_module_stay_equal_in_the_soup() {
    let folder = tempfile::tempdir().unwrap();
    let awkward = fixture("awkward");
    let text = format!(
        "[zoo]\nallow_chance = true\ningredients = ['{a}/zoo/*']\nfamily = 'torchscript'\narchitecture = '{a}/model.pt'\n\
         [data]\nlearn = '{a}/learn.safetensors'\nselect = '{a}/learn.safetensors'\n[soup]\nmethod = 'hl+'\ninner_epochs = 4\nbatch = 6\n",
        a = awkward.display()
    );
    let (completion, _) = run(folder.path(), &text, Kind::Float).unwrap();
    let file = mehl_soup::coefficients::CoefficientsFile::from_bytes(&completion.coefficients).unwrap();
    assert_eq!(file.about.tensors["embed.weight"], file.about.tensors["output.weight"]);
    finite_and_on_the_hyperplane(&file.coefficients);
    let moved = file.coefficients.column(file.about.tensors["embed.weight"]);
    assert!(moved.iter().any(|a| (a - 0.5).abs() > 1e-4), "the tied parameter is learned: {moved:?}");
}
