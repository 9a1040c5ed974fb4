//! The stage as the runner drives it: ingress in, frames out, and the state that follows from them.

mod alarms;
mod bounds;
mod cuts;
mod halts;
mod idle;
mod memory;
mod refusals;
mod resume;
mod signatures;

use bytes::Bytes;
use jackpot_core::digest::Digest;
use jackpot_core::frame::Frame;
use jackpot_core::frame::batch::{HitClaim, Verdict};
use jackpot_core::frame::symbols::Symbol;
use jackpot_core::frame::validated::{Validated, Wager};
use jackpot_core::keys::{self, Keys};
use jackpot_core::log::Entry;
use jackpot_core::terms::{Operator, Source, Terms};
use jackpot_core::time::Millis;

use crate::batch::Content;
use crate::{CompiledTerms, Cutter, ParsedMessage, State, Taken, parse};

/// When the broker received the first message: 2026-06-08T20:15:31.000Z.
const RECORDED_AT: Millis = Millis(1_780_949_731_000);
const LATENESS_MS: i64 = 2_000;

/// The key file.
const KEYS: &str = "k1 whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\nk2 whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n";

fn keys() -> Keys {
    Keys::parse(KEYS.as_bytes()).expect("the keys have no faults")
}

/// Terms with sources `eu1` and `eu2` of `acme`, and `signed`, which must sign with `k1` or `k2`.
fn terms(revision: u64, sequence_from: [Option<u64>; 2]) -> Terms {
    let source = |(source, keys, sequence_from): (&str, &[&str], _)| Source {
        source: source.into(),
        operator: "acme".into(),
        keys: keys.iter().map(|&key| key.into()).collect(),
        sequence_from,
    };
    let [first, second] = sequence_from;
    let sources = [("eu1", &[][..], first), ("eu2", &[], second), ("signed", &["k1", "k2"], None)];
    let operators = vec![Operator { operator: "acme".into(), jurisdictions: vec!["MT".into()] }];
    Terms { revision, operators, sources: sources.map(source).into(), ..Terms::none() }
}

/// A batch of a source, signed with a key.
fn signed(entry: Entry, key: &str, source: &str, sequence: u64) -> Entry {
    let keys = keys();
    let key = keys.get(key).expect("the key is in the file");
    Entry { headers: keys::headers(key, source, sequence, 1_780_949_731, &entry.payload), ..entry }
}

fn message(position: u64, subject: &str, recorded_at: Millis, body: impl Into<Bytes>) -> Entry {
    Entry {
        sequence: position,
        subject: subject.into(),
        recorded_at,
        headers: Vec::new(),
        payload: body.into(),
    }
}

/// The activation marker of a revision.
fn marker(position: u64, recorded_at: Millis, revision: u64) -> Entry {
    let body = format!(r#"{{"revision":{revision},"digest":"{}"}}"#, Digest::ZERO);
    message(position, "lane.0.terms", recorded_at, body)
}

/// A batch of `acme` with these wagers.
fn batch(source: &str, sequence: u64, wagers: &[String]) -> String {
    format!(
        r#"{{"schema":"wager-batch/1","operator":"acme","source":"{source}","sequence":{sequence},"wagers":[{}]}}"#,
        wagers.join(",")
    )
}

/// The wager of the contract's example.
fn wager(session: &str, interaction: u64) -> String {
    format!(
        r#"{{"session":"{session}","interaction":{interaction},"player":"p-6f1c","game":"quick-spin-7","round":"r-99812","amount":"2.50","currency":"EUR","funds":"cash","opt_in":true,"occurred_at":"2026-06-08T20:15:30.123Z","location":{{"jurisdiction":"MT","checked_at":"2026-06-08T20:01:00.000Z"}},"hits":[{{"pool":"mega","level":"grand"}}]}}"#
    )
}

/// Cuts an ingress into frames as the runner does it, `cuts` batches each while it lasts, and as many as fit then.
/// Every frame goes through its message, and is folded from there.
fn run(state: &mut State, revisions: &[Terms], ingress: &[Entry], cuts: &[usize]) -> Vec<Frame<Validated>> {
    let compiled = |revision| {
        let terms = revisions.iter().find(|terms| terms.revision == revision).cloned();
        CompiledTerms::with_keys(&terms.unwrap_or_else(Terms::none), &keys())
    };
    let mut queue: Vec<ParsedMessage> = ingress.iter().map(parse).collect();
    let mut terms = compiled(state.tail().terms);
    let mut frames = Vec::new();
    loop {
        let most = cuts.get(frames.len()).copied().unwrap_or(usize::MAX);
        let mut cutter = Cutter::new(state, &terms, LATENESS_MS);
        let (mut turn, mut batches) = (None, 0);
        for message in &queue {
            match cutter.take(message) {
                Taken::In => batches += usize::from(matches!(message.content, Content::Batch(_))),
                Taken::Full => break,
                Taken::Turn(marker) => {
                    turn = Some(marker.revision).filter(|_| cutter.is_empty());
                    break;
                }
            }
            if batches == most {
                break;
            }
        }
        if let Some(revision) = turn {
            terms = compiled(revision);
            continue;
        }
        let Some(frame) = cutter.finish() else { return frames };
        let message = frame.encode();
        assert!(message.len() <= jackpot_core::limits::MESSAGE_BYTES_MAX);
        let stored = Frame::decode(&message).expect("a frame is read back");
        assert_eq!(stored, frame, "a frame is what its message says");
        state.fold(&stored, Digest::of(&message), &terms).expect("an own frame folds");
        queue.retain(|message| message.position > state.tail().ingress.position);
        frames.push(stored);
    }
}

/// What became of each batch, in words: independent of frames and of the numbers of symbols.
fn outcomes(frames: &[Frame<Validated>]) -> Vec<String> {
    let mut outcomes = Vec::new();
    for frame in frames {
        let name = |symbol| frame.body.symbols.name(symbol);
        let mut contents = frame.body.contents.iter();
        for batch in &frame.body.batches {
            let mut text = format!(
                "@{} {} {} {:?} r{}: ",
                batch.position,
                name(batch.operator),
                name(batch.source),
                batch.recorded_at,
                frame.header.terms
            );
            match &batch.verdict {
                Verdict::Refused(refused) => text.push_str(&format!("{refused:?}")),
                Verdict::Accepted(accepted) => {
                    let content = contents.next().expect("an accepted batch has its content");
                    text.push_str(&format!("{} {content:?} {:?} ", accepted.sequence, accepted.gaps));
                    for wager in &accepted.wagers {
                        let (game, currency) = (name(wager.game), name(wager.currency));
                        let place = wager.location.and_then(|place| place.jurisdiction).map(name);
                        let plain = Wager {
                            game: Symbol(0),
                            currency: Symbol(0),
                            location: None,
                            hits: None,
                            ..*wager
                        };
                        text.push_str(&format!("{plain:?} {game} {currency} {place:?} "));
                        for claim in wager.hits.iter().flat_map(|hits| &hits.claims) {
                            if let HitClaim::Level { pool, level } = claim {
                                text.push_str(&format!("{}.{} ", name(*pool), name(*level)));
                            }
                        }
                    }
                    text.push_str(&format!("{:?}", accepted.refusals));
                }
            }
            outcomes.push(text);
        }
    }
    outcomes
}

/// Frames as they are stored, folded into a fresh state, for which no key is needed.
fn replay(mut state: State, revisions: &[Terms], frames: &[Frame<Validated>]) -> State {
    for frame in frames {
        let terms = revisions.iter().find(|terms| terms.revision == frame.header.terms).cloned();
        let terms = CompiledTerms::new(&terms.unwrap_or_else(Terms::none));
        state.fold(frame, Digest::of(&frame.encode()), &terms).expect("a stored frame folds");
    }
    state
}
