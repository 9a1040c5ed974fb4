//! A strict JSON scanner: one pass over a body, values handed out as they come. `batch` and `wager` pull from it.
//!
//! It is own code because the contract (section 1) has rules that no library offers together: a name twice in one
//! object is a fault at any depth, also in fields that nobody reads; nesting has a bound of its own; a number of
//! any size is JSON. Checking these beside a library costs a second pass over the hottest bytes of the pipeline.
//! A fault's text is written into frames, so it may not change with a library's version either (design, section 2).
//! Nothing here panics on any input, and nothing is allocated for a value without escapes.

use std::borrow::Cow;

/// An object or array may be inside so many others (contract, section 1).
const ENCLOSING_MAX: usize = 32;
/// Up to so many names of an object are compared as they come; where there are more, all are sorted at its end.
const NAMES_COMPARED: usize = 16;

/// Why a text is not what the contract calls JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct Fault {
    /// What is wrong.
    pub what: &'static str,
    /// Where, in bytes from the start.
    pub offset: usize,
}

/// A value, as far as it is read when it is handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// An object has begun: go on with [`Scanner::name`], or [`Scanner::skip`] it.
    Object,
    /// An array has begun: go on with [`Scanner::item`], or [`Scanner::skip`] it.
    Array,
    /// A string, its escapes resolved.
    String(Cow<'a, str>),
    /// A number, as it is written.
    Number(&'a str),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

impl Value<'_> {
    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String(_) => "a string",
            Self::Number(_) => "a number",
            Self::Bool(_) => "a boolean",
            Self::Null => "null",
        }
    }
}

/// Reads one JSON text from its first byte to its last.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    open: Vec<Container>,
    /// The names of all open objects, those of the innermost last.
    names: Vec<Cow<'a, str>>,
}

/// An object or array that has begun and not ended.
#[derive(Debug)]
struct Container {
    /// Nothing of it has been read yet.
    fresh: bool,
    /// Where its names begin in [`Scanner::names`].
    names_from: usize,
    /// A bit per hash of a name, so that most names are known to be new at a glance.
    hashes: u64,
}

impl<'a> Scanner<'a> {
    /// Starts at the first byte of `body`, which must be UTF-8.
    pub fn new(body: &'a [u8]) -> Result<Self, Fault> {
        match std::str::from_utf8(body) {
            Ok(text) => Ok(Self { text, at: 0, open: Vec::with_capacity(8), names: Vec::with_capacity(32) }),
            Err(error) => Err(Fault { what: "a byte that is no UTF-8", offset: error.valid_up_to() }),
        }
    }

    /// Reads a value where one must be: at the start, after a name, or after [`Scanner::item`] said yes.
    pub fn value(&mut self) -> Result<Value<'a>, Fault> {
        match self.peek() {
            Some(b'"') => self.string().map(Value::String),
            Some(b'{') => self.enter().map(|()| Value::Object),
            Some(b'[') => self.enter().map(|()| Value::Array),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            Some(b't') => self.word("true").map(|()| Value::Bool(true)),
            Some(b'f') => self.word("false").map(|()| Value::Bool(false)),
            Some(b'n') => self.word("null").map(|()| Value::Null),
            _ => Err(self.fault("no value where one must be")),
        }
    }

    /// Within an object: the next name, whose value must be read next, or `None` at the object's end.
    pub fn name(&mut self) -> Result<Option<Cow<'a, str>>, Fault> {
        if !self.further(b'}')? {
            return Ok(None);
        }
        if self.peek() != Some(b'"') {
            return Err(self.fault("no name where one must be"));
        }
        let name = self.string()?;
        self.remember(name.clone())?;
        if self.peek() != Some(b':') {
            return Err(self.fault("no colon after a name"));
        }
        self.at += 1;
        Ok(Some(name))
    }

    /// Within an array: whether there is another value, which must be read next.
    pub fn item(&mut self) -> Result<bool, Fault> {
        self.further(b']')
    }

    /// Reads over what is left of a value that [`Scanner::value`] has handed out.
    pub fn skip(&mut self, value: &Value<'a>) -> Result<(), Fault> {
        match value {
            Value::Object => {
                while self.name()?.is_some() {
                    let inner = self.value()?;
                    self.skip(&inner)?;
                }
            }
            Value::Array => {
                while self.item()? {
                    let inner = self.value()?;
                    self.skip(&inner)?;
                }
            }
            Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {}
        }
        Ok(())
    }

    /// Nothing but white space is left.
    pub fn finish(mut self) -> Result<(), Fault> {
        assert!(self.open.is_empty(), "a reader of JSON reads every object and array to its end");
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault("something behind the end")),
        }
    }

    fn fault(&self, what: &'static str) -> Fault {
        Fault { what, offset: self.at }
    }

    /// The next byte that is no white space, which is not taken.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                byte => return byte.copied(),
            }
        }
    }

    fn enter(&mut self) -> Result<(), Fault> {
        if self.open.len() > ENCLOSING_MAX {
            return Err(self.fault("an object or array inside more than 32 others"));
        }
        self.at += 1;
        self.open.push(Container { fresh: true, names_from: self.names.len(), hashes: 0 });
        Ok(())
    }

    /// Takes a comma, or the closing bracket `end`; whether something follows in the innermost container.
    fn further(&mut self, end: u8) -> Result<bool, Fault> {
        let next = self.peek();
        let container = self.open.last_mut().expect("names and items are asked for within a container");
        let fresh = std::mem::replace(&mut container.fresh, false);
        if next == Some(end) {
            self.leave()?;
            self.at += 1;
            return Ok(false);
        }
        match next {
            Some(_) if fresh => Ok(true),
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(_) => Err(self.fault("no comma or closing bracket where one must be")),
            None => Err(self.fault("the end within an object or array")),
        }
    }

    /// Closes the innermost container. Where it has more names than were compared, equal ones are found by sorting:
    /// a body full of names costs n log n and no memory beyond the list.
    fn leave(&mut self) -> Result<(), Fault> {
        let container = self.open.pop().expect("a container is open");
        let names = &mut self.names[container.names_from..];
        if names.len() > NAMES_COMPARED {
            names.sort_unstable();
            if names.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(self.fault("the end of an object with the same name twice"));
            }
        }
        self.names.truncate(container.names_from);
        Ok(())
    }

    fn remember(&mut self, name: Cow<'a, str>) -> Result<(), Fault> {
        let container = self.open.last_mut().expect("a name is read within an object");
        let known = &self.names[container.names_from..];
        if known.len() < NAMES_COMPARED {
            let hash = 1 << hash_bits(name.as_bytes());
            if container.hashes & hash != 0 && known.contains(&name) {
                return Err(self.fault("the end of a name that its object has already"));
            }
            container.hashes |= hash;
        }
        self.names.push(name);
        Ok(())
    }

    fn word(&mut self, word: &'static str) -> Result<(), Fault> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.fault("no value where one must be"));
        }
        self.at += word.len();
        Ok(())
    }

    /// `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`, of any length.
    fn number(&mut self) -> Result<&'a str, Fault> {
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

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> bool {
        let found = self.text.as_bytes().get(self.at).is_some_and(|&byte| wanted(byte));
        self.at += usize::from(found);
        found
    }

    fn digits(&mut self) -> Result<(), Fault> {
        if !self.take(|byte| byte.is_ascii_digit()) {
            return Err(self.fault("no digit where one must be"));
        }
        while self.take(|byte| byte.is_ascii_digit()) {}
        Ok(())
    }

    /// A string, from its opening quote to behind its closing one.
    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let text = self.text;
        self.at += 1;
        let from = self.at;
        self.at += plain_len(&text.as_bytes()[from..]);
        if text.as_bytes().get(self.at) == Some(&b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(&text[from..self.at - 1]));
        }
        let mut resolved = String::from(&text[from..self.at]);
        loop {
            match text.as_bytes().get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(resolved));
                }
                Some(b'\\') => resolved.push(self.escape()?),
                Some(_) => return Err(self.fault("a control character in a string")),
                None => return Err(self.fault("the end within a string")),
            }
            let from = self.at;
            self.at += plain_len(&text.as_bytes()[from..]);
            resolved.push_str(&text[from..self.at]);
        }
    }

    /// An escape, from its backslash on.
    fn escape(&mut self) -> Result<char, Fault> {
        let letter = self.text.as_bytes().get(self.at + 1).copied();
        let plain = match letter {
            Some(letter @ (b'"' | b'\\' | b'/')) => char::from(letter),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.fault("no such escape")),
        };
        self.at += 2;
        Ok(plain)
    }

    /// `\uXXXX`, or two of them that are one character.
    fn unicode(&mut self) -> Result<char, Fault> {
        const LONE: &str = "half of a surrogate pair";
        let unit = self.hex()?;
        let code = match unit {
            0xd800..=0xdbff => {
                let low = if self.text.as_bytes()[self.at..].starts_with(b"\\u") { self.hex()? } else { 0 };
                if !(0xdc00..=0xdfff).contains(&low) {
                    return Err(self.fault(LONE));
                }
                0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
            }
            _ => unit,
        };
        char::from_u32(code).ok_or_else(|| self.fault(LONE))
    }

    /// The four digits behind the `\u` that comes next.
    fn hex(&mut self) -> Result<u32, Fault> {
        let digits = self.text.as_bytes().get(self.at + 2..self.at + 6).unwrap_or_default();
        let value = digits
            .iter()
            .try_fold(0, |value, &byte| char::from(byte).to_digit(16).map(|digit| value * 16 + digit));
        match value {
            Some(value) if digits.len() == 4 => {
                self.at += 6;
                Ok(value)
            }
            _ => Err(self.fault("no four hexadecimal digits in an escape")),
        }
    }
}

/// A number from 0 to 63 that differs for most names. Equal names have equal ones; that is all that is relied on.
fn hash_bits(name: &[u8]) -> u64 {
    let ends = match name {
        [] => 0,
        [first, .., last] => u64::from(*first) << 8 | u64::from(*last),
        [only] => u64::from(*only),
    };
    let len = u64::try_from(name.len()).unwrap_or(0);
    (ends ^ len << 16).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58
}

/// How many bytes of a string come before its next quote, backslash or control character: eight at a time.
fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = ONES << 7;
    let mut rest = bytes;
    while let Some((chunk, behind)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        // The lowest top bit that is set marks the first byte below 0x20, and the first that is equal to the mark.
        let below = word.wrapping_sub(ONES * 0x20) & !word;
        let equal = |mark: u64| {
            let differences = word ^ (ONES * mark);
            differences.wrapping_sub(ONES) & !differences
        };
        let found = (below | equal(0x22) | equal(0x5c)) & TOPS;
        if found != 0 {
            let ahead = usize::try_from(found.trailing_zeros() / 8).expect("at most 7");
            return bytes.len() - rest.len() + ahead;
        }
        rest = behind;
    }
    let special = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    bytes.len() - rest.len() + rest.iter().position(special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests;
