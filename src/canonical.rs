//! Identities: hashes by which this program recognises what it has written. Each is the blake3 of a canonical JSON
//! text of a documented, versioned structure (`docs/formats.md`), so that names within the program do not matter.

use serde_json::{Map, Value};

/// Hash (blake3, hexadecimal) of `{"identity": what, "version": version, ...fields}` as [`text`].
///
/// # Panics
/// If `fields` is no JSON object.
pub fn identity(what: &str, version: u32, fields: &Value) -> String {
    let mut all = fields.as_object().expect("fields are an object").clone();
    all.insert("identity".to_string(), what.into());
    all.insert("version".to_string(), version.into());
    blake3::hash(text(&Value::Object(all)).as_bytes()).to_hex().to_string()
}

/// JSON without spaces, keys in the order of their bytes, without fields that are null: a field that is added later, and
/// that is absent, changes no text. Numbers are written as serde_json writes them: whole ones with all digits, others
/// with the fewest that give the same f64.
pub fn text(value: &Value) -> String {
    fn ordered(value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(ordered).collect(),
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().filter(|(_, value)| !value.is_null()).collect();
                entries.sort_by_key(|(key, _)| *key);
                Value::Object(
                    entries.into_iter().map(|(key, value)| (key.clone(), ordered(value))).collect::<Map<_, _>>(),
                )
            }
            other => other.clone(),
        }
    }
    ordered(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_in_the_order_of_keys_and_without_what_is_absent() {
        let value =
            json!({"b": [{"d": 1e-12, "c": null}, null], "a": u64::MAX, "é": "x y", "B": {"z": false, "y": 1.0}});
        assert_eq!(
            text(&value),
            r#"{"B":{"y":1.0,"z":false},"a":18446744073709551615,"b":[{"d":1e-12},null],"é":"x y"}"#
        );
    }

    #[test]
    fn an_identity_is_that_of_its_kind_and_version() {
        // printf '{"a":1,"identity":"x","version":2}' | b3sum
        let expected = blake3::hash(br#"{"a":1,"identity":"x","version":2}"#).to_hex().to_string();
        assert_eq!(identity("x", 2, &json!({"a": 1, "b": null})), expected);
        assert_ne!(identity("y", 2, &json!({"a": 1})), expected);
        assert_ne!(identity("x", 3, &json!({"a": 1})), expected);
    }
}
