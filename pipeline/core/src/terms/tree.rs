//! A document of terms as a tree of JSON in which every value knows where it stands; `check` reads it.
//! It is own code because a person mends the file by line and column, which no library keeps for values, and because
//! JSON is strict here (contract, section 1): a bound on nesting, and no string that is no Unicode. A name that stands
//! twice in one object stays twice in the tree, so that it can be told with everything else.
//! Nothing here panics on any input.

use std::borrow::Cow;
use std::fmt;

/// An object or array may be inside so many others (contract, section 1).
const ENCLOSING_MAX: usize = 32;

/// A value, and the byte at which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node<'a> {
    /// Its first byte, from 0.
    pub at: usize,
    /// What stands there.
    pub value: Value<'a>,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it is written.
    Number(&'a str),
    /// A string, its escapes resolved.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<Node<'a>>),
    /// An object, its fields in their order.
    Object(Vec<Field<'a>>),
}

/// A field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// The first byte of the name.
    pub at: usize,
    /// Its value.
    pub node: Node<'a>,
}

impl Value<'_> {
    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Why a document is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flaw {
    /// The byte that shows it, from 0.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// A place in a file as editors count: lines and characters, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Tells the positions of bytes of a document, one after the other.
#[derive(Debug)]
pub struct Positions<'a> {
    document: &'a [u8],
    at: usize,
    position: Position,
}

impl<'a> Positions<'a> {
    /// Starts at the first byte.
    pub fn new(document: &'a [u8]) -> Self {
        Self { document, at: 0, position: Position { line: 1, column: 1 } }
    }

    /// The position of a byte that is not before the one asked for last.
    pub fn of(&mut self, at: usize) -> Position {
        assert!(at >= self.at, "positions are asked for in the order of the document");
        for &byte in self.document.get(self.at..at).unwrap_or_default() {
            match byte {
                b'\n' => self.position = Position { line: self.position.line + 1, column: 1 },
                // The bytes behind the first one of a character in UTF-8.
                0x80..=0xbf => {}
                _ => self.position.column += 1,
            }
        }
        self.at = at;
        self.position
    }
}

/// Reads a document that is one JSON value.
pub fn parse(document: &[u8]) -> Result<Node<'_>, Flaw> {
    let text = match std::str::from_utf8(document) {
        Ok(text) => text,
        Err(error) => {
            return Err(Flaw { at: error.valid_up_to(), what: "is no UTF-8; save the file as UTF-8" });
        }
    };
    let mut scanner = Scanner { text, at: 0, enclosing: 0 };
    if text.starts_with('\u{feff}') {
        return Err(scanner.flaw("begins with a byte order mark; save the file without one"));
    }
    let node = scanner.value()?;
    match scanner.peek() {
        None => Ok(node),
        Some(_) => Err(scanner.flaw("is more behind the end of the document")),
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    enclosing: usize,
}

impl<'a> Scanner<'a> {
    fn flaw(&self, what: &'static str) -> Flaw {
        Flaw { at: self.at, what }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no white space, which is not taken.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.byte(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        self.byte()
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> bool {
        let found = self.byte().is_some_and(wanted);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self) -> Result<Node<'a>, Flaw> {
        let next = self.peek();
        let at = self.at;
        let value = match next {
            Some(b'"') => Value::Text(self.string()?),
            Some(b'{') => Value::Object(self.within(b'}', Self::field)?),
            Some(b'[') => Value::List(self.within(b']', Self::value)?),
            Some(b'-' | b'0'..=b'9') => Value::Number(self.number()?),
            _ => self.word()?,
        };
        Ok(Node { at, value })
    }

    fn word(&mut self) -> Result<Value<'a>, Flaw> {
        let words = [("true", Value::Bool(true)), ("false", Value::Bool(false)), ("null", Value::Null)];
        for (word, value) in words {
            if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.flaw(match self.byte() {
            None => "is the end where a value must be",
            Some(b'}' | b']') => "is no value; there is a comma too many before it",
            Some(_) => "is no JSON value",
        }))
    }

    /// What stands between brackets, separated by commas.
    fn within<T>(&mut self, end: u8, item: impl Fn(&mut Self) -> Result<T, Flaw>) -> Result<Vec<T>, Flaw> {
        if self.enclosing > ENCLOSING_MAX {
            return Err(self.flaw("is inside more than 32 objects and lists"));
        }
        self.enclosing += 1;
        self.at += 1;
        let mut items = Vec::new();
        if self.peek() != Some(end) {
            items.push(item(self)?);
            while self.peek() == Some(b',') {
                self.at += 1;
                items.push(item(self)?);
            }
        }
        match self.peek() {
            Some(byte) if byte == end => self.at += 1,
            Some(_) => return Err(self.flaw("is there where a comma or a closing bracket must be")),
            None => return Err(self.flaw("is the end, and an object or list is still open")),
        }
        self.enclosing -= 1;
        Ok(items)
    }

    fn field(&mut self) -> Result<Field<'a>, Flaw> {
        match self.peek() {
            Some(b'"') => {}
            Some(b'}') => return Err(self.flaw("is no field; there is a comma too many before it")),
            Some(_) => return Err(self.flaw("is there where a field's name in quotes must be")),
            None => return Err(self.flaw("is the end, and an object is still open")),
        }
        let at = self.at;
        let name = self.string()?;
        if self.peek() != Some(b':') {
            return Err(self.flaw("is there where the colon behind a field's name must be"));
        }
        self.at += 1;
        Ok(Field { name, at, node: self.value()? })
    }

    /// `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`, of any length.
    fn number(&mut self) -> Result<&'a str, Flaw> {
        let from = self.at;
        self.take(|byte| byte == b'-');
        if !self.take(|byte| byte == b'0') {
            self.digits()?;
        }
        if self.take(|byte| byte == b'.') {
            self.digits()?;
        }
        if self.take(|byte| matches!(byte, b'e' | b'E')) {
            self.take(|byte| matches!(byte, b'+' | b'-'));
            self.digits()?;
        }
        Ok(&self.text[from..self.at])
    }

    fn digits(&mut self) -> Result<(), Flaw> {
        if !self.take(|byte| byte.is_ascii_digit()) {
            return Err(self.flaw("is there where a digit of a number must be"));
        }
        while self.take(|byte| byte.is_ascii_digit()) {}
        Ok(())
    }

    /// A string, from its opening quote to behind its closing one.
    fn string(&mut self) -> Result<Cow<'a, str>, Flaw> {
        let opening = self.at;
        self.at += 1;
        let mut escaped = false;
        loop {
            match self.byte() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(0..0x20) => {
                    return Err(self.flaw("is a line break or control character in a string"));
                }
                Some(_) => self.at += 1,
                None => return Err(Flaw { at: opening, what: "is a quote that is never closed" }),
            }
        }
        self.at += 1;
        if !escaped {
            return Ok(Cow::Borrowed(&self.text[opening + 1..self.at - 1]));
        }
        let resolved = self.text.get(opening..self.at).and_then(|text| serde_json::from_str(text).ok());
        let flaw = Flaw { at: opening, what: "has an escape that is none, or half of a surrogate pair" };
        resolved.map(Cow::Owned).ok_or(flaw)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flaw(document: &str) -> (Position, &'static str) {
        let flaw = parse(document.as_bytes()).expect_err(document);
        (Positions::new(document.as_bytes()).of(flaw.at), flaw.what)
    }

    #[test]
    fn values_know_where_they_stand() {
        let document = "{\"ä\": [1,\n  \"\\u0078\"],\n \"b\": -1.5e+9}";
        let node = parse(document.as_bytes()).expect("JSON");
        let Value::Object(fields) = &node.value else { panic!("an object: {node:?}") };
        let Value::List(items) = &fields[0].node.value else { panic!("a list: {fields:?}") };
        assert_eq!(items[1].value, Value::Text("x".into()));
        assert_eq!(fields[1].node.value, Value::Number("-1.5e+9"));
        let mut positions = Positions::new(document.as_bytes());
        let told = [items[0].at, items[1].at, fields[1].at, fields[1].node.at]
            .map(|at| positions.of(at))
            .map(|position| (position.line, position.column));
        assert_eq!(told, [(1, 8), (2, 3), (3, 2), (3, 7)], "columns count characters, not bytes");
    }

    #[test]
    fn what_is_no_json_is_told_where_it_shows() {
        let check = |document: &str, line, column, what: &str| {
            let (position, told) = flaw(document);
            assert_eq!((position.line, position.column), (line, column), "{document}: {told}");
            assert!(told.contains(what), "{document}: {told}");
        };
        check("", 1, 1, "the end where a value must be");
        check("\n\n", 3, 1, "the end where a value must be");
        check("\u{feff}{}", 1, 1, "byte order mark");
        check("{\"a\": 1,\n}", 2, 1, "a comma too many");
        check("[1, ]", 1, 5, "a comma too many");
        check("[1 2]", 1, 4, "a comma or a closing bracket");
        check("{\"a\" 1}", 1, 6, "colon");
        check("{a: 1}", 1, 2, "name in quotes");
        check("{\"a\": 1", 1, 8, "still open");
        check("{\"a\": 1,", 1, 9, "still open");
        check("{} {}", 1, 4, "behind the end");
        check("[\n01]", 2, 2, "a comma or a closing bracket");
        check("[-]", 1, 3, "digit");
        check("[1.]", 1, 4, "digit");
        check("[1e]", 1, 4, "digit");
        check("[\"a\nb\"]", 1, 4, "line break");
        check("[\"ab]", 1, 2, "never closed");
        check("[\"ab\\", 1, 2, "never closed");
        check("[\"\\x\"]", 1, 2, "escape");
        check("[\"\\ud800\"]", 1, 2, "surrogate");
        check("[nul]", 1, 2, "no JSON value");
        check("['a']", 1, 2, "no JSON value");
        check("// terms\n{}", 1, 1, "no JSON value");
        assert_eq!(parse(b"[\xff]"), Err(Flaw { at: 1, what: "is no UTF-8; save the file as UTF-8" }));
    }

    #[test]
    fn nesting_has_a_bound() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(33).as_bytes()).is_ok(), "inside 32 others");
        let (position, what) = flaw(&nested(34));
        assert_eq!((position.column, what), (34, "is inside more than 32 objects and lists"));
        assert!(parse("[".repeat(1_000_000).as_bytes()).is_err());
    }

    proptest! {
        /// serde_json is the other opinion; it knows no bound of 32, which these documents do not reach.
        #[test]
        fn json_is_what_it_is_elsewhere(text in "[\\[\\]{}:,\"\\\\u0d89 a\\-.eE+\n]{0,24}") {
            let elsewhere = serde_json::from_str::<serde_json::Value>(&text);
            let here = parse(text.as_bytes());
            match &elsewhere {
                Ok(_) => prop_assert!(here.is_ok(), "{:?}", here),
                // A number too large for a double is JSON all the same.
                Err(error) if error.to_string().starts_with("number out of range") => {}
                Err(_) => prop_assert!(here.is_err(), "{:?}", elsewhere),
            }
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Err(flaw) = parse(&bytes) {
                Positions::new(&bytes).of(flaw.at);
            }
        }
    }
}
