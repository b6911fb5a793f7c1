//! A sweep as one page of HTML that people look at, and its plots as files.
//!
//! | file | holds |
//! |---|---|
//! | `data` | what a report shows, whoever tells it |
//! | `folder` | the same from a run folder |
//! | `pool` | the same from a scheduler |
//! | `verdict` | what the winner gains, and whether the gain is real |
//! | `plots` | drawings, as SVG |
//! | `page` | the page |
//!
//! Gathering, judging, drawing and writing know of each other in this order only. The page takes nothing from any network: the browser is told so by the
//! page itself.

mod data;
mod folder;
mod page;
mod plots;
mod pool;
mod verdict;

pub use data::{Detail, Report, Standing, chosen, standing};
pub use folder::{ReadError, read_folder};
pub use page::{POLICY, render};
pub use plots::{Plot, PlotError, plots};
pub use pool::{read_pool, results_of};
