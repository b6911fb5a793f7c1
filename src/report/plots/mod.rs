//! The drawings of a report. Each is an SVG whose colours follow the page, or, as a file, are light ones on white.
//!
//! | file | holds |
//! |---|---|
//! | `canvas` | size, letters, title, axes |
//! | `ink` | colours, light and dark |
//! | `scores` | the best tasks and the baselines, with standard errors |
//! | `curves` | loss on learn and select over a task's iterations |
//! | `heat_map` | coefficients by ingredient and layer group |
//! | `shares` | what each ingredient contributes to a soup |
//! | `effort` | memory and throughput over iterations |
//! | `space` | hyperparameters against select loss |

mod canvas;
mod curves;
mod effort;
mod heat_map;
mod ink;
mod scores;
mod shares;
mod space;

pub use heat_map::spread;
pub use ink::style_sheet;

use super::data::Report;

/// Why there is no drawing.
#[derive(Debug, thiserror::Error)]
#[error("drawing: {0}")]
pub struct PlotError(String);

impl PlotError {
    fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Where a drawing belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Scores of the best tasks.
    Scores,
    /// Loss over iterations.
    Curves,
    /// Coefficients by layer group.
    Coefficients,
    /// Contributions of ingredients.
    Shares,
    /// Memory and throughput.
    Effort,
    /// Hyperparameters.
    Space,
}

/// A drawing.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Where it belongs.
    pub part: Part,
    /// Name of its file, without an ending: letters, digits, `-`, `_`, `+`, `.`.
    pub name: String,
    /// What it shows, for those who do not see it.
    pub about: String,
    /// As drawn, with codes for colours.
    drawn: String,
}

impl Plot {
    fn new(part: Part, name: &str, about: String, drawn: String) -> Self {
        let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_+.".contains(c) { c } else { '_' };
        let name = name.chars().take(100).map(allowed).collect();
        Self { part, name, about: canvas::shortened(&about, 400), drawn }
    }

    /// For a page that has the style sheet of this module.
    pub fn inline(&self) -> String {
        ink::themed(&self.drawn)
    }

    /// For a file: light, on white.
    pub fn file(&self) -> String {
        let background = format!("<rect width=\"100%\" height=\"100%\" fill=\"{}\"/>", "#ffffff");
        ink::plain(&self.drawn).replacen(">\n", &format!(">{background}\n"), 1)
    }
}

/// All drawings of a report, in the order of the page. What has no data is left out.
///
/// # Errors
/// If the plotting library fails.
pub fn plots(report: &Report) -> Result<Vec<Plot>, PlotError> {
    let mut all = vec![];
    all.extend(scores::plot(report)?);
    all.extend(curves::plots(report)?);
    all.extend(heat_map::plots(report)?);
    all.extend(shares::plots(report)?);
    all.extend(effort::plots(report)?);
    all.extend(space::plots(report)?);
    Ok(all)
}
