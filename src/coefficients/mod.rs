//! Coefficients of a soup, and what becomes of them without libtorch: the file, the exact mix, the written model.

mod table;

pub use table::Coefficients;
