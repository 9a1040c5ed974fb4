//! Where the batch numbers of each source go on: behind the highest one that was accepted, or is stored and will be.
//! The view `sources` knows what was accepted up to the last frame that it shows; what was stored behind that is
//! read from the ingress and judged as validate judges numbers. The last stored batch alone would not do: batches
//! may be stored in any order.

use std::collections::BTreeMap;

use anyhow::Context;
use jackpot_core::frame::Header;
use jackpot_core::limits::SEQUENCE_JUMP_MAX;
use jackpot_core::log::Log;
use jackpot_core::record::SourceState;
use jackpot_core::terms::{Source, Terms};
use jackpot_core::topology::{self, Lane};

use crate::publish::address;
use crate::streams;

/// The first batch number of each source: the given one, or the one after its highest.
pub async fn first<L: Log>(
    log: &L,
    terms: &Terms,
    from: Option<u64>,
) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut numbers = BTreeMap::new();
    let partitions = streams::partitions(log).await?;
    for source in &terms.sources {
        let first = match from {
            Some(from) => from,
            None => highest(log, source, partitions).await? + 1,
        };
        numbers.insert(source.source.clone(), first);
    }
    Ok(numbers)
}

/// The highest number of a source; 0 when it has none.
async fn highest<L: Log>(log: &L, source: &Source, partitions: u16) -> anyhow::Result<u64> {
    let Source { source: name, operator, sequence_from, .. } = source;
    let partition = topology::partition(name, partitions);
    let subject = topology::sources(operator, name);
    let known: SourceState = match log.last(topology::SOURCES, &subject).await? {
        Some(entry) => serde_json::from_slice(&entry.payload).with_context(|| {
            format!("cannot read the last message of {subject}; run this command in the stages' version")
        })?,
        None => SourceState::default(),
    };
    // Terms may have let the numbers start anew, and audit may not have come to that yet.
    let anew = sequence_from.filter(|_| *sequence_from != known.sequence_from);
    let mut highest = anew.map_or(known.highest, |from| from - 1);
    let mut started = highest > 0 || sequence_from.is_some();
    let shown = position(log, partition, known.frame).await?;
    let filter = format!("lane.{partition}.{operator}.{name}");
    streams::each_from(log, topology::WAGERS, &filter, shown + 1, |entry| {
        if let Ok(number) = address::sequence(&entry.payload)
            && number > highest
            && (!started || number - highest <= SEQUENCE_JUMP_MAX)
        {
            (highest, started) = (number, true);
        }
        Ok(())
    })
    .await?;
    Ok(highest)
}

/// Up to where in the ingress a frame was made; 0 before the first.
async fn position<L: Log>(log: &L, partition: u16, frame: u64) -> anyhow::Result<u64> {
    let stream = Lane::Allocations.stream(partition);
    let Some(entry) = log.get(&stream, frame).await? else { return Ok(0) };
    let header = Header::peek_any(&entry.payload).with_context(|| {
        format!("cannot read frame {frame} of {stream}; run this command in the stages' version")
    })?;
    Ok(header.ingress.position)
}

#[cfg(test)]
mod tests {
    use jackpot_core::digest::Digest;
    use jackpot_core::frame::allocations::Allocations;
    use jackpot_core::frame::{Frame, Ingress};
    use jackpot_core::log::jetstream::setup::{SetUp, streams};
    use jackpot_core::log::memory::Memory;
    use jackpot_core::log::{Append, Appender, Expect};
    use jackpot_core::rules;
    use jackpot_core::time::Millis;

    use super::*;

    const OPERATOR: &str = "acme";
    const SOURCE: &str = "acme-spin-eu1";

    /// A log of one partition without stages: the test plays audit.
    struct Played(Memory);

    impl Played {
        fn new() -> Self {
            Self(Memory::new(streams(&SetUp::new(1)), || Millis(0)))
        }

        async fn append(&self, subject: String, payload: Vec<u8>) -> u64 {
            let mut appender = self.0.appender().await.expect("an appender");
            let append =
                Append { subject, headers: Vec::new(), payload: payload.into(), expect: Expect::Any };
            appender.send(append).await.expect("it is sent");
            appender.acknowledged().await.expect("it is stored")
        }

        /// Batches with these numbers are stored, in this order; the place of the last one.
        async fn store(&self, numbers: &[u64]) -> u64 {
            let mut place = 0;
            for number in numbers {
                let body = format!(r#"{{"sequence":{number},"wagers":[]}}"#);
                place = self.append(topology::wagers(OPERATOR, SOURCE), body.into()).await;
            }
            place
        }

        /// Audit shows a state of the source after the next frame, which was made of the ingress up to `position`.
        async fn show(&self, position: u64, highest: u64, sequence_from: Option<u64>) {
            let stream = Lane::Allocations.stream(0);
            let frame = self.0.extent(&stream).await.expect("the stream").last + 1;
            let header = Header {
                partition: 0,
                sequence: frame,
                rules: rules::FIRST,
                terms: 1,
                watermark: None,
                recorded_at: Millis(0),
                ingress: Ingress { position, count: position, chain: Digest::ZERO },
                input: Digest::ZERO,
                previous: Digest::ZERO,
            };
            let frame_bytes = Frame { header, body: Allocations::default() }.encode();
            self.append(Lane::Allocations.subject(0), frame_bytes.to_vec()).await;
            let state = SourceState {
                operator: OPERATOR.into(),
                source: SOURCE.into(),
                highest,
                sequence_from,
                frame,
                ..SourceState::default()
            };
            let body = serde_json::to_vec(&state).expect("a state is plain data");
            self.append(topology::sources(OPERATOR, SOURCE), body).await;
        }

        async fn check(&self, sequence_from: Option<u64>, next: u64, why: &str) {
            let mut terms = Terms::parse(crate::terms::EXAMPLE).expect("the example");
            terms.sources.retain(|source| source.source == SOURCE);
            terms.sources[0].sequence_from = sequence_from;
            let numbers = first(&self.0, &terms, None).await.expect("numbers");
            assert_eq!(numbers, BTreeMap::from([(SOURCE.to_owned(), next)]), "{why}");
        }
    }

    #[tokio::test]
    async fn the_highest_number_counts_and_not_the_last() {
        let played = Played::new();
        played.check(None, 1, "there is none").await;
        let shown = played.store(&[7, 9, 8]).await;
        played.check(None, 10, "nothing was audited yet").await;
        played.show(shown, 9, None).await;
        played.check(None, 10, "all of it was audited").await;
        played.store(&[12, 3, 5]).await;
        played.check(None, 13, "some of it was stored since").await;
        played.append(topology::wagers(OPERATOR, SOURCE), b"nonsense".to_vec()).await;
        played.store(&[13 + SEQUENCE_JUMP_MAX]).await;
        played.check(None, 13, "a number that will be refused does not count").await;
    }

    #[tokio::test]
    async fn what_audit_saw_is_not_read_again() {
        let played = Played::new();
        let shown = played.store(&[500, 501]).await;
        // As if 501 had been refused: audit knows, and the ingress does not tell.
        played.show(shown, 500, None).await;
        played.check(None, 501, "what was refused does not count").await;
    }

    #[tokio::test]
    async fn terms_may_let_the_numbers_start_anew() {
        let played = Played::new();
        let shown = played.store(&[2_000_000_000]).await;
        played.show(shown, 2_000_000_000, None).await;
        played.check(Some(100), 100, "audit has not come to it yet").await;
        played.store(&[100, 102, 101]).await;
        played.check(Some(100), 103, "nor to what was stored since").await;
        played.show(shown + 3, 102, Some(100)).await;
        played.check(Some(100), 103, "it has").await;
    }
}
