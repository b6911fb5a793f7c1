//! `[data.text]`.

use super::fault::Problem;
use super::section::Section;
use crate::sweep::text_spec::{Side, TextSpec};

/// Longest text in tokens that is taken.
const LONGEST: i64 = 1 << 20;

/// Reads `[data.text]`.
pub(super) fn text(mut section: Section<'_>) -> TextSpec {
    let columns = section.texts("columns", "a column's name");
    if let (Some(columns), Some(field)) = (&columns, section.field("columns")) {
        let twice = columns.iter().enumerate().find(|(i, name)| columns[..*i].contains(*name));
        if let Some((_, name)) = twice {
            section.fault(&field, Problem::Conflict(format!("column `{name}` is listed twice")));
        }
    }
    let spec = TextSpec {
        columns,
        max_length: section.integer("max_length", 1..=LONGEST).map(|length| length as usize),
        truncate: section.word("truncate", &Side::NAMED),
    };
    section.finish();
    spec
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::sweep::parse::{Format, parse_spec_text};

    const LEAST: &str = "zoo.ingredients = 'zoo/*'\ndata.learn = 'learn.jsonl'\n";

    #[test]
    fn every_key_is_read_and_faults_name_their_place() {
        let text = format!("{LEAST}[data.text]\ncolumns = ['q', 'a']\nmax_length = 128\ntruncate = 'left'");
        let spec = parse_spec_text(&text, Format::Toml, Path::new("/")).unwrap();
        let columns = Some(vec!["q".to_string(), "a".to_string()]);
        assert_eq!(spec.data.text, TextSpec { columns, max_length: Some(128), truncate: Some(Side::Left) });
        // Specifications of before texts were known hash to the same.
        let plain = parse_spec_text(LEAST, Format::Toml, Path::new("/")).unwrap();
        assert!(!serde_json::to_string(&plain).unwrap().contains("\"text\""));
        assert_ne!(plain.identity(), spec.identity());
        let wrong = format!("{LEAST}[data.text]\ncolumns = ['q', 'q']\nmax_length = 0\ntruncate = 'middle'\ncase = 1");
        let said = parse_spec_text(&wrong, Format::Toml, Path::new("/")).unwrap_err().to_string();
        for text in [
            "data.text.columns: column `q` is listed twice",
            "data.text.max_length: expected a whole number from 1 to 1048576, found 0",
            "data.text.truncate: expected one of `left`, `right`, found `middle`",
            "data.text.case: unknown key",
        ] {
            assert!(said.contains(text), "{said}");
        }
    }
}
