//! What an ingress message says, as far as it can be told from the message alone: [`parse`].
//! It needs no state and no terms, so it runs ahead of the decisions, which `cut` makes.

use jackpot_core::digest::Digest;
use jackpot_core::frame::batch::{Hits, Refusal, RefusedBatch};
use jackpot_core::frame::symbols::Symbols;
use jackpot_core::frame::validated::Wager;
use jackpot_core::limits;
use jackpot_core::log::Entry;
use jackpot_core::names;
use jackpot_core::refusal::Reason;
use jackpot_core::terms::store::{self, Marker};
use jackpot_core::time::Millis;
use jackpot_core::topology::{self, IngressSubject};

use crate::detail::{Quoted, Shown, detail};
use crate::json::{self, Scanner, Value};
use crate::signature::Signature;
use crate::wager::{self, Shared, WHOLE_NUMBER_RULE, whole_number};

/// The value of `schema` in a batch.
pub const SCHEMA: &str = "wager-batch/1";

/// Bytes of a wager in a frame at most, without its hits; also of a refusal as a repeat, which may take its place.
const WAGER_BYTES_MAX: usize = 160;
/// Bytes of a refusal in a frame at most, without its detail.
const REFUSAL_BYTES_MAX: usize = 10;
/// Bytes of a batch in a frame at most, without names, wagers, refusals, gaps, and the id and detail of a refusal.
const BATCH_BYTES_MAX: usize = 80;

/// An ingress message, read. It holds nothing of the message but what decisions need.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedMessage {
    /// Its sequence in the stream `wagers`.
    pub position: u64,
    /// When the broker received it.
    pub recorded_at: Millis,
    /// The subject it is stored under.
    pub(crate) subject: Box<str>,
    /// The digest of its body.
    pub(crate) digest: Digest,
    /// What it is.
    pub(crate) content: Content,
    /// Its signature, where it is a batch that can be read and has one; with its body.
    pub(crate) signature: Option<Box<Signature>>,
    /// Where its frame is cut again: what that records of its signature.
    pub(crate) recorded: Option<Result<(), Box<str>>>,
}

/// What an ingress message is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// A batch: what it says, or why it is refused whatever is remembered and in force.
    Batch(Result<Envelope, RefusedBatch>),
    /// From here on, this revision of the terms.
    Marker(Marker),
    /// Neither. Only who may write the pipeline's own subjects can have stored it; it counts as read, and no more.
    Foreign,
}

/// A batch that can be read, of the source that its subject names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Envelope {
    /// The source's number of the batch.
    pub sequence: u64,
    /// The wagers that can be read; their symbols are numbers in `names`.
    pub wagers: Vec<Wager>,
    /// Those that cannot, by index.
    pub refusals: Vec<Refusal>,
    /// The names.
    pub names: Symbols,
    /// Entries of `hits` in all.
    pub hits: usize,
    /// Bytes in a frame at most, without gaps.
    pub weight: usize,
}

impl ParsedMessage {
    /// How many wagers it holds; for a bound on what is read ahead.
    pub fn wagers(&self) -> usize {
        match &self.content {
            Content::Batch(Ok(envelope)) => envelope.wagers.len() + envelope.refusals.len(),
            _ => 0,
        }
    }

    /// How many bytes of its headers it holds; for a bound on what is read ahead.
    pub fn headers_len(&self) -> usize {
        self.signature.as_ref().map_or(0, |signature| signature.len())
    }

    /// The same with what its frame records of its signature ([`crate::recorded_signature`]). That is not judged
    /// again: which keys there were then, nobody can tell.
    pub fn with_recorded(self, signature: Result<(), Box<str>>) -> Self {
        Self { recorded: Some(signature), ..self }
    }

    /// The revision that it puts in force, if it is a marker.
    pub fn marker(&self) -> Option<&Marker> {
        match &self.content {
            Content::Marker(marker) => Some(marker),
            _ => None,
        }
    }

    /// The operator and the source in the subject.
    pub(crate) fn sender(&self) -> (&str, &str) {
        match IngressSubject::parse(&self.subject) {
            Some(IngressSubject::Batch { operator, source }) => (operator, source),
            _ => unreachable!("a batch comes on a batch's subject"),
        }
    }
}

/// Reads an ingress message. A function of the entry alone.
pub fn parse(entry: &Entry) -> ParsedMessage {
    let content = match IngressSubject::parse(&entry.subject) {
        Some(IngressSubject::Batch { operator, source }) => {
            Content::Batch(read_batch(entry, operator, source))
        }
        Some(IngressSubject::Terms) => store::read_marker(entry).map_or(Content::Foreign, Content::Marker),
        None => Content::Foreign,
    };
    let signature = matches!(content, Content::Batch(Ok(_))).then(|| Signature::read(entry)).flatten();
    ParsedMessage {
        position: entry.sequence,
        recorded_at: entry.recorded_at,
        subject: entry.subject.clone(),
        digest: Digest::of(&entry.payload),
        content,
        signature,
        recorded: None,
    }
}

fn read_batch(entry: &Entry, operator: &str, source: &str) -> Result<Envelope, RefusedBatch> {
    let refuse = |id: Option<String>, (reason, detail)| RefusedBatch {
        batch: id.unwrap_or_else(|| format!("@{}", entry.sequence)).into(),
        reason,
        detail,
        conflict: false,
    };
    match Body::read(entry) {
        Ok(body) => {
            let id = body.id();
            body.judge(entry.payload.len(), operator, source).map_err(|fault| refuse(id, fault))
        }
        Err(fault) => {
            let sentence = detail(format_args!("the body is no JSON as the contract has it: {fault}"));
            Err(refuse(None, (Reason::Malformed, sentence)))
        }
    }
}

/// A reason and its detail.
type Refused = (Reason, Box<str>);

/// A body that is JSON: the fields of its envelope as they are, absent where they are null.
struct Body<'a> {
    /// What it is instead of an object.
    other: Option<Value<'a>>,
    schema: Option<Value<'a>>,
    operator: Option<Value<'a>>,
    source: Option<Value<'a>>,
    sequence: Option<Value<'a>>,
    wagers: Option<Wagers<'a>>,
}

/// The field `wagers`.
enum Wagers<'a> {
    /// It is no array.
    Other(Value<'a>),
    /// It is one, with so many items; of those beyond the limit nothing is kept.
    Array { count: usize, wagers: Vec<Wager>, refusals: Vec<Refusal>, shared: Box<Shared> },
}

impl<'a> Body<'a> {
    /// Reads the whole body; a fault anywhere in it comes before anything else.
    fn read(entry: &'a Entry) -> Result<Self, json::Fault> {
        let mut scanner = Scanner::new(&entry.payload)?;
        let mut body =
            Self { other: None, schema: None, operator: None, source: None, sequence: None, wagers: None };
        match scanner.value()? {
            Value::Object => body.fields(&mut scanner, entry.recorded_at)?,
            value => {
                scanner.skip(&value)?;
                body.other = Some(value);
            }
        }
        scanner.finish()?;
        Ok(body)
    }

    fn fields(&mut self, scanner: &mut Scanner<'a>, recorded_at: Millis) -> Result<(), json::Fault> {
        while let Some(name) = scanner.name()? {
            let value = scanner.value()?;
            if (&*name, &value) == ("wagers", &Value::Array) {
                self.wagers = Some(Wagers::read(scanner, recorded_at)?);
                continue;
            }
            scanner.skip(&value)?;
            let value = Some(value).filter(|value| *value != Value::Null);
            match &*name {
                "schema" => self.schema = value,
                "operator" => self.operator = value,
                "source" => self.source = value,
                "sequence" => self.sequence = value,
                "wagers" => self.wagers = value.map(Wagers::Other),
                _ => {}
            }
        }
        Ok(())
    }

    /// `<source>/<sequence>`, where both can be read.
    fn id(&self) -> Option<String> {
        let source = identifier(self.source.as_ref())?;
        Some(format!("{source}/{}", self.sequence.as_ref().and_then(whole_number)?))
    }

    /// Finds the first fault of the envelope, in the order of the contract.
    fn judge(self, len: usize, operator: &str, source: &str) -> Result<Envelope, Refused> {
        self.judge_schema()?;
        let (named_operator, named_source) =
            (judge_identifier("operator", &self.operator)?, judge_identifier("source", &self.source)?);
        let Some(sequence) = self.sequence.as_ref().and_then(whole_number) else {
            return Err(wrong("sequence", &self.sequence, WHOLE_NUMBER_RULE));
        };
        let envelope = Wagers::judge(self.wagers, sequence, operator.len() + source.len())?;
        if len > limits::BATCH_BYTES_MAX {
            return Err(malformed(format_args!(
                "the body must have at most {} bytes, and has {len}; publish smaller batches",
                limits::BATCH_BYTES_MAX
            )));
        }
        if (named_operator, named_source) != (operator, source) {
            let sentence = detail(format_args!(
                "the batch must be published to {}, and came on the subject of source {} of operator {}",
                topology::wagers(named_operator, named_source),
                Quoted(source),
                Quoted(operator)
            ));
            return Err((Reason::SubjectMismatch, sentence));
        }
        Ok(envelope)
    }

    fn judge_schema(&self) -> Result<(), Refused> {
        if let Some(other) = &self.other {
            return Err(malformed(format_args!("the body must be an object, and is {}", Shown(other))));
        }
        match &self.schema {
            Some(Value::String(schema)) if schema == SCHEMA => Ok(()),
            Some(Value::String(schema)) => {
                let sentence = detail(format_args!("schema must be \"{SCHEMA}\", and is {}", Quoted(schema)));
                Err((Reason::UnsupportedSchema, sentence))
            }
            other => Err(wrong("schema", other, "the string \"wager-batch/1\"")),
        }
    }
}

impl<'a> Wagers<'a> {
    fn read(scanner: &mut Scanner<'a>, recorded_at: Millis) -> Result<Self, json::Fault> {
        let mut shared = Box::new(Shared::new(recorded_at));
        let (mut count, mut wagers, mut refusals) = (0_usize, Vec::new(), Vec::new());
        while scanner.item()? {
            match u16::try_from(count).ok().filter(|_| count < limits::BATCH_WAGERS_MAX) {
                Some(index) => match wager::read(scanner, index, &mut shared)? {
                    Ok(wager) => wagers.push(wager),
                    Err(refusal) => refusals.push(refusal),
                },
                None => {
                    let value = scanner.value()?;
                    scanner.skip(&value)?;
                }
            }
            count += 1;
        }
        Ok(Self::Array { count, wagers, refusals, shared })
    }

    fn judge(field: Option<Self>, sequence: u64, sender_len: usize) -> Result<Envelope, Refused> {
        let (count, wagers, refusals, shared) = match field {
            None => return Err(wrong("wagers", &None, "an array")),
            Some(Self::Other(value)) => return Err(wrong("wagers", &Some(value), "an array")),
            Some(Self::Array { count, wagers, refusals, shared }) => (count, wagers, refusals, shared),
        };
        if !(1..=limits::BATCH_WAGERS_MAX).contains(&count) {
            return Err(malformed(format_args!(
                "wagers must have 1 to {} entries, and has {count}",
                limits::BATCH_WAGERS_MAX
            )));
        }
        let hits = shared.hits;
        if hits > limits::BATCH_HITS_MAX {
            return Err(malformed(format_args!(
                "the wagers must have at most {} entries of hits in all, and have {hits}",
                limits::BATCH_HITS_MAX
            )));
        }
        let names = shared.names.into_table();
        let weight = weight(&wagers, &refusals, &names, sender_len);
        Ok(Envelope { sequence, wagers, refusals, names, hits, weight })
    }
}

/// How many bytes a batch takes in a frame at most, whatever is decided, without gaps.
fn weight(wagers: &[Wager], refusals: &[Refusal], names: &Symbols, sender_len: usize) -> usize {
    let wagers: usize = wagers.iter().map(|wager| WAGER_BYTES_MAX + hits_weight(wager.hits.as_deref())).sum();
    let refusals: usize = refusals.iter().map(|refusal| REFUSAL_BYTES_MAX + refusal.detail.len()).sum();
    let names: usize = names.names().map(|name| 1 + name.len()).sum();
    BATCH_BYTES_MAX + sender_len + wagers + refusals + names
}

fn hits_weight(hits: Option<&Hits>) -> usize {
    hits.map_or(0, |hits| 2 + hits.round.len() + 7 * hits.claims.len())
}

/// How many bytes a batch that is refused whole takes in a frame at most.
pub(crate) fn refused_weight(refused: &RefusedBatch, sender: (&str, &str)) -> usize {
    BATCH_BYTES_MAX + refused.batch.len() + refused.detail.len() + sender.0.len() + sender.1.len()
}

fn identifier<'v>(field: Option<&'v Value<'_>>) -> Option<&'v str> {
    match field {
        Some(Value::String(name)) if names::is_identifier(name) => Some(name),
        _ => None,
    }
}

fn judge_identifier<'v>(name: &str, field: &'v Option<Value<'_>>) -> Result<&'v str, Refused> {
    identifier(field.as_ref()).ok_or_else(|| wrong(name, field, "an identifier: [a-z0-9][a-z0-9-]{0,63}"))
}

/// A field of the envelope is missing, or not what the rule says.
fn wrong(name: &str, field: &Option<Value<'_>>, rule: &str) -> Refused {
    match field {
        None => malformed(format_args!("{name} is missing; it must be {rule}")),
        Some(value) => malformed(format_args!("{name} must be {rule}, and is {}", Shown(value))),
    }
}

fn malformed(sentence: std::fmt::Arguments<'_>) -> Refused {
    (Reason::Malformed, detail(sentence))
}
