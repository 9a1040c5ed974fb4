//! What is published beside a frame: each once and in order, however much it is, whoever else publishes it too.

use jackpot_core::log::jetstream::setup::{SetUp, streams};
use jackpot_core::log::memory::Memory;
use jackpot_core::log::{Log, Reader};
use jackpot_core::publication::Publisher;
use jackpot_core::recovery::Trouble;
use jackpot_core::stage::{Place, Publication};
use jackpot_core::time::Millis;
use jackpot_core::topology::REFUSALS;
use proptest::prelude::*;

/// A frame's publications, each to the source of its number.
fn frame(frame: u64, sources: &[u8]) -> Vec<Publication> {
    let publication = |(number, source): (u32, &u8)| Publication {
        subject: format!("refusals.acme.s{source}"),
        place: Place { frame, number },
        payload: format!(r#"{{"frame":{frame},"number":{number}}}"#).into(),
    };
    (0..).zip(sources).map(publication).collect()
}

fn log() -> Memory {
    Memory::new(streams(&SetUp::new(1)), || Millis(1_780_949_730_123))
}

async fn published(log: &Memory) -> Vec<(Box<str>, bytes::Bytes)> {
    let last = log.extent(REFUSALS).await.expect("the stream is there").last;
    let mut reader = log.read(REFUSALS, None, 1).await.expect("the stream is there");
    let mut published = Vec::new();
    for _ in 0..last {
        let entry = reader.next().await.expect("it is stored");
        published.push((entry.subject, entry.payload));
    }
    published
}

fn expected(frames: &[Vec<Publication>]) -> Vec<(Box<str>, bytes::Bytes)> {
    let all = frames.iter().flatten();
    all.map(|publication| (publication.subject.as_str().into(), publication.payload.clone())).collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime needs nothing")
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Frames with few refusals, and with very many of one source; published again from some frame on, by a process that
    /// knows nothing and beside one that believes it were alone.
    #[test]
    fn each_is_there_once_in_log_order(
        sources in prop::collection::vec(prop::collection::vec(0..4_u8, 0..40), 1..12),
        cut in 0..40_usize, again in 0..12_usize,
    ) {
        block_on(async {
            let frames: Vec<_> = (1..).zip(&sources).map(|(number, sources)| frame(number, sources)).collect();
            let log = log();
            let mut first = Publisher::new(log.clone(), REFUSALS);
            for frame in &frames {
                first.publish(frame.clone()).await.expect("nobody else publishes");
            }
            let mut second = Publisher::new(log.clone(), REFUSALS);
            for frame in &frames[again.min(frames.len())..] {
                second.publish(frame.clone()).await.expect("all of it is there");
            }
            prop_assert_eq!(published(&log).await, expected(&frames));

            // The second goes on and dies in the middle of a frame; the first wakes up and believes itself alone.
            let next = frame(100, &[0, 1, 2, 3, 0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]);
            second.publish(next[..cut.min(next.len())].to_vec()).await.expect("nobody else publishes");
            let lost = first.publish(next.clone()).await;
            prop_assert!(matches!(lost, Ok(()) | Err(Trouble::Fenced(_))), "{:?}", lost);
            first.publish(next.clone()).await.expect("it has looked again");
            let all: Vec<_> = frames.into_iter().chain([next]).collect();
            prop_assert_eq!(published(&log).await, expected(&all));
            Ok(())
        })?;
    }
}
