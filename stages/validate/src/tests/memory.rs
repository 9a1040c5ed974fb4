//! What is remembered of sources and sessions, at the edges that the contract names (section 3).

use jackpot_core::limits;
use jackpot_core::refusal::Reason;

use super::*;
use crate::alarms::alarms;
use crate::cut::tally;

const HOUR_MS: i64 = 3_600_000;

/// A source that publishes batch after batch of one wager, and what becomes of them.
struct Sender {
    state: State,
    revisions: Vec<Terms>,
    position: u64,
    at: Millis,
    /// Of the last frame.
    alarms: Vec<String>,
    gaps: u64,
    conflicts: u64,
}

impl Sender {
    fn new() -> Self {
        Self::with(State::new(0))
    }

    fn with(state: State) -> Self {
        let (alarms, at) = (Vec::new(), RECORDED_AT);
        let mut sender =
            Self { state, revisions: Vec::new(), position: 0, at, alarms, gaps: 0, conflicts: 0 };
        sender.apply(terms(1, [None; 2]));
        sender
    }

    /// Puts a revision in force with the next batch.
    fn apply(&mut self, terms: Terms) {
        self.revisions.push(terms);
    }

    /// Publishes a body on the subject of a source: `ok`, or the reason and the detail of its refusal, or of that of
    /// its first refused wager.
    fn publish(&mut self, source: &str, body: String) -> String {
        self.position += 2;
        let revision = self.revisions.last().expect("there are terms").revision;
        let subject = format!("lane.0.acme.{source}");
        let ingress =
            [marker(self.position, self.at, revision), message(self.position + 1, &subject, self.at, body)];
        let frames = run(&mut self.state, &self.revisions, &ingress, &[]);
        let [frame] = &frames[..] else { panic!("one batch is one frame") };
        let tally = tally(&frame.body);
        self.alarms = alarms(&frame.body);
        self.gaps += tally.gaps;
        self.conflicts += tally.conflicts;
        match &frame.body.batches[0].verdict {
            Verdict::Refused(refused) => format!("{}: {}", refused.reason, refused.detail),
            Verdict::Accepted(accepted) => match &accepted.refusals[..] {
                [] => "ok".to_owned(),
                [refusal, ..] => format!("{}: {}", refusal.reason, refusal.detail),
            },
        }
    }

    /// Publishes batch `sequence` of `eu1`, whose one wager is of a session of its own.
    fn send(&mut self, sequence: u64) -> String {
        let own = wager(&format!("s{sequence}"), 1);
        self.publish("eu1", batch("eu1", sequence, &[own]))
    }

    #[track_caller]
    fn accepted(&mut self, sequence: u64) {
        assert_eq!(self.send(sequence), "ok", "{sequence}");
    }

    #[track_caller]
    fn refused(&mut self, sequence: u64, reason: Reason) {
        let told = self.send(sequence);
        assert!(told.starts_with(&format!("{reason}: ")), "{sequence}: {told}");
    }

    /// Publishes interaction `number` of a session in a new batch, of a source that publishes nothing else.
    #[track_caller]
    fn interaction(&mut self, source: &str, session: &str, number: u64, expect: &str) {
        let body = batch(source, self.position + 1, &[wager(session, number)]);
        let told = self.publish(source, body);
        let told = told.split(':').next().expect("a word");
        assert_eq!(told, expect, "{number} of {session}");
    }
}

const REPEAT: &str = "duplicate_interaction";

#[test]
fn numbers_are_awaited_in_whatever_order_within_1024() {
    let mut sender = Sender::new();
    sender.accepted(10_000);
    // The first accepted batch sets the start, and those just below it are still new.
    sender.accepted(9_999);
    sender.accepted(8_976);
    sender.refused(8_975, Reason::StaleSequence);
    sender.refused(8_976, Reason::DuplicateBatch);
    sender.accepted(10_003);
    sender.refused(8_976, Reason::StaleSequence);
    sender.refused(8_978, Reason::StaleSequence);
    sender.accepted(8_979);
    sender.accepted(10_002);
    sender.refused(10_002, Reason::DuplicateBatch);
    sender.refused(10_003, Reason::DuplicateBatch);
    sender.accepted(10_001);
    // Only accepted batches are remembered: what was refused as a jump is as new as before.
    sender.refused(1_010_004, Reason::SequenceJump);
    sender.refused(1_010_004, Reason::SequenceJump);
    sender.accepted(1_010_003);
    sender.accepted(1_010_004);
}

#[test]
fn a_batch_that_was_refused_is_new_under_its_number() {
    let mut sender = Sender::new();
    let good = batch("eu1", 7, &[wager("s", 1)]);
    let told = sender.publish("eu1", good.replace("wager-batch/1", "wager-batch/2"));
    assert!(told.starts_with("unsupported_schema"), "{told}");
    let told = sender.publish("eu1", good.replace("\"wagers\":[", "\"wagers\":[],\"x\":["));
    assert!(told.starts_with("malformed"), "{told}");
    assert_eq!(sender.publish("eu1", good), "ok");
}

#[test]
fn of_the_last_16_batches_the_content_is_known() {
    let mut sender = Sender::new();
    for sequence in 1..=17 {
        sender.accepted(sequence);
    }
    let same =
        "duplicate_batch: sequence 2 was accepted before, with the same content; there is nothing to do";
    assert_eq!(sender.send(2), same, "the sixteenth from the end");
    assert_eq!(
        sender.send(1),
        "duplicate_batch: sequence 1 was accepted before; its content is no longer remembered"
    );
    assert_eq!((sender.conflicts, &sender.alarms[..]), (0, &[][..]), "neither is alarming");
    let other = batch("eu1", 2, &[wager("another", 1)]);
    assert_eq!(
        sender.publish("eu1", other),
        "duplicate_batch: sequence 2 was accepted before, with other content; give every new batch the next number"
    );
    assert_eq!(sender.conflicts, 1);
    assert_eq!(sender.alarms.len(), 1);
    assert!(sender.alarms[0].starts_with("batch eu1/2 came again with other content"), "{:?}", sender.alarms);
}

#[test]
fn numbers_that_leave_the_window_unseen_are_a_gap_with_an_alarm() {
    let mut sender = Sender::new();
    for sequence in [1, 2, 5, 6, 8] {
        sender.accepted(sequence);
    }
    sender.accepted(1_027);
    assert_eq!(sender.gaps, 0, "3 can still come");
    sender.accepted(1_029);
    assert_eq!(sender.gaps, 1);
    assert!(sender.alarms[0].contains("source eu1 never came"), "{:?}", sender.alarms);
    assert!(sender.alarms[0].contains(": 3 to 4 (2 in all);"), "{:?}", sender.alarms);
    sender.refused(4, Reason::StaleSequence);
    sender.accepted(500_000);
    assert_eq!(sender.gaps, 5, "7, 9 to 1026, 1028, and 1030 to 498975");
    assert!(sender.alarms[0].contains(": 7, 9 to 1026, 1028, 1030 to 498975 ("), "{:?}", sender.alarms);
}

#[test]
fn a_new_start_in_the_terms_forgets_the_numbers_and_nothing_else() {
    let mut sender = Sender::new();
    sender.accepted(500);
    sender.apply(terms(2, [Some(100), None]));
    sender.refused(99, Reason::StaleSequence);
    sender.accepted(101);
    // The number is new again; its session is not.
    sender.refused(500, Reason::DuplicateInteraction);
    sender.refused(500, Reason::DuplicateBatch);
    // The same start again, or none at all, forgets nothing.
    sender.apply(terms(3, [Some(100), None]));
    sender.refused(500, Reason::DuplicateBatch);
    sender.apply(terms(4, [None; 2]));
    sender.refused(500, Reason::DuplicateBatch);
    // A counter that went wild comes back, and from the new start on a jump is one again.
    sender.accepted(1_000_500);
    sender.apply(terms(5, [Some(501), None]));
    sender.refused(1_000_501, Reason::SequenceJump);
    sender.accepted(501);
    sender.accepted(1_000_501);
}

#[test]
fn a_source_that_the_terms_drop_keeps_its_memory() {
    let mut sender = Sender::new();
    sender.accepted(7);
    let mut without = terms(2, [None; 2]);
    without.sources.retain(|source| source.source != "eu1");
    sender.apply(without);
    sender.refused(8, Reason::UnknownSource);
    sender.apply(terms(3, [None; 2]));
    sender.refused(7, Reason::DuplicateBatch);
    sender.accepted(8);
    let told = sender.publish("eu1", batch("eu1", 9, &[wager("s7", 1)]));
    assert!(told.starts_with(REPEAT), "{told}");
}

#[test]
fn of_a_session_64_interactions_below_the_highest_are_known() {
    let mut sender = Sender::new();
    sender.interaction("eu2", "s", 100, "ok");
    sender.interaction("eu2", "s", 100, REPEAT);
    sender.interaction("eu2", "s", 36, "ok");
    sender.interaction("eu2", "s", 36, REPEAT);
    sender.interaction("eu2", "s", 35, REPEAT);
    sender.interaction("eu2", "s", 101, "ok");
    sender.interaction("eu2", "s", 36, REPEAT);
    sender.interaction("eu2", "s", 37, "ok");
    sender.interaction("eu2", "s", 164, "ok");
    sender.interaction("eu2", "s", 100, REPEAT);
    sender.interaction("eu2", "s", 102, "ok");
    sender.interaction("eu2", "s", 1_000_000_000_000, "ok");
    sender.interaction("eu2", "s", 999_999_999_936, "ok");
    sender.interaction("eu2", "s", 999_999_999_935, REPEAT);
    // A session is known by its source, too.
    sender.interaction("eu1", "s", 1_000_000_000_000, "ok");
    sender.interaction("eu2", "t", 100, "ok");
}

#[test]
fn a_session_is_remembered_for_12_hours_of_receive_times() {
    let mut sender = Sender::new();
    sender.interaction("eu2", "s", 5, "ok");
    sender.at = RECORDED_AT.plus(12 * HOUR_MS);
    sender.interaction("eu2", "s", 5, REPEAT);
    sender.interaction("eu2", "s", 6, "ok");
    sender.at = RECORDED_AT.plus(24 * HOUR_MS);
    sender.interaction("eu2", "s", 5, REPEAT);
    sender.at = RECORDED_AT.plus(24 * HOUR_MS + 1);
    sender.interaction("eu2", "s", 5, "ok");
    // A broker's clock that goes back takes nothing back.
    sender.at = RECORDED_AT;
    sender.interaction("eu2", "s", 5, REPEAT);
}

#[test]
fn the_longest_idle_session_is_forgotten_first() {
    assert_eq!(limits::SESSIONS_PER_SOURCE_MAX, 1_000_000);
    let mut sender = Sender::with(State::with_sessions_max(0, 2));
    sender.interaction("eu2", "a", 1, "ok");
    sender.interaction("eu2", "b", 1, "ok");
    sender.interaction("eu2", "a", 2, "ok");
    sender.interaction("eu1", "c", 1, "ok");
    sender.interaction("eu2", "a", 1, REPEAT);
    sender.interaction("eu2", "c", 1, "ok");
    sender.interaction("eu2", "a", 1, REPEAT);
    sender.interaction("eu2", "b", 1, "ok");
}
