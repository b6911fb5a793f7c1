//! mehl-soup
fn main() {}
