//! Collects faults, and reads values by rule: each reader tells what is wrong with a value, and gives it where it can
//! be read. A fault never shows a value of the wrong type, and never what looks like a secret.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::near::nearest;
use super::{Names, Shape, WHOLE_MAX};
use crate::money::{AmountError, Micro};
use crate::names;
use crate::rules;
use crate::terms::Fault;
use crate::terms::tree::{Flaw, Node, Positions, Value};

/// Characters of a value that a fault shows at most.
const SHOWN_MAX: usize = 64;

/// A value of the document, and the path that leads to it.
#[derive(Debug)]
pub struct Spot<'a> {
    place: String,
    node: &'a Node<'a>,
}

impl<'a> Spot<'a> {
    /// The document itself.
    pub fn whole(node: &'a Node<'a>) -> Self {
        Self { place: String::new(), node }
    }
}

/// The fields of an object that have a value: null is absent.
#[derive(Debug)]
pub struct Fields<'a> {
    place: String,
    found: Vec<(&'static str, &'a Node<'a>)>,
}

impl<'a> Fields<'a> {
    /// A field's value, if it is there.
    pub fn get(&self, name: &str) -> Option<Spot<'a>> {
        let (_, node) = self.found.iter().find(|(found, _)| *found == name)?;
        Some(Spot { place: member(&self.place, name), node })
    }
}

/// References that are compared with every name that could be meant, at most: a person mends a few at a time, and a
/// document may have thousands of either.
const COMPARED_MAX: usize = 100;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Each fault, and at which byte.
    faults: Vec<(usize, Fault)>,
    /// How many references were compared with names that could be meant.
    compared: usize,
}

impl Findings {
    /// All faults, in the order of the document, with their positions in it.
    pub fn finish(mut self, document: &[u8]) -> Vec<Fault> {
        self.faults.sort_by_key(|(at, _)| *at);
        let mut positions = Positions::new(document);
        let placed =
            self.faults.into_iter().map(|(at, fault)| Fault { position: Some(positions.of(at)), ..fault });
        placed.collect()
    }

    /// The document cannot be read at all.
    pub fn no_json(&mut self, flaw: Flaw) {
        self.push(flaw.at, "", format!("no JSON: what begins here {}", flaw.what));
    }

    /// Notes a fault.
    pub fn add(&mut self, spot: &Spot<'_>, what: String) {
        self.push(spot.node.at, &spot.place, what);
    }

    fn push(&mut self, at: usize, place: &str, what: String) {
        let place = if place.is_empty() { "." } else { place };
        self.faults.push((at, Fault { place: place.into(), what, position: None }));
    }

    fn expected(&mut self, spot: &Spot<'_>, what: &str) {
        self.add(spot, format!("must be {what}, and is {}", spot.node.value.kind()));
    }

    /// Reads an object: its fields that are known, none of them twice, all there that must be.
    pub fn object<'a>(&mut self, spot: &Spot<'a>, shape: &Shape) -> Option<Fields<'a>> {
        let Value::Object(given) = &spot.node.value else {
            self.expected(spot, "an object");
            return None;
        };
        let known = || shape.required.iter().chain(shape.optional).copied();
        let all: BTreeSet<_> = given.iter().map(|field| field.name.as_ref()).collect();
        let (mut names, mut found) = (BTreeSet::new(), Vec::new());
        for field in given {
            let place = member(&spot.place, &field.name);
            let fresh = names.insert(field.name.as_ref());
            if !fresh {
                self.push(field.at, &place, "stands twice in its object; remove one".into());
            }
            match known().find(|name| *name == field.name) {
                None => {
                    let free = known().filter(|name| !all.contains(name));
                    self.push(field.at, &place, format!("is unknown here{}", meant(&field.name, free)));
                }
                Some(name) if fresh && field.node.value != Value::Null => found.push((name, &field.node)),
                Some(_) => {}
            }
        }
        for name in shape.required.iter().filter(|name| found.iter().all(|(found, _)| found != *name)) {
            self.push(spot.node.at, &member(&spot.place, name), "is missing".into());
        }
        Some(Fields { place: spot.place.clone(), found })
    }

    /// Reads the values of a list; `None` where the field is no list, or not there and has a default of its own.
    pub fn items<'a>(&mut self, fields: &Fields<'a>, name: &str) -> Option<Vec<Spot<'a>>> {
        let Some(spot) = fields.get(name) else { return Some(Vec::new()) };
        let Value::List(items) = &spot.node.value else {
            self.expected(&spot, "a list");
            return None;
        };
        let numbered = items.iter().enumerate();
        Some(numbered.map(|(i, node)| Spot { place: format!("{}[{i}]", spot.place), node }).collect())
    }

    /// Reads a string.
    pub fn text<'a>(&mut self, spot: &Spot<'a>) -> Option<&'a str> {
        let Value::Text(text) = &spot.node.value else {
            self.expected(spot, "a string");
            return None;
        };
        Some(text)
    }

    /// Reads `true` or `false`.
    pub fn boolean(&mut self, spot: &Spot<'_>) {
        if !matches!(spot.node.value, Value::Bool(_)) {
            self.expected(spot, "true or false");
        }
    }

    /// Reads a whole number, written without point or exponent.
    pub fn whole(&mut self, spot: &Spot<'_>, min: u64, max: u64) -> Option<u64> {
        let form = format!("a whole number from {min} to {max}");
        let Value::Number(digits) = spot.node.value else {
            self.expected(spot, &form);
            return None;
        };
        let number = digits.parse().ok().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.add(spot, format!("must be {form}, and is {}", shown(digits)));
        }
        number
    }

    /// Reads a version of the rules.
    pub fn rules(&mut self, spot: &Spot<'_>) {
        let known = u64::from(rules::FIRST)..=u64::from(rules::KNOWN);
        if let Some(version) = self.whole(spot, 0, WHOLE_MAX)
            && !known.contains(&version)
        {
            let known = rules::known();
            self.add(
                spot,
                format!("is {version}, and this build knows rules {known}; newer ones need a newer build"),
            );
        }
    }

    /// Reads an amount of money.
    pub fn amount(&mut self, spot: &Spot<'_>) -> Option<Micro> {
        let form =
            "an amount is a decimal string from \"0\" to \"1000000000000000\", with at most 6 decimals";
        self.decimal(spot, form, Micro::parse_terms)
    }

    /// Reads a decimal, which is a string, never a number: many programs round JSON's numbers.
    pub fn decimal<T>(
        &mut self,
        spot: &Spot<'_>,
        form: &str,
        read: impl Fn(&str) -> Result<T, AmountError>,
    ) -> Option<T> {
        let Value::Text(text) = &spot.node.value else {
            self.add(spot, format!("is {}: {form}", spot.node.value.kind()));
            return None;
        };
        let value = read(text).ok();
        if value.is_none() {
            self.add(spot, format!("`{}` cannot be used: {form}", shown(text)));
        }
        value
    }

    /// Reads one word of a few.
    pub fn one_of<'a>(&mut self, spot: &Spot<'a>, words: &[&str]) -> Option<&'a str> {
        let text = self.text(spot)?;
        if !words.contains(&text) {
            let what = format!("must be one of {}, and is `{}`", words.join(", "), shown(text));
            self.add(spot, what);
        }
        Some(text)
    }

    /// Reads the name of a thing, which no other of its kind has.
    pub fn name<'a>(&mut self, spot: &Spot<'a>, seen: &mut Names<'a>) {
        let Some(name) = self.text(spot) else { return };
        if !names::is_identifier(name) {
            self.add(spot, format!("`{}` is no identifier: [a-z0-9][a-z0-9-]{{0,63}}", shown(name)));
        }
        self.once(spot, name, seen);
    }

    /// Notes a name that stands in its list already.
    pub fn once<'a>(&mut self, spot: &Spot<'_>, name: &'a str, seen: &mut Names<'a>) {
        if !seen.insert(name) {
            self.add(spot, format!("`{}` is listed twice", shown(name)));
        }
    }

    /// Reads a name that the list `field` of the document must have; where that is no list, nobody can tell.
    pub fn reference(&mut self, spot: &Spot<'_>, known: Option<&Names<'_>>, field: &str) {
        let (Some(name), Some(known)) = (self.text(spot), known) else { return };
        if !known.contains(name) {
            self.compared += 1;
            let compared = known.iter().copied().filter(|_| self.compared <= COMPARED_MAX);
            let meant = meant(name, compared);
            self.add(spot, format!("nothing of the name `{}` is listed in `{field}`{meant}", shown(name)));
        }
    }

    /// Reads a jurisdiction of a list.
    pub fn jurisdiction<'a>(&mut self, spot: &Spot<'a>, seen: &mut Names<'a>) {
        let Some(code) = self.text(spot) else { return };
        if code == "*" {
            self.add(spot, "`*` does not stand for jurisdictions; list them".into());
        } else if !names::is_jurisdiction(code) {
            let what = format!("`{}` is neither an ISO 3166-1 alpha-2 nor a 3166-2 code", shown(code));
            self.add(spot, what);
        }
        self.once(spot, code, seen);
    }

    /// Reads a currency.
    pub fn currency<'a>(&mut self, spot: &Spot<'a>) -> Option<&'a str> {
        let code = self.text(spot)?;
        if !names::is_currency(code) {
            self.add(spot, format!("`{}` is no active ISO 4217 currency", shown(code)));
        }
        Some(code)
    }

    /// Reads the id of a key.
    pub fn key<'a>(&mut self, spot: &Spot<'a>, seen: &mut Names<'a>) {
        let Some(id) = self.text(spot) else { return };
        if is_secret(id) {
            let what = "is a secret; name the key's id here, and keep the secret in the key file";
            self.add(spot, what.into());
            return;
        }
        if !names::is_token(id, 64) || id.starts_with('#') {
            let form = "1 to 64 printable ASCII characters without space, the first no `#`";
            self.add(spot, format!("`{}` is no key id: {form}", shown(id)));
        }
        self.once(spot, id, seen);
    }
}

/// The path of a field: `pools[0].base`, and `pools[0]["a b"]` where the name is none that could be meant.
fn member(place: &str, name: &str) -> String {
    let plain = !name.is_empty()
        && name.len() <= SHOWN_MAX
        && !is_secret(name)
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match (plain, place.is_empty()) {
        (true, true) => name.to_owned(),
        (true, false) => format!("{place}.{name}"),
        (false, _) => format!("{place}[\"{}\"]", shown(name)),
    }
}

fn meant<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, names).map_or(String::new(), |name| format!("; did you mean `{name}`?"))
}

fn is_secret(text: &str) -> bool {
    text.starts_with("whsec_")
}

/// A value as a fault shows it: on one line, not too long, and no secret.
fn shown(text: &str) -> String {
    if is_secret(text) {
        return "whsec_…".into();
    }
    let mut shown = String::new();
    for character in text.chars().take(SHOWN_MAX) {
        if character.is_control() {
            write!(shown, "{}", character.escape_default()).expect("a string takes everything");
        } else {
            shown.push(character);
        }
    }
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}
