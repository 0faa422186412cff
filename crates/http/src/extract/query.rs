//! Query strings. Values are texts; each becomes the type that the field has. A repeated key, or one that ends in `[]`,
//! is a list; an empty value of an optional field is absent.

use crate::error::ApiError;
use axum::{extract::FromRequestParts, http::request::Parts};
use serde::de::{
    self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor,
    value::{Error as TextError, MapDeserializer, SeqDeserializer},
};
use std::collections::BTreeMap;
use strata_model::Error;

/// The parameters of the query string.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        read(parts.uri.query().unwrap_or_default()).map(Self).map_err(ApiError)
    }
}

fn read<T: DeserializeOwned>(query: &str) -> Result<T, Error> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let key = key.strip_suffix("[]").unwrap_or(&key).to_owned();
        values.entry(key).or_default().push(value.into_owned());
    }
    let pairs = values.into_iter().map(|(key, values)| (key, Texts(values)));
    serde_path_to_error::deserialize(MapDeserializer::new(pairs)).map_err(|e| super::wrong_type(e, "query"))
}

/// The texts that one key came with.
struct Texts(Vec<String>);

impl Texts {
    fn last(self) -> String {
        self.0.into_iter().next_back().unwrap_or_default()
    }
}

impl IntoDeserializer<'_, TextError> for Texts {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $kind:ty, $words:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
            let text = self.last();
            match text.trim().parse::<$kind>() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(de::Error::custom(format!("`{text}` is not {}", $words))),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Texts {
    type Error = TextError;

    parsed! {
        deserialize_i8 visit_i8 i8, "a whole number of this size";
        deserialize_i16 visit_i16 i16, "a whole number of this size";
        deserialize_i32 visit_i32 i32, "a whole number of this size";
        deserialize_i64 visit_i64 i64, "a whole number of this size";
        deserialize_u8 visit_u8 u8, "a whole number from 0";
        deserialize_u16 visit_u16 u16, "a whole number from 0";
        deserialize_u32 visit_u32 u32, "a whole number from 0";
        deserialize_u64 visit_u64 u64, "a whole number from 0";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
        let text = self.last();
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" => visitor.visit_bool(true),
            "false" | "0" => visitor.visit_bool(false),
            _ => Err(de::Error::custom(format!("`{text}` is neither `true` nor `false`"))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
        if self.0.iter().all(String::is_empty) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
        visitor.visit_seq(SeqDeserializer::new(self.0.into_iter().map(|text| Texts(vec![text]))))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, TextError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TextError> {
        let text: de::value::StringDeserializer<TextError> = self.last().into_deserializer();
        text.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
        visitor.visit_string(self.last())
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Wanted {
        limit: Option<usize>,
        include_total: Option<bool>,
        force: bool,
        names: Vec<String>,
        text: Option<String>,
        order: Option<Order>,
        minimum: Option<f64>,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Order {
        Newest,
    }

    #[test]
    fn texts_become_what_the_fields_are() {
        let query =
            "limit=5&include_total=1&force=true&names=a&names[]=b%20c&text=1&order=newest&minimum=0.5&unknown=x";
        let wanted = Wanted {
            limit: Some(5),
            include_total: Some(true),
            force: true,
            names: vec!["a".into(), "b c".into()],
            text: Some("1".into()),
            order: Some(Order::Newest),
            minimum: Some(0.5),
        };
        assert_eq!(read::<Wanted>(query).unwrap(), wanted);
        assert_eq!(read::<Wanted>("limit=&text=").unwrap(), Wanted::default());
        assert_eq!(read::<Wanted>("").unwrap(), Wanted::default());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for query in ["limit=abc", "limit=1.5", "limit=-1", "limit=99999999999999999999999", "limit=%00"] {
            match read::<Wanted>(query) {
                Err(Error::Invalid(fields)) => assert_eq!(fields[0].field, "limit", "{query}"),
                other => panic!("{query}: {other:?}"),
            }
        }
        assert!(read::<Wanted>("force=maybe").is_err());
        assert!(read::<Wanted>("order=oldest").is_err());
    }
}
