//! Data plane of mehl-soup: the engine that learns soups on one device, and the only crate that links libtorch.
//!
//! | module | holds |
//! |---|---|
//! | [`demo`] | a zoo made by real fine-tuning on UCI digits |
//! | [`families`] | what computes logits from tensors named as on disk |
//! | [`data`] | the splits and batches of them |
//! | [`hyperplane`] | mixing, projection, directions, AdamW, schedule |
//! | [`methods`] | the soup methods, one file each |
//! | [`engine`] | one device: inputs, learning loop, scores, memory |
//! | [`rng`] | seeded permutations without state |
//! | [`torch`] | calls into libtorch that tch does not have |

pub mod data;
pub mod demo;
pub mod engine;
pub mod families;
pub mod hyperplane;
pub mod methods;
pub mod objectives;
pub mod rng;
pub mod torch;
