//! Colours by what they stand for. A drawing names each by a code that no other colour has; afterwards it becomes a CSS variable, which follows light and
//! dark, or the light colour itself, which any program that opens a file understands.

use plotters::style::RGBColor;

/// Steps of the diverging colours on either side of zero.
pub const STEPS: i16 = 12;
/// Colours that tell lines apart.
pub const SERIES: u8 = 8;

/// What a colour stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Titles.
    Text,
    /// Labels of axes.
    Muted,
    /// Lines to read values along.
    Grid,
    /// Axes, and lines at zero.
    Axis,
    /// Behind everything.
    Surface,
    /// What was measured on learn, and other things that stand back.
    Quiet,
    /// What it is about.
    Strong,
    /// One of [`SERIES`].
    Series(u8),
    /// A coefficient: from `-STEPS` to `STEPS`, 0 for zero.
    Heat(i16),
}

/// Red and green of every code.
const MARK: (u8, u8) = (1, 2);
const FIRST_SERIES: u8 = 10;
const HEAT_ZERO: i16 = 100;

impl Ink {
    fn all() -> impl Iterator<Item = Ink> {
        let named = [Ink::Text, Ink::Muted, Ink::Grid, Ink::Axis, Ink::Surface, Ink::Quiet, Ink::Strong];
        let series = (0..SERIES).map(Ink::Series);
        named.into_iter().chain(series).chain((-STEPS..=STEPS).map(Ink::Heat))
    }

    fn code(self) -> u8 {
        match self {
            Ink::Text => 0,
            Ink::Muted => 1,
            Ink::Grid => 2,
            Ink::Axis => 3,
            Ink::Surface => 4,
            Ink::Quiet => 5,
            Ink::Strong => 6,
            Ink::Series(n) => FIRST_SERIES + n % SERIES,
            Ink::Heat(step) => (HEAT_ZERO + step.clamp(-STEPS, STEPS)) as u8,
        }
    }

    /// What it is drawn with.
    pub fn color(self) -> RGBColor {
        RGBColor(MARK.0, MARK.1, self.code())
    }

    fn drawn(self) -> String {
        format!("\"#{:02X}{:02X}{:02X}\"", MARK.0, MARK.1, self.code())
    }

    /// Name of its CSS variable.
    pub fn variable(self) -> String {
        format!("--i{}", self.code())
    }

    fn light(self) -> u32 {
        const SERIES_LIGHT: [u32; SERIES as usize] =
            [0x2f6db5, 0xd9722b, 0x2a9a74, 0xb04d8b, 0x93731c, 0x6264c7, 0xc4484a, 0x3d8b9e];
        match self {
            Ink::Text => 0x1f1e1b,
            Ink::Muted => 0x6d6a63,
            Ink::Grid => 0xece8e1,
            Ink::Axis => 0xb9b4aa,
            Ink::Surface => 0xffffff,
            Ink::Quiet => 0x9fb9d4,
            Ink::Strong => 0xc2571a,
            Ink::Series(n) => SERIES_LIGHT[usize::from(n % SERIES)],
            Ink::Heat(step) => diverging(step, [0x8f3a08, 0xe7a878, 0xf6f4f0, 0x8cb6da, 0x124a84]),
        }
    }

    fn dark(self) -> u32 {
        const SERIES_DARK: [u32; SERIES as usize] =
            [0x77aeee, 0xf2a063, 0x62cba6, 0xdf8fc3, 0xd2b564, 0xa3a6f4, 0xf08a8a, 0x7cc4d6];
        match self {
            Ink::Text => 0xecebe7,
            Ink::Muted => 0xa29e96,
            Ink::Grid => 0x2c2d31,
            Ink::Axis => 0x5a5a5e,
            Ink::Surface => 0x1b1c1f,
            Ink::Quiet => 0x4f6f90,
            Ink::Strong => 0xf2995a,
            Ink::Series(n) => SERIES_DARK[usize::from(n % SERIES)],
            Ink::Heat(step) => diverging(step, [0xffc091, 0xb2622a, 0x26272b, 0x2f70ab, 0xa3d3ff]),
        }
    }
}

/// Between five colours: the far negative end, halfway, zero, halfway, the far positive end.
fn diverging(step: i16, [low, below, zero, above, high]: [u32; 5]) -> u32 {
    let far = f64::from(step.unsigned_abs()).min(f64::from(STEPS)) / f64::from(STEPS);
    let (half, end) = if step < 0 { (below, low) } else { (above, high) };
    if far <= 0.5 { between(zero, half, 2.0 * far) } else { between(half, end, 2.0 * far - 1.0) }
}

fn between(from: u32, to: u32, part: f64) -> u32 {
    let channel = |shift: u32| {
        let (a, b) = (f64::from((from >> shift) & 255), f64::from((to >> shift) & 255));
        ((a + (b - a) * part).round() as u32) << shift
    };
    channel(16) | channel(8) | channel(0)
}

/// A drawing whose colours are CSS variables. `"` does not occur within text of a drawing, so nothing but colours is touched.
pub fn themed(svg: &str) -> String {
    replaced(svg, |ink| format!("\"var({})\"", ink.variable()))
}

/// A drawing in its light colours.
pub fn plain(svg: &str) -> String {
    replaced(svg, |ink| format!("\"#{:06x}\"", ink.light()))
}

fn replaced(svg: &str, with: impl Fn(Ink) -> String) -> String {
    let mark = format!("\"#{:02X}{:02X}", MARK.0, MARK.1);
    let table: Vec<(String, String)> = Ink::all().map(|ink| (ink.drawn(), with(ink))).collect();
    let mut out = String::with_capacity(svg.len());
    let mut rest = svg;
    while let Some(at) = rest.find(&mark) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match table.iter().find(|(drawn, _)| rest.starts_with(drawn.as_str())) {
            Some((drawn, becomes)) => {
                out.push_str(becomes);
                rest = &rest[drawn.len()..];
            }
            None => {
                out.push_str(&mark);
                rest = &rest[mark.len()..];
            }
        }
    }
    out + rest
}

/// The variables, light and dark.
pub fn style_sheet() -> String {
    let variables = |of: fn(Ink) -> u32| -> String {
        Ink::all().map(|ink| format!("{}:#{:06x};", ink.variable(), of(ink))).collect()
    };
    let (light, dark) = (variables(Ink::light), variables(Ink::dark));
    format!(":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_different_and_found_again() {
        let all: Vec<Ink> = Ink::all().collect();
        let codes: std::collections::BTreeSet<u8> = all.iter().map(|ink| ink.code()).collect();
        assert_eq!(codes.len(), all.len());
        for ink in all {
            let svg = format!("<path fill={}/>", ink.drawn());
            assert_eq!(themed(&svg), format!("<path fill=\"var({})\"/>", ink.variable()));
            assert_eq!(plain(&svg), format!("<path fill=\"#{:06x}\"/>", ink.light()));
        }
        assert_eq!(themed("<a b=\"#0102FF\" c=\"#01\"/>"), "<a b=\"#0102FF\" c=\"#01\"/>");
    }

    #[test]
    fn zero_is_the_quiet_middle_and_both_ends_differ() {
        let grey = |color: u32| {
            let (r, g, b) = (color >> 16, (color >> 8) & 255, color & 255);
            r.max(g).max(b) - r.min(g).min(b)
        };
        for of in [Ink::light, Ink::dark] {
            assert!(grey(of(Ink::Heat(0))) < 10);
            let (low, high) = (of(Ink::Heat(-STEPS)), of(Ink::Heat(STEPS)));
            assert!(low >> 16 > low & 255, "negative is warm");
            assert!(high >> 16 < high & 255, "positive is cool");
            assert_eq!(of(Ink::Heat(99)), high);
        }
    }
}
