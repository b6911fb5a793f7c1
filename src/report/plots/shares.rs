//! What each ingredient contributes to a soup: the mean of its coefficients over layer groups, and their range.

use std::collections::BTreeSet;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{LABEL, along, axes, chart, draw, extent, held, letters, px, shortened, title};
use super::ink::{Ink, STEPS};
use super::{Part, Plot, PlotError};
use crate::coefficients::CoefficientsFile;
use crate::report::data::Report;

const WIDTH: i32 = 380;
const NAMES: i32 = 104;
const ROW: i32 = 15;
/// Ingredients that are drawn.
const MOST: usize = 40;

/// An ingredient's part of a soup.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// The ingredient.
    pub name: String,
    /// Mean over layer groups, each counted once. The shares of all ingredients sum to 1.
    pub mean: f64,
    /// Smallest coefficient.
    pub low: f64,
    /// Largest coefficient.
    pub high: f64,
}

/// Every ingredient's share, in the soup's order.
pub fn shares(soup: &CoefficientsFile) -> Vec<Share> {
    let (table, about) = (&soup.coefficients, &soup.about);
    let share = |(k, ingredient): (usize, &crate::coefficients::IngredientRef)| {
        let row = (0..table.groups()).map(|l| table.get(k, l));
        let (low, high) = row.clone().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        Share { name: ingredient.name.clone(), mean: row.sum::<f64>() / table.groups() as f64, low, high }
    };
    about.ingredients.iter().enumerate().map(share).collect()
}

/// One drawing for the winner, one for the best of the others that is a soup.
pub fn plots(report: &Report) -> Result<Vec<Plot>, PlotError> {
    let mut all = vec![];
    let soups = report.details.iter().filter_map(|detail| Some((detail, detail.soup.as_ref()?)));
    let mixed = soups.filter(|(_, soup)| soup.coefficients.single_ingredient().is_none());
    for (detail, soup) in mixed.take(2) {
        let mut sorted = shares(soup);
        sorted.sort_by(|a, b| b.mean.total_cmp(&a.mean));
        let about = format!("Share of each ingredient in the soup of task {}", detail.task_id);
        let drawn = bars(&detail.task_id, &largest(sorted))?;
        all.push(Plot::new(Part::Shares, &format!("shares-{}", detail.task_id), about, drawn));
    }
    Ok(all)
}

/// Those with the largest shares of either sign, in order, and the sum of the others as one more.
fn largest(sorted: Vec<Share>) -> Vec<Share> {
    if sorted.len() <= MOST {
        return sorted;
    }
    let mut order: Vec<usize> = (0..sorted.len()).collect();
    order.sort_by(|&a, &b| sorted[b].mean.abs().total_cmp(&sorted[a].mean.abs()));
    let is_large: BTreeSet<usize> = order.into_iter().take(MOST).collect();
    let (mut kept, mut others) = (vec![], vec![]);
    for (place, share) in sorted.into_iter().enumerate() {
        if is_large.contains(&place) { kept.push(share) } else { others.push(share) }
    }
    let sum = others.iter().map(|share| share.mean).sum();
    kept.push(Share { name: format!("{} others", others.len()), mean: sum, low: sum, high: sum });
    kept
}

/// Ends of the axis: all shares, and of the ranges only so much that the shares stay readable beside them.
fn reach(shares: &[Share]) -> (f64, f64) {
    let means = || shares.iter().map(|share| share.mean).chain([0.0]);
    let (least, most) = extent(means()).unwrap_or((0.0, 1.0));
    let room = 0.75 * (most - least);
    let ends = shares.iter().flat_map(|share| [share.low.max(least - room), share.high.min(most + room)]);
    extent(means().chain(ends)).unwrap_or((0.0, 1.0))
}

fn bars(task: &str, shares: &[Share]) -> Result<String, PlotError> {
    let (low, high) = reach(shares);
    draw(WIDTH, 58 + ROW * shares.len() as i32, |canvas| {
        title(canvas, task, 4)?;
        let mut chart =
            chart(canvas, NAMES, 24).build_cartesian_2d(low..high, shares.len() as f64..0.0).map_err(PlotError::new)?;
        axes(&mut chart, (5, &along((low, high))), (0, &|_| String::new()))?;
        for (n, share) in shares.iter().enumerate() {
            let (zero, middle) = chart.backend_coord(&(0.0, n as f64 + 0.5));
            let x = |value: f64| chart.backend_coord(&(value.clamp(low, high), 0.5)).0;
            let name = shortened(&share.name, 17);
            let style = held(letters(LABEL, Ink::Muted), HPos::Right);
            canvas.draw(&Text::new(name, (px(NAMES - 4), middle), style)).map_err(PlotError::new)?;
            let (from, to) = (zero.min(x(share.mean)), zero.max(x(share.mean)));
            let ink = Ink::Heat(if share.mean < 0.0 { -STEPS * 2 / 3 } else { STEPS * 2 / 3 });
            let bar = Rectangle::new([(from, middle - px(5)), (to, middle + px(5))], ink.color().filled());
            canvas.draw(&bar).map_err(PlotError::new)?;
            if share.high > share.low {
                let range = vec![(x(share.low), middle), (x(share.high), middle)];
                let style = Ink::Text.color().stroke_width(px(1) as u32);
                canvas.draw(&PathElement::new(range, style)).map_err(PlotError::new)?;
            }
        }
        let zero = chart.backend_coord(&(0.0, 0.0)).0;
        let (top, bottom) = (chart.backend_coord(&(0.0, 0.0)).1, chart.backend_coord(&(0.0, shares.len() as f64)).1);
        let line = PathElement::new(vec![(zero, top), (zero, bottom)], Ink::Axis.color().stroke_width(px(1) as u32));
        canvas.draw(&line).map_err(PlotError::new)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(name: usize, mean: f64) -> Share {
        Share { name: name.to_string(), mean, low: mean, high: mean }
    }

    #[test]
    fn wide_ranges_do_not_hide_the_shares() {
        let wide = |mean, low, high| Share { low, high, ..share(0, mean) };
        let (low, high) = reach(&[wide(0.5, -50.0, 50.0), wide(-0.1, -0.2, 0.0)]);
        assert!((-0.8..=-0.2).contains(&low) && (0.6..=1.2).contains(&high), "{low} {high}");
        let (low, high) = reach(&[wide(0.5, 0.4, 0.6)]);
        assert!((-0.1..0.0).contains(&low) && (0.6..0.7).contains(&high), "{low} {high}");
    }

    #[test]
    fn what_is_left_out_is_summed() {
        let mut all: Vec<Share> = (0..100).map(|n| share(n, 0.001)).collect();
        all[3].mean = -0.5;
        all[4].mean = 1.402;
        all.sort_by(|a, b| b.mean.total_cmp(&a.mean));
        let kept = largest(all);
        assert_eq!(kept.len(), MOST + 1);
        assert!(kept.iter().any(|share| share.mean == -0.5) && kept[0].mean == 1.402);
        assert_eq!(kept[MOST].name, "60 others");
        assert!((kept.iter().map(|share| share.mean).sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
