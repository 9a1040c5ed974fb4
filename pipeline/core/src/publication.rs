//! Publishes what belongs to a frame before the frame is appended, each once (design, section 5, "Views").
//! Called by [`crate::runner`]. A subject belongs to one partition; its last message tells, after a restart,
//! what of a frame is there already.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::limits;
use crate::log::{Append, Expect, Log};
use crate::recovery::Trouble;
use crate::stage::{Contradiction, Place, Publication};

/// The last message of each subject, as far as it is known.
#[derive(Debug)]
pub struct Publisher<L> {
    log: L,
    stream: &'static str,
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
        Self { log, stream, last: BTreeMap::new() }
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
        for chunk in due.chunks(limits::ATOMIC_BATCH_MAX) {
            if let Err(trouble) = self.append(chunk).await {
                self.last.clear();
                return Err(trouble);
            }
        }
        Ok(())
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

    /// All of a chunk or nothing; the first message on each subject is fenced by the subject's last.
    async fn append(&mut self, chunk: &[Publication]) -> Result<(), Trouble> {
        let mut fenced = BTreeMap::new();
        let mut appends = Vec::with_capacity(chunk.len());
        for publication in chunk {
            let expect = if fenced.insert(publication.subject.as_str(), ()).is_none() {
                let (sequence, _) = self.last_of(&publication.subject).await?;
                Expect::LastOfSubject(sequence)
            } else {
                Expect::Any
            };
            appends.push(Append {
                subject: publication.subject.clone(),
                headers: Vec::new(),
                payload: publication.payload.clone(),
                expect,
            });
        }
        let last = self.log.append_atomic(appends).await?;
        let first = last + 1 - u64::try_from(chunk.len()).expect("a chunk is small");
        for (publication, sequence) in chunk.iter().zip(first..) {
            self.last.insert(publication.subject.clone(), (sequence, Some(publication.place)));
        }
        Ok(())
    }
}
