//! README.md of a written model: what it is and where it comes from.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use super::CoefficientsFile;
use crate::source;
use crate::sweep::metric::Metric;
use crate::sweep::objective::Facts;
use crate::sweep::outcome::Scores;
use crate::sweep::paired::Comparison;
use crate::untrusted::LARGEST_CARD;

/// Name under which the coefficients lie beside the weights.
pub(super) const COEFFICIENTS_NAME: &str = "coefficients.safetensors";

/// The card's text. `licences`: what each ingredient's own card says, see [`licence_of`]. `comparisons`: the soup
/// against other tasks of its sweep, where they are known.
pub(super) fn render(file: &CoefficientsFile, licences: &[Option<String>], comparisons: &[Comparison]) -> String {
    let about = &file.about;
    let mut card = front_matter(licences, &about.ingredients.iter().map(|i| i.hash.as_str()).collect::<Vec<_>>());
    // Writing to a string cannot fail.
    let mut line = |text: String| {
        let _ = writeln!(card, "{text}");
    };
    line(format!("# Model soup {} of {}", code(&about.task_id), code(&about.sweep)));
    line(String::new());
    let (models, base) = match about.has_base {
        true => (about.ingredients.len() - 1, " and the model that they were fine-tuned from"),
        false => (about.ingredients.len(), ""),
    };
    line(format!(
        "A weighted sum of {models} fine-tuned models of family {}{base}, made by {} with method {}. \
         Its inference cost is that of one model.",
        code(&about.family),
        code(&about.program),
        code(&about.method)
    ));
    if about.better_than_best_ingredient == Some(false) {
        line("\n**This soup is not better than the best ingredient on the select split.**".into());
    }
    if let Some(scores) = &about.scores {
        scores_table(scores, about.objective.facts()).into_iter().for_each(&mut line);
    }
    if !comparisons.is_empty() {
        comparisons_table(comparisons, about.objective.facts()).into_iter().for_each(&mut line);
    }
    if !about.data.is_empty() {
        line("\n## Data\n\n| split | samples | BLAKE3 of the file |\n|---|---|---|".into());
        for data in &about.data {
            line(format!("| {} | {} | {} |", code(&data.split), data.samples, code(&data.hash)));
        }
    }
    line("\n## Method\n\n| setting | value |\n|---|---|".into());
    line(format!("| method | {} |\n| seed | {} |", code(&about.method), about.seed));
    if let Some(settings) = about.hyperparameters.as_object() {
        let others = settings.iter().filter(|(name, _)| !["method", "seed"].contains(&name.as_str()));
        others.for_each(|(name, value)| line(format!("| {} | {} |", code(name), code(&value.to_string()))));
    }
    line("\n## Ingredients\n\nThe mean coefficient is the mean over layer groups. Coefficients can be negative or above 1.\n".into());
    line("| ingredient | mean coefficient | licence | BLAKE3 of the contents |\n|---|---|---|---|".into());
    let groups = file.coefficients.groups();
    for (k, ingredient) in about.ingredients.iter().enumerate() {
        let mean = (0..groups).map(|l| file.coefficients.get(k, l)).sum::<f64>() / groups as f64;
        let licence = licences.get(k).and_then(Option::as_deref).map_or_else(|| "not stated".into(), code);
        line(format!("| {} | {mean:.4} | {licence} | {} |", code(&ingredient.name), code(&ingredient.hash)));
    }
    if !about.notes.is_empty() {
        line("\n## Notes\n".into());
        about.notes.iter().for_each(|note| line(format!("- {}", code(note))));
    }
    line(format!(
        "\n## Reproduce\n\n`{COEFFICIENTS_NAME}` contains the exact coefficients, {} ingredients \
         by {groups} layer groups. With the \
         ingredients, this command writes the model again:\n\n```sh\nmehl-soup materialize \
         {COEFFICIENTS_NAME} --out DIR\n```",
        about.ingredients.len()
    ));
    card
}

/// Loss and metrics of each split.
fn scores_table(scores: &Scores, objective: &Facts) -> Vec<String> {
    let units = objective.unit.plural();
    let about = format!(
        "\n## Scores\n\nThe loss is {}. ± is one standard error over {units}. The coefficients were \
         learned on `learn`; the soup was chosen on `select`; `test` was used only for this report.\n",
        objective.loss
    );
    let metrics: Vec<Metric> = scores.select.all().map(|(metric, _)| metric).collect();
    let heads: Vec<&str> = metrics.iter().map(|metric| metric.facts().shown.heading).collect();
    let rule = "---|".repeat(metrics.len() + 2);
    let mut lines = vec![about, format!("| split | {} | {units} |\n|{rule}", heads.join(" | "))];
    let splits = [("learn", Some(scores.learn)), ("select", Some(scores.select)), ("test", scores.test)];
    for (split, score) in splits {
        let Some(score) = score else { continue };
        let value = |metric: &Metric| score.get(*metric).map(|estimate| metric.shown(estimate)).unwrap_or_default();
        let values: Vec<String> = metrics.iter().map(value).collect();
        lines.push(format!("| {split} | {} | {} |", values.join(" | "), score.samples));
    }
    lines
}

/// The soup against other tasks.
fn comparisons_table(comparisons: &[Comparison], objective: &Facts) -> Vec<String> {
    let units = objective.unit.plural();
    let about = format!(
        "\n## Compared with\n\nDifferences to other soups and ingredients, ± one standard error. Models that \
         were scored on the same {units} are compared {} by {}. `select` chose this soup, so only `test` can confirm \
         it.\n",
        objective.unit.singular(),
        objective.unit.singular()
    );
    let mut lines = vec![about, "| with | on | verdict | difference |\n|---|---|---|---|".to_string()];
    lines.extend(comparisons.iter().map(|one| {
        let doubt = if one.paired { "" } else { " (error of independent scores)" };
        format!("| {} | {} | {} | {}{doubt} |", code(&one.other), one.split, one.words(units), one.amount())
    }));
    lines
}

fn front_matter(licences: &[Option<String>], hashes: &[&str]) -> String {
    let mut text = String::from("---\ntags:\n- model-soup\n- mehl-soup\n");
    // Only what all ingredients say is said of the soup.
    let distinct: BTreeSet<&Option<String>> = licences.iter().collect();
    if let [Some(licence)] = distinct.into_iter().collect::<Vec<_>>()[..] {
        let _ = writeln!(text, "license: {}", yaml(licence));
    }
    text.push_str("soup_ingredients_blake3:\n");
    for hash in hashes {
        let _ = writeln!(text, "- {}", yaml(hash));
    }
    text.push_str("---\n\n");
    text
}

/// The `license` of a model folder's own card: its value in README.md's front matter; of a named licence (`license: other`)
/// its name. `None` for a file, or a folder whose card says none.
///
/// Read line by line: a YAML parser would expand whatever a stranger's card refers to.
pub(super) fn licence_of(ingredient: &Path) -> Option<String> {
    let files = source::of(ingredient);
    let card = files.own_file(ingredient, "README.md").ok()??;
    let text = String::from_utf8(files.read(&card, LARGEST_CARD).ok()?).ok()?;
    let mut lines = text.trim_start_matches('\u{feff}').lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    let (mut licence, mut name) = (None, None);
    let mut lines = lines.take_while(|line| line.trim_end() != "---").peekable();
    while let Some(line) = lines.next() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let mut value = value.trim().trim_matches(['"', '\'']).to_string();
        if value.is_empty() {
            let mut items = Vec::new();
            while let Some(item) = lines.peek().and_then(|next| next.trim_start().strip_prefix("- ")) {
                items.push(item.trim().trim_matches(['"', '\'']).to_string());
                lines.next();
            }
            value = items.join(", ");
        }
        match key {
            "license" => licence = Some(value),
            "license_name" => name = Some(value),
            _ => {}
        }
    }
    let other = licence.as_deref().is_none_or(|licence| licence == "other");
    let stated = if other { name.or(licence) } else { licence };
    stated.filter(|value| !value.is_empty())
}

/// Text as Markdown code, whatever is in it: names come from files and specifications of others.
fn code(text: &str) -> String {
    let flat: String = text.chars().map(|c| if c.is_control() || c == '`' { ' ' } else { c }).collect();
    format!("`{}`", flat.replace('|', "\\|"))
}

/// Text as a YAML scalar: every JSON string is one.
fn yaml(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coefficients::Coefficients;
    use crate::coefficients::testing::about;
    use crate::sweep::manifest::DataEntry;
    use crate::sweep::objective::ObjectiveName;
    use crate::sweep::score::testing::score;

    fn file() -> CoefficientsFile {
        let mut about = about(&["run-a", "run-b"], &["g", "h"], &[("w", 0)]);
        about.scores = Some(Scores { learn: score(0.25, 0.9), select: score(0.375, 0.9), test: None });
        about.data = vec![DataEntry {
            split: "learn".into(),
            path: "/data/learn.safetensors".into(),
            hash: "da7a".into(),
            samples: 500,
        }];
        about.better_than_best_ingredient = Some(false);
        CoefficientsFile {
            coefficients: Coefficients::from_values(2, 2, vec![1.5, 0.5, -0.5, 0.5]).unwrap(),
            statistics: Default::default(),
            about,
        }
    }

    #[test]
    fn the_card_tells_where_the_model_comes_from() {
        let file = file();
        let card = render(&file, &[Some("mit".into()), None], &[]);
        for part in [
            "`digits`",
            "`0001-mehl+`",
            "| seed | 3 |",
            "| `learning_rate` | `0.01` |",
            "| select | 0.3750 ±0.0100 | 90.00 ±2.00 | 50 |",
            "| `learn` | 500 | `da7a` |",
            "not better than the best ingredient",
            "| `run-a` | 1.0000 | `mit` |",
            "| `run-b` | 0.0000 | not stated |",
            &file.about.ingredients[1].hash,
        ] {
            assert!(card.contains(part), "{part}\n{card}");
        }
        assert!(!card.contains("| test |"), "{card}");
        assert!(!card.contains("\nlicense:"), "one ingredient states no licence:\n{card}");
        assert!(!card.contains("/zoo/"), "paths of this machine are nobody's business:\n{card}");
    }

    #[test]
    fn the_card_has_the_loss_and_the_unit_of_the_objective() {
        let mut file = file();
        file.about.objective = ObjectiveName::Pairs;
        let card = render(&file, &[None, None], &[]);
        assert!(card.contains("The loss is mean InfoNCE in nats"), "{card}");
        assert!(card.contains("one standard error over batches") && card.contains("| batches |"), "{card}");
        let read = CoefficientsFile::from_bytes(&file.to_bytes()).unwrap();
        assert_eq!(read.about.objective, ObjectiveName::Pairs);
    }

    #[test]
    fn a_licence_of_all_is_the_soups_and_success_is_not_denied() {
        let mut file = file();
        file.about.better_than_best_ingredient = Some(true);
        let card = render(&file, &[Some("apache-2.0".into()), Some("apache-2.0".into())], &[]);
        assert!(card.contains("\nlicense: \"apache-2.0\"\n"), "{card}");
        assert!(!card.contains("not better"), "{card}");
    }

    #[test]
    fn strange_names_stay_in_their_cell() {
        let mut file = file();
        file.about.ingredients[0].name = "a|b`c\n# title".into();
        let card = render(&file, &[None, None], &[]);
        assert!(card.contains("| `a\\|b c # title` | 1.0000 |"), "{card}");
    }

    #[test]
    fn licences_are_read_from_front_matter_only() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            std::fs::write(folder.path().join("README.md"), text).unwrap();
            licence_of(folder.path())
        };
        assert_eq!(read("---\ntags: [a]\nlicense: apache-2.0\n---\n"), Some("apache-2.0".into()));
        assert_eq!(read("---\nlicense: other\nlicense_name: \"my licence\"\n---\n"), Some("my licence".into()));
        assert_eq!(read("---\nlicense:\n- mit\n- 'bsd'\ntags: x\n---\n"), Some("mit, bsd".into()));
        assert_eq!(read("---\ntags: x\n---\nlicense: mit\n"), None);
        assert_eq!(read("license: mit\n"), None);
        assert_eq!(licence_of(&folder.path().join("absent")), None);
        let long = format!("---\nlicense: mit\n---\n{}", " ".repeat(LARGEST_CARD as usize));
        assert_eq!(read(&long), None, "a card larger than any is not read");
    }
}
