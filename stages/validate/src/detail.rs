//! Details of refusals: sentences for producers, which say where the fault is and what to mend.
//! They are written into frames, so they are a function of the message alone: bounded, our own words, and whatever
//! is quoted of a message is cut and made of printable ASCII.

use std::fmt::{self, Write as _};

use jackpot_core::limits;

use crate::json::Value;

/// So many characters of a text are quoted.
const QUOTED_MAX: usize = 40;

/// A detail, cut to what a refusal may hold.
pub fn detail(sentence: fmt::Arguments<'_>) -> Box<str> {
    let mut text = sentence.to_string();
    if text.len() > limits::DETAIL_BYTES_MAX {
        let mark = '…';
        text.truncate(text.floor_char_boundary(limits::DETAIL_BYTES_MAX - mark.len_utf8()));
        text.push(mark);
    }
    text.into()
}

/// Shows a text of a message in quotes.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let mut characters = self.0.chars();
        for character in characters.by_ref().take(QUOTED_MAX) {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                ' '..='~' => f.write_char(character)?,
                _ => write!(f, "\\u{{{:x}}}", u32::from(character))?,
            }
        }
        f.write_str(if characters.next().is_some() { "…\"" } else { "\"" })
    }
}

/// Shows a value of a message: what it is, where that is short.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(pub &'a Value<'a>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(text) => Quoted(text).fmt(f),
            Value::Number(number) if number.len() <= QUOTED_MAX => write!(f, "the number {number}"),
            Value::Bool(is) => write!(f, "{is}"),
            other => f.write_str(other.kind()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_are_short_and_plain() {
        let check = |text: &str, expect: &str| assert_eq!(Quoted(text).to_string(), expect);
        check("eur", "\"eur\"");
        check("a\"b\\c\n\u{0}é", "\"a\\\"b\\\\c\\u{a}\\u{0}\\u{e9}\"");
        check(&"x".repeat(40), &format!("\"{}\"", "x".repeat(40)));
        check(&"x".repeat(41), &format!("\"{}…\"", "x".repeat(40)));
    }

    proptest! {
        #[test]
        fn details_are_bounded(text in "\\PC{0,200}", more in ".{0,200}") {
            let detail = detail(format_args!("{text}{} {}", Quoted(&more), Quoted(&text)));
            prop_assert!(detail.len() <= limits::DETAIL_BYTES_MAX);
        }
    }
}
