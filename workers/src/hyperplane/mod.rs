//! The hyperplane: soups as `w = base + sum_k x[k] row[k]` for each layer group, and gradients of x by inner products.
//!
//! All methods that learn go through [`Span`]. For `mehl` and `hl` the base is the centre and the rows are unit directions
//! (arXiv 2407.03641, section 3.2); for `learned` the base is nothing and the rows are the ingredients themselves. Either way the soup's
//! gradient comes from one backward pass through one model, and the chain rule's last factor is a set of inner products.
//!
//! How rows are stored is behind a trait, [`Rows`]: `docs/add-directions.md`.

pub mod adamw;
mod ahead;
pub mod compact;
pub mod cuda;
mod directions;
pub mod kernels;
mod lengths;
mod narrow;
mod on_device;
mod projector;
mod read;
mod rows;
mod running_mean;
pub mod schedule;
mod span;
mod tensors;
mod whole;

pub use ahead::Ahead;
pub use compact::Compact;
pub use directions::{Directions, RowBytes, Stored, replay};
pub use lengths::Lengths;
pub use projector::Projector;
pub use rows::{Division, Rows, Start, TensorProjection};
pub use running_mean::RunningMean;
pub use span::{MixedTensors, Projection, Span, SpanError, write_soup};
pub use tensors::{copy_from_slice, slice, slice_mut};
pub use whole::Whole;
