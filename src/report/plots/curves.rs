//! Loss on learn and select over a task's iterations.

use plotters::prelude::*;

use super::canvas::{axes, chart, draw, extent, has_place, legend, px, short, title};
use super::ink::Ink;
use super::{Part, Plot, PlotError};
use crate::report::data::{Detail, Report};

const WIDTH: i32 = 380;
const HEIGHT: i32 = 220;

/// A task's losses over what it has done.
#[derive(Debug, PartialEq)]
struct Curve {
    /// What is counted along the axis.
    unit: &'static str,
    learn: Vec<(f64, f64)>,
    /// Where select was scored.
    select: Vec<(f64, f64)>,
}

/// Of iterations where they are kept, else of the inner epochs of a checkpoint; `None` for less than two of them.
fn curve(detail: &Detail) -> Option<Curve> {
    let (unit, all): (_, Vec<(f64, f64, Option<f64>)>) = if detail.history.is_empty() {
        let epochs = detail.epochs.iter().enumerate();
        let points = epochs.map(|(n, epoch)| ((n + 1) as f64, epoch.learn_loss, epoch.select.map(|score| score.loss)));
        ("inner epochs", points.collect())
    } else {
        let points = detail.history.iter();
        ("iterations", points.map(|point| (point.iteration as f64, point.learn_loss, point.select_loss)).collect())
    };
    if all.len() < 2 {
        return None;
    }
    let mut select: Vec<(f64, f64)> = vec![];
    for (x, loss) in all.iter().filter_map(|&(x, _, select)| Some((x, select?))) {
        // Every iteration repeats the last score: only another one is news.
        if has_place(loss) && select.last().is_none_or(|&(_, last)| last != loss) {
            select.push((x, loss));
        }
    }
    let learn = all.iter().filter(|(_, loss, _)| has_place(*loss)).map(|&(x, loss, _)| (x, loss)).collect();
    Some(Curve { unit, learn, select })
}

/// One drawing for each task that has iterations to show.
pub fn plots(report: &Report) -> Result<Vec<Plot>, PlotError> {
    let best = report.results.best_ingredient().and_then(|best| best.select);
    let best = best.map(|score| score.loss).filter(|&loss| has_place(loss));
    let mut all = vec![];
    for detail in &report.details {
        if report.row(&detail.task_id).is_some_and(|row| !row.method.learns()) {
            continue;
        }
        let Some(curve) = curve(detail) else { continue };
        let about = format!("Loss of task {} on learn and on select over {}", detail.task_id, curve.unit);
        let drawn = one(&detail.task_id, &curve, best)?;
        all.push(Plot::new(Part::Curves, &format!("curve-{}", detail.task_id), about, drawn));
    }
    Ok(all)
}

fn one(task: &str, curve: &Curve, best: Option<f64>) -> Result<String, PlotError> {
    let xs = curve.learn.iter().chain(&curve.select).map(|point| point.0);
    let (first, last) = xs.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
    // A few batches at the start may be far off: they would flatten all the rest.
    let learn = within(&curve.learn);
    let ys = learn.iter().chain(&curve.select).map(|point| point.1).chain(best);
    let (low, high) = extent(ys).unwrap_or((0.0, 1.0));
    let last = if last > first { last } else { first + 1.0 };
    draw(WIDTH, HEIGHT, |canvas| {
        title(canvas, task, 4)?;
        legend(canvas, &[("learn", Ink::Quiet), ("select", Ink::Strong)], WIDTH - 10, 11)?;
        let mut chart = chart(canvas, 46, 26).build_cartesian_2d(first..last, low..high).map_err(PlotError::new)?;
        axes(&mut chart, (5, &|x| short(x.round())), (5, &|y| short(*y)))?;
        if let Some(best) = best {
            let dashes = dashed(first, last, best);
            for dash in dashes {
                let line = PathElement::new(dash, Ink::Muted.color().stroke_width(px(1) as u32));
                chart.draw_series([line]).map_err(PlotError::new)?;
            }
        }
        let thin = Ink::Quiet.color().stroke_width(px(1) as u32);
        chart.draw_series(LineSeries::new(learn.iter().copied(), thin)).map_err(PlotError::new)?;
        let strong = Ink::Strong.color().stroke_width(px(2) as u32 - 1);
        chart.draw_series(LineSeries::new(curve.select.iter().copied(), strong)).map_err(PlotError::new)?;
        if curve.select.len() <= 60 {
            let dots = curve.select.iter().map(|&point| Circle::new(point, px(2), Ink::Strong.color().filled()));
            chart.draw_series(dots).map_err(PlotError::new)?;
        }
        Ok(())
    })
}

/// A horizontal line in pieces.
fn dashed(from: f64, to: f64, y: f64) -> Vec<Vec<(f64, f64)>> {
    const PIECES: usize = 40;
    let step = (to - from) / PIECES as f64;
    (0..PIECES).map(|i| from + i as f64 * step).map(|x| vec![(x, y), (x + 0.5 * step, y)]).collect()
}

/// The points, the highest 2 % of them not higher than the others.
fn within(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut losses: Vec<f64> = points.iter().map(|point| point.1).collect();
    losses.sort_by(f64::total_cmp);
    let Some(&top) = losses.get((losses.len() * 98 / 100).min(losses.len().saturating_sub(1))) else { return vec![] };
    points.iter().map(|&(x, y)| (x, y.min(top))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::EpochRecord;
    use crate::runner::pool::HistoryPoint;

    fn point(iteration: u64, learn_loss: f64, select_loss: Option<f64>) -> HistoryPoint {
        HistoryPoint { iteration, learn_loss, select_loss, samples_per_second: 1.0, host_bytes: 1, device_bytes: None }
    }

    #[test]
    fn select_has_a_point_where_it_was_scored() {
        let history = vec![
            point(1, 2.0, None),
            point(2, f64::NAN, Some(1.0)),
            point(3, 1.5, Some(1.0)),
            point(4, 1.4, Some(0.9)),
        ];
        let found = curve(&Detail { history, ..Detail::new("t") }).unwrap();
        assert_eq!(found.unit, "iterations");
        assert_eq!(found.learn, [(1.0, 2.0), (3.0, 1.5), (4.0, 1.4)]);
        assert_eq!(found.select, [(2.0, 1.0), (4.0, 0.9)]);
        assert_eq!(curve(&Detail::new("t")), None);
    }

    #[test]
    fn an_unfinished_task_shows_its_epochs() {
        let epoch = |loss| EpochRecord { position: (0, 0, 0), learn_loss: loss, select: None };
        let found = curve(&Detail { epochs: vec![epoch(1.0), epoch(0.5)], ..Detail::new("t") }).unwrap();
        assert_eq!((found.unit, found.learn), ("inner epochs", vec![(1.0, 1.0), (2.0, 0.5)]));
    }

    #[test]
    fn a_few_wild_batches_do_not_flatten_the_rest() {
        let mut points: Vec<(f64, f64)> = (0..100).map(|i| (f64::from(i), 1.0)).collect();
        points[0].1 = 1e6;
        assert!(within(&points).iter().all(|point| point.1 <= 1.0));
        assert!(within(&[]).is_empty());
    }
}
