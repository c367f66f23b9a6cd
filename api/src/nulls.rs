//! A serde deserializer over [`Value`] that reads null as Kubernetes does, where that is safe.
//!
//! A field of a structure that is null is the same as one that is absent (`labels: null`,
//! `creationTimestamp: null`). Elsewhere null is refused: Go would read a null entry of a list as an empty
//! rule, which allows everything, and a null value of a label as an empty text; neither is what was meant.
//! Structures are read from mappings only and plain enums from texts only.

use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};

/// Reads a value with the rules of this module.
#[derive(Clone, Copy)]
pub(crate) struct Nulls<'de>(pub(crate) &'de Value);

/// How errors call what stands in a document instead of what should.
fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Other("null"),
        Value::Bool(b) => Unexpected::Bool(*b),
        Value::Number(n) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
            (Some(n), _, _) => Unexpected::Unsigned(n),
            (_, Some(n), _) => Unexpected::Signed(n),
            (_, _, n) => Unexpected::Float(n.unwrap_or(f64::NAN)),
        },
        Value::String(s) => Unexpected::Str(s),
        Value::Array(_) => Unexpected::Other("a list"),
        Value::Object(_) => Unexpected::Other("a mapping"),
    }
}

impl<'de> Deserializer<'de> for Nulls<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(map) => {
                visitor.visit_map(Entries { rest: map.iter(), value: None, skip_nulls: false })
            }
            Value::Array(items) => visitor.visit_seq(Items(items.iter())),
            Value::Null => Err(Error::invalid_type(unexpected(self.0), &visitor)),
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(map) => {
                visitor.visit_map(Entries { rest: map.iter(), value: None, skip_nulls: true })
            }
            other => Err(Error::invalid_type(unexpected(other), &"a mapping")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) => {
                let name: StrDeserializer<'de, Error> = text.as_str().into_deserializer();
                visitor.visit_enum(name)
            }
            other => Err(Error::invalid_type(unexpected(other), &"a string")),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier
    }
}

struct Items<'de>(std::slice::Iter<'de, Value>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|value| seed.deserialize(Nulls(value))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Entries<'de> {
    rest: serde_json::map::Iter<'de>,
    value: Option<&'de Value>,
    skip_nulls: bool,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let skip_nulls = self.skip_nulls;
        let Some((key, value)) = self.rest.find(|(_, value)| !(skip_nulls && value.is_null())) else {
            return Ok(None);
        };
        self.value = Some(value);
        let key: StringDeserializer<Error> = key.clone().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(Nulls(value)),
            None => Err(Error::custom("a value was asked for before its key")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Deserialize, Debug, PartialEq, Default)]
    #[serde(default)]
    struct Sample {
        list: Vec<Sample>,
        labels: BTreeMap<String, String>,
        text: Option<String>,
    }

    fn read(value: &Value) -> Result<Sample, String> {
        Sample::deserialize(Nulls(value)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_null_field_is_an_absent_field() {
        assert_eq!(read(&json!({"list": null, "labels": null, "text": null})), Ok(Sample::default()));
    }

    #[test]
    fn a_null_entry_of_a_list_is_refused() {
        let error = read(&json!({"list": [null]})).unwrap_err();
        assert_eq!(error, "invalid type: null, expected a mapping");
    }

    #[test]
    fn a_null_value_of_a_label_is_refused() {
        let error = read(&json!({"labels": {"app": null}})).unwrap_err();
        assert_eq!(error, "invalid type: null, expected a string");
    }

    #[test]
    fn a_structure_is_not_read_from_a_list() {
        let error = read(&json!([[], {}, "x"])).unwrap_err();
        assert_eq!(error, "invalid type: a list, expected a mapping");
    }
}
