//! One tree for TOML, YAML and JSON, in which every value knows its place.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use toml::de::{DeTable, DeValue};

/// Line and column, from 1; 0 where a value comes from no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Value.
    pub value: Value,
    /// Where it stands.
    pub place: Place,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A table, in the file's order: key, the key's place, value.
    Table(Vec<(String, Place, Node)>),
}

/// A file that is not even TOML, YAML or JSON.
#[derive(Debug)]
pub struct SyntaxError {
    /// Where it stops being it.
    pub place: Place,
    /// What is wrong.
    pub what: String,
}

impl Node {
    /// A value that comes from no file.
    pub fn from_json(json: &serde_json::Value) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(flag) => Value::Bool(*flag),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(whole) => Value::Int(whole),
                None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Self::from_json).collect()),
            serde_json::Value::Object(fields) => Value::Table(
                fields.iter().map(|(key, value)| (key.clone(), Place::default(), Self::from_json(value))).collect(),
            ),
        };
        Self { value, place: Place::default() }
    }

    /// As JSON, without places.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(flag) => (*flag).into(),
            Value::Int(whole) => (*whole).into(),
            Value::Float(number) => (*number).into(),
            Value::Text(text) => text.clone().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Table(fields) => fields
                .iter()
                .map(|(key, _, value)| (key.clone(), value.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    /// In a few words, for messages.
    pub fn shown(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Int(whole) => whole.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Text(text) => format!("`{}`", text.chars().take(60).collect::<String>()),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Table(_) => "a table".to_string(),
        }
    }
}

/// Reads TOML.
pub fn from_toml(text: &str) -> Result<Node, SyntaxError> {
    let places = Places::new(text);
    let table = DeTable::parse(text).map_err(|error| SyntaxError {
        place: error.span().map_or_else(Place::default, |span| places.at(span.start)),
        what: error.message().lines().collect::<Vec<_>>().join(", "),
    })?;
    let place = places.at(table.span().start);
    Ok(Node { value: table_value(table.get_ref(), &places)?, place })
}

fn table_value(table: &DeTable<'_>, places: &Places<'_>) -> Result<Value, SyntaxError> {
    let mut fields = Vec::new();
    for (key, value) in table {
        let place = places.at(key.span().start);
        fields.push((key.get_ref().to_string(), place, toml_node(value, places)?));
    }
    // The parser sorts by key; order decides the order of a grid.
    fields.sort_by_key(|(_, place, _)| *place);
    Ok(Value::Table(fields))
}

fn toml_node(node: &toml::Spanned<DeValue<'_>>, places: &Places<'_>) -> Result<Node, SyntaxError> {
    let place = places.at(node.span().start);
    let too_large = || SyntaxError { place, what: "number is too large".to_string() };
    let value = match node.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            Value::Int(i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| too_large())?)
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().map_err(|_| too_large())?),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| toml_node(item, places)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => table_value(table, places)?,
    };
    Ok(Node { value, place })
}

/// Reads YAML, and so JSON.
pub fn from_yaml(text: &str) -> Result<Node, SyntaxError> {
    let documents = MarkedYaml::load_from_str(text).map_err(|error| SyntaxError {
        place: Place { line: error.marker().line(), column: error.marker().col() + 1 },
        what: error.info().to_string(),
    })?;
    match documents.as_slice() {
        [one] => yaml_node(one),
        other => Err(SyntaxError {
            place: Place { line: 1, column: 1 },
            what: format!("expected one document, found {}", other.len()),
        }),
    }
}

fn yaml_node(node: &MarkedYaml<'_>) -> Result<Node, SyntaxError> {
    let place = Place { line: node.span.start.line(), column: node.span.start.col() + 1 };
    let fault = |what: &str| SyntaxError { place, what: what.to_string() };
    let value = match &node.data {
        YamlData::Value(Scalar::Null) => Value::Null,
        YamlData::Value(Scalar::Boolean(flag)) => Value::Bool(*flag),
        YamlData::Value(Scalar::Integer(whole)) => Value::Int(*whole),
        YamlData::Value(Scalar::FloatingPoint(number)) => Value::Float(number.into_inner()),
        YamlData::Value(Scalar::String(text)) => Value::Text(text.to_string()),
        YamlData::Sequence(items) => Value::List(items.iter().map(yaml_node).collect::<Result<_, _>>()?),
        YamlData::Mapping(fields) => {
            let mut table = Vec::new();
            for (key, value) in fields {
                let key = yaml_node(key)?;
                let Value::Text(name) = key.value else { return Err(fault("expected keys that are text")) };
                table.push((name, key.place, yaml_node(value)?));
            }
            Value::Table(table)
        }
        _ => return Err(fault("expected plain values, without tags and aliases")),
    };
    Ok(Node { value, place })
}

/// Byte offsets to places.
struct Places<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    fn at(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts[line - 1];
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Place { line, column }
    }
}
