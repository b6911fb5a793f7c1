//! Coefficients of a soup, and what becomes of them without libtorch: the file, the exact mix, the written model.
//!
//! | file | holds |
//! |---|---|
//! | `table` | the coefficients `A` |
//! | `file` | the coefficients file |
//! | `statistics` | running means and variances that belong to a soup |
//! | `mix` | the exact weighted sum of one tensor |
//! | `materialize` | from a coefficients file to a model folder |
//! | `model_stock` | the closed form for ingredients and their base |
//! | `merge` | a fixed mix of files, without data |
//! | `shards`, `companions`, `model_card` | that folder's weights, configuration files, and README |

mod companions;
mod file;
mod materialize;
mod merge;
mod mix;
mod model_card;
mod model_stock;
mod shards;
mod statistics;
mod table;
#[cfg(test)]
mod testing;

pub use file::{About, CoefficientsError, CoefficientsFile, IngredientRef};
pub use materialize::{MaterializeError, MaterializeReport, Options, materialize};
pub use merge::{MergeError, fixed_mix, merge};
pub use mix::mix_tensor;
pub use model_stock::model_stock;
pub use statistics::{Statistic, Statistics};
pub use table::Coefficients;
