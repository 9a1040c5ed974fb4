//! The books of all pools, commit by commit: frames in, the message of a commit out; and the same again from the
//! record ([`Books::replay`]). The runner calls it, one commit at a time, and appends what it gives.
//! What the books do is a function of what is handed in (invariant I1); they never wait for anything but their own
//! worker threads.

use std::collections::VecDeque;
use std::sync::Arc;

use jackpot_core::digest::Digest;
use jackpot_core::frame::Frame;
use jackpot_core::frame::contributions::{Contributions, Posting};
use jackpot_core::record::{Commit, Consumed, Counts, WindowSettings};
use jackpot_core::snapshot::{Frozen, Saved, Unreadable, piece};
use jackpot_core::stage::Contradiction;
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;
use serde::{Deserialize, Serialize};

use crate::commit::{self, Committed, Cut, Queued, Stamp};
use crate::dataflow::{Dataflow, Pools, StartError};
use crate::ledger::{Outcome, PaidHit, PoolLedger};
use crate::postings::{Entry, Register, Taken, Turn};
use crate::windows::{self, SettingsError};

/// What a commit is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInput {
    /// Its number: one more than the last.
    pub number: u64,
    /// The digest of the last commit's message; zeros before the first.
    pub previous: Digest,
    /// The next frames of each partition, each partition's in order. Log order is by partition, then frame,
    /// whatever the order here.
    pub frames: Vec<Taken>,
    /// Per partition, the watermark of its last idle notice, if that counts now. The books take the greatest
    /// of this, the headers of the frames, and what they went by before.
    pub watermarks: Vec<Option<Millis>>,
    /// The revision of the terms that this commit takes up at its beginning: the highest that one of the frames,
    /// or an idle notice, names, if it is higher than [`Books::terms`].
    pub terms: Option<Arc<Terms>>,
}

/// Why the books could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BooksError {
    /// The settings of windows.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The workers.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Why a snapshot of the books is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ThawError {
    /// Its content.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The settings.
    #[error(
        "the books keep windows of {kept:?} seconds and the settings say {set:?}; the first commit fixes the lengths, set them to those"
    )]
    Lengths {
        /// What the snapshot says.
        kept: Vec<u32>,
        /// What the settings say.
        set: Vec<u32>,
    },
    /// The workers.
    #[error(transparent)]
    Start(#[from] BooksError),
}

/// The version of the form of the ledger's snapshots. A build reads those before its own too.
pub const SNAPSHOT_FORMAT: u16 = 1;

/// A copy is kept of what the books were before every so manieth commit: more rarely, and a commit that was made in
/// vain costs more to compute again; more often, and copying would be felt.
const KEEP_EVERY: u64 = 256;

/// The books.
pub struct Books {
    workers: usize,
    settings: WindowSettings,
    dataflow: Dataflow,
    state: State,
    /// A copy is kept before the next commit, whenever the last one was.
    keep_next: bool,
    /// What the books were some commits ago; `None` at first.
    kept: Option<Arc<Kept>>,
}

/// What the books were at the end of a commit.
struct Kept {
    state: State,
    pools: Pools,
}

/// All of the books but the pools, which are in the dataflow.
#[derive(Clone, Default, Serialize, Deserialize)]
struct State {
    register: Register,
    number: u64,
    digest: Digest,
    terms: u64,
    as_of: Option<Millis>,
    partitions: Vec<Consumed>,
    /// The watermark that windows have been closed by.
    watermark: Option<Millis>,
    counts: Counts,
    /// Closed windows that are not published yet, in the order in which they will be.
    queue: VecDeque<Queued>,
}

impl Books {
    /// Opens empty books, before commit 1, over `workers` threads.
    pub fn start(workers: usize, partitions: u16, settings: WindowSettings) -> Result<Self, BooksError> {
        windows::check(&settings)?;
        let dataflow = Dataflow::start(workers, &settings.seconds, Vec::new())?;
        let partitions = vec![Consumed::default(); usize::from(partitions)];
        let state = State { partitions, ..State::default() };
        Ok(Self { workers, settings, dataflow, state, keep_next: false, kept: None })
    }

    /// Keeps a copy before the next commit, for a snapshot.
    pub fn keep_next(&mut self) {
        self.keep_next = true;
    }

    /// The books as they were before one of the last [`KEEP_EVERY`] commits, to go on from there by replay when what
    /// was made of them since was not stored; `None` where nothing was kept yet.
    pub fn rewind(self) -> Result<Option<Self>, BooksError> {
        let Self { workers, settings, kept, .. } = self;
        let Some(kept) = kept else { return Ok(None) };
        Self::open(workers, settings, kept).map(Some)
    }

    /// Books as they were at the end of a commit.
    fn open(workers: usize, settings: WindowSettings, kept: Arc<Kept>) -> Result<Self, BooksError> {
        let dataflow = Dataflow::start(workers, &settings.seconds, kept.state.register.routed(&kept.pools))?;
        let state = kept.state.clone();
        Ok(Self { workers, settings, dataflow, state, keep_next: false, kept: Some(kept) })
    }

    /// The commit of the copy that [`Books::freeze`] gives; 0 where there is none.
    pub fn kept(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.state.number)
    }

    /// The copy of what the books were some commits ago, for a snapshot: all but the pools, their number, then each.
    pub fn freeze(&self) -> Option<Frozen> {
        let kept = self.kept.clone()?;
        let (state, pools) = (&kept.state, kept.pools.len());
        let (frame, digest) = (state.number, state.digest);
        let read = state.partitions.iter().map(|consumed| consumed.frame).collect();
        let head = piece(&(&self.settings.seconds, state, pools));
        let pieces = (0..pools).map(move |place| {
            let pool = kept.pools.values().nth(place).expect("there are so many");
            piece(pool)
        });
        let pieces = Box::new(std::iter::once(head).chain(pieces));
        Some(Frozen { frame, digest, read, format: SNAPSHOT_FORMAT, pieces })
    }

    /// Takes back what [`Books::freeze`] gave; the windows' lengths are those that it was kept with.
    pub fn thaw(workers: usize, settings: &WindowSettings, mut saved: Saved<'_>) -> Result<Self, ThawError> {
        let (seconds, state, count): (Vec<u32>, State, usize) = saved.take()?;
        let mut pools = Pools::new();
        for _ in 0..count {
            let pool: PoolLedger = saved.take()?;
            pools.insert(pool.number(), pool);
        }
        saved.finish()?;
        if seconds != settings.seconds {
            return Err(ThawError::Lengths { kept: seconds, set: settings.seconds.clone() });
        }
        Ok(Self::open(workers, settings.clone(), Arc::new(Kept { state, pools }))?)
    }

    /// The number of the last commit; 0 before the first.
    pub fn number(&self) -> u64 {
        self.state.number
    }

    /// The digest of its message; zeros before the first.
    pub fn digest(&self) -> Digest {
        self.state.digest
    }

    /// The highest revision of the terms that has run; 0 before the first.
    pub fn terms(&self) -> u64 {
        self.state.terms
    }

    /// What of each partition has been consumed.
    pub fn partitions(&self) -> &[Consumed] {
        &self.state.partitions
    }

    /// How many closed windows wait to be published by the next commits.
    pub fn backlog(&self) -> usize {
        self.state.queue.len()
    }

    /// How the next commit decides which frames it takes.
    pub fn cut(&self) -> Cut {
        Cut::new(self.state.queue.front().map_or(0, |first| first.bytes))
    }

    /// Makes the next commit.
    ///
    /// # Errors
    /// When the frames do not continue what was consumed, or contradict the terms: nothing has happened then.
    /// Also when the commit would be larger than a message: then these books are of no further use.
    ///
    /// # Panics
    /// When an invariant of the ledger is broken.
    pub fn commit(&mut self, input: &CommitInput) -> Result<Committed, Contradiction> {
        self.check(input)?;
        let kept = self.kept.as_ref().map_or(0, |kept| kept.state.number);
        let keep = std::mem::take(&mut self.keep_next) || self.state.number >= kept + KEEP_EVERY;
        let before = keep.then(|| self.state.clone());
        let entries = self.entries(input)?;
        let turn = self.take(input);
        let (outcomes, pools) = self.dataflow.run(self.state.number, turn, entries, before.is_some());
        if let Some((state, pools)) = before.zip(pools) {
            self.kept = Some(Arc::new(Kept { state, pools }));
        }
        let committed = self.write(input, outcomes)?;
        self.state.digest = committed.digest;
        Ok(committed)
    }

    /// Why these frames, which continue what was consumed, could be in no commit; changes nothing.
    ///
    /// # Errors
    /// When they contradict the terms, of which `terms` would be taken up with them.
    pub fn examine<'a>(
        &self,
        mut frames: impl Iterator<Item = &'a Taken>,
        terms: Option<&Terms>,
    ) -> Result<(), Contradiction> {
        let mut register = self.state.register.clone();
        if let Some(terms) = terms {
            register.learn(terms)?;
        }
        frames.try_for_each(|taken| register.postings(&taken.frame).map(|_| ()))
    }

    /// Makes a recorded commit again, from its message, its frames and, where it is the first to run a
    /// revision, that revision's terms.
    ///
    /// # Errors
    /// As [`Books::commit`]; and when the frames are not those that the record names, or when the result is
    /// not the record: then these books are of no further use.
    pub fn replay(
        &mut self,
        message: &[u8],
        frames: Vec<Taken>,
        terms: Option<Arc<Terms>>,
    ) -> Result<Committed, Contradiction> {
        let recorded: Commit = serde_json::from_slice(message).map_err(|error| {
            Contradiction(format!(
                "the message after commit {} of the record cannot be read ({error}); run the build that wrote \
                 it, or restore the stream `commits`",
                self.state.number
            ))
        })?;
        self.check_record(&recorded, &frames)?;
        let ours = std::mem::replace(&mut self.settings, recorded.settings.clone());
        let watermarks = recorded.partitions.iter().map(|consumed| consumed.watermark).collect();
        let number = recorded.commit;
        let previous = recorded.previous;
        let made = self.commit(&CommitInput { number, previous, frames, watermarks, terms });
        self.settings = ours;
        let made = made?;
        if *made.message == *message {
            return Ok(made);
        }
        let place = difference(message, &made.message);
        Err(Contradiction(format!(
            "commit {number} computed again from its frames is not the one that is recorded: they differ first \
             at {place}; either a log was tampered with, or this build computes otherwise than the one that \
             wrote it"
        )))
    }

    /// Whether the input continues what these books have consumed.
    fn check(&self, input: &CommitInput) -> Result<(), Contradiction> {
        if input.number != self.state.number + 1 || input.previous != self.state.digest {
            return Err(Contradiction(format!(
                "commit {} after {} does not continue the books, which end with commit {} ({}); read the last \
                 commit again and replay",
                input.number, input.previous, self.state.number, self.state.digest
            )));
        }
        if input.watermarks.len() != self.state.partitions.len() {
            return Err(Contradiction(format!(
                "commit {} has watermarks of {} partitions and the books have {}; run every stage with the \
                 partitions that `init` was given",
                input.number,
                input.watermarks.len(),
                self.state.partitions.len()
            )));
        }
        let terms = input.terms.as_ref().map_or(self.state.terms, |terms| terms.revision);
        if input.terms.is_some() && terms <= self.state.terms {
            return Err(Contradiction(format!(
                "revision {terms} of the terms cannot be taken up after revision {}, which has run",
                self.state.terms
            )));
        }
        let mut partitions = self.state.partitions.clone();
        input.frames.iter().try_for_each(|taken| follow(&mut partitions, taken, terms))
    }

    /// Whether a record goes with these books and these frames.
    fn check_record(&self, recorded: &Commit, frames: &[Taken]) -> Result<(), Contradiction> {
        let number = recorded.commit;
        if recorded.settings.seconds != self.settings.seconds {
            return Err(Contradiction(format!(
                "commit {number} keeps windows of {:?} seconds and the settings say {:?}; the first commit \
                 fixes the lengths, set them to those",
                recorded.settings.seconds, self.settings.seconds
            )));
        }
        let mut partitions = self.state.partitions.clone();
        for Taken { digest, frame } in frames {
            if let Some(consumed) = partitions.get_mut(usize::from(frame.header.partition)) {
                *consumed = Consumed { frame: frame.header.sequence, digest: *digest, ..*consumed };
            }
        }
        let same = |(a, b): (&Consumed, &Consumed)| (a.frame, a.digest) == (b.frame, b.digest);
        if partitions.len() != recorded.partitions.len() {
            return Err(Contradiction(format!(
                "commit {number} records {} partitions and there are {}; run every stage with the partitions \
                 that `init` was given",
                recorded.partitions.len(),
                partitions.len()
            )));
        }
        match recorded.partitions.iter().zip(&partitions).position(|pair| !same(pair)) {
            None => Ok(()),
            Some(partition) => Err(Contradiction(format!(
                "commit {number} records frame {} ({}) of contributions-{partition} as the last it consumed, \
                 and the frames at hand end with {} ({}); restore the logs to one state",
                recorded.partitions[partition].frame,
                recorded.partitions[partition].digest,
                partitions[partition].frame,
                partitions[partition].digest
            ))),
        }
    }

    /// What the commit asks of each pool. Leaves the books as they were when the input is wrong.
    fn entries(&mut self, input: &CommitInput) -> Result<Vec<Entry>, Contradiction> {
        let mut entries = Vec::new();
        let mut learned = None;
        if let Some(terms) = &input.terms {
            let mut register = self.state.register.clone();
            entries = register.learn(terms)?;
            learned = Some(register);
        }
        let register = learned.as_mut().unwrap_or(&mut self.state.register);
        for taken in &input.frames {
            entries.extend(register.postings(&taken.frame)?);
        }
        if let Some(register) = learned {
            self.state.register = register;
        }
        Ok(entries)
    }

    /// Moves the books' position over the input, and says how event time stands.
    fn take(&mut self, input: &CommitInput) -> Turn {
        self.state.number = input.number;
        self.state.terms = input.terms.as_ref().map_or(self.state.terms, |terms| terms.revision);
        for (consumed, watermark) in self.state.partitions.iter_mut().zip(&input.watermarks) {
            consumed.watermark = consumed.watermark.max(*watermark);
        }
        for Taken { digest, frame } in &input.frames {
            let header = &frame.header;
            let consumed = &mut self.state.partitions[usize::from(header.partition)];
            consumed.frame = header.sequence;
            consumed.digest = *digest;
            consumed.watermark = consumed.watermark.max(header.watermark);
            self.state.as_of = self.state.as_of.max(Some(header.recorded_at));
        }
        let watermarks: Vec<_> = self.state.partitions.iter().map(|consumed| consumed.watermark).collect();
        let before = self.state.watermark;
        self.state.watermark = before.max(windows::effective(&watermarks, self.settings.max_skew_s));
        Turn {
            before: before.map(Millis::second),
            after: self.state.watermark.map(Millis::second),
            keep: false,
        }
    }

    /// Writes what the commit did.
    fn write(&mut self, input: &CommitInput, outcomes: Vec<Outcome>) -> Result<Committed, Contradiction> {
        let (mut levels, mut closed, mut paid) = (Vec::new(), Vec::new(), Vec::new());
        for outcome in outcomes {
            levels.extend(outcome.levels);
            closed.extend(outcome.windows);
            paid.extend(outcome.hits);
        }
        let stamp = Stamp { commit: self.state.number, terms: self.state.terms, as_of: self.state.as_of };
        let mut levels: Vec<_> = levels
            .iter()
            .map(|changed| commit::level_totals(stamp, self.state.register.pool(changed.pool), changed))
            .collect();
        levels.sort_unstable_by(|a, b| (&a.pool, &a.level).cmp(&(&b.pool, &b.level)));
        let mut closed: Vec<_> =
            closed.iter().map(|closed| commit::window(&self.state.register, closed)).collect();
        closed.sort_unstable_by(|a, b| {
            let place = |w: &jackpot_core::record::Window| (w.window_end, w.seconds);
            (place(a).0, &a.pool, &a.level, place(a).1).cmp(&(place(b).0, &b.pool, &b.level, place(b).1))
        });
        self.state.queue.extend(closed.into_iter().map(Queued::new));
        let hits = self.hits(input, paid);
        if !levels.is_empty() {
            self.state.counts.changed = self.state.number;
        }
        self.state.counts.hits += u64::try_from(hits.len()).expect("a count fits 64 bits");
        let mut made = Commit {
            commit: self.state.number,
            previous: input.previous,
            terms: self.state.terms,
            as_of: self.state.as_of,
            partitions: self.state.partitions.clone(),
            settings: self.settings.clone(),
            counts: self.state.counts,
            levels,
            windows: Vec::new(),
            hits,
        };
        commit::publish(&mut made, &mut self.state.queue);
        self.state.counts = made.counts;
        commit::seal(made)
    }

    /// The hits in log order, with what their frames say.
    fn hits(&self, input: &CommitInput, mut paid: Vec<PaidHit>) -> Vec<jackpot_core::record::Hit> {
        paid.sort_unstable_by_key(|paid| (paid.partition, paid.frame, paid.posting));
        let frame = |paid: &PaidHit| -> &Frame<Contributions> {
            let found = input.frames.iter().map(|taken| &taken.frame).find(|frame| {
                (frame.header.partition, frame.header.sequence) == (paid.partition, paid.frame)
            });
            found.expect("a hit comes from a frame of its commit")
        };
        paid.iter()
            .zip(0_u32..)
            .map(|(paid, order)| {
                let frame = frame(paid);
                let posting = usize::try_from(paid.posting).expect("a machine has at least 32 bits");
                let Posting::Hit(of) = &frame.body.postings[posting] else {
                    unreachable!("a hit was paid for a posting that is one")
                };
                let name = frame.body.symbols.name(frame.body.pools[usize::from(of.pool)].pool);
                commit::hit(self.state.number, order, self.state.register.named(name), paid, frame, of)
            })
            .collect()
    }
}

/// Whether a frame is the next of its partition, and its terms are in force; steps over it.
fn follow(partitions: &mut [Consumed], taken: &Taken, terms: u64) -> Result<(), Contradiction> {
    let header = &taken.frame.header;
    let (partition, frame) = (header.partition, header.sequence);
    let Some(consumed) = partitions.get_mut(usize::from(partition)) else {
        return Err(Contradiction(format!(
            "frame {frame} is of partition {partition}, which does not exist; run every stage with the \
             partitions that `init` was given"
        )));
    };
    if frame != consumed.frame + 1 || header.previous != consumed.digest {
        return Err(Contradiction(format!(
            "frame {frame} of contributions-{partition} does not follow frame {} ({}), the last that was \
             consumed; restore the log to the state that the record names",
            consumed.frame, consumed.digest
        )));
    }
    if header.terms > terms {
        return Err(Contradiction(format!(
            "frame {frame} of contributions-{partition} was made under revision {} of the terms, and the \
             commit runs revision {terms}; hand the revision in",
            header.terms
        )));
    }
    (consumed.frame, consumed.digest) = (frame, taken.digest);
    Ok(())
}

/// The first place at which two messages differ: `levels[3].current`.
fn difference(recorded: &[u8], made: &[u8]) -> String {
    let read = |message| serde_json::from_slice::<serde_json::Value>(message).ok();
    let place = match (read(recorded), read(made)) {
        (Some(recorded), Some(made)) => first_difference(&recorded, &made),
        _ => None,
    };
    place.unwrap_or_else(|| "its form, not its content".into())
}

fn first_difference(a: &serde_json::Value, b: &serde_json::Value) -> Option<String> {
    use serde_json::Value;
    let step = |key: String, inner: String| match inner.as_bytes().first() {
        None | Some(b'[') => format!("{key}{inner}"),
        Some(_) => format!("{key}.{inner}"),
    };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.cloned().find_map(|key| {
                let inner = match (a.get(&key), b.get(&key)) {
                    (Some(a), Some(b)) => first_difference(a, b)?,
                    _ => String::new(),
                };
                Some(step(key, inner))
            })
        }
        (Value::Array(a), Value::Array(b)) => {
            let inner = a.iter().zip(b).enumerate();
            let differs = inner.into_iter().find_map(|(i, (a, b))| Some((i, first_difference(a, b)?)));
            let longer = (a.len() != b.len()).then(|| (a.len().min(b.len()), String::new()));
            differs.or(longer).map(|(i, inner)| step(format!("[{i}]"), inner))
        }
        _ => (a != b).then(String::new),
    }
}
