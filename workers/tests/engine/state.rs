//! What goes from part to part besides hidden values: a model of sequences, whose first part makes
//! a mask and positions that later parts and the objective use.

use std::collections::BTreeMap;

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::objective::{Facts, Unit};
use mehl_soup::sweep::spec::DataSpec;
use mehl_soup_worker::data::{Batch, Data, Split};
use mehl_soup_worker::engine::Clock;
use mehl_soup_worker::families::{Forward, Model, ModelInputs, Pass, State};
use mehl_soup_worker::objectives::{
    Backward, Course, Gradients, Leaves, Measured, Objective, Step, WholeGradient, through_parts,
};
use tch::{Device, Kind, TchError, Tensor};

const SAMPLES: i64 = 4;
const LONGEST: i64 = 6;
const WIDTH: i64 = 3;
/// The last is shorter than what all are padded to.
const LENGTHS: [i64; 4] = [2, 6, 3, 5];

/// Two parts of attention over a sample's own tokens, between an embedding and a head.
struct Sequences {
    parameters: BTreeMap<String, Tensor>,
}

impl Sequences {
    fn new() -> Self {
        tch::manual_seed(6);
        let shapes = [("first", WIDTH), ("head", WIDTH), ("positions", LONGEST), ("second", WIDTH)];
        let leaf = |rows| Tensor::randn([rows, WIDTH], (Kind::Double, Device::Cpu)).set_requires_grad(true);
        Self { parameters: shapes.map(|(name, rows)| (name.to_string(), leaf(rows))).into() }
    }

    fn leaves(&self) -> Vec<Tensor> {
        self.parameters.values().map(Tensor::shallow_clone).collect()
    }

    fn attend(&self, state: &State, weight: &str) -> Result<Tensor, TchError> {
        let positions = state.positions.as_ref().ok_or_else(|| lost("positions"))?;
        let places = self.parameters["positions"].f_index_select(0, &positions.f_view(-1)?)?;
        let x = state.hidden.f_add(&places.f_view_as(&state.hidden)?)?;
        let scores = x.f_matmul(&x.f_transpose(1, 2)?)?;
        let scores = match &state.mask {
            Some(mask) => scores.f_masked_fill(&mask.f_logical_not()?.f_unsqueeze(1)?, f64::NEG_INFINITY)?,
            None => scores,
        };
        let mixed = scores.f_softmax(-1, None::<Kind>)?.f_matmul(&x)?;
        x.f_add(&mixed.f_matmul(&self.parameters[weight])?.f_tanh()?)
    }
}

fn lost(what: &str) -> TchError {
    TchError::Shape(format!("{what} did not arrive"))
}

impl Model for Sequences {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        &self.parameters
    }

    fn parts(&self) -> usize {
        4
    }

    fn first_part(&self, inputs: &ModelInputs, _: Forward) -> Result<State, TchError> {
        let hidden = inputs.get("tokens").ok_or_else(|| lost("tokens"))?.shallow_clone();
        let (n, longest, _) = hidden.size3()?;
        let positions = Tensor::f_arange(longest, (Kind::Int64, Device::Cpu))?.f_repeat([n, 1])?;
        Ok(State { hidden, mask: inputs.mask()?, positions: Some(positions) })
    }

    fn part(&self, part: usize, state: &State, _: Forward) -> Result<State, TchError> {
        Ok(state.with_hidden(match part {
            1 => self.attend(state, "first")?,
            2 => self.attend(state, "second")?,
            _ => state.hidden.f_matmul(&self.parameters["head"])?,
        }))
    }

    fn architecture(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// Squared error of outputs against targets `[N, LONGEST, WIDTH]`, over the samples' own tokens.
struct TokenError;

impl TokenError {
    fn loss(state: &State, targets: &Tensor) -> Result<Tensor, TchError> {
        let longest = state.hidden.size()[1];
        let squares = state.hidden.f_sub(&targets.f_narrow(1, 0, longest)?)?.f_square()?;
        let each = squares.f_mean_dim(&[-1i64][..], false, Kind::Double)?;
        match &state.mask {
            Some(mask) => {
                let own = each.f_masked_fill(&mask.f_logical_not()?, 0.0)?;
                own.f_sum(Kind::Double)?.f_div(&mask.f_sum(Kind::Double)?)
            }
            None => each.f_mean(Kind::Double),
        }
    }
}

impl Objective for TokenError {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "token-error",
            loss: "mean squared error",
            metrics: &[],
            unit: Unit::Sequence,
            is_in_nats: false,
            has_temperature: false,
        }
    }

    fn gradients(&self, model: &dyn Model, batch: &Batch, step: &mut Step<'_>) -> Result<Gradients, TchError> {
        let loss_of = |state: &State| Self::loss(state, &batch.targets);
        through_parts(model, &batch.inputs, step, &loss_of)
    }

    fn measure(&self, model: &dyn Model, batch: &Batch, how: Forward) -> Result<Measured, TchError> {
        let loss = Self::loss(&model.forward(&batch.inputs, how)?, &batch.targets)?;
        Ok(Measured { losses: loss.f_view(1)?, metrics: vec![], columns: vec![] })
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

/// All samples; what is behind their lengths is `padding`.
fn split(padding: f64) -> Split {
    tch::manual_seed(7);
    let shape = [SAMPLES, LONGEST, WIDTH];
    let tokens = Tensor::randn(shape, (Kind::Double, Device::Cpu));
    let targets = Tensor::randn(shape, (Kind::Double, Device::Cpu));
    for (sample, length) in (0..SAMPLES).zip(LENGTHS) {
        let _filled = tokens.get(sample).narrow(0, length, LONGEST - length).fill_(padding);
    }
    Split::of_tensors(vec![("tokens".to_string(), tokens)], targets)
}

fn batch(padding: f64, has_lengths: bool) -> Batch {
    let split = split(padding);
    let split = if has_lengths { split.with_lengths(LENGTHS.to_vec()).unwrap() } else { split };
    split.range(0, SAMPLES as usize, Device::Cpu).unwrap()
}

fn gradients(model: &Sequences, batch: &Batch, course: Course) -> WholeGradient {
    let backward = Backward { how: Pass::Learn.full(), course };
    let mut clock = Clock::new(Device::Cpu);
    WholeGradient::compute(&TokenError, model, batch, &Leaves::all(model), None, backward, &mut clock).unwrap()
}

#[test]
fn mask_and_positions_travel_through_all_parts() {
    let model = Sequences::new();
    let padded = batch(0.0, true);
    let state = model.forward(&padded.inputs, Pass::Learn.full()).unwrap();
    let loss = TokenError::loss(&state, &padded.targets).unwrap();
    let leaves = model.leaves();
    let expected = Tensor::run_backward(&[&loss], &leaves.iter().collect::<Vec<_>>(), false, false);
    for course in [Course::Whole, Course::ByParts { recompute: false }, Course::ByParts { recompute: true }] {
        let found = gradients(&model, &padded, course);
        assert_eq!(found.loss, loss.double_value(&[]), "{course:?}");
        for (found, expected) in found.leaves.iter().zip(&expected) {
            assert!(found.allclose(expected, 1e-12, 1e-12, false), "{course:?}: {found:?}");
            assert!(expected.abs().max().double_value(&[]) > 1e-3);
        }
        // What is behind a sample's length is nothing.
        let other = gradients(&model, &batch(9.0, true), course);
        assert_eq!(found.loss, other.loss, "{course:?}");
        assert!(found.leaves.iter().zip(&other.leaves).all(|(a, b)| a.equal(b)), "{course:?}");
        // Without lengths it counts.
        let (short, long) = (gradients(&model, &batch(0.0, false), course), batch(9.0, false));
        assert!((found.loss - short.loss).abs() > 1e-3);
        assert!((short.loss - gradients(&model, &long, course).loss).abs() > 1e-3);
    }
}

#[test]
fn a_batch_is_as_long_as_its_longest_sample() {
    let model = Sequences::new();
    let split = split(9.0).with_lengths(LENGTHS.to_vec()).unwrap();
    let short = split.batch(&[2, 0], Device::Cpu).unwrap();
    assert_eq!(short.inputs.only().unwrap().size(), [2, 3, WIDTH]);
    // Samples alone, of their own lengths, have the same loss: the mean by tokens.
    let loss = |batch: &Batch| gradients(&model, batch, Course::ByParts { recompute: true }).loss;
    let alone = |i| loss(&split.batch(&[i], Device::Cpu).unwrap());
    let expected = (3.0 * alone(2) + 2.0 * alone(0)) / 5.0;
    assert!((loss(&short) - expected).abs() < 1e-12, "{} {expected}", loss(&short));
}
