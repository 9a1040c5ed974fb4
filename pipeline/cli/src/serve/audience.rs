//! Those who look on: one board, told to any number of readers. What has changed is written once for all of them, ten times
//! a second at most; a reader that missed some of it is given the whole board instead, so that nobody's queue ever holds
//! more than the message that it is about to take.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use jackpot_core::log::Entry;
use jackpot_core::time::Millis;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::exit;
use crate::live::board::Told;
use crate::live::{self, Board, Pulse};

/// How often readers are told what has changed, at most.
const BEAT: Duration = Duration::from_millis(100);
/// How often they are told at least, so that they know that this server is alive.
const BEAT_MAX: Duration = Duration::from_secs(1);
/// How often shares are told: they are many, and change slowly.
const SHARES_EVERY: Duration = Duration::from_secs(2);
/// Readers at once: what each may hold is one message of about a megabyte at most.
const READERS_MAX: usize = 512;
/// What a browser waits before it connects again.
const RETRY: &str = "retry: 1000\n\n";

/// The board and its readers.
pub struct Audience {
    stage: Mutex<Stage>,
    beats: watch::Sender<Beat>,
    readers: AtomicUsize,
}

/// What is shown.
#[derive(Default)]
struct Stage {
    board: Board,
    pulse: Option<Pulse>,
    /// Why the broker cannot be followed just now.
    trouble: Option<String>,
    /// The number of the last beat.
    beat: u64,
    /// A board was put in another's place: whoever knows that one must be told everything.
    anew: bool,
    /// The whole board as it was written last: when, and behind which beat.
    whole: Option<(Instant, u64, Bytes)>,
}

/// What has changed since the beat before, as every reader is told it.
#[derive(Debug, Clone, Default)]
struct Beat {
    number: u64,
    /// The whole board must be told instead.
    anew: bool,
    event: Bytes,
}

/// A message to a reader.
#[derive(Serialize)]
struct Message<'a> {
    beat: u64,
    /// The broker's time; `None` before it was heard.
    now: Option<Millis>,
    /// Why what is shown is stale, where it is.
    stale: Option<&'a str>,
    #[serde(flatten)]
    told: &'a Told<'a>,
}

impl Default for Audience {
    fn default() -> Self {
        Self {
            stage: Mutex::default(),
            beats: watch::Sender::new(Beat::default()),
            readers: AtomicUsize::new(0),
        }
    }
}

impl Audience {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new board, in place of what was there.
    pub fn begin(&self, board: Board, pulse: Pulse) {
        let mut stage = self.stage();
        let Stage { beat, .. } = *stage;
        *stage = Stage { board, pulse: Some(pulse), beat, anew: true, ..Stage::default() };
    }

    /// A commit has come.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn commit(&self, entry: &Entry, pulse: Pulse) -> anyhow::Result<()> {
        let mut stage = self.stage();
        stage.pulse = Some(pulse);
        stage.board.commit(entry)
    }

    /// The broker has told its time.
    pub fn pulse(&self, pulse: Pulse) {
        self.stage().pulse = Some(pulse);
    }

    /// The broker cannot be followed just now.
    pub fn trouble(&self, error: &anyhow::Error) {
        self.stage().trouble = Some(exit::sentence(error));
    }

    /// Why what is shown is stale; `None` while it is not.
    pub fn stale(&self) -> Option<String> {
        self.stage().stale()
    }

    /// The whole state, for programs.
    pub fn state(&self) -> Bytes {
        self.stage().whole().1
    }

    /// Tells readers what has changed, for ever.
    pub async fn beat(self: Arc<Self>) {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut told, mut shares) = (Instant::now(), Instant::now());
        loop {
            beats.tick().await;
            if self.beats.receiver_count() == 0 {
                continue;
            }
            let mut stage = self.stage();
            if stage.anew || stage.board.changed() || told.elapsed() >= BEAT_MAX {
                let with_shares = shares.elapsed() >= SHARES_EVERY;
                let beat = stage.beat(with_shares);
                drop(stage);
                told = Instant::now();
                shares = if with_shares { told } else { shares };
                self.beats.send_replace(beat);
            }
        }
    }

    /// One more reader: its messages, from the whole state on. `None` where there are too many.
    pub fn join(
        self: &Arc<Self>,
    ) -> Option<impl Stream<Item = Result<Bytes, std::convert::Infallible>> + use<>> {
        let seat = Seat::take(self)?;
        let reader = Reader { beats: self.beats.subscribe(), seat, seen: None };
        Some(stream::unfold(reader, |mut reader| async move {
            let event = reader.next().await?;
            Some((Ok(event), reader))
        }))
    }
}

impl Stage {
    fn stale(&self) -> Option<String> {
        live::stale(&self.board, self.pulse, self.trouble.as_deref())
    }

    /// How a message is written just now.
    fn writer(&self) -> impl Fn(&Told<'_>) -> Bytes + use<> {
        let (beat, now, stale) = (self.beat, self.pulse.map(|pulse| pulse.now()), self.stale());
        move |told| {
            let message = Message { beat, now, stale: stale.as_deref(), told };
            serde_json::to_vec(&message).expect("what was read as JSON is written as JSON").into()
        }
    }

    /// The next beat.
    fn beat(&mut self, shares: bool) -> Beat {
        self.beat += 1;
        let (anew, write) = (std::mem::take(&mut self.anew), self.writer());
        let told = |told: &Told<'_>| if anew { Bytes::new() } else { event(&write(told)) };
        Beat { number: self.beat, anew, event: self.board.take_changes(shares, told) }
    }

    /// The whole board, no older than a beat, and the number of the last beat before it.
    fn whole(&mut self) -> (u64, Bytes) {
        let known = self.whole.as_ref().filter(|(at, beat, _)| *beat == self.beat && at.elapsed() < BEAT);
        let whole = match known {
            Some((.., whole)) => whole.clone(),
            None => {
                let whole = self.writer()(&self.board.whole());
                self.whole = Some((Instant::now(), self.beat, whole.clone()));
                whole
            }
        };
        (self.beat, whole)
    }
}

/// The event that carries a message: each of its lines on a line of its own.
fn event(message: &[u8]) -> Bytes {
    let mut event = Vec::with_capacity(message.len() + 16);
    for line in message.split(|&c| c == b'\n') {
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(line);
        event.push(b'\n');
    }
    event.push(b'\n');
    event.into()
}

/// A reader's place, given back when the reader has gone.
struct Seat(Arc<Audience>);

impl Seat {
    fn take(audience: &Arc<Audience>) -> Option<Self> {
        let one_more = |readers| (readers < READERS_MAX).then_some(readers + 1);
        let taken = audience.readers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.ok().map(|_| Self(audience.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A reader, and the last beat that it knows of. Its next message is written when it is ready to take it.
struct Reader {
    beats: watch::Receiver<Beat>,
    seat: Seat,
    seen: Option<u64>,
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        let Some(seen) = self.seen else {
            return Some([RETRY.as_bytes(), &self.whole()].concat().into());
        };
        loop {
            self.beats.changed().await.ok()?;
            let beat = self.beats.borrow_and_update().clone();
            if beat.number <= seen {
                continue;
            }
            if beat.number > seen + 1 || beat.anew {
                return Some(self.whole());
            }
            self.seen = Some(beat.number);
            return Some(beat.event);
        }
    }

    fn whole(&mut self) -> Bytes {
        let (beat, whole) = self.seat.0.stage().whole();
        self.seen = Some(beat);
        event(&whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::STALE_AFTER;

    /// A commit that leaves a level at that amount.
    fn commit(number: u64, current: &str) -> Entry {
        let level = serde_json::json!({
            "pool": "mega", "level": "grand", "currency": "EUR", "sequence": number, "commit": number, "terms": 1,
            "as_of": "2026-06-08T20:15:30.123Z", "current": current, "display": current, "base": "100",
            "ceiling": null, "pending": null, "reserve": "0", "diversion": "0", "wagers": 1, "wagered": "0",
            "contributed": "0", "paid": "0", "house": "100", "adjusted": "0", "hits": 0
        });
        let commit = serde_json::json!({
            "commit": number, "previous": "0".repeat(64), "terms": 1, "as_of": "2026-06-08T20:15:30.123Z",
            "partitions": [], "settings": {"seconds": [1], "max_skew_s": 300},
            "counts": {"windows": 0, "hits": 0, "changed": number}, "levels": [level], "windows": [], "hits": []
        });
        Entry {
            sequence: number,
            subject: "commits".into(),
            recorded_at: Millis(1_780_949_730_000),
            headers: Vec::new(),
            payload: commit.to_string().into(),
        }
    }

    /// What an event says: whether it is everything, the amounts, and why it is stale.
    fn read(event: &Bytes) -> (bool, Vec<String>, Option<String>) {
        let text = std::str::from_utf8(event).expect("text");
        let data = text.split_once("data: ").expect("data").1;
        let message: serde_json::Value = serde_json::from_str(data).expect("JSON");
        let levels = message["levels"].as_array().expect("levels").iter();
        let amounts = levels.map(|level| level["current"].as_str().expect("an amount").to_owned());
        let stale = message["stale"].as_str().map(str::to_owned);
        (message["whole"].as_bool().expect("whole"), amounts.collect(), stale)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gets_the_present_state_and_nothing_of_what_it_missed() {
        let audience = Arc::new(Audience::default());
        let beating = tokio::spawn(audience.clone().beat());
        let pulse = Pulse::new(Millis(1_780_949_730_000));
        audience.begin(Board::default(), pulse);
        audience.commit(&commit(1, "100"), pulse).expect("a commit");
        let reader = || Reader {
            beats: audience.beats.subscribe(),
            seat: Seat::take(&audience).expect("a seat"),
            seen: None,
        };
        let (mut fast, mut slow) = (reader(), reader());
        let first = |amount: &str| (true, vec![amount.to_owned()], None);
        assert_eq!(read(&fast.next().await.expect("a message")), first("100"));
        assert_eq!(read(&slow.next().await.expect("a message")), first("100"));
        assert_eq!(read(&fast.next().await.expect("a message")), first("100"), "the board was new");
        for number in 2..50 {
            audience.commit(&commit(number, &(100 + number).to_string()), pulse).expect("a commit");
            let (whole, amounts, _) = read(&fast.next().await.expect("a message"));
            assert_eq!((whole, amounts), (false, vec![(100 + number).to_string()]), "what has changed");
        }
        let (whole, amounts, _) = read(&slow.next().await.expect("a message"));
        assert_eq!((whole, amounts), (true, vec!["149".to_owned()]), "one message, whatever was missed");
        beating.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn without_commits_it_says_so_each_second() {
        let audience = Arc::new(Audience::default());
        let beating = tokio::spawn(audience.clone().beat());
        let pulse = Pulse::new(Millis(1_780_949_730_000));
        audience.begin(Board::default(), pulse);
        audience.commit(&commit(1, "100"), pulse).expect("a commit");
        let mut reader = Reader {
            beats: audience.beats.subscribe(),
            seat: Seat::take(&audience).expect("a seat"),
            seen: None,
        };
        assert_eq!(read(&reader.next().await.expect("a message")).2, None);
        let began = Instant::now();
        while read(&reader.next().await.expect("a message")).2.is_none() {}
        let after = began.elapsed();
        assert!(after > STALE_AFTER && after < STALE_AFTER + 2 * BEAT_MAX, "{after:?}");
        assert!(audience.stale().is_some_and(|why| why.contains("has not committed")));
        audience.trouble(&anyhow::anyhow!("the broker has gone"));
        assert_eq!(read(&reader.next().await.expect("a message")).2.as_deref(), Some("the broker has gone"));
        beating.abort();
    }

    #[test]
    fn seats_are_bounded_and_given_back() {
        let audience = Arc::new(Audience::default());
        let mut seats: Vec<_> = std::iter::from_fn(|| Seat::take(&audience)).collect();
        assert_eq!(seats.len(), READERS_MAX);
        seats.pop();
        assert!(Seat::take(&audience).is_some());
    }

    #[test]
    fn an_event_keeps_the_lines_of_its_message() {
        assert_eq!(event(b"{\n}"), Bytes::from_static(b"data: {\ndata: }\n\n"));
    }
}
