//! Searched hyperparameters against select loss.

use std::collections::BTreeSet;

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use serde_json::Value;

use super::canvas::{LABEL, LARGEST, axes, chart, draw, extent, has_place, held, letters, px, short, shortened, title};
use super::ink::{Ink, SERIES};
use super::{Part, Plot, PlotError};
use crate::report::data::Report;
use crate::sweep::results::Row;
use crate::sweep::spec::MethodName;
use crate::task::TaskState;

const WIDTH: i32 = 380;
const HEIGHT: i32 = 240;
/// Tasks in one drawing: the best half of them, and others at even distances.
const MOST: usize = 600;
/// Values of a hyperparameter that is no number.
const MOST_WORDS: usize = 12;
/// A range this many times as wide as its smallest value is drawn by its logarithm.
const WIDE: f64 = 20.0;

/// A task in the plane.
struct Dot {
    x: f64,
    loss: f64,
    method: MethodName,
    /// Not finished: its score is that of its last rung.
    is_partial: bool,
}

/// One drawing for each searched field with more than one value.
pub fn plots(report: &Report) -> Result<Vec<Plot>, PlotError> {
    let scored: Vec<&Row> = report
        .results
        .tasks
        .iter()
        .filter(|row| !row.searched.is_empty() && row.select.is_some_and(|score| has_place(score.loss)))
        .collect();
    let rows = thinned(&scored);
    let methods: BTreeSet<&str> = rows.iter().map(|row| row.method.as_str()).collect();
    let methods: Vec<MethodName> = MethodName::ALL.into_iter().filter(|m| methods.contains(m.as_str())).collect();
    let fields: BTreeSet<&String> = rows.iter().flat_map(|row| row.searched.keys()).collect();
    let mut all = vec![];
    for field in fields {
        let values: Vec<(&Row, &Value)> =
            rows.iter().filter_map(|row| Some((*row, row.searched.get(field)?))).collect();
        let drawn = match axis(&values) {
            Some(Axis::Numbers) => numbers(field, &values, &methods)?,
            Some(Axis::Words(words)) => by_word(field, &values, &words, &methods)?,
            None => continue,
        };
        let about = format!("Select loss of {} tasks by {field}", values.len());
        all.push(Plot::new(Part::Space, &format!("space-{field}"), about, drawn));
    }
    Ok(all)
}

/// The best half of [`MOST`], and as many of the rest at even distances.
fn thinned<'a>(rows: &[&'a Row]) -> Vec<&'a Row> {
    if rows.len() <= MOST {
        return rows.to_vec();
    }
    let (best, rest) = rows.split_at(MOST / 2);
    let step = rest.len() as f64 / (MOST / 2) as f64;
    let spread = (0..MOST / 2).filter_map(|i| rest.get((i as f64 * step) as usize));
    best.iter().chain(spread).copied().collect()
}

enum Axis {
    Numbers,
    Words(Vec<String>),
}

/// `None` if there is nothing to compare, or too many words.
fn axis(values: &[(&Row, &Value)]) -> Option<Axis> {
    let words: BTreeSet<String> = values.iter().map(|(_, value)| word(value)).collect();
    if words.len() < 2 {
        return None;
    }
    if values.iter().all(|(_, value)| value.as_f64().is_some_and(has_place)) {
        return Some(Axis::Numbers);
    }
    (words.len() <= MOST_WORDS).then(|| Axis::Words(words.into_iter().collect()))
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

fn dot(row: &Row, x: f64) -> Dot {
    let loss = row.select.map_or(f64::NAN, |score| score.loss);
    Dot { x, loss, method: row.method, is_partial: row.state != TaskState::Succeeded }
}

fn is_wide(values: impl Iterator<Item = f64>) -> bool {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    low > 0.0 && high / low >= WIDE
}

fn widened(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let logs: Vec<f64> = values.map(f64::ln).collect();
    let (low, high) = extent(logs.into_iter()).unwrap_or((0.0, 1.0));
    low.exp().max(1.0 / LARGEST)..high.exp().min(LARGEST)
}

fn numbers(field: &str, values: &[(&Row, &Value)], methods: &[MethodName]) -> Result<String, PlotError> {
    let dots: Vec<Dot> = values.iter().filter_map(|(row, value)| Some(dot(row, value.as_f64()?))).collect();
    let xs = || dots.iter().map(|dot| dot.x);
    let plane = Plane { field, dots: &dots, methods, words: &[] };
    if is_wide(xs()) {
        plane.with_x(|| widened(xs()).log_scale())
    } else {
        let (low, high) = extent(xs()).unwrap_or((0.0, 1.0));
        plane.with_x(|| low..high)
    }
}

fn by_word(
    field: &str,
    values: &[(&Row, &Value)],
    words: &[String],
    methods: &[MethodName],
) -> Result<String, PlotError> {
    let mut seen = vec![0.0; words.len()];
    let mut place = |value: &Value| {
        let at = words.iter().position(|other| *other == word(value)).unwrap_or(0);
        // Side by side, so that equal scores are seen: golden steps never repeat. The first is in the middle.
        let beside = (0.5 + seen[at] * 0.618_034_f64).fract() - 0.5;
        seen[at] += 1.0;
        at as f64 + 0.36 * beside
    };
    let dots: Vec<Dot> = values.iter().map(|(row, value)| dot(row, place(value))).collect();
    let last = words.len() as f64 - 0.5;
    Plane { field, dots: &dots, methods, words }.with_x(|| -0.5..last)
}

/// What one drawing shows.
struct Plane<'a> {
    field: &'a str,
    dots: &'a [Dot],
    methods: &'a [MethodName],
    /// Names along the axis, in place of numbers.
    words: &'a [String],
}

impl Plane<'_> {
    fn with_x<X: AsRangedCoord<Value = f64>>(&self, x: impl Fn() -> X) -> Result<String, PlotError>
    where
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let losses = || self.dots.iter().map(|dot| dot.loss);
        if is_wide(losses()) {
            self.draw(x(), widened(losses()).log_scale())
        } else {
            let (low, high) = extent(losses()).unwrap_or((0.0, 1.0));
            self.draw(x(), low..high)
        }
    }

    fn draw<X, Y>(&self, x: X, y: Y) -> Result<String, PlotError>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        draw(WIDTH, HEIGHT, |canvas| {
            title(canvas, self.field, 4)?;
            // With one method there is nothing to tell apart; where the axis is the methods, it tells.
            let is_colored = self.methods.len() > 1 && self.field != "method";
            let top = if is_colored { 26 + 15 * self.methods.len().div_ceil(5) as i32 } else { 26 };
            if is_colored {
                self.legend(canvas)?;
            }
            let mut chart = chart(canvas, 46, top).build_cartesian_2d(x, y).map_err(PlotError::new)?;
            let x_labels = if self.words.is_empty() { 5 } else { 0 };
            axes(&mut chart, (x_labels, &|x| short(*x)), (5, &|y| short(*y)))?;
            for dot in self.dots {
                let ink = if is_colored { self.ink(dot.method) } else { Ink::Series(0) };
                let style = if dot.is_partial {
                    ShapeStyle { color: ink.color().to_rgba(), filled: false, stroke_width: px(1) as u32 }
                } else {
                    ink.color().mix(0.75).filled()
                };
                chart.draw_series([Circle::new((dot.x, dot.loss), px(3), style)]).map_err(PlotError::new)?;
            }
            for (n, word) in self.words.iter().enumerate() {
                let x = px(48) + (px(WIDTH - 60) * (2 * n as i32 + 1)) / (2 * self.words.len() as i32);
                let style = held(letters(LABEL, Ink::Muted), HPos::Center);
                let most = 52 / self.words.len();
                let text = Text::new(shortened(word, most.max(3)), (x, px(HEIGHT - 12)), style);
                canvas.draw(&text).map_err(PlotError::new)?;
            }
            Ok(())
        })
    }

    fn ink(&self, method: MethodName) -> Ink {
        let place = self.methods.iter().position(|other| *other == method).unwrap_or(0);
        Ink::Series(place as u8 % SERIES)
    }

    fn legend(&self, canvas: &super::canvas::Canvas<'_>) -> Result<(), PlotError> {
        for (n, method) in self.methods.iter().enumerate() {
            let (x, y) = (10 + 74 * (n as i32 % 5), 28 + 15 * (n as i32 / 5));
            let mark = Circle::new((px(x), px(y)), px(3), self.ink(*method).color().filled());
            canvas.draw(&mark).map_err(PlotError::new)?;
            let style = held(letters(LABEL, Ink::Muted), HPos::Left);
            let text = Text::new(method.to_string(), (px(x + 8), px(y)), style);
            canvas.draw(&text).map_err(PlotError::new)?;
        }
        Ok(())
    }
}
