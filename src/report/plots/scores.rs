//! The best tasks and the baselines: loss on select and on test, with standard errors.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{
    Canvas, LABEL, axes, chart, draw, extent, has_place, held, legend, letters, px, short, shortened, title,
};
use super::ink::Ink;
use super::{Part, Plot, PlotError};
use crate::report::data::Report;
use crate::sweep::results::Row;
use crate::sweep::score::SplitScore;
use crate::sweep::task::Origin;
use crate::task::TaskState;

const WIDTH: i32 = 560;
const NAMES: i32 = 104;
const ROW: i32 = 24;
/// Tasks that are drawn, baselines besides.
const MOST: usize = 10;

/// `None` before a task has succeeded.
pub fn plot(report: &Report) -> Result<Option<Plot>, PlotError> {
    let succeeded = report.results.tasks.iter().filter(|row| row.state == TaskState::Succeeded);
    let mut soups = 0;
    let rows: Vec<&Row> = succeeded
        .filter(|row| {
            soups += usize::from(row.origin != Origin::Baseline);
            row.origin == Origin::Baseline || soups <= MOST
        })
        .collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let about = format!("Loss of {} tasks on select and test, with one standard error to either side", rows.len());
    Ok(Some(Plot::new(Part::Scores, "scores", about, dots(&rows)?)))
}

fn dots(rows: &[&Row]) -> Result<String, PlotError> {
    let scores = || rows.iter().flat_map(|row| [row.select, row.test]).flatten();
    let ends = scores().flat_map(|s| [s.loss - s.loss_standard_error, s.loss + s.loss_standard_error]);
    let (low, high) = extent(ends).unwrap_or((0.0, 1.0));
    let has_test = rows.iter().any(|row| row.test.is_some());
    let height = 58 + ROW * rows.len() as i32;
    draw(WIDTH, height, |canvas| {
        title(canvas, "Loss, one standard error to either side", 4)?;
        let select = ("select", Ink::Quiet);
        let entries = if has_test { vec![select, ("test", Ink::Strong)] } else { vec![select] };
        legend(canvas, &entries, WIDTH - 14, 11)?;
        let mut chart =
            chart(canvas, NAMES, 26).build_cartesian_2d(low..high, rows.len() as f64..0.0).map_err(PlotError::new)?;
        axes(&mut chart, (7, &|x| short(*x)), (0, &|_| String::new()))?;
        for (n, row) in rows.iter().enumerate() {
            let middle = chart.backend_coord(&(low, n as f64 + 0.5)).1;
            let ink = if row.origin == Origin::Baseline { Ink::Muted } else { Ink::Text };
            let style = held(letters(LABEL, ink), HPos::Right);
            let name = Text::new(shortened(&row.task_id, 17), (px(NAMES - 4), middle), style);
            canvas.draw(&name).map_err(PlotError::new)?;
            let pair = [(row.select, Ink::Quiet, -px(4)), (row.test, Ink::Strong, px(4))];
            for (score, ink, shift) in pair {
                let Some(score) = score.filter(|score| has_place(score.loss)) else { continue };
                let shift = if has_test { shift } else { 0 };
                let x = |loss: f64| chart.backend_coord(&(loss, 0.5)).0;
                whisker(canvas, &score, &x, middle + shift, ink)?;
            }
        }
        Ok(())
    })
}

fn whisker(canvas: &Canvas<'_>, score: &SplitScore, x: &dyn Fn(f64) -> i32, y: i32, ink: Ink) -> Result<(), PlotError> {
    let error = score.loss_standard_error;
    if has_place(score.loss - error) && has_place(score.loss + error) {
        let line = vec![(x(score.loss - error), y), (x(score.loss + error), y)];
        let style = ink.color().stroke_width(px(2) as u32 - 1);
        canvas.draw(&PathElement::new(line, style)).map_err(PlotError::new)?;
    }
    canvas.draw(&Circle::new((x(score.loss), y), px(4) - 1, ink.color().filled())).map_err(PlotError::new)
}
