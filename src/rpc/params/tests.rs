//! The decoder of parameters: what it takes, and how it says no.

use super::*;

params! {
    /// An inner object.
    pub struct Inner {
        /// A word.
        word: String,
        /// A number.
        count: Option<u16>,
    }

    /// All kinds.
    pub struct Outer {
        /// Required.
        size: u64,
        /// Optional.
        flag: Option<bool>,
        /// Nested.
        inner: Option<Inner>,
        /// Several.
        list: Option<Vec<u32>>,
        /// Bytes.
        nguid: Option<[u8; 16]>,
        /// Which.
        kind: Option<Kind>,
    }
}

choice! {
    /// A choice.
    pub enum Kind {
        /// One.
        One = "ONE",
        /// Two.
        Two = "two",
    }
}

fn decode(text: &str) -> Result<Outer, String> {
    Outer::decode(Some(Json::parse(text.as_bytes()).unwrap()), false).map_err(|p| p.to_string())
}

#[test]
fn takes_what_is_meant() {
    let all = decode(
        r#"{"size": 1e3, "flag": false, "inner": {"word": "w", "count": 7}, "list": [1, 2], "kind": "One",
            "nguid": "ABCDEF0123456789abcdef0123456789"}"#,
    )
    .unwrap();
    assert_eq!((all.size, all.flag, all.kind), (1000, Some(false), Some(Kind::One)));
    assert_eq!(all.inner, Some(Inner { word: "w".into(), count: Some(7) }));
    assert_eq!(all.nguid.unwrap()[..2], [0xab, 0xcd]);
    let few = decode(r#"{"size": 18446744073709551615, "flag": null, "list": null}"#).unwrap();
    assert_eq!((few.size, few.flag, few.list), (u64::MAX, None, None));
}

#[test]
fn names_the_parameter_and_the_reason() {
    for (text, wanted) in [
        ("{}", "parameter 'size' is missing"),
        (r#"{"size": "1"}"#, "parameter 'size' must be a whole number, not a string"),
        (r#"{"size": -1}"#, "parameter 'size' must be a whole number from 0"),
        (r#"{"size": 1.5}"#, "parameter 'size' must be a whole number from 0"),
        (r#"{"size": 1e300}"#, "parameter 'size' must be a whole number from 0"),
        (r#"{"size": 1, "size": 2}"#, "parameter 'size' is given twice"),
        (r#"{"size": 1, "seize": 2}"#, "parameter 'seize' is unknown; known are size, flag, inner"),
        (r#"{"size": 1, "flag": 1}"#, "parameter 'flag' must be true or false, not a number"),
        (r#"{"size": 1, "inner": {}}"#, "parameter 'inner.word' is missing"),
        (r#"{"size": 1, "inner": {"word": "", "count": 65536}}"#, "parameter 'inner.count' must be at most 65535"),
        (r#"{"size": 1, "inner": {"word": "", "x": 1}}"#, "parameter 'inner.x' is unknown"),
        (r#"{"size": 1, "inner": {"word": "", "word": ""}}"#, "parameter 'inner.word' is given twice"),
        (r#"{"size": 1, "inner": []}"#, "parameter 'inner' must be an object, not an array"),
        (r#"{"size": 1, "list": [1, "2"]}"#, "parameter 'list[1]' must be a whole number, not a string"),
        (r#"{"size": 1, "nguid": "00"}"#, "parameter 'nguid' must be 32 hexadecimal digits"),
        (r#"{"size": 1, "nguid": "zz000000000000000000000000000000"}"#, "parameter 'nguid' must be 32 hexadecimal"),
        (r#"{"size": 1, "kind": "three"}"#, "parameter 'kind' must be one of ONE, two"),
        (r"[1]", "parameters must be an object, not an array"),
        (r#"{"size": null}"#, "parameter 'size' must be a whole number, not null"),
    ] {
        let said = decode(text).expect_err(text);
        assert!(said.starts_with(wanted), "{text}: {said}");
    }
}

#[test]
fn no_parameters_have_four_spellings() {
    params! {
        /// None.
        pub struct Empty {}
    }
    for params in [None, Some(Json::Null), Some(Json::Object(vec![])), Some(Json::Array(vec![]))] {
        assert!(Empty::decode(params, false).is_ok());
    }
    let one = Json::Object(vec![("a".into(), Json::Null)]);
    assert_eq!(
        Empty::decode(Some(one.clone()), false).unwrap_err().to_string(),
        "parameter 'a' is unknown; there are no parameters"
    );
    assert!(Empty::decode(Some(one), true).is_ok(), "a relaxed method takes it");
}

#[test]
fn fields_document_themselves() {
    let names: Vec<_> = Outer::FIELDS.iter().map(|f| (f.name, f.required, f.kind.trim())).collect();
    assert_eq!(names[0], ("size", true, "number"));
    assert_eq!(names[2], ("inner", false, "object"));
    assert_eq!(names[5], ("kind", false, "string: ONE two"));
    assert_eq!(Outer::FIELDS[2].inner[0].name, "word");
    assert_eq!(Outer::FIELDS[0].doc, " Required.");
}
