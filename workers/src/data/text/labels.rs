//! Labels of rows.

use super::rows::Cell;
use crate::data::images::sources::{Labels, by_text};

/// Classes of rows, one each, by name or by number.
///
/// # Errors
/// What was expected and found, and the index of the row.
pub(super) fn classes(cells: &[Cell]) -> Result<Labels, (usize, String)> {
    let (mut texts, mut numbers) = (Vec::new(), Vec::new());
    for (row, cell) in cells.iter().enumerate() {
        match cell {
            Cell::Text(text) => texts.push(text.clone()),
            Cell::Whole(number) if *number >= 0 => numbers.push(*number),
            Cell::Real(number) if *number >= 0.0 && number.fract() == 0.0 && *number < 1e9 => {
                numbers.push(*number as i64);
            }
            Cell::Whole(number) => return Err((row, format!("expected a class from 0, found {number}"))),
            other => return Err((row, format!("expected the name or number of a class, found {}", other.described()))),
        }
        if !(texts.is_empty() || numbers.is_empty()) {
            return Err((row, "expected labels of one type, found names and numbers".to_string()));
        }
    }
    Ok(if texts.is_empty() { Labels::Indices { of: numbers, names: None } } else { by_text(texts) })
}
