//! TOML, YAML and JSON texts, read into [`Node`]s.

use std::borrow::Cow;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use saphyr_parser::{Event, Parser};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Faults, Place, Problem};
use super::json;
use super::node::{Entry, Node, Value};
use crate::untrusted::LARGEST_SPEC;

/// Format of a specification's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.
    Toml,
    /// YAML 1.2, one document.
    Yaml,
    /// JSON.
    Json,
}

impl Format {
    /// The format that a file name's ending stands for.
    pub fn of_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Deepest nesting of lists and tables. Trees are walked and dropped by recursion, so hostile depth would overflow the stack.
pub(super) const DEEPEST: usize = 64;

/// Reads a text; `None` if it cannot be, with the reasons added to `faults`.
pub(super) fn read(text: &str, format: Format, faults: &Faults) -> Option<Node> {
    if text.len() as u64 > LARGEST_SPEC {
        let why = format!("expected at most {LARGEST_SPEC} bytes, found {}", text.len());
        faults.add(None, "", Problem::Unreadable(why));
        return None;
    }
    // Some editors put a byte order mark before UTF-8.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::Toml => read_toml(text, faults),
        Format::Yaml => read_yaml(text, faults),
        Format::Json => read_json(text, faults),
    }
}

fn read_json(text: &str, faults: &Faults) -> Option<Node> {
    let refuse = |place, what: &str, error: &serde_json::Error| {
        let why = format!("{what}: {}", without_place(&error.to_string()));
        faults.add(Some(place), "", Problem::Syntax(why));
        None
    };
    let place_of = |error: &serde_json::Error| Place { line: error.line().max(1), column: error.column().max(1) };
    // JSON is YAML to the reader that knows places, but YAML is not JSON.
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        return refuse(place_of(&error), "not JSON", &error);
    }
    let not_yaml = Faults::default();
    if let Some(node) = read_yaml(text, &not_yaml) {
        return Some(node);
    }
    // Faults of a tree without places are told without them.
    match json::read(text) {
        Ok(node) => Some(node),
        Err(error) => refuse(place_of(&error), "unusable JSON", &error),
    }
}

/// The message of a `serde_json` error without the place at its end, which is told separately.
fn without_place(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(what, _)| what)
}

fn too_deep() -> Problem {
    Problem::Syntax(format!("lists and tables are nested more than {DEEPEST} levels deep"))
}

/// Bytes between two counted places of a text.
const STRIDE: usize = 256;

/// Byte offsets to lines and columns. In a text of one line, as hostile ones are, a place costs no more than in any other.
struct Lines<'a> {
    text: &'a [u8],
    starts: Vec<usize>,
    /// Characters before every [`STRIDE`]th byte.
    characters: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let text = text.as_bytes();
        let mut characters = vec![0];
        for stride in text.chunks(STRIDE) {
            characters.push(characters[characters.len() - 1] + begun_characters(stride));
        }
        Self { text, starts, characters }
    }

    fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|&start| start <= offset);
        let column = self.characters_before(offset) - self.characters_before(self.starts[line - 1]) + 1;
        Place { line, column }
    }

    fn characters_before(&self, offset: usize) -> usize {
        let stride = offset / STRIDE;
        self.characters[stride] + begun_characters(&self.text[stride * STRIDE..offset])
    }
}

/// Characters whose first byte is among these: all but continuation bytes.
fn begun_characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

fn read_toml(text: &str, faults: &Faults) -> Option<Node> {
    let lines = Lines::of(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = error.span().map(|span| lines.place(span.start));
        faults.add(place, "", Problem::Syntax(format!("not TOML: {}", error.message().replace('\n', ", "))));
    }
    if !errors.is_empty() {
        return None;
    }
    let value = toml_table(root.get_ref(), &lines, 0);
    Some(Node { place: Some(Place { line: 1, column: 1 }), value })
}

fn toml_table(table: &DeTable<'_>, lines: &Lines<'_>, depth: usize) -> Value {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let entry = |(key, node): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| Entry {
        key: key.get_ref().to_string(),
        place: Some(lines.place(key.span().start)),
        node: toml_node(node, lines, depth + 1),
    };
    Value::Table(entries.into_iter().map(entry).collect())
}

fn toml_node(node: &Spanned<DeValue<'_>>, lines: &Lines<'_>, depth: usize) -> Node {
    let value = match node.get_ref() {
        DeValue::String(value) => Value::Text(value.to_string()),
        DeValue::Integer(value) => i64::from_str_radix(value.as_str(), value.radix())
            .map_or(Value::Other("a whole number beyond 64 bits"), Value::Integer),
        DeValue::Float(value) => value.as_str().parse().map_or(Value::Other("a number out of range"), Value::Float),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        // The parser bounds each way of nesting, but not all of them together; no key takes what is cut off here.
        DeValue::Array(_) | DeValue::Table(_) if depth > DEEPEST => Value::Other("a value nested too deep"),
        DeValue::Array(items) => Value::List(items.iter().map(|item| toml_node(item, lines, depth + 1)).collect()),
        DeValue::Table(table) => toml_table(table, lines, depth),
    };
    Node { place: Some(lines.place(node.span().start)), value }
}

fn read_yaml(text: &str, faults: &Faults) -> Option<Node> {
    let scan_fault = |error: &saphyr::ScanError| {
        faults.add(Some(yaml_place(error.marker())), "", Problem::Syntax(format!("not YAML: {}", error.info())));
    };
    // The loader keeps no bound on depth, so a first pass over the events does.
    let mut depth = 0_usize;
    for event in Parser::new_from_str(text) {
        match event {
            Ok((Event::SequenceStart(..) | Event::MappingStart(..), span)) => {
                depth += 1;
                if depth > DEEPEST {
                    faults.add(Some(yaml_place(&span.start)), "", too_deep());
                    return None;
                }
            }
            Ok((Event::SequenceEnd | Event::MappingEnd, _)) => depth -= 1,
            // An alias repeats a tree and can so deepen the document beyond the count above.
            Ok((Event::Alias(_), span)) => {
                let why = "aliases are not supported, write the value out".to_string();
                faults.add(Some(yaml_place(&span.start)), "", Problem::Syntax(why));
                return None;
            }
            Ok(_) => {}
            Err(error) => {
                scan_fault(&error);
                return None;
            }
        }
    }
    let documents = match MarkedYaml::load_from_str(text) {
        Ok(documents) => documents,
        Err(error) => {
            scan_fault(&error);
            return None;
        }
    };
    match documents.as_slice() {
        [] => Some(Node { place: Some(Place { line: 1, column: 1 }), value: Value::Table(Vec::new()) }),
        [document] => Some(yaml_node(document)),
        [_, second, ..] => {
            let why = format!("expected one YAML document, found {}", documents.len());
            faults.add(Some(yaml_place(&second.span.start)), "", Problem::Syntax(why));
            None
        }
    }
}

/// The reader counts lines from 1 and columns from 0.
fn yaml_place(marker: &saphyr::Marker) -> Place {
    Place { line: marker.line().max(1), column: marker.col() + 1 }
}

fn yaml_node(node: &MarkedYaml<'_>) -> Node {
    let value = match &node.data {
        YamlData::Value(scalar) => match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(value) => Value::Boolean(*value),
            Scalar::Integer(value) => Value::Integer(*value),
            Scalar::FloatingPoint(value) => Value::Float(value.into_inner()),
            Scalar::String(value) => Value::Text(value.to_string()),
        },
        YamlData::Sequence(items) => Value::List(items.iter().map(yaml_node).collect()),
        YamlData::Mapping(entries) => Value::Table(
            entries
                .iter()
                .map(|(key, node)| Entry {
                    key: match yaml_node(key).value {
                        Value::Text(key) => key,
                        // Not a key of ours, whatever it is; its unknown-key fault shows it like this.
                        _ => yaml_node(key).found(),
                    },
                    place: Some(yaml_place(&key.span.start)),
                    node: yaml_node(node),
                })
                .collect(),
        ),
        YamlData::Tagged(_, inner) => yaml_node(inner).value,
        YamlData::BadValue => Value::Other("a value that does not fit its tag"),
        YamlData::Alias(_) => Value::Other("an alias"),
        YamlData::Representation(text, ..) => Value::Text(text.to_string()),
    };
    Node { place: Some(yaml_place(&node.span.start)), value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str, format: Format) -> Node {
        let faults = Faults::default();
        let node = read(text, format, &faults);
        faults.into_result("x").unwrap();
        node.unwrap()
    }

    fn refusal(text: &str, format: Format) -> String {
        let faults = Faults::default();
        assert!(read(text, format, &faults).is_none());
        faults.into_result("x").unwrap_err().to_string()
    }

    /// The tree in words: keys and values with their places.
    fn outline(node: &Node, into: &mut Vec<String>) {
        let at = |place: Option<Place>| place.map(|p| format!("{}:{}", p.line, p.column)).unwrap_or_default();
        match &node.value {
            Value::Table(entries) => {
                for entry in entries {
                    into.push(format!("{} {}", at(entry.place), entry.key));
                    outline(&entry.node, into);
                }
            }
            Value::List(items) => items.iter().for_each(|item| outline(item, into)),
            _ => into.push(format!("{} {}", at(node.place), node.found())),
        }
    }

    #[test]
    fn the_three_formats_give_the_same_tree_with_their_own_places() {
        let mut found = Vec::new();
        outline(&tree("zz = [1, 0.5]\n['é']\n'é' = 'x'\na = true", Format::Toml), &mut found);
        assert_eq!(found.join(" "), "1:1 zz 1:7 1 1:10 0.5 2:2 é 3:1 é 3:7 `x` 4:1 a 4:5 true");
        let mut found = Vec::new();
        outline(&tree("zz: [1, 0.5]\né:\n  é: x\n  a: true", Format::Yaml), &mut found);
        assert_eq!(found.join(" "), "1:1 zz 1:6 1 1:9 0.5 2:1 é 3:3 é 3:6 `x` 4:3 a 4:6 true");
        let mut found = Vec::new();
        outline(&tree("{\"zz\": [1, 5e-1],\n\t\"é\": {\"é\": \"x\", \"a\": true}}", Format::Json), &mut found);
        assert_eq!(found.join(" "), "1:2 zz 1:9 1 1:12 0.5 2:2 é 2:8 é 2:13 `x` 2:18 a 2:23 true");
    }

    #[test]
    fn places_count_characters_in_lines_of_any_length() {
        let text = format!("{}\n\n{}x\r\n{}", "é".repeat(1000), "a€".repeat(700), "😀b".repeat(300));
        let lines = Lines::of(&text);
        let (mut line, mut column) = (1, 1);
        for (offset, c) in text.char_indices() {
            assert_eq!(lines.place(offset), Place { line, column }, "byte {offset}");
            (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        assert_eq!(lines.place(text.len()), Place { line, column });
        assert_eq!(lines.place(text.len() + 9), Place { line, column });
    }

    #[test]
    fn broken_texts_are_refused_with_their_place() {
        assert!(refusal("a = 1\nb = = 2\nc = [", Format::Toml).starts_with("x:2:5: not TOML"));
        assert!(refusal("a: 1\na: 2", Format::Yaml).starts_with("x:2:1: not YAML"));
        assert!(refusal("a: 'x", Format::Yaml).contains("not YAML"));
        assert!(refusal("a: &x 1\nb: *x", Format::Yaml).starts_with("x:2:4: aliases"));
        assert!(refusal("a: 1\n---\nb: 2", Format::Yaml).contains("one YAML document"));
        assert!(refusal("{\"a\": 1,}", Format::Json).starts_with("x:1:9: not JSON"));
        assert!(refusal("a: 1", Format::Json).contains("not JSON"));
        let twice = refusal("{\"a\": 1,\n \"a\": 2}", Format::Json);
        assert_eq!(twice, "x:2:4: unusable JSON: duplicate key `a`");
    }

    /// What JSON has and YAML has not. Programs write it: Python does by default.
    #[test]
    fn json_that_is_no_yaml_is_read() {
        let mut found = Vec::new();
        let text = r#"{"a": "\ud83d\ude00", "b": [1, 0.5, true, null, {"c": "d"}], "e": 18446744073709551615}"#;
        outline(&tree(text, Format::Json), &mut found);
        let found: Vec<&str> = found.iter().map(|line| line.trim()).collect();
        let expected = ["a", "`😀`", "b", "1", "0.5", "true", "null", "c", "`d`", "e", "a whole number beyond 64 bits"];
        assert_eq!(found, expected);
        let deep =
            |depth: usize| format!("{{\"a\": \"\\ud83d\\ude00\", \"b\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
        tree(&deep(63), Format::Json);
        assert!(refusal(&deep(64), Format::Json).contains("deep"));
    }

    #[test]
    fn hostile_depth_is_refused_and_does_not_overflow_the_stack() {
        assert!(refusal(&"- ".repeat(100_000), Format::Yaml).contains("deep"));
        assert!(refusal(&"[".repeat(100_000), Format::Yaml).contains("YAML"));
        assert!(refusal(&"[".repeat(100_000), Format::Json).contains("JSON"));
        assert!(refusal(&format!("a = {}", "[".repeat(100_000)), Format::Toml).contains("TOML"));
        assert!(refusal(&format!("a{} = 1", ".a".repeat(100_000)), Format::Toml).contains("TOML"));
        assert!(refusal(&format!("[a{}]", ".a".repeat(100_000)), Format::Toml).contains("TOML"));
        // Headers, inline tables and dotted keys, each as deep as the parser allows.
        let path = format!("a{}", ".a".repeat(70));
        let text = format!("[{path}]\n{}1{}", format!("{path} = {{").repeat(70).trim_end_matches('{'), "}".repeat(69));
        tree(&text, Format::Toml);
        assert!(refusal(&" ".repeat(LARGEST_SPEC as usize + 1), Format::Toml).contains("bytes"));
    }
}
