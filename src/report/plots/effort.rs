//! Memory and throughput over iterations, for a few tasks together.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{
    LABEL, Numbers, axes, bytes, chart, draw, extent, has_place, held, letters, px, short, shortened, title,
};
use super::ink::Ink;
use super::{Part, Plot, PlotError};
use crate::report::data::Report;

const WIDTH: i32 = 380;
const HEIGHT: i32 = 250;
/// Tasks in one drawing: more could not be told apart.
const MOST: usize = 6;
/// Names in one line of the legend.
const IN_LINE: usize = 3;

struct EffortLine<'a> {
    task: &'a str,
    points: Vec<(f64, f64)>,
}

/// Throughput, memory of the host, and memory of the device where it could tell.
pub fn plots(report: &Report) -> Result<Vec<Plot>, PlotError> {
    type Value = fn(&crate::runner::pool::HistoryPoint) -> Option<f64>;
    let kinds: [(&str, &str, Value, Numbers<'_>); 3] = [
        ("throughput", "Samples per second", |p| Some(p.samples_per_second), &|y| short(*y)),
        ("host-memory", "Memory of the process", |p| Some(p.host_bytes as f64), &|y| bytes(*y)),
        ("device-memory", "Memory of the device", |p| p.device_bytes.map(|b| b as f64), &|y| bytes(*y)),
    ];
    let mut all = vec![];
    for (name, what, value, numbers) in kinds {
        let lines = report.details.iter().filter_map(|detail| {
            let values = detail.history.iter().filter_map(|point| Some((point.iteration as f64, value(point)?)));
            let points: Vec<_> = values.filter(|(_, y)| has_place(*y)).collect();
            (points.len() > 1).then_some(EffortLine { task: &detail.task_id, points })
        });
        let lines: Vec<_> = lines.take(MOST).collect();
        if !lines.is_empty() {
            let about = format!("{what} over iterations, of {} tasks", lines.len());
            all.push(Plot::new(Part::Effort, name, about, draw_lines(what, &lines, numbers)?));
        }
    }
    Ok(all)
}

fn draw_lines(what: &str, lines: &[EffortLine<'_>], numbers: Numbers<'_>) -> Result<String, PlotError> {
    let all = || lines.iter().flat_map(|line| &line.points);
    let (low, high) = extent(all().map(|point| point.1).chain([0.0])).unwrap_or((0.0, 1.0));
    let (first, last) = extent(all().map(|point| point.0)).unwrap_or((0.0, 1.0));
    draw(WIDTH, HEIGHT, |canvas| {
        title(canvas, what, 4)?;
        let top = 22 + 15 * lines.len().div_ceil(IN_LINE) as i32;
        for (n, line) in lines.iter().enumerate() {
            let (x, y) = (6 + 124 * (n % IN_LINE) as i32, 27 + 15 * (n / IN_LINE) as i32);
            let ink = Ink::Series(n as u8).color();
            let mark = vec![(px(x), px(y)), (px(x + 13), px(y))];
            canvas.draw(&PathElement::new(mark, ink.stroke_width(px(2) as u32))).map_err(PlotError::new)?;
            let style = held(letters(LABEL, Ink::Muted), HPos::Left);
            canvas.draw(&Text::new(shortened(line.task, 16), (px(x + 18), px(y)), style)).map_err(PlotError::new)?;
        }
        let range = (first.max(0.0)..last, low.max(0.0)..high);
        let mut chart = chart(canvas, 54, top).build_cartesian_2d(range.0, range.1).map_err(PlotError::new)?;
        axes(&mut chart, (5, &|x| short(x.round())), (5, numbers))?;
        for (n, line) in lines.iter().enumerate() {
            let style = Ink::Series(n as u8).color().stroke_width(px(2) as u32 - 1);
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style)).map_err(PlotError::new)?;
        }
        Ok(())
    })
}
