//! What tests of this module share.

use super::{About, IngredientRef};

/// A description with these ingredients, layer groups and tensors.
pub fn about(ingredients: &[&str], groups: &[&str], tensors: &[(&str, usize)]) -> About {
    let ingredient = |name: &&str| IngredientRef {
        name: name.to_string(),
        path: format!("/zoo/{name}").into(),
        hash: blake3::hash(name.as_bytes()).to_hex().to_string(),
    };
    About {
        objective: Default::default(),
        version: About::VERSION,
        program: "mehl-soup 0.0.0".into(),
        sweep: "digits".into(),
        task_id: "0001-mehl+".into(),
        method: "mehl+".into(),
        hyperparameters: serde_json::json!({"learning_rate": 0.01, "model_batch": "auto"}),
        seed: 3,
        family: "vit".into(),
        ingredients: ingredients.iter().map(ingredient).collect(),
        has_base: false,
        groups: groups.iter().map(|g| g.to_string()).collect(),
        tensors: tensors.iter().map(|(name, group)| (name.to_string(), *group)).collect(),
        scores: None,
        notes: vec![],
        data: vec![],
        better_than_best_ingredient: None,
    }
}
