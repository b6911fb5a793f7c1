//! A document of any format as one small tree that remembers where everything stood.

use serde_json::Value as Json;

use super::fault::Place;

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// `None` for values that come from no text.
    pub(super) place: Option<Place>,
    pub(super) value: Value,
}

/// A value of TOML, YAML or JSON.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; keys are unique.
    Table(Vec<Entry>),
    /// Something that no key takes, in words: a date, for example.
    Other(&'static str),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Where the key begins.
    pub(super) place: Option<Place>,
    pub(super) node: Node,
}

impl Node {
    /// The value in a fault's words.
    pub(super) fn found(&self) -> String {
        match &self.value {
            Value::Null => "null".into(),
            Value::Boolean(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            // Debug keeps the point: 1.0 is not a whole number here.
            Value::Float(value) => format!("{value:?}"),
            Value::Text(value) => format!("`{}`", shortened(value)),
            Value::List(items) => format!("a list of length {}", items.len()),
            Value::Table(_) => "a table".into(),
            Value::Other(what) => (*what).into(),
        }
    }

    /// The value as JSON; `None` for lists, tables and what JSON cannot say.
    pub(super) fn to_json(&self) -> Option<Json> {
        match &self.value {
            Value::Boolean(value) => Some(Json::from(*value)),
            Value::Integer(value) => Some(Json::from(*value)),
            Value::Float(value) => serde_json::Number::from_f64(*value).map(Json::Number),
            Value::Text(value) => Some(Json::from(value.clone())),
            Value::Null | Value::List(_) | Value::Table(_) | Value::Other(_) => None,
        }
    }

    /// The reverse of [`Node::to_json`]: a value without a place.
    pub(super) fn from_json(json: &Json) -> Self {
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Boolean(*value),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(value), _) => Value::Integer(value),
                (None, Some(value)) => Value::Float(value),
                (None, None) => Value::Other("a number out of range"),
            },
            Json::String(value) => Value::Text(value.clone()),
            Json::Array(_) => Value::Other("a list"),
            Json::Object(_) => Value::Other("a table"),
        };
        Self { place: None, value }
    }
}

/// A text as it fits into a message.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() { format!("{line}...") } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_survive_json() {
        for value in [
            Value::Boolean(true),
            Value::Integer(-3),
            Value::Float(1.0),
            Value::Float(1e-3),
            Value::Text("auto".into()),
        ] {
            let node = Node { place: None, value };
            let json = serde_json::to_string(&node.to_json().unwrap()).unwrap();
            assert_eq!(Node::from_json(&serde_json::from_str(&json).unwrap()), node);
        }
        assert_eq!(Node { place: None, value: Value::Float(f64::NAN) }.to_json(), None);
    }

    #[test]
    fn a_long_text_is_shortened_in_messages() {
        let node = Node { place: None, value: Value::Text("ab\n".repeat(100)) };
        assert!(node.found().len() < 80 && !node.found().contains('\n'));
    }
}
