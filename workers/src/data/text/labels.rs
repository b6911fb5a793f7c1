//! Labels of rows, as the objective needs them.

use tch::{Device, Kind, TchError, Tensor};

use super::rows::Cell;
use crate::data::images::classes::ClassNames;
use crate::data::images::sources::{Labels, by_text};

/// A row that is at fault, by its index, and what is wrong.
pub(super) type Fault = (usize, String);

/// Classes of rows, one each, by name or by number.
///
/// # Errors
/// What was expected and found, and the index of the row.
pub(super) fn classes(cells: &[Cell]) -> Result<Labels, Fault> {
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

/// Numbers of rows, `[N]`, f32. A field of a table is read as a number.
///
/// # Errors
/// What was expected and found, and the index of the row.
pub(super) fn numbers(cells: &[Cell]) -> Result<Vec<f32>, Fault> {
    let number = |cell: &Cell| match cell {
        Cell::Whole(number) => Some(*number as f32),
        Cell::Real(number) => Some(*number as f32),
        Cell::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    let found = |cell: &Cell| match cell {
        Cell::Text(text) => format!("`{text:.40}`"),
        other => other.described().to_string(),
    };
    let read = |(row, cell): (usize, &Cell)| {
        number(cell)
            .filter(|number| number.is_finite())
            .ok_or_else(|| (row, format!("expected a number, found {}", found(cell))))
    };
    cells.iter().enumerate().map(read).collect()
}

/// Sets of classes of rows: for each row `classes` values, 1 where it has the class, else 0. A row has a list of names or of
/// numbers, which may be empty, or a list with a 0 or a 1 for each class.
///
/// # Errors
/// What was expected and found, and the index of the row.
pub(super) fn sets(cells: &[Cell], known: Option<&ClassNames>, classes: usize) -> Result<Vec<Vec<f32>>, Fault> {
    let set = |(row, cell): (usize, &Cell)| {
        let Cell::List(values) = cell else {
            return Err((
                row,
                format!("expected a list of classes, found {} (use JSONL or Parquet)", cell.described()),
            ));
        };
        let flags: Option<Vec<f32>> = values.iter().map(flag).collect();
        // 0 and 1 are numbers of classes too; a list that is as long as there are classes says each of them.
        if let Some(flags) = flags.filter(|flags| flags.len() == classes) {
            if classes == 2 && flags[0] != flags[1] {
                let what = "two numbers 0 and 1 can be the classes or say each of them: use names of classes";
                return Err((row, what.to_string()));
            }
            return Ok(flags);
        }
        let mut flags = vec![0.0; classes];
        for value in values {
            let at = match value {
                Cell::Text(name) => {
                    let names = known.map(|known| known.names.as_slice()).unwrap_or_default();
                    let name = mehl_soup::zoo::nfc(name);
                    names.iter().position(|own| *own == name).ok_or_else(|| {
                        (
                            row,
                            format!("class `{name}`: expected a class of the model, found another (set data.classes)"),
                        )
                    })?
                }
                Cell::Whole(number) => usize::try_from(*number)
                    .ok()
                    .filter(|number| *number < classes)
                    .ok_or_else(|| (row, format!("expected classes 0 to {}, found {number}", classes - 1)))?,
                other => {
                    return Err((row, format!("expected names or numbers of classes, found {}", other.described())));
                }
            };
            flags[at] = 1.0;
        }
        Ok(flags)
    };
    cells.iter().enumerate().map(set).collect()
}

fn flag(cell: &Cell) -> Option<f32> {
    match cell {
        Cell::Whole(value @ (0 | 1)) => Some(*value as f32),
        Cell::Real(value) if *value == 0.0 || *value == 1.0 => Some(*value as f32),
        _ => None,
    }
}

/// Targets of rows.
pub(super) enum Targets {
    /// A class each.
    Classes(Vec<i64>),
    /// Sets of classes.
    Sets(Vec<Vec<f32>>),
    /// A number each.
    Numbers(Vec<f32>),
    /// Rows that have none.
    None,
}

impl Targets {
    /// Those of rows in an order: `[N]`, i64 or f32, or `[N, classes]`, f32; zeros where there are none. They go to a hasher too.
    ///
    /// # Errors
    /// What libtorch reports.
    pub(super) fn in_order(&self, order: &[usize], hasher: &mut blake3::Hasher) -> Result<Tensor, TchError> {
        match self {
            Self::Classes(classes) => {
                let classes: Vec<i64> = order.iter().map(|&row| classes[row]).collect();
                for class in &classes {
                    hasher.update(&class.to_le_bytes());
                }
                Tensor::f_from_slice(&classes)
            }
            Self::Numbers(numbers) => {
                let numbers: Vec<f32> = order.iter().map(|&row| numbers[row]).collect();
                hash(&numbers, hasher);
                Tensor::f_from_slice(&numbers)
            }
            Self::Sets(sets) => {
                let width = sets.first().map_or(0, Vec::len) as i64;
                let flags: Vec<f32> = order.iter().flat_map(|&row| sets[row].iter().copied()).collect();
                hash(&flags, hasher);
                Tensor::f_from_slice(&flags)?.f_view([order.len() as i64, width])
            }
            Self::None => Tensor::f_zeros([order.len() as i64], (Kind::Int64, Device::Cpu)),
        }
    }
}

fn hash(values: &[f32], hasher: &mut blake3::Hasher) {
    for value in values {
        hasher.update(&value.to_le_bytes());
    }
}
