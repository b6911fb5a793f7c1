//! The seam of objectives: a second one, written for this test alone, and a tensor that two parts of a model use.

use std::collections::BTreeMap;

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::objective::{Facts, MetricFacts, Shown, Unit};
use mehl_soup::sweep::spec::DataSpec;
use mehl_soup_worker::data::{Batch, Data, Split};
use mehl_soup_worker::engine::{Clock, score};
use mehl_soup_worker::families::{Forward, Model, ModelInputs, Pass, Precision, State};
use mehl_soup_worker::objectives::{
    Backward, Classification, Course, FixedBatches, Gradients, Leaves, Measured, MultiLabel, Objective, Pairs, Step,
    WholeGradient, through_parts,
};
use tch::{Device, Kind, Reduction, TchError, Tensor};

/// `x W tanh(.) W^T`: the first and the last of three parts use one tensor.
struct Tied {
    parameters: BTreeMap<String, Tensor>,
}

impl Tied {
    fn new() -> Self {
        tch::manual_seed(4);
        let weight = Tensor::randn([5, 3], (Kind::Double, Device::Cpu)).set_requires_grad(true);
        let between = Tensor::randn([3, 3], (Kind::Double, Device::Cpu)).set_requires_grad(true);
        Self { parameters: [("between".to_string(), between), ("weight".to_string(), weight)].into() }
    }
}

impl Model for Tied {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        &self.parameters
    }

    fn parts(&self) -> usize {
        3
    }

    fn first_part(&self, inputs: &ModelInputs, _: Forward) -> Result<State, TchError> {
        Ok(inputs.get("inputs").unwrap().f_matmul(&self.parameters["weight"])?.into())
    }

    fn part(&self, part: usize, state: &State, _: Forward) -> Result<State, TchError> {
        let x = &state.hidden;
        Ok(state.with_hidden(match part {
            1 => x.f_matmul(&self.parameters["between"])?.f_tanh()?,
            _ => x.f_matmul(&self.parameters["weight"].f_tr()?)?,
        }))
    }

    fn architecture(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

const ABSOLUTE_ERROR: MetricFacts = MetricFacts {
    name: "absolute-error",
    meaning: "mean absolute error",
    higher_is_better: false,
    is_share: false,
    shown: Shown { factor: 1.0, digits: 4, unit: "", difference_unit: "", heading: "abs. error" },
};

/// Mean squared error of outputs against targets of the same shape.
struct SquaredError;

impl Objective for SquaredError {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "squared-error",
            loss: "mean squared error",
            metrics: &[&ABSOLUTE_ERROR],
            unit: Unit::Sample,
            is_in_nats: false,
            has_temperature: false,
        }
    }

    fn gradients(&self, model: &dyn Model, batch: &Batch, step: &mut Step<'_>) -> Result<Gradients, TchError> {
        assert!(step.inverse_temperature.is_none());
        let loss_of = |state: &State| state.hidden.f_mse_loss(&batch.targets, Reduction::Mean);
        through_parts(model, &batch.inputs, step, &loss_of)
    }

    fn measure(&self, model: &dyn Model, batch: &Batch, how: Forward) -> Result<Measured, TchError> {
        let apart = model.outputs(&batch.inputs, how)?.f_sub(&batch.targets)?;
        let mean = |values: Tensor| values.f_mean_dim(&[-1i64][..], false, Kind::Double);
        Ok(Measured { losses: mean(apart.f_square()?)?, metrics: vec![mean(apart.f_abs()?)?], columns: vec![] })
    }

    fn read_targets(&self, found: Tensor) -> Result<Tensor, String> {
        Ok(found)
    }

    fn check(&self, _: &dyn Model, _: &Data, _: &DataSpec, _: Device) -> Result<(), EngineError> {
        Ok(())
    }

    fn check_chance(&self, _: &Manifest, _: &Split) -> Result<(), EngineError> {
        Ok(())
    }
}

fn batch(targets: Tensor) -> Batch {
    tch::manual_seed(5);
    Batch::new(Tensor::randn([7, 5], (Kind::Double, Device::Cpu)).into(), targets)
}

fn squares() -> Batch {
    batch(Tensor::arange(35, (Kind::Double, Device::Cpu)).view([7, 5]) / 35)
}

fn classes() -> Batch {
    batch(Tensor::from_slice(&[0i64, 1, 2, 3, 4, 0, 1]))
}

/// As autograd has them, of the whole graph at once.
fn by_autograd(model: &Tied, loss: Tensor, leaves: &[Tensor]) -> (f64, Vec<Tensor>) {
    assert_eq!(model.parameters.len(), leaves.len());
    let wanted: Vec<&Tensor> = leaves.iter().collect();
    let gradients = Tensor::run_backward(&[&loss], &wanted, false, false);
    (loss.double_value(&[]), gradients)
}

#[test]
fn a_tensor_of_several_parts_has_the_sum_of_their_gradients() {
    let model = Tied::new();
    let leaves = Leaves::all(&model);
    let how = Pass::Learn.full();
    let pairs = Pairs { scale: 20.0, batches: FixedBatches { size: 3, seed: 0 } };
    let cases: [(&dyn Objective, Batch); 4] = [
        (&SquaredError, squares()),
        (&Classification, classes()),
        (&MultiLabel, batch(Tensor::arange(35, (Kind::Int64, Device::Cpu)).remainder(3).eq(0).view([7, 5]))),
        (&pairs, Batch { texts: 7, ..classes() }),
    ];
    for (objective, batch) in &cases {
        let outputs = model.outputs(&batch.inputs, how).unwrap();
        let loss = match objective.facts().name {
            "squared-error" => outputs.mse_loss(&batch.targets, Reduction::Mean),
            "multi-label" => {
                let targets = batch.targets.to_kind(Kind::Double);
                outputs.binary_cross_entropy_with_logits::<Tensor>(&targets, None, None, Reduction::Mean)
            }
            // One anchor and six candidates.
            "pairs" => {
                let norms = outputs.square().sum_dim_intlist(1, true, Kind::Double).sqrt();
                let unit = &outputs / norms;
                let cosines = (unit.narrow(0, 1, 6) * unit.narrow(0, 0, 1)).sum_dim_intlist(1, false, Kind::Double);
                (&cosines * 20.0).logsumexp(0, false) - cosines.get(0) * 20.0
            }
            _ => outputs.cross_entropy_loss::<Tensor>(&batch.targets, None, Reduction::Mean, -100, 0.0),
        };
        let (expected_loss, expected) = by_autograd(&model, loss, &leaves.tensors);
        for course in [Course::Whole, Course::ByParts { recompute: false }, Course::ByParts { recompute: true }] {
            let backward = Backward { how, course };
            let mut clock = Clock::new(Device::Cpu);
            let found = WholeGradient::compute(*objective, &model, batch, &leaves, None, backward, &mut clock).unwrap();
            // By another formula, or in another order of sums.
            let tolerance = if ["pairs", "multi-label"].contains(&objective.facts().name) { 1e-10 } else { 0.0 };
            assert!((found.loss - expected_loss).abs() <= tolerance, "{course:?}");
            for (found, expected) in found.leaves.iter().zip(&expected) {
                assert!(found.allclose(expected, tolerance, tolerance, false), "{course:?}: {found:?} {expected:?}");
                assert!(expected.abs().max().double_value(&[]) > 1e-3);
            }
        }
    }
}

#[test]
fn a_parameter_that_an_earlier_part_uses_too_ends_the_pass() {
    let model = Tied::new();
    let leaves = Leaves { first_parts: vec![1, 2], ..Leaves::all(&model) };
    let found = |course| {
        let backward = Backward { how: Pass::Learn.full(), course };
        let mut clock = Clock::new(Device::Cpu);
        WholeGradient::compute(&SquaredError, &model, &squares(), &leaves, None, backward, &mut clock)
    };
    assert!(found(Course::Whole).is_ok());
    for recompute in [false, true] {
        let error = found(Course::ByParts { recompute }).unwrap_err().to_string();
        assert!(error.contains("parameter 1 is used before part 2"), "{error}");
    }
}

#[test]
fn a_sample_of_weight_2_counts_as_two_samples() {
    let model = Tied::new();
    let leaves = Leaves::all(&model);
    let found = |batch: &Batch| {
        let backward = Backward { how: Pass::Learn.full(), course: Course::ByParts { recompute: true } };
        let mut clock = Clock::new(Device::Cpu);
        WholeGradient::compute(&Classification, &model, batch, &leaves, None, backward, &mut clock).unwrap()
    };
    let same = |a: &WholeGradient, b: &WholeGradient| {
        let near = |(a, b): (&Tensor, &Tensor)| a.allclose(b, 1e-12, 1e-12, false);
        (a.loss - b.loss).abs() < 1e-12 && a.leaves.iter().zip(&b.leaves).all(near)
    };
    let all = classes();
    let inputs = vec![("inputs".to_string(), all.inputs.only().unwrap().shallow_clone())];
    let plain = Split::of_tensors(inputs, all.targets.shallow_clone());
    let twice = found(&plain.batch(&[0, 1, 2, 2, 3, 4, 5, 6], Device::Cpu).unwrap());
    let once = found(&plain.range(0, 7, Device::Cpu).unwrap());
    let of_weights = |weights: [f64; 7]| {
        let inputs = vec![("inputs".to_string(), all.inputs.only().unwrap().shallow_clone())];
        let split = Split::of_tensors(inputs, all.targets.shallow_clone());
        split.with_weights(Tensor::from_slice(&weights)).unwrap()
    };
    let weighted = of_weights([0.5, 0.5, 1.0, 0.5, 0.5, 0.5, 0.5]);
    assert!(same(&found(&weighted.range(0, 7, Device::Cpu).unwrap()), &twice));
    assert!(same(&found(&weighted.batch(&[6, 2, 5, 0, 1, 3, 4], Device::Cpu).unwrap()), &twice));
    assert!(same(&found(&of_weights([3.0; 7]).range(0, 7, Device::Cpu).unwrap()), &once));
    assert!(!same(&once, &twice));
}

#[test]
fn a_split_is_scored_by_any_objective() {
    let model = Tied::new();
    let all = squares();
    let inputs = vec![("inputs".to_string(), all.inputs.only().unwrap().shallow_clone())];
    let split = Split::of_tensors(inputs, all.targets.shallow_clone());
    let found = score(&SquaredError, &model, &split, 3, Device::Cpu, Precision::Full).unwrap();
    let apart = model.outputs(&all.inputs, Pass::Score.full()).unwrap().detach() - &all.targets;
    let losses = Vec::<f64>::try_from(apart.square().mean_dim(-1, false, Kind::Double)).unwrap();
    let mean = losses.iter().sum::<f64>() / 7.0;
    let variance = losses.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>() / 6.0;
    assert!((found.loss - mean).abs() < 1e-12);
    assert!((found.loss_standard_error - (variance / 7.0).sqrt()).abs() < 1e-12);
    assert_eq!(found.samples, 7);
}
