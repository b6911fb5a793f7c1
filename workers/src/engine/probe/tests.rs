use std::collections::BTreeMap;

use tch::{Kind, TchError, Tensor};

use super::super::allocations::largest;
use super::*;
use crate::families::{ModelInputs, State};
use crate::objectives::Classification;

const WIDTH: i64 = 8;
const CLASSES: i64 = 3;
/// What all samples are padded to.
const ROOM: i64 = 512;

/// Two parts of attention, whose memory is quadratic in the length, and a head.
struct Attention {
    parameters: BTreeMap<String, Tensor>,
}

impl Attention {
    fn new() -> Self {
        let leaf = |columns| Tensor::randn([WIDTH, columns], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let shapes = [("first", WIDTH), ("head", CLASSES), ("second", WIDTH)];
        Self { parameters: shapes.map(|(name, columns)| (name.to_string(), leaf(columns))).into() }
    }

    fn attend(&self, state: &State, weight: &str) -> Result<Tensor, TchError> {
        let x = state.hidden.f_matmul(&self.parameters[weight])?;
        let scores = x.f_matmul(&x.f_transpose(1, 2)?)?;
        let scores = match &state.mask {
            Some(mask) => scores.f_masked_fill(&mask.f_logical_not()?.f_unsqueeze(1)?, f64::NEG_INFINITY)?,
            None => scores,
        };
        scores.f_softmax(-1, None::<Kind>)?.f_matmul(&x)
    }
}

impl Model for Attention {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        &self.parameters
    }

    fn parts(&self) -> usize {
        4
    }

    fn first_part(&self, inputs: &ModelInputs, _: Forward) -> Result<State, TchError> {
        let tokens = inputs.only().ok_or_else(|| TchError::Shape("expected one input".to_string()))?;
        Ok(State { mask: inputs.mask()?, ..State::from(tokens.shallow_clone()) })
    }

    fn part(&self, part: usize, state: &State, _: Forward) -> Result<State, TchError> {
        Ok(state.with_hidden(match part {
            1 => self.attend(state, "first")?,
            2 => self.attend(state, "second")?,
            _ => state.hidden.f_mean_dim(1, false, None::<Kind>)?.f_matmul(&self.parameters["head"])?,
        }))
    }

    fn architecture(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

fn split() -> Split {
    let tokens = Tensor::randn([4, ROOM, WIDTH], (Kind::Float, Device::Cpu));
    Split::of_tensors(vec![("tokens".to_string(), tokens)], Tensor::from_slice(&[0i64, 1, 2, 0]))
}

fn subject<'a>(model: &'a Attention, learn: &'a Split) -> Subject<'a> {
    Subject { model, objective: &Classification, learn, longest: learn.longest(), device: Device::Cpu }
}

fn near(found: u64, expected: u64, what: &str) {
    let ratio = found as f64 / expected as f64;
    assert!((ratio - 1.0).abs() < 0.02, "{what}: predicted {found}, took {expected}");
}

#[test]
fn memory_is_predicted_where_it_grows_with_the_length() {
    const SAMPLES: usize = 20;
    let (model, learn) = (Attention::new(), split().with_lengths(vec![ROOM, 100, 300, 40]).unwrap());
    let (leaves, subject) = (Leaves::all(&model), subject(&model, &learn));
    let longest = Size { samples: SAMPLES, length: Some(ROOM as usize) };
    for course in [Course::Whole, Course::ByParts { recompute: false }, Course::ByParts { recompute: true }] {
        let backward = Backward { how: Pass::Learn.full(), course };
        let of = |size| largest(&learn_once(subject, &leaves, size, backward).unwrap().changes);
        let probed = Probed::default();
        let bound = probed.learning(subject, &leaves, SAMPLES, backward).unwrap();
        near(bound, of(longest), &format!("{course:?}"));
        let carried_on = fit::predicted(longest, |size| {
            assert!(size.samples <= 8 && size.length.is_some_and(|length| length <= 256), "{size:?} is tried");
            learn_once(subject, &leaves, size, backward).map(|taken| taken.changes)
        });
        assert_eq!(carried_on.unwrap(), bound, "{course:?}");
        // No batch takes more; one of shorter samples takes far less.
        assert!(of(Size::of(SAMPLES)) <= bound + bound / 50, "{course:?}");
        assert!(3 * of(Size { length: Some(256), ..longest }) < bound, "{course:?}");
        // Few samples are carried on from shorter ones, too.
        let few = probed.learning(subject, &leaves, 2, backward).unwrap();
        near(few, of(Size { samples: 2, ..longest }), &format!("two samples, {course:?}"));
    }
    let scored = Probed::default().scoring(subject, SAMPLES, Pass::Score.full()).unwrap();
    near(scored, largest(&score_once(subject, longest, Pass::Score.full()).unwrap().changes), "scoring");
}

#[test]
fn samples_of_one_length_are_predicted_from_few_as_they_are() {
    let (model, learn) = (Attention::new(), split());
    let (leaves, subject) = (Leaves::all(&model), subject(&model, &learn));
    let backward = Backward { how: Pass::Learn.full(), course: Course::Whole };
    let changes = |samples| learn_once(subject, &leaves, Size::of(samples), backward).unwrap().changes;
    let found = Probed::default().learning(subject, &leaves, 20, backward).unwrap();
    near(found, largest(&changes(20)), "as they are");
    let line = fit::predicted(Size::of(20), |size| {
        assert!(size.length.is_none() && size.samples <= 8, "{size:?}");
        Ok::<_, EngineError>(changes(size.samples))
    });
    assert_eq!(found, line.unwrap());
}
