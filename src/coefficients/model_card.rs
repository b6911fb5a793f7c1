//! The README of a written model: what it was made of and how.

use std::fmt::Write;

use super::CoefficientsFile;
use crate::sweep::manifest::SplitScore;
use crate::zoo::{Ingredient, Zoo};

/// The model card, with the front matter that model hubs read.
pub fn render(file: &CoefficientsFile, zoo: &Zoo) -> String {
    let about = &file.about;
    let mut text = String::from("---\ntags:\n- model-soup\n- mehl-soup\n---\n\n");
    let mut line = |content: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{content}");
    };
    line(format!("# {}: a soup of {} models\n", about.sweep, about.ingredients.len()));
    line(format!(
        "Weights are, for each of {} layer groups, the sum of the ingredients' weights times learned coefficients, which add up to 1 and may be \
         negative (Li et al. 2024, arXiv 2407.03641). One model, no extra cost at inference. `coefficients.safetensors` holds the coefficients; \
         `mehl-soup materialize` makes this model of them again.\n",
        about.groups.len()
    ));
    line(format!(
        "Made by {}: task `{}`, method `{}`, family `{}`, seed {}.\n",
        about.program, about.task_id, about.method, about.family, about.seed
    ));
    if let Some(scores) = &about.scores {
        line("| split | loss | accuracy | samples |\n|---|---|---|---|".to_string());
        let row = |name: &str, score: &SplitScore| {
            format!(
                "| {name} | {:.4} ± {:.4} | {:.4} ± {:.4} | {} |",
                score.loss, score.loss_standard_error, score.accuracy, score.accuracy_standard_error, score.samples
            )
        };
        line(row("learn", &scores.learn));
        line(row("select", &scores.select));
        if let Some(test) = &scores.test {
            line(row("test", test));
        }
        line("\nScores are those of the f32 mix, ± standard error. Coefficients were learned on learn, choices made on select; test is only reported.\n".to_string());
    }
    if about.better_than_best_ingredient == Some(false) {
        line("**By select, this model is not better than the best ingredient.**\n".to_string());
    }
    for note in &about.notes {
        line(format!("- {note}"));
    }
    line("\n## Ingredients\n\n| name | content (blake3) | licence | mean coefficient |\n|---|---|---|---|".to_string());
    for (k, ingredient) in about.ingredients.iter().enumerate() {
        let mean =
            (0..about.groups.len()).map(|l| file.coefficients.get(k, l)).sum::<f64>() / about.groups.len() as f64;
        let licence = zoo.ingredients().get(k).and_then(licence).unwrap_or_else(|| "not stated".to_string());
        line(format!("| {} | `{}` | {licence} | {mean:.4} |", cell(&ingredient.name), ingredient.hash));
    }
    line("\n## Data\n\n| split | content | samples |\n|---|---|---|".to_string());
    for data in &about.data {
        line(format!("| {} | `{}` | {} |", data.split, data.hash, data.samples));
    }
    line(format!("\n## Hyperparameters\n\n```json\n{:#}\n```", about.hyperparameters));
    text
}

/// `license:` of the front matter of an ingredient's own README.
fn licence(ingredient: &Ingredient) -> Option<String> {
    let text = std::fs::read_to_string(ingredient.path().join("README.md")).ok()?;
    let front = text.strip_prefix("---\n")?.split_once("\n---")?.0;
    let value = front.lines().find_map(|line| line.strip_prefix("license:"))?;
    Some(cell(value.trim()))
}

/// Text that cannot break out of a table.
fn cell(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '|' | '\n' | '\r' | '<' | '>')).take(200).collect()
}
