//! Coefficients of a soup, and what becomes of them without libtorch: the file, the exact mix, the written model.

mod file;
mod materialize;
mod mix;
mod model_card;
mod table;
mod weights_file;

pub use file::{About, CoefficientsError, CoefficientsFile, IngredientRef};
pub use materialize::{MaterializeError, MaterializeOptions, materialize};
pub use mix::mix_tensor;
pub use table::Coefficients;
