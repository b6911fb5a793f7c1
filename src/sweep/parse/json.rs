//! JSON into a tree without places, for texts that the reader which knows places cannot read: it
//! reads YAML, which lacks some of JSON, such as escapes in pairs (`\ud83d\ude00`).

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::document::DEEPEST;
use super::node::{Entry, Node, Value};

/// Reads a text of JSON.
///
/// # Errors
/// If it is not JSON, has a key twice in a table, or is nested more than [`DEEPEST`] deep.
pub(super) fn read(text: &str) -> serde_json::Result<Node> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let node = Tree { left: DEEPEST }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(node)
}

/// Reads a value in which so many lists and tables may be nested.
#[derive(Clone, Copy)]
struct Tree {
    left: usize,
}

impl Tree {
    fn inner<E: Error>(self) -> Result<Self, E> {
        let deeper = || E::custom(format!("lists and tables are nested more than {DEEPEST} levels deep"));
        Ok(Self { left: self.left.checked_sub(1).ok_or_else(deeper)? })
    }
}

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Node, D::Error> {
        let value = reader.deserialize_any(self)?;
        Ok(Node { place: None, value })
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Other("a whole number beyond 64 bits"), Value::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let (inner, mut items) = (self.inner()?, Vec::new());
        while let Some(item) = list.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Value, A::Error> {
        let (inner, mut entries, mut keys) = (self.inner()?, Vec::new(), HashSet::new());
        while let Some(key) = table.next_key::<String>()? {
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom(format!("duplicate key `{}`", key.escape_debug())));
            }
            let node = table.next_value_seed(inner)?;
            entries.push(Entry { key, place: None, node });
        }
        Ok(Value::Table(entries))
    }
}
