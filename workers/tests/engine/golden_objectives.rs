//! Objectives against losses, gradients and metrics that torch, scipy and sentence-transformers
//! give.

use std::collections::BTreeMap;

use mehl_soup::sweep::metric::Metric;
use mehl_soup_worker::data::{Batch, Split};
use mehl_soup_worker::engine::{Clock, score};
use mehl_soup_worker::families::{Forward, Model, ModelInputs, Pass, Precision, State};
use mehl_soup_worker::objectives::{
    Backward, Course, FixedBatches, Leaves, MultiLabel, Objective, Pairs, Scalar, WholeGradient,
};
use tch::{Device, Kind, TchError, Tensor};

use crate::support::{fixture, golden};

/// `x W` in two parts.
struct Linear {
    parameters: BTreeMap<String, Tensor>,
}

impl Linear {
    fn new(weight: &Tensor) -> Self {
        Self { parameters: [("weight".to_string(), weight.copy().set_requires_grad(true))].into() }
    }
}

impl Model for Linear {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        &self.parameters
    }

    fn parts(&self) -> usize {
        2
    }

    fn first_part(&self, inputs: &ModelInputs, _: Forward) -> Result<State, TchError> {
        Ok(inputs.only().unwrap().f_matmul(&self.parameters["weight"])?.into())
    }

    fn part(&self, _: usize, state: &State, _: Forward) -> Result<State, TchError> {
        Ok(state.with_hidden(state.hidden.f_mul_scalar(1.0)?))
    }

    fn architecture(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// One case of the golden file.
struct Case {
    name: &'static str,
    objective: Box<dyn Objective>,
    model: Linear,
    split: Split,
    gradient: Vec<f64>,
    numbers: serde_json::Value,
}

fn pairs(size: usize) -> Pairs {
    Pairs { scale: 20.0, batches: FixedBatches { size, seed: 5 } }
}

fn cases() -> Vec<Case> {
    let all: BTreeMap<String, Tensor> =
        Tensor::read_safetensors(fixture("objectives/golden.safetensors")).unwrap().into_iter().collect();
    let numbers = std::fs::read_to_string(fixture("objectives/golden.json")).unwrap();
    let numbers: serde_json::Value = serde_json::from_str(&numbers).unwrap();
    let case = |name: &'static str, objective: Box<dyn Objective>| {
        let tensor = |part: &str| all[&format!("{name}.{part}")].shallow_clone();
        let inputs = vec![("inputs".to_string(), tensor("inputs"))];
        let split = match all.get(&format!("{name}.targets")) {
            Some(found) => Split::of_tensors(inputs, objective.read_targets(found.shallow_clone()).unwrap()),
            None => {
                let size = tensor("inputs").size();
                let none = Tensor::zeros([size[0]], (Kind::Int64, Device::Cpu));
                Split::of_tensors(inputs, none).with_texts(size[1] as usize).unwrap()
            }
        };
        let gradient = Vec::try_from(tensor("gradient").view(-1)).unwrap();
        let model = Linear::new(&tensor("weight"));
        Case { name, objective, model, split, gradient, numbers: numbers[name].clone() }
    };
    vec![
        case("multi-label", Box::new(MultiLabel)),
        case("regression", Box::new(Scalar::SquaredError)),
        case("score", Box::new(Scalar::BinaryCrossEntropy)),
        case("pairs", Box::new(pairs(6))),
        case("triplets", Box::new(pairs(6))),
    ]
}

fn gradient(case: &Case, batch: &Batch, course: Course) -> WholeGradient {
    let backward = Backward { how: Pass::Learn.full(), course };
    let leaves = Leaves::all(&case.model);
    let mut clock = Clock::new(Device::Cpu);
    WholeGradient::compute(case.objective.as_ref(), &case.model, batch, &leaves, None, backward, &mut clock).unwrap()
}

#[test]
fn losses_and_gradients_are_those_of_torch() {
    for case in cases() {
        let batch = case.split.range(0, case.split.samples(), Device::Cpu).unwrap();
        let whole = gradient(&case, &batch, Course::Whole);
        golden::close(case.name, &whole.leaves[0], &case.gradient);
        assert!((whole.loss - case.numbers["loss"].as_f64().unwrap()).abs() < 1e-12, "{}", case.name);
        for recompute in [false, true] {
            let found = gradient(&case, &batch, Course::ByParts { recompute });
            assert!(found.loss == whole.loss && found.leaves[0].equal(&whole.leaves[0]), "{}", case.name);
        }
    }
}

#[test]
fn scores_are_those_of_torch_and_scipy() {
    for case in cases() {
        // Any batch gives the same, but for sums in another order.
        for batch in [1, 4, 100] {
            let score =
                score(case.objective.as_ref(), &case.model, &case.split, batch, Device::Cpu, Precision::Full).unwrap();
            let expected = case.numbers.as_object().unwrap();
            for (name, expected) in expected {
                let (found, is_error) = match name.strip_suffix("_standard_error") {
                    Some(metric) => (metric, true),
                    None => (name.as_str(), false),
                };
                let found = score.get(Metric::named(found).unwrap()).unwrap();
                let found = if is_error { found.standard_error } else { found.value };
                let expected = expected.as_f64().unwrap();
                assert!((found - expected).abs() < 1e-12, "{} {name}: {found}, expected {expected}", case.name);
            }
            let facts = case.objective.facts();
            assert!(facts.metrics.iter().all(|metric| expected.contains_key(metric.name)));
            let text = serde_json::to_string(&score).unwrap();
            assert_eq!(serde_json::from_str::<mehl_soup::sweep::score::SplitScore>(&text).unwrap(), score);
        }
    }
}

#[test]
fn weights_of_samples_count_in_the_mean() {
    for case in cases() {
        let n = case.split.samples();
        let plain = gradient(&case, &case.split.range(0, n, Device::Cpu).unwrap(), Course::Whole);
        let weighted = |weights: Vec<f64>, case: Case| {
            let split = case.split.with_weights(Tensor::from_slice(&weights)).unwrap();
            let batch = split.range(0, n, Device::Cpu).unwrap();
            let case = Case { split, ..case };
            gradient(&case, &batch, Course::ByParts { recompute: true })
        };
        let name = case.name;
        let same = |a: &WholeGradient, b: &WholeGradient| {
            (a.loss - b.loss).abs() < 1e-12 && a.leaves[0].allclose(&b.leaves[0], 1e-12, 1e-12, false)
        };
        let of = |weights: Vec<f64>| weighted(weights, cases().into_iter().find(|case| case.name == name).unwrap());
        assert!(same(&of(vec![3.0; n]), &plain), "{name}");
        assert!(!same(&of((1..=n).map(|weight| weight as f64).collect()), &plain), "{name}");
    }
}

/// The loss of pairs in the batches that they are scored in, whatever `compute.score_batch` is;
/// errors over batches.
#[test]
fn pairs_are_scored_in_fixed_batches() {
    let case = cases().pop().unwrap();
    let batches = FixedBatches { size: 4, seed: 5 };
    let objective = Pairs { scale: 20.0, batches };
    assert_eq!(batches.of(6).len(), 1, "the last two are left out");
    let of = |objective: &Pairs, score_batch| {
        score(objective, &case.model, &case.split, score_batch, Device::Cpu, Precision::Full).unwrap()
    };
    let found = of(&objective, 2);
    assert_eq!((found.samples, found), (1, of(&objective, 100)));
    // One batch does not tell of others.
    assert_eq!(found.loss_standard_error, found.loss);
    let batch = case.split.batch(&batches.of(6)[0], Device::Cpu).unwrap();
    assert!((found.loss - gradient(&case, &batch, Course::Whole).loss).abs() < 1e-12);
    let thirds = pairs(2);
    let found = of(&thirds, 6);
    let losses: Vec<f64> = thirds
        .batches
        .of(6)
        .iter()
        .map(|indices| gradient(&case, &case.split.batch(indices, Device::Cpu).unwrap(), Course::Whole).loss)
        .collect();
    let mean = losses.iter().sum::<f64>() / 3.0;
    let variance = losses.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>() / 2.0;
    assert!((found.loss - mean).abs() < 1e-12);
    assert!((found.loss_standard_error - (variance / 3.0).sqrt()).abs() < 1e-12);
    assert_eq!(found.samples, 3);
    assert_ne!(of(&Pairs { scale: 10.0, ..thirds }, 6).loss, found.loss);
}

#[test]
fn targets_that_do_not_fit_are_refused() {
    let floats = |values: &[f64]| Tensor::from_slice(values);
    let refused = |objective: &dyn Objective, targets: Tensor| objective.read_targets(targets).unwrap_err();
    assert_eq!(refused(&MultiLabel, floats(&[0.0, 1.0])), "expected shape [N, labels], found [2]");
    let half = floats(&[0.0, 1.0, 0.5, 1.0]).view([2, 2]);
    assert_eq!(refused(&MultiLabel, half), "expected values 0 and 1, found 0.5 (F64)");
    let two = Tensor::from_slice(&[0i64, 2]).view([1, 2]);
    assert_eq!(refused(&MultiLabel, two), "expected values 0 and 1, found 2 (I64)");
    assert!(refused(&MultiLabel, floats(&[f64::NAN, 1.0]).view([1, 2])).contains("found NaN"));
    let labels = MultiLabel.read_targets(Tensor::from_slice(&[0f32, 1.0]).view([1, 2])).unwrap();
    assert_eq!((labels.kind(), labels.size()), (Kind::Uint8, vec![1, 2]));
    for objective in [Scalar::SquaredError, Scalar::BinaryCrossEntropy] {
        let found = refused(&objective, floats(&[0.0, 1.0]).view([1, 2]));
        assert_eq!(found, "expected shape [N] or [N, 1], found [1, 2]");
        assert!(refused(&objective, floats(&[0.0, f64::INFINITY])).contains("expected finite values"));
        assert!(refused(&objective, floats(&[0.0, f64::NAN])).contains("expected finite values"));
        let column = objective.read_targets(Tensor::from_slice(&[0i64, 1]).view([2, 1])).unwrap();
        assert_eq!((column.kind(), column.size()), (Kind::Double, vec![2]));
    }
    assert!(Scalar::SquaredError.read_targets(floats(&[-1.0, 5.0])).is_ok());
    let found = refused(&Scalar::BinaryCrossEntropy, floats(&[0.0, 5.0]));
    assert_eq!(found, "expected values from 0 to 1 for objective `score`, found 5");
    assert!(refused(&Scalar::BinaryCrossEntropy, floats(&[-0.5, 1.0])).contains("found -0.5"));
}
