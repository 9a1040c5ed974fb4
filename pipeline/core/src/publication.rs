//! Publishes what belongs to a frame before the frame is appended, each once (design, section 5, "Views").
//! Called by [`crate::runner`]. A subject belongs to one partition; its last message tells, after a restart,
//! what of a frame is there already. Every message is fenced by its subject's last one, and they go in log order.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::limits;
use crate::log::{Append, Appender, Expect, Log};
use crate::recovery::Trouble;
use crate::stage::{Contradiction, Place, Publication};

/// How many [`runs`] are appended one after the other; more go as an atomic batch. For that the broker makes a store of
/// its own, with files and their fsync, which costs it as much as some fifty messages.
const RUNS_MAX: usize = 8;

/// The last message of each subject, as far as it is known.
pub struct Publisher<L: Log> {
    log: L,
    stream: &'static str,
    /// `None` until something is published, and after trouble.
    appender: Option<L::Appender>,
    /// Bounded by `limits::SUBJECTS_REMEMBERED`; what is forgotten is asked for again.
    last: BTreeMap<String, (u64, Option<Place>)>,
}

/// What every publication's body says of its place.
#[derive(Deserialize)]
struct Placed {
    frame: u64,
    number: u32,
}

impl<L: Log> Publisher<L> {
    /// A publisher to one stream that knows nothing yet.
    pub fn new(log: L, stream: &'static str) -> Self {
        Self { log, stream, appender: None, last: BTreeMap::new() }
    }

    /// Publishes those of `publications`, which are in order, that are not there yet.
    pub async fn publish(&mut self, publications: Vec<Publication>) -> Result<(), Trouble> {
        let mut due = Vec::with_capacity(publications.len());
        for publication in publications {
            let (_, place) = self.last_of(&publication.subject).await?;
            if place.is_none_or(|place| place < publication.place) {
                due.push(publication);
            }
        }
        let appended = self.append(&due).await;
        if appended.is_err() {
            self.last.clear();
            self.appender = None;
        }
        appended
    }

    async fn last_of(&mut self, subject: &str) -> Result<(u64, Option<Place>), Trouble> {
        if let Some(&last) = self.last.get(subject) {
            return Ok(last);
        }
        if self.last.len() >= limits::SUBJECTS_REMEMBERED {
            self.last.clear();
        }
        let last = match self.log.last(self.stream, subject).await? {
            None => (0, None),
            Some(entry) => {
                let placed: Placed = serde_json::from_slice(&entry.payload).map_err(|error| {
                    Contradiction(format!(
                        "message {} of {} does not say where it belongs ({error}): something else published it; \
                         remove it, and let nobody but the audit publish there",
                        entry.sequence, self.stream
                    ))
                })?;
                (entry.sequence, Some(Place { frame: placed.frame, number: placed.number }))
            }
        };
        self.last.insert(subject.to_owned(), last);
        Ok(last)
    }

    async fn append(&mut self, due: &[Publication]) -> Result<(), Trouble> {
        let runs = runs(due);
        if runs.len() <= RUNS_MAX {
            for run in runs {
                self.append_run(run).await?;
            }
        } else {
            for chunk in due.chunks(limits::ATOMIC_BATCH_MAX) {
                self.append_whole(chunk).await?;
            }
        }
        Ok(())
    }

    /// One after the other, without waiting in between: no two have the same subject.
    async fn append_run(&mut self, run: &[Publication]) -> Result<(), Trouble> {
        let mut appender = match self.appender.take() {
            Some(appender) => appender,
            None => self.log.appender().await?,
        };
        for publication in run {
            let (last, _) = self.last_of(&publication.subject).await?;
            appender.send(append(publication, Expect::LastOfSubject(last))).await?;
        }
        for publication in run {
            let sequence = appender.acknowledged().await?;
            self.last.insert(publication.subject.clone(), (sequence, Some(publication.place)));
        }
        self.appender = Some(appender);
        Ok(())
    }

    /// All of a chunk or nothing; the first message on each subject is fenced by the subject's last.
    async fn append_whole(&mut self, chunk: &[Publication]) -> Result<(), Trouble> {
        let mut fenced = BTreeSet::new();
        let mut appends = Vec::with_capacity(chunk.len());
        for publication in chunk {
            let expect = if fenced.insert(publication.subject.as_str()) {
                let (sequence, _) = self.last_of(&publication.subject).await?;
                Expect::LastOfSubject(sequence)
            } else {
                Expect::Any
            };
            appends.push(append(publication, expect));
        }
        let last = self.log.append_atomic(appends).await?;
        let first = last + 1 - u64::try_from(chunk.len()).expect("a chunk is small");
        for (publication, sequence) in chunk.iter().zip(first..) {
            self.last.insert(publication.subject.clone(), (sequence, Some(publication.place)));
        }
        Ok(())
    }
}

fn append(publication: &Publication, expect: Expect) -> Append {
    let Publication { subject, payload, .. } = publication;
    Append { subject: subject.clone(), headers: Vec::new(), payload: payload.clone(), expect }
}

/// Cuts publications, in their order, into the fewest parts in which each subject comes once at most: within one, every
/// fence is known before anything is acknowledged.
fn runs(publications: &[Publication]) -> Vec<&[Publication]> {
    let (mut runs, mut seen, mut begin) = (Vec::new(), BTreeSet::new(), 0);
    for (place, publication) in publications.iter().enumerate() {
        if !seen.insert(publication.subject.as_str()) {
            runs.push(&publications[begin..place]);
            (begin, seen) = (place, BTreeSet::from([publication.subject.as_str()]));
        }
    }
    runs.extend((begin < publications.len()).then(|| &publications[begin..]));
    runs
}
