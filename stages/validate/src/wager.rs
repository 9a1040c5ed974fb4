//! Reads one wager of a batch (contract, sections 1 to 3) and finds the first of its faults, in the order of
//! [`Reason`]: everything that can be told from the message alone. `batch` calls it; whether the interaction is a
//! repeat is decided later, in `draft`, against what is remembered.

use std::borrow::Cow;
use std::fmt;

use jackpot_core::digest::Digest;
use jackpot_core::frame::batch::{Funds, HitClaim, Hits, Refusal};
use jackpot_core::frame::symbols::{Symbol, Symbols};
use jackpot_core::frame::validated::{Location, Point, SessionKey, Wager};
use jackpot_core::limits;
use jackpot_core::money::{AmountError, Micro};
use jackpot_core::names;
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::time::Millis;

use crate::detail::{Shown, detail};
use crate::json::{Fault, Scanner, Value};

/// How far `checked_at` may lie after `occurred_at`, in milliseconds (contract, section 3).
const CHECKED_AFTER_MAX_MS: i64 = 60_000;

/// What the wagers of a batch share while they are read.
#[derive(Debug)]
pub struct Shared {
    /// When the broker received the batch.
    pub recorded_at: Millis,
    /// The names in the batch.
    pub names: Names,
    /// Entries of `hits` so far, in all wagers.
    pub hits: usize,
}

impl Shared {
    /// Before the first wager.
    pub fn new(recorded_at: Millis) -> Self {
        Self { recorded_at, names: Names::default(), hits: 0 }
    }
}

/// Reads the value that comes next as the wager with this index.
pub fn read(
    scanner: &mut Scanner<'_>,
    index: u16,
    shared: &mut Shared,
) -> Result<Result<Wager, Refusal>, Fault> {
    let mut reading = Reading::new(index, shared);
    let value = scanner.value()?;
    if value == Value::Object {
        reading.fields(scanner)?;
    } else {
        scanner.skip(&value)?;
        return Ok(Err(reading.refusal(
            Reason::InvalidField,
            detail(format_args!("wagers[{index}] must be an object, and is {}", Shown(&value))),
        )));
    }
    Ok(reading.finish())
}

/// The fields of a wager and of its location, in the order in which faults are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Field {
    Session,
    Interaction,
    Player,
    Game,
    Round,
    Amount,
    Currency,
    Funds,
    OptIn,
    OccurredAt,
    Location,
    Jurisdiction,
    Latitude,
    Longitude,
    AccuracyM,
    CheckedAt,
    Hits,
}

impl Field {
    /// Those that every wager has.
    const REQUIRED: [Self; 9] = [
        Self::Session,
        Self::Interaction,
        Self::Player,
        Self::Game,
        Self::Round,
        Self::Amount,
        Self::Currency,
        Self::Funds,
        Self::OccurredAt,
    ];

    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "session" => Self::Session,
            "interaction" => Self::Interaction,
            "player" => Self::Player,
            "game" => Self::Game,
            "round" => Self::Round,
            "amount" => Self::Amount,
            "currency" => Self::Currency,
            "funds" => Self::Funds,
            "opt_in" => Self::OptIn,
            "occurred_at" => Self::OccurredAt,
            "location" => Self::Location,
            "hits" => Self::Hits,
            _ => return None,
        })
    }

    fn of_location(name: &str) -> Option<Self> {
        Some(match name {
            "jurisdiction" => Self::Jurisdiction,
            "latitude" => Self::Latitude,
            "longitude" => Self::Longitude,
            "accuracy_m" => Self::AccuracyM,
            "checked_at" => Self::CheckedAt,
            _ => return None,
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Interaction => "interaction",
            Self::Player => "player",
            Self::Game => "game",
            Self::Round => "round",
            Self::Amount => "amount",
            Self::Currency => "currency",
            Self::Funds => "funds",
            Self::OptIn => "opt_in",
            Self::OccurredAt => "occurred_at",
            Self::Location => "location",
            Self::Jurisdiction => "location.jurisdiction",
            Self::Latitude => "location.latitude",
            Self::Longitude => "location.longitude",
            Self::AccuracyM => "location.accuracy_m",
            Self::CheckedAt => "location.checked_at",
            Self::Hits => "hits",
        }
    }

    fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

/// A wager while it is read. A field that is right is there; of what is wrong, the first fault is kept.
struct Reading<'s, 'a> {
    index: u16,
    shared: &'s mut Shared,
    /// The bits of the fields that are there and not null.
    seen: u32,
    fault: Option<(Reason, Field, Box<str>)>,
    session: Option<SessionKey>,
    interaction: Option<u64>,
    game: Option<Symbol>,
    round: Option<Cow<'a, str>>,
    amount: Option<Micro>,
    currency: Option<Symbol>,
    funds: Option<Funds>,
    opt_in: bool,
    occurred_at: Option<Millis>,
    jurisdiction: Option<Symbol>,
    latitude: Option<f64>,
    longitude: Option<f64>,
    accuracy_m: Option<f64>,
    checked_at: Option<Millis>,
    claims: Vec<HitClaim>,
}

impl<'s, 'a> Reading<'s, 'a> {
    fn new(index: u16, shared: &'s mut Shared) -> Self {
        Self {
            index,
            shared,
            seen: 0,
            fault: None,
            session: None,
            interaction: None,
            game: None,
            round: None,
            amount: None,
            currency: None,
            funds: None,
            opt_in: false,
            occurred_at: None,
            jurisdiction: None,
            latitude: None,
            longitude: None,
            accuracy_m: None,
            checked_at: None,
            claims: Vec::new(),
        }
    }

    /// Keeps this fault if it comes before the one that is kept.
    fn blame(&mut self, reason: Reason, field: Field, what: fmt::Arguments<'_>) {
        if self.fault.as_ref().is_none_or(|(kept, place, _)| (reason, field) < (*kept, *place)) {
            let sentence = detail(format_args!("wagers[{}].{} {what}", self.index, field.as_str()));
            self.fault = Some((reason, field, sentence));
        }
    }

    fn refusal(&self, reason: Reason, detail: Box<str>) -> Refusal {
        Refusal { index: self.index, hit: None, stage: StageName::Validate, reason, detail }
    }

    /// Reads the wager's object to its end.
    fn fields(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        while let Some(name) = scanner.name()? {
            let value = scanner.value()?;
            match (Field::of(&name), value) {
                (_, Value::Null) => {}
                (Some(Field::Location), Value::Object) => {
                    self.seen |= Field::Location.bit();
                    self.location(scanner)?;
                }
                (Some(Field::Hits), Value::Array) => self.hits(scanner)?,
                (field, value) => {
                    scanner.skip(&value)?;
                    if let Some(field) = field {
                        self.field(field, value);
                    }
                }
            }
        }
        Ok(())
    }

    fn location(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        while let Some(name) = scanner.name()? {
            let value = scanner.value()?;
            scanner.skip(&value)?;
            if let Some(field) = Field::of_location(&name).filter(|_| value != Value::Null) {
                self.field(field, value);
            }
        }
        Ok(())
    }

    /// Takes in a field that is not null.
    fn field(&mut self, field: Field, value: Value<'a>) {
        self.seen |= field.bit();
        match field {
            Field::Amount => self.amount(&value),
            Field::Currency => self.currency(&value),
            _ => {
                if let Err(rule) = self.plain_field(field, &value) {
                    self.blame(
                        Reason::InvalidField,
                        field,
                        format_args!("must be {rule}{}", And(field, &value)),
                    );
                }
            }
        }
        if let (Field::Round, Value::String(round)) = (field, value) {
            self.round = Some(round);
        }
    }

    /// Takes in a field whose every fault is an invalid field; the error is its rule.
    fn plain_field(&mut self, field: Field, value: &Value<'a>) -> Result<(), &'static str> {
        const TIME: &str = "a time in UTC of the form 2026-06-08T20:15:30.123Z";
        const TOKEN: &str = "a string of 1 to 64 printable ASCII characters without space";
        let text = match value {
            Value::String(text) => Some(text.as_ref()),
            _ => None,
        };
        match field {
            Field::Session => {
                let text = text.filter(|text| names::is_token(text, 64)).ok_or(TOKEN)?;
                self.session = Some(Digest::of(text.as_bytes()).short());
            }
            Field::Player => {
                text.filter(|text| names::is_token(text, 64)).ok_or(TOKEN)?;
            }
            Field::Round => {
                text.filter(|text| names::is_token(text, 128))
                    .ok_or("a string of 1 to 128 printable ASCII characters without space")?;
            }
            Field::Interaction => {
                self.interaction = Some(whole_number(value).ok_or(WHOLE_NUMBER_RULE)?);
            }
            Field::Game => {
                let game = text.and_then(|text| self.shared.names.find(Form::Identifier, text));
                self.game = Some(game.ok_or("an identifier: [a-z0-9][a-z0-9-]{0,63}")?);
            }
            Field::Funds => {
                let funds = [Funds::Cash, Funds::Bonus, Funds::Free];
                let funds = funds.into_iter().find(|funds| Some(funds.as_str()) == text);
                self.funds = Some(funds.ok_or("\"cash\", \"bonus\" or \"free\"")?);
            }
            Field::OptIn => match value {
                Value::Bool(opt_in) => self.opt_in = *opt_in,
                _ => return Err("true or false"),
            },
            Field::OccurredAt => self.occurred_at = Some(text.and_then(Millis::parse).ok_or(TIME)?),
            Field::CheckedAt => self.checked_at = Some(text.and_then(Millis::parse).ok_or(TIME)?),
            Field::Jurisdiction => {
                let code = text.and_then(|text| self.shared.names.find(Form::Jurisdiction, text));
                self.jurisdiction = Some(code.ok_or("an ISO 3166-1 alpha-2 or 3166-2 code")?);
            }
            Field::Latitude => {
                self.latitude = Some(bounded(value, -90.0, 90.0).ok_or("a number from -90 to 90")?);
            }
            Field::Longitude => {
                self.longitude = Some(bounded(value, -180.0, 180.0).ok_or("a number from -180 to 180")?);
            }
            Field::AccuracyM => {
                let metres = bounded(value, 0.0, 20_000_000.0);
                self.accuracy_m = Some(metres.ok_or("a number from 0 to 20000000")?);
            }
            Field::Location => return Err("an object"),
            Field::Hits => return Err("an array"),
            Field::Amount | Field::Currency => unreachable!("these have reasons of their own"),
        }
        Ok(())
    }

    fn amount(&mut self, value: &Value<'_>) {
        let read = match value {
            Value::String(text) => Micro::parse_wager(text),
            _ => Err(AmountError::Form),
        };
        match read {
            Ok(amount) => self.amount = Some(amount),
            Err(error) => {
                let rule = match error {
                    AmountError::Form => {
                        "a decimal string with at most 6 digits after the point, like \"2.50\""
                    }
                    AmountError::TooLarge => "at most \"1000000000\"",
                };
                self.blame(
                    Reason::InvalidAmount,
                    Field::Amount,
                    format_args!("must be {rule}, and is {}", Shown(value)),
                );
            }
        }
    }

    fn currency(&mut self, value: &Value<'_>) {
        const RULE: &str = "must be three capitals that are an active ISO 4217 code";
        let Value::String(code) = value else {
            let what = format_args!("{RULE}, and is {}", Shown(value));
            return self.blame(Reason::InvalidField, Field::Currency, what);
        };
        self.currency = self.shared.names.find(Form::Currency, code);
        if self.currency.is_none() {
            let what = format_args!("{RULE}, and is {}", Shown(value));
            self.blame(Reason::UnknownCurrency, Field::Currency, what);
        }
    }

    /// Reads `hits` to its end. An entry that cannot be read is a claim that allocate refuses.
    fn hits(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        let mut count = 0_usize;
        while scanner.item()? {
            count += 1;
            let value = scanner.value()?;
            let claim = if value == Value::Object {
                self.hit(scanner, count <= limits::WAGER_HITS_MAX)?
            } else {
                scanner.skip(&value)?;
                HitClaim::Unreadable
            };
            if count <= limits::WAGER_HITS_MAX {
                self.claims.push(claim);
            }
        }
        self.shared.hits += count;
        if count > limits::WAGER_HITS_MAX {
            let what = format_args!("must have at most {} entries, and has {count}", limits::WAGER_HITS_MAX);
            self.blame(Reason::InvalidField, Field::Hits, what);
        }
        Ok(())
    }

    fn hit(&mut self, scanner: &mut Scanner<'a>, wanted: bool) -> Result<HitClaim, Fault> {
        let (mut pool, mut level) = (None, None);
        while let Some(name) = scanner.name()? {
            let value = scanner.value()?;
            scanner.skip(&value)?;
            let Value::String(text) = value else { continue };
            match &*name {
                "pool" => pool = Some(text),
                "level" => level = Some(text),
                _ => {}
            }
        }
        let identifier = |name: &Option<Cow<'_, str>>| name.as_deref().is_some_and(names::is_identifier);
        if !wanted || !identifier(&pool) || !identifier(&level) {
            return Ok(HitClaim::Unreadable);
        }
        let mut find = |name: Option<Cow<'_, str>>| {
            name.and_then(|name| self.shared.names.find(Form::Identifier, &name))
        };
        Ok(match (find(pool), find(level)) {
            (Some(pool), Some(level)) => HitClaim::Level { pool, level },
            _ => HitClaim::Unreadable,
        })
    }

    /// Judges the fields together, and gives the wager or its refusal.
    fn finish(mut self) -> Result<Wager, Refusal> {
        for field in Field::REQUIRED {
            if self.seen & field.bit() == 0 {
                self.blame(Reason::InvalidField, field, format_args!("is missing"));
            }
        }
        let location = self.placed();
        if let Some(occurred_at) = self.occurred_at {
            let ahead = occurred_at.0 - self.shared.recorded_at.0;
            if ahead > limits::FUTURE_MAX_MS {
                let allowed = limits::FUTURE_MAX_MS;
                let what = format_args!(
                    "is {ahead} ms after the broker received it, more than {allowed}; mend the clock of the source"
                );
                self.blame(Reason::OccurredInFuture, Field::OccurredAt, what);
            }
        }
        if let Some((reason, _, detail)) = self.fault.take() {
            return Err(self.refusal(reason, detail));
        }
        Ok(self.whole(location).expect("a required field that is not there, or is wrong, was blamed"))
    }

    fn whole(self, location: Option<Location>) -> Option<Wager> {
        let hits = match self.claims.is_empty() {
            true => None,
            false => Some(Box::new(Hits { round: (&*self.round?).into(), claims: self.claims })),
        };
        Some(Wager {
            index: self.index,
            session: self.session?,
            interaction: self.interaction?,
            game: self.game?,
            amount: self.amount?,
            currency: self.currency?,
            funds: self.funds?,
            opt_in: self.opt_in,
            occurred_at: self.occurred_at?,
            location,
            hits,
        })
    }

    /// The location, with its rules across fields.
    fn placed(&mut self) -> Option<Location> {
        if self.seen & Field::Location.bit() == 0 {
            return None;
        }
        let point = match (self.latitude, self.longitude, self.accuracy_m) {
            (Some(latitude), Some(longitude), Some(accuracy_m)) => {
                Some(Point { latitude, longitude, accuracy_m })
            }
            _ => None,
        };
        let seen = |field: Field| self.seen & field.bit() != 0;
        let coordinates = [Field::Latitude, Field::Longitude, Field::AccuracyM];
        let measured = coordinates.map(seen);
        let what = if !seen(Field::CheckedAt) {
            Some((Field::CheckedAt, "is missing"))
        } else if measured.contains(&true) && measured.contains(&false) {
            Some((Field::Location, "must have latitude, longitude and accuracy_m, or none of them"))
        } else if !seen(Field::Jurisdiction) && !measured.contains(&true) {
            Some((Field::Location, "must have jurisdiction, or latitude, longitude and accuracy_m"))
        } else {
            None
        };
        if let Some((field, what)) = what {
            self.blame(Reason::InvalidField, field, format_args!("{what}"));
        }
        let checked_at = self.checked_at?;
        if let Some(occurred_at) = self.occurred_at {
            let after = checked_at.0 - occurred_at.0;
            if after > CHECKED_AFTER_MAX_MS {
                let what = format_args!(
                    "is {after} ms after occurred_at; a location is checked before the wager, or at most {CHECKED_AFTER_MAX_MS} ms after"
                );
                self.blame(Reason::InvalidField, Field::CheckedAt, what);
            }
        }
        Some(Location { jurisdiction: self.jurisdiction, point, checked_at })
    }
}

/// `, and is …`: what a field is instead. Who plays is not carried on, not even in a fault.
struct And<'a>(Field, &'a Value<'a>);

impl fmt::Display for And<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (Field::Session | Field::Player, Value::String(_)) => Ok(()),
            (Field::Session | Field::Player, other) => write!(f, ", and is {}", other.kind()),
            (_, value) => write!(f, ", and is {}", Shown(value)),
        }
    }
}

/// What [`whole_number`] asks for.
pub const WHOLE_NUMBER_RULE: &str = "a whole number from 1 to 9223372036854775807";

/// Reads a number from 1 to 2⁶³−1, written without point or exponent.
pub fn whole_number(value: &Value<'_>) -> Option<u64> {
    let Value::Number(text) = value else { return None };
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok()).filter(|&number| number > 0)
}

/// Reads a number between two bounds, both included: the nearest `f64` of what is written.
fn bounded(value: &Value<'_>, from: f64, to: f64) -> Option<f64> {
    let Value::Number(text) = value else { return None };
    text.parse().ok().filter(|number| (from..=to).contains(number))
}

/// What a name must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// See [`names::is_identifier`].
    Identifier,
    /// See [`names::is_currency`].
    Currency,
    /// See [`names::is_jurisdiction`].
    Jurisdiction,
}

/// So many recent names of each form are found without a search.
const RECENT: usize = 64;

/// The names in a batch, each checked once while it is recent.
#[derive(Debug)]
pub struct Names {
    table: Symbols,
    recent: [[Option<Symbol>; RECENT]; 3],
}

impl Default for Names {
    fn default() -> Self {
        Self { table: Symbols::default(), recent: [[None; RECENT]; 3] }
    }
}

impl Names {
    /// The number of a name, or `None` if it has not that form.
    pub fn find(&mut self, form: Form, name: &str) -> Option<Symbol> {
        let hash = name
            .bytes()
            .fold(usize::from(u8::MAX), |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let recent = &mut self.recent[form as usize][hash % RECENT];
        if let Some(symbol) = recent.filter(|&symbol| self.table.name(symbol) == name) {
            return Some(symbol);
        }
        let fits = match form {
            Form::Identifier => names::is_identifier(name),
            Form::Currency => names::is_currency(name),
            Form::Jurisdiction => names::is_jurisdiction(name),
        };
        if !fits {
            return None;
        }
        let symbol = self.table.intern(name);
        *recent = Some(symbol);
        Some(symbol)
    }

    /// All of them, by their numbers.
    pub fn into_table(self) -> Symbols {
        self.table
    }
}
