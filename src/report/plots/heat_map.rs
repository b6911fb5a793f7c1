//! Coefficients by ingredient and layer group, in diverging colours centred on zero: what is negative or above 1 is extrapolation.

use std::collections::{BTreeMap, BTreeSet};

use plotters::prelude::*;
use plotters::style::FontTransform;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::canvas::{Canvas, LABEL, draw, held, letters, px, short, shortened, title};
use super::ink::{Ink, STEPS};
use super::shares::shares;
use super::{Part, Plot, PlotError};
use crate::coefficients::{CoefficientsFile, IngredientRef};
use crate::report::data::{Detail, Report};

const NAMES: i32 = 108;
/// Rows and columns that are drawn. Further rows are one more, their sum; of too many columns, neighbours are one, their mean.
const MOST_ROWS: usize = 80;
const MOST_COLUMNS: usize = 240;
/// Maps of layer-wise soups.
const MOST_MAPS: usize = 3;
const TOP: i32 = 44;
/// Letters of a column's name.
const LONGEST: usize = 30;

/// A table of coefficients to draw.
#[derive(Debug, PartialEq)]
struct Map {
    rows: Vec<String>,
    columns: Vec<String>,
    /// Row-major.
    values: Vec<f64>,
}

/// The layer-wise soups one by one, and the shares in all soups side by side.
pub fn plots(report: &Report) -> Result<Vec<Plot>, PlotError> {
    let mut all = vec![];
    let soups = || report.details.iter().filter_map(|detail| Some((detail, detail.soup.as_ref()?)));
    for (detail, soup) in soups().filter(|(_, soup)| soup.coefficients.groups() > 1).take(MOST_MAPS) {
        let task = &detail.task_id;
        let about = format!("Coefficients of task {task} by ingredient and layer group; {}", spread(soup));
        let drawn = one(&format!("{task}: coefficients by layer group"), &map(soup))?;
        all.push(Plot::new(Part::Coefficients, &format!("coefficients-{task}"), about, drawn));
    }
    let beside: Vec<_> = soups().collect();
    if let Some(map) = side_by_side(&beside) {
        let about = format!("Share of each ingredient in the soups of {} tasks", beside.len());
        let drawn = one("Share of each ingredient, by task", &map)?;
        all.push(Plot::new(Part::Coefficients, "coefficients-by-task", about, drawn));
    }
    Ok(all)
}

/// How far a soup extrapolates, in words.
pub fn spread(soup: &CoefficientsFile) -> String {
    let values = soup.coefficients.values();
    let part = |is: fn(f64) -> bool| 100.0 * values.iter().filter(|&&v| is(v)).count() as f64 / values.len() as f64;
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
    format!(
        "{:.0} % are negative, {:.0} % above 1; from {} to {}",
        part(|v| v < 0.0),
        part(|v| v > 1.0),
        short(low),
        short(high)
    )
}

fn map(soup: &CoefficientsFile) -> Map {
    let (table, about) = (&soup.coefficients, &soup.about);
    let groups = table.groups();
    let of = groups.div_ceil(MOST_COLUMNS);
    let names = bare(&about.groups);
    let columns = names.chunks(of).map(|chunk| match chunk {
        [one] => one.clone(),
        [first, ..] => format!("{first} +{}", chunk.len() - 1),
        [] => String::new(),
    });
    tabulate(&about.ingredients, columns.collect(), |k, column| {
        let (from, to) = (column * of, ((column + 1) * of).min(groups));
        (from..to).map(|l| table.get(k, l)).sum::<f64>() / (to - from) as f64
    })
}

/// A row for each ingredient, in their order; of too many, those with the largest values of either sign, and the sum of the others as one more, so that columns sum to
/// what they are the columns of.
fn tabulate(ingredients: &[IngredientRef], columns: Vec<String>, value: impl Fn(usize, usize) -> f64) -> Map {
    let across = 0..columns.len();
    let sizes = (0..ingredients.len()).map(|k| across.clone().map(|column| value(k, column).abs()).sum());
    let sizes: Vec<f64> = sizes.collect();
    let mut order: Vec<usize> = (0..ingredients.len()).collect();
    order.sort_by(|&a, &b| sizes[b].total_cmp(&sizes[a]));
    let others = order.split_off(order.len().min(MOST_ROWS));
    order.sort_unstable();
    let mut rows: Vec<String> = order.iter().map(|&k| ingredients[k].name.clone()).collect();
    let mut values = Vec::with_capacity((order.len() + 1) * columns.len());
    for &k in &order {
        values.extend(across.clone().map(|column| value(k, column)));
    }
    if !others.is_empty() {
        rows.push(format!("{} others", others.len()));
        values.extend(across.map(|column| others.iter().map(|&k| value(k, column)).sum::<f64>()));
    }
    Map { rows, columns, values }
}

/// One column a task; `None` unless there are two over the same ingredients.
fn side_by_side(soups: &[(&Detail, &CoefficientsFile)]) -> Option<Map> {
    let names = &soups.first()?.1.about.ingredients;
    let same: Vec<_> = soups.iter().filter(|(_, soup)| soup.about.ingredients == *names).collect();
    if same.len() < 2 {
        return None;
    }
    let columns = same.iter().map(|(detail, _)| detail.task_id.clone()).collect();
    let by_task: Vec<_> = same.iter().map(|(_, soup)| shares(soup)).collect();
    Some(tabulate(names, columns, |k, task| by_task[task][k].mean))
}

/// Names without a closing `.weight`, and without the components that nearly all of them have, as long as they stay different.
fn bare(names: &[String]) -> Vec<String> {
    let split: Vec<Vec<&str>> = names.iter().map(|name| name.split('.').collect()).collect();
    let mut places: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for (name, parts) in split.iter().enumerate() {
        for part in parts {
            places.entry(part).or_default().insert(name);
        }
    }
    // Numbers tell layers apart.
    let is_common = |part: &str| part.parse::<u64>().is_err() && places[part].len() * 4 > names.len() * 3;
    let short = split.iter().map(|parts| {
        let kept: Vec<&str> = parts.iter().copied().filter(|part| *part == "bias" || !is_common(part)).collect();
        let joined = kept.join(".");
        joined.strip_suffix(".weight").map(str::to_string).unwrap_or(joined)
    });
    let short: Vec<String> = short.collect();
    let different: BTreeSet<&String> = short.iter().collect();
    if different.len() == names.len() && short.iter().all(|name| !name.is_empty()) { short } else { names.to_vec() }
}

/// The coefficient that has the strongest colour: the largest of all, unless a few are far beyond the others.
fn full(values: &[f64]) -> f64 {
    let mut sizes: Vec<f64> = values.iter().map(|value| value.abs()).filter(|size| size.is_finite()).collect();
    sizes.sort_by(f64::total_cmp);
    let Some(&largest) = sizes.last() else { return 1.0 };
    let most = sizes[(sizes.len() - 1) * 99 / 100];
    let full = if most > 0.0 && largest > 3.0 * most { most } else { largest };
    if full > 0.0 { full } else { 1.0 }
}

fn step(value: f64, full: f64) -> i16 {
    if value.is_nan() {
        return 0;
    }
    (value / full * f64::from(STEPS)).round().clamp(-f64::from(STEPS), f64::from(STEPS)) as i16
}

fn one(what: &str, map: &Map) -> Result<String, PlotError> {
    let count = map.columns.len() as i32;
    let cell = match count {
        ..=16 => 30,
        17..=40 => 18,
        41..=90 => 13,
        _ => 8,
    };
    let row = if map.rows.len() > 40 { 13 } else { 16 };
    let longest = map.columns.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(LONGEST);
    let below = (longest as f64 * 0.6 * LABEL) as i32 + 12;
    let bottom = TOP + row * map.rows.len() as i32;
    let width = (NAMES + cell * count + 10).max(NAMES + 250);
    draw(width, bottom + below, |canvas| {
        let full = full(&map.values);
        title(canvas, what, 4)?;
        scale(canvas, full, map.values.iter().any(|value| value.abs() > full))?;
        let right = NAMES + cell * count;
        let area = [(px(NAMES), px(TOP)), (px(right), px(bottom))];
        canvas.draw(&Rectangle::new(area, Ink::Heat(0).color().filled())).map_err(PlotError::new)?;
        for (r, name) in map.rows.iter().enumerate() {
            let top = TOP + row * r as i32;
            let style = held(letters(LABEL.min(f64::from(row) - 3.0), Ink::Muted), HPos::Right);
            let text = Text::new(shortened(name, 18), (px(NAMES - 5), px(top) + px(row) / 2), style);
            canvas.draw(&text).map_err(PlotError::new)?;
            let values = &map.values[r * map.columns.len()..(r + 1) * map.columns.len()];
            for (from, to, step) in runs(values.iter().map(|&value| step(value, full))) {
                let corner = |column: usize| px(NAMES + cell * column as i32);
                let area = [(corner(from), px(top)), (corner(to), px(top + row))];
                canvas.draw(&Rectangle::new(area, Ink::Heat(step).color().filled())).map_err(PlotError::new)?;
            }
        }
        gaps(canvas, (map.rows.len(), map.columns.len()), (row, cell))?;
        // As many names as fit.
        let every = (13 + cell - 1) / cell;
        for (c, name) in map.columns.iter().enumerate().step_by(every as usize) {
            let at = (px(NAMES + cell * c as i32) + px(cell) / 2, px(bottom + 6));
            let turned = ("sans-serif", LABEL * 1.24 * 2.0).into_font().transform(FontTransform::Rotate270);
            let style = turned.color(&Ink::Muted.color()).pos(Pos::new(HPos::Right, VPos::Center));
            canvas.draw(&Text::new(ending(name), at, style)).map_err(PlotError::new)?;
        }
        Ok(())
    })
}

/// The end of a name says more than its beginning.
fn ending(name: &str) -> String {
    let count = name.chars().count();
    if count <= LONGEST {
        return shortened(name, LONGEST);
    }
    let end: String = name.chars().skip(count - LONGEST + 1).collect();
    format!("…{}", shortened(&end, LONGEST))
}

/// Neighbours of one step as (first, one past the last, step); zeros are left out.
fn runs(steps: impl Iterator<Item = i16>) -> Vec<(usize, usize, i16)> {
    let mut runs: Vec<(usize, usize, i16)> = vec![];
    for (at, step) in steps.enumerate() {
        match runs.last_mut() {
            Some((_, end, last)) if *last == step => *end = at + 1,
            _ => runs.push((at, at + 1, step)),
        }
    }
    runs.retain(|run| run.2 != 0);
    runs
}

/// Thin lines between cells.
fn gaps(canvas: &Canvas<'_>, (rows, columns): (usize, usize), (row, cell): (i32, i32)) -> Result<(), PlotError> {
    let (right, bottom) = (NAMES + cell * columns as i32, TOP + row * rows as i32);
    let style = Ink::Surface.color().stroke_width(1);
    let across = (1..rows as i32).map(|r| vec![(px(NAMES), px(TOP + row * r)), (px(right), px(TOP + row * r))]);
    let down = (1..columns as i32).filter(|_| cell >= 12);
    let down = down.map(|c| vec![(px(NAMES + cell * c), px(TOP)), (px(NAMES + cell * c), px(bottom))]);
    for line in across.chain(down) {
        canvas.draw(&PathElement::new(line, style)).map_err(PlotError::new)?;
    }
    Ok(())
}

/// The legend: which colour is which coefficient.
fn scale(canvas: &Canvas<'_>, full: f64, is_cut: bool) -> Result<(), PlotError> {
    const WIDE: i32 = 6;
    let left = NAMES;
    for step in -STEPS..=STEPS {
        let x = left + WIDE * i32::from(step + STEPS);
        let area = [(px(x), px(24)), (px(x + WIDE), px(32))];
        canvas.draw(&Rectangle::new(area, Ink::Heat(step).color().filled())).map_err(PlotError::new)?;
    }
    let end = left + WIDE * i32::from(2 * STEPS + 1);
    let sign = if is_cut { "≥ " } else { "" };
    let least = if is_cut { "≤ " } else { "" };
    let texts = [
        (left - 5, HPos::Right, format!("{least}{}", short(-full))),
        (end + 5, HPos::Left, format!("{sign}{}", short(full))),
    ];
    for (x, at, text) in texts {
        let style = held(letters(LABEL, Ink::Muted), at);
        canvas.draw(&Text::new(text, (px(x), px(28)), style)).map_err(PlotError::new)?;
    }
    let middle = px(left) + px(WIDE) * i32::from(STEPS) + px(WIDE) / 2;
    let tick = PathElement::new(vec![(middle, px(32)), (middle, px(35))], Ink::Axis.color().stroke_width(2));
    canvas.draw(&tick).map_err(PlotError::new)?;
    let style = held(letters(LABEL - 2.0, Ink::Muted), HPos::Left);
    canvas.draw(&Text::new("0", (middle + px(3), px(37)), style)).map_err(PlotError::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_the_middle_and_signs_are_on_their_sides() {
        let full = full(&[0.5, -0.25, 0.0]);
        assert_eq!(full, 0.5);
        assert_eq!([0.0, 0.5, -0.5, -0.25, 9.0].map(|value| step(value, full)), [0, 12, -12, -6, 12]);
        assert_eq!((step(f64::NAN, 1.0), super::full(&[]), super::full(&[0.0])), (0, 1.0, 1.0));
    }

    #[test]
    fn a_few_wild_coefficients_do_not_bleach_the_rest() {
        let mut values = vec![0.1; 1000];
        values[7] = 50.0;
        assert_eq!(full(&values), 0.1);
    }

    #[test]
    fn what_is_left_out_is_summed() {
        let ingredient =
            |k: usize| IngredientRef { name: format!("k{k}"), path: format!("/k{k}").into(), hash: String::new() };
        let ingredients: Vec<IngredientRef> = (0..100).map(ingredient).collect();
        let value = |k: usize, column: usize| match (k, column) {
            (3, 0) => -0.5,
            (4, 0) => 1.402,
            (_, 0) => 0.001,
            _ => 0.01,
        };
        let columns = vec!["a".to_string(), "b".to_string()];
        let map = tabulate(&ingredients, columns.clone(), value);
        assert_eq!((map.rows.len(), map.rows[MOST_ROWS].as_str()), (MOST_ROWS + 1, "20 others"));
        assert_eq!(
            (&map.rows[3..5], map.values[3 * 2], map.values[4 * 2]),
            (["k3", "k4"].map(String::from).as_slice(), -0.5, 1.402)
        );
        for column in 0..2 {
            let sum: f64 = map.values.iter().skip(column).step_by(2).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{column}: {sum}");
        }
        assert_eq!(tabulate(&ingredients[..80], columns, value).rows[79], "k79");
    }

    #[test]
    fn equal_neighbours_are_one_rectangle() {
        assert_eq!(runs([0, 0, 3, 3, -1, 0, 3].into_iter()), [(2, 4, 3), (4, 5, -1), (6, 7, 3)]);
        assert!(runs([].into_iter()).is_empty());
    }

    #[test]
    fn names_lose_what_they_share() {
        let names = ["vit.encoder.layer.0.a.weight", "vit.encoder.layer.1.a.bias"].map(String::from);
        assert_eq!(bare(&names), ["0", "1.bias"]);
        let names =
            ["e.layer.0.key.bias", "e.layer.1.key.bias", "e.layer.1.out", "head", "e.layer.0.out"].map(String::from);
        assert_eq!(bare(&names), ["0.key.bias", "1.key.bias", "1.out", "head", "0.out"]);
        assert_eq!(bare(&["a.a".to_string(), "a".to_string()]), ["a.a", "a"], "they would be the same");
        assert_eq!(bare(&["model".to_string()]), ["model"]);
        assert_eq!(bare(&["a.b".to_string(), "c".to_string()]), ["a.b", "c"]);
        assert_eq!(ending(&"x".repeat(50)).chars().count(), LONGEST);
    }
}
