//! Parameters of a method: one struct per method, written with [`params!`](crate::rpc::params), which makes the strict
//! decoder and the documentation of every field from the same lines. Errors name the parameter by its path.

use super::json::{Json, duplicate};
use crate::cluster::{BdevName, Nqn, StoreName, VolumeName};
use serde_json::{Value, json};
use std::fmt;
use uuid::Uuid;

/// One parameter, for documentation.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub kind: &'static str,
    /// It must be given.
    pub required: bool,
    /// What it means.
    pub doc: &'static str,
    /// The parameters inside, when it is an object.
    pub inner: &'static [Field],
}

/// What is wrong with the parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Which parameter: names joined by dots, indices in brackets; empty for the whole.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

impl Problem {
    /// A problem with the value itself; whoever knows its name adds it with [`Problem::at`].
    pub fn new(why: impl Into<String>) -> Problem {
        Problem { path: String::new(), why: why.into() }
    }
    /// The same problem inside the member `name`.
    #[must_use]
    pub fn at(self, name: &str) -> Problem {
        let path = match self.path.as_str() {
            "" => name.to_owned(),
            inner if inner.starts_with('[') => format!("{name}{inner}"),
            inner => format!("{name}.{inner}"),
        };
        Problem { path, ..self }
    }
    /// For a program: `error.data`.
    pub fn data(&self) -> Value {
        json!({"parameter": self.path, "reason": self.why})
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.why),
            path => write!(f, "parameter '{path}' {}", self.why),
        }
    }
}

/// A value a parameter can have.
pub trait FromJson: Sized {
    /// What it may be, for documentation.
    const KIND: &'static str;
    /// The parameters inside, when it is an object.
    const INNER: &'static [Field] = &[];
    /// The parameter need not be given.
    const OPTIONAL: bool = false;
    /// From what was given.
    fn from_json(json: Json) -> Result<Self, Problem>;
    /// When it was not given.
    fn absent() -> Result<Self, Problem> {
        Err(Problem::new("is missing"))
    }
}

/// The parameters of a method, or an object inside them.
pub trait Params: Sized {
    /// The parameters.
    const FIELDS: &'static [Field];
    /// Takes the fields out of the members.
    fn take(members: &mut Members) -> Result<Self, Problem>;

    /// All of `params`, where `None` and `null` are no parameters. `relaxed` ignores unknown names.
    fn decode(params: Option<Json>, relaxed: bool) -> Result<Self, Problem> {
        let members = match params {
            None | Some(Json::Null) => Vec::new(),
            Some(Json::Object(members)) => members,
            // SPDK takes an empty array for no parameters.
            Some(Json::Array(items)) if items.is_empty() => Vec::new(),
            Some(other) => return Err(Problem::new(format!("parameters must be an object, not {}", other.kind()))),
        };
        if let Some(name) = duplicate(&members) {
            return Err(Problem::new("is given twice").at(name));
        }
        let mut members = Members(members);
        let params = Self::take(&mut members)?;
        match members.0.first() {
            Some((name, _)) if !relaxed => {
                let known: Vec<&str> = Self::FIELDS.iter().map(|f| f.name).collect();
                let why = match known.as_slice() {
                    [] => "is unknown; there are no parameters".to_owned(),
                    known => format!("is unknown; known are {}", known.join(", ")),
                };
                let name: String = name.chars().take(128).collect();
                Err(Problem::new(why).at(&name))
            }
            _ => Ok(params),
        }
    }
}

/// Members not taken yet.
#[derive(Debug)]
pub struct Members(pub Vec<(String, Json)>);

impl Members {
    /// The field `name`.
    pub fn field<T: FromJson>(&mut self, name: &str) -> Result<T, Problem> {
        let at = self.0.iter().position(|(n, _)| n == name);
        let value = match at {
            Some(at) => T::from_json(self.0.remove(at).1),
            None => T::absent(),
        };
        value.map_err(|p| p.at(name))
    }
}

/// Defines parameter structs: `params! { /// doc \n pub struct Name { /// doc \n field: Type, } }`. Types are those
/// that implement [`FromJson`]; `Option` makes a field optional.
macro_rules! params {
    ($($(#[doc = $doc:literal])* pub struct $name:ident { $($(#[doc = $field_doc:literal])+ $field:ident: $type:ty,)* })+) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, PartialEq, Debug)]
        #[allow(clippy::struct_field_names)] // names are those on the wire
        pub struct $name { $($(#[doc = $field_doc])+ pub $field: $type,)* }

        impl $crate::rpc::params::Params for $name {
            const FIELDS: &'static [$crate::rpc::params::Field] = &[$($crate::rpc::params::Field {
                name: stringify!($field),
                kind: <$type as $crate::rpc::params::FromJson>::KIND,
                required: !<$type as $crate::rpc::params::FromJson>::OPTIONAL,
                doc: concat!($($field_doc),+),
                inner: <$type as $crate::rpc::params::FromJson>::INNER,
            }),*];
            fn take(
                members: &mut $crate::rpc::params::Members,
            ) -> Result<$name, $crate::rpc::params::Problem> {
                let _ = &members;
                Ok($name { $($field: members.field(stringify!($field))?,)* })
            }
        }

        impl $crate::rpc::params::FromJson for $name {
            const KIND: &'static str = "object";
            const INNER: &'static [$crate::rpc::params::Field] = <$name as $crate::rpc::params::Params>::FIELDS;
            fn from_json(json: $crate::rpc::json::Json) -> Result<$name, $crate::rpc::params::Problem> {
                match json {
                    json @ $crate::rpc::json::Json::Object(_) => $crate::rpc::params::Params::decode(Some(json), false),
                    other => Err($crate::rpc::params::Problem::new(format!("must be an object, not {}", other.kind()))),
                }
            }
        }
    )+};
}
pub(crate) use params;

/// Defines an enum of words: `choice! { /// doc \n pub enum Name { Variant = "word", } }`. Case does not matter.
macro_rules! choice {
    ($(#[doc = $doc:literal])* pub enum $name:ident { $($(#[doc = $variant_doc:literal])* $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $($(#[doc = $variant_doc])* $variant,)+ }

        impl $crate::rpc::params::FromJson for $name {
            const KIND: &'static str = concat!("string: ", $($word, " "),+);
            fn from_json(json: $crate::rpc::json::Json) -> Result<$name, $crate::rpc::params::Problem> {
                let text = <String as $crate::rpc::params::FromJson>::from_json(json)?;
                $(if text.eq_ignore_ascii_case($word) {
                    return Ok($name::$variant);
                })+
                let words: &[&str] = &[$($word),+];
                Err($crate::rpc::params::Problem::new(format!("must be one of {}", words.join(", "))))
            }
        }
    };
}
pub(crate) use choice;

impl<T: FromJson> FromJson for Option<T> {
    const KIND: &'static str = T::KIND;
    const INNER: &'static [Field] = T::INNER;
    const OPTIONAL: bool = true;
    fn from_json(json: Json) -> Result<Option<T>, Problem> {
        if json == Json::Null { Ok(None) } else { T::from_json(json).map(Some) }
    }
    fn absent() -> Result<Option<T>, Problem> {
        Ok(None)
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    const KIND: &'static str = "array";
    const INNER: &'static [Field] = T::INNER;
    fn from_json(json: Json) -> Result<Vec<T>, Problem> {
        let Json::Array(items) = json else {
            return Err(wrong("an array", &json));
        };
        let item = |(i, json)| T::from_json(json).map_err(|p: Problem| p.at(&format!("[{i}]")));
        items.into_iter().enumerate().map(item).collect()
    }
}

impl FromJson for bool {
    const KIND: &'static str = "boolean";
    fn from_json(json: Json) -> Result<bool, Problem> {
        if let Json::Bool(value) = json { Ok(value) } else { Err(wrong("true or false", &json)) }
    }
}

impl FromJson for String {
    const KIND: &'static str = "string";
    fn from_json(json: Json) -> Result<String, Problem> {
        if let Json::Text(text) = json { Ok(text) } else { Err(wrong("a string", &json)) }
    }
}

impl FromJson for u64 {
    const KIND: &'static str = "number";
    fn from_json(json: Json) -> Result<u64, Problem> {
        let Json::Number(number) = &json else {
            return Err(wrong("a whole number", &json));
        };
        // SPDK takes 1e3 for 1000; past 2^53 a float no longer says which integer it is.
        let whole = |f: f64| (f.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&f)).then_some(f as u64);
        let value = number.as_u64().or_else(|| number.as_f64().and_then(whole));
        value.ok_or_else(|| Problem::new(format!("must be a whole number from 0 to {}, not {number}", u64::MAX)))
    }
}

macro_rules! narrow {
    ($($type:ty),+) => {$(
        impl FromJson for $type {
            const KIND: &'static str = "number";
            fn from_json(json: Json) -> Result<$type, Problem> {
                let wide = u64::from_json(json)?;
                <$type>::try_from(wide).map_err(|_| Problem::new(format!("must be at most {}, not {wide}", <$type>::MAX)))
            }
        }
    )+};
}
narrow!(u8, u16, u32);

impl FromJson for i64 {
    const KIND: &'static str = "number";
    fn from_json(json: Json) -> Result<i64, Problem> {
        match &json {
            Json::Number(number) => number.as_i64().ok_or_else(|| Problem::new(format!("{number} is out of range"))),
            _ => Err(wrong("a whole number", &json)),
        }
    }
}

impl FromJson for Uuid {
    const KIND: &'static str = "string: UUID";
    fn from_json(json: Json) -> Result<Uuid, Problem> {
        let text = String::from_json(json)?;
        Uuid::try_parse(&text).map_err(|_| Problem::new("must be a UUID"))
    }
}

/// Bytes as hexadecimal digits, as NGUID and EUI-64 are written.
impl<const N: usize> FromJson for [u8; N] {
    const KIND: &'static str = "string: hexadecimal";
    fn from_json(json: Json) -> Result<[u8; N], Problem> {
        let text: String = String::from_json(json)?.chars().filter(|c| *c != '-').collect();
        let wrong = || Problem::new(format!("must be {} hexadecimal digits", 2 * N));
        if text.len() != 2 * N || !text.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; N];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| wrong())?;
        }
        Ok(bytes)
    }
}

macro_rules! named {
    ($($type:ty: $kind:literal),+) => {$(
        impl FromJson for $type {
            const KIND: &'static str = $kind;
            fn from_json(json: Json) -> Result<$type, Problem> {
                <$type>::new(&String::from_json(json)?).map_err(|e| Problem::new(format!("is refused: {e}")))
            }
        }
    )+};
}
named!(BdevName: "string: bdev name", StoreName: "string: store name", VolumeName: "string: volume name", Nqn: "string: NQN");

fn wrong(wanted: &str, got: &Json) -> Problem {
    Problem::new(format!("must be {wanted}, not {}", got.kind()))
}

#[cfg(test)]
mod tests;
