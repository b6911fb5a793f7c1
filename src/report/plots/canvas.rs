//! What all drawings have in common: size, letters, title, axes.

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::PlotError;
use super::ink::Ink;
use crate::report::data::written;

/// Units of a drawing a pixel of the page: plotters places by whole units.
pub const SCALE: i32 = 2;
/// Height of labels, in pixels.
pub const LABEL: f64 = 11.0;
/// Height of titles, in pixels.
pub const TITLE: f64 = 12.5;

/// The surface of one drawing.
pub type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// So many pixels, in units of a drawing.
pub fn px(pixels: i32) -> i32 {
    pixels * SCALE
}

/// Draws on a canvas of so many pixels and gives the SVG.
pub fn draw(
    width: i32,
    height: i32,
    on: impl FnOnce(&Canvas<'_>) -> Result<(), PlotError>,
) -> Result<String, PlotError> {
    let mut svg = String::new();
    {
        let size = (px(width) as u32, px(height) as u32);
        let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        on(&canvas)?;
        canvas.present().map_err(PlotError::new)?;
    }
    let sized = format!("width=\"{}\" height=\"{}\" viewBox", px(width), px(height));
    let svg = svg.replacen(&sized, &format!("width=\"{width}\" height=\"{height}\" viewBox"), 1);
    // What is said by default anyway is half of a large drawing.
    Ok(svg.replace(" opacity=\"1\"", "").replace(" stroke=\"none\"", "").replace("/>\n", "/>"))
}

/// Letters of a height in pixels.
pub fn letters(height: f64, ink: Ink) -> TextStyle<'static> {
    // plotters takes the height of a line of letters, and writes the height of the letters.
    ("sans-serif", height * 1.24 * f64::from(SCALE)).into_font().color(&ink.color())
}

/// Where letters are held: at their left, middle or right; always at half their height.
pub fn held(style: TextStyle<'static>, at: HPos) -> TextStyle<'static> {
    style.pos(Pos::new(at, VPos::Center))
}

/// A title at the upper left.
pub fn title(canvas: &Canvas<'_>, text: &str, left: i32) -> Result<(), PlotError> {
    let style = held(letters(TITLE, Ink::Text), HPos::Left);
    canvas.draw(&Text::new(shortened(text, 64), (px(left), px(11)), style)).map_err(PlotError::new)
}

/// One entry of a legend that stands in one line beside the title, at the right.
pub fn legend(canvas: &Canvas<'_>, entries: &[(&str, Ink)], right: i32, top: i32) -> Result<(), PlotError> {
    let mut x = right;
    for (text, ink) in entries.iter().rev() {
        let wide = (text.chars().count() as f64 * 0.56 * LABEL) as i32;
        let style = held(letters(LABEL, Ink::Muted), HPos::Left);
        canvas.draw(&Text::new((*text).to_string(), (px(x - wide), px(top)), style)).map_err(PlotError::new)?;
        let from = x - wide - 18;
        let line = [(px(from), px(top)), (px(from + 13), px(top))];
        canvas
            .draw(&PathElement::new(line.to_vec(), ink.color().stroke_width(px(2) as u32)))
            .map_err(PlotError::new)?;
        x = from - 12;
    }
    Ok(())
}

/// Numbers along an axis.
pub type Numbers<'a> = &'a dyn Fn(&f64) -> String;

/// Lines to read values along, and axes with numbers.
pub fn axes<X, Y>(
    chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
    (x_labels, x_numbers): (usize, Numbers<'_>),
    (y_labels, y_numbers): (usize, Numbers<'_>),
) -> Result<(), PlotError>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(0)
        .bold_line_style(Ink::Grid.color().stroke_width(px(1) as u32))
        .axis_style(Ink::Axis.color().stroke_width(px(1) as u32))
        .set_all_tick_mark_size(px(3))
        .label_style(letters(LABEL, Ink::Muted))
        .x_labels(x_labels)
        .y_labels(y_labels)
        .x_label_formatter(x_numbers)
        .y_label_formatter(y_numbers)
        .draw()
        .map_err(PlotError::new)
}

/// A chart below a title, with room for numbers at the left and below.
pub fn chart<'a, 'b>(canvas: &'a Canvas<'b>, left: i32, top: i32) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(canvas);
    builder
        .margin_top(px(top))
        .margin_right(px(12))
        .margin_left(px(2))
        .margin_bottom(px(2))
        .x_label_area_size(px(22))
        .y_label_area_size(px(left));
    builder
}

/// At most so many letters.
pub fn shortened(text: &str, most: usize) -> String {
    let plain = text.chars().map(written);
    if text.chars().count() <= most {
        return plain.collect();
    }
    plain.take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Numbers beyond this are not drawn: differences of such may be infinite.
pub const LARGEST: f64 = 1e300;

/// Whether a number has a place on an axis.
pub fn has_place(number: f64) -> bool {
    number.abs() <= LARGEST
}

/// Smallest and largest of the numbers that have a place, with some room, never without extent. `None` without any.
pub fn extent(numbers: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for number in numbers.filter(|&number| has_place(number)) {
        low = low.min(number);
        high = high.max(number);
    }
    if low > high {
        return None;
    }
    let room = 0.06 * (high - low);
    // Equal numbers, and such that are too close for the axis to tell apart.
    let least = 1e-9_f64.max(low.abs().max(high.abs()) * 1e-6);
    let room = if room < least { 0.5 * low.abs().max(high.abs()).max(1.0) * 0.1 } else { room };
    Some((low - room, high + room))
}

/// Numbers along an axis of this extent: its zero is written as such, although it was reached by adding steps.
pub fn along((low, high): (f64, f64)) -> impl Fn(&f64) -> String {
    let least = 1e-9 * (high - low).abs();
    move |&number: &f64| if number.abs() < least { short(0.0) } else { short(number) }
}

/// A number in few letters: as many digits as its size asks for.
pub fn short(number: f64) -> String {
    let size = number.abs();
    let text = match size {
        _ if number == 0.0 => return "0".into(),
        _ if !number.is_finite() => return number.to_string(),
        s if !(1e-300..1e12).contains(&s) => format!("{number:.0e}"),
        s if s >= 1e9 => format!("{:.1}G", number / 1e9),
        s if s >= 1e6 => format!("{:.1}M", number / 1e6),
        s if s >= 1e4 => format!("{:.0}k", number / 1e3),
        s if s >= 100.0 => format!("{number:.0}"),
        s if s >= 1.0 => trimmed(format!("{number:.2}")),
        s if s >= 1e-3 => trimmed(format!("{number:.4}")),
        _ => format!("{number:.0e}"),
    };
    text.replace('-', "\u{2212}")
}

fn trimmed(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Bytes in GB or MB.
pub fn bytes(number: f64) -> String {
    if number >= 1e9 { format!("{} GB", short(number / 1e9)) } else { format!("{:.0} MB", number / 1e6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_have_room_and_leave_out_what_is_no_number() {
        assert_eq!(extent([f64::NAN, f64::INFINITY].into_iter()), None);
        let (low, high) = extent([1.0, f64::NAN, 2.0].into_iter()).unwrap();
        assert!(low < 1.0 && high > 2.0);
        for same in [0.0, 5.0, -1e12, 1e-12] {
            let (low, high) = extent([same].into_iter()).unwrap();
            assert!(low < same && same < high && (high - low).is_finite(), "{same}: {low} {high}");
        }
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (0.1234567, "0.1235"),
            (-0.5, "−0.5"),
            (12.0, "12"),
            (12345.0, "12k"),
            (2.5e6, "2.5M"),
            (1e-5, "1e−5"),
            (150.4, "150"),
            (-f64::MAX, "−2e308"),
        ] {
            assert_eq!(short(number), text);
        }
        assert_eq!((along((-0.2, 0.3))(&-3e-17).as_str(), along((0.0, 1e-16))(&3e-17).as_str()), ("0", "3e−17"));
        assert_eq!((bytes(2.5e9).as_str(), bytes(3.1e8).as_str()), ("2.5 GB", "310 MB"));
        assert_eq!(shortened("abc\ndef", 5), "abc …");
    }
}
