//! Ingredients on disk.
