//! What stands around the amounts: what the stages do, asked now and then, and what was refused. Both are followed beside
//! the commits, so that neither ever holds them up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::log::{Log, Reader};
use jackpot_core::record::RefusalNotice;
use jackpot_core::topology;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::{exit, status};

/// How often the stages are asked.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How many of the last refusals are kept.
const REFUSALS_KEPT: usize = 20;

/// What was seen last.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Every part of every stage.
    pub stages: Vec<status::Row>,
    /// Why they could not be asked.
    pub trouble: Option<String>,
    /// The last refusals, the newest last.
    pub refusals: VecDeque<RefusalNotice>,
    /// How many there were since the view began, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}

impl Seen {
    /// A refusal from before the view began, or since.
    pub fn refusal(&mut self, notice: RefusalNotice, counts: bool) {
        if counts {
            *self.refused.entry(notice.reason.as_str()).or_default() += 1;
        }
        self.refusals.push_back(notice);
        if self.refusals.len() > REFUSALS_KEPT {
            self.refusals.pop_front();
        }
    }
}

/// Follows both, as long as it lives.
#[derive(Debug)]
pub struct Around {
    seen: Arc<Mutex<Seen>>,
    _following: JoinSet<()>,
}

impl Around {
    /// Begins.
    pub fn watch(log: &JetStream) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let mut following = JoinSet::new();
        following.spawn(stages(log.clone(), seen.clone()));
        following.spawn(refusals(log.clone(), seen.clone()));
        Self { seen, _following: following }
    }

    /// What was seen last.
    pub fn now(&self) -> Seen {
        with(&self.seen, |seen| seen.clone())
    }
}

fn with<T>(seen: &Mutex<Seen>, act: impl FnOnce(&mut Seen) -> T) -> T {
    act(&mut seen.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn stages(log: JetStream, seen: Arc<Mutex<Seen>>) {
    loop {
        let rows = status::rows(&log).await;
        with(&seen, |seen| match rows {
            Ok(rows) => (seen.stages, seen.trouble) = (rows, None),
            Err(error) => seen.trouble = Some(exit::sentence(&error)),
        });
        sleep(ASK_EVERY).await;
    }
}

async fn refusals(log: JetStream, seen: Arc<Mutex<Seen>>) {
    // From where on they count, and up to where they were taken in.
    let (mut since, mut taken) = (None, 0);
    loop {
        // What cannot be read just now is read later: the stages' own trouble says why.
        drop(follow(&log, &seen, &mut since, &mut taken).await);
        sleep(ASK_EVERY).await;
    }
}

async fn follow(
    log: &JetStream,
    seen: &Mutex<Seen>,
    since: &mut Option<u64>,
    taken: &mut u64,
) -> anyhow::Result<std::convert::Infallible> {
    let last = log.extent(topology::REFUSALS).await?.last;
    let begin = *since.get_or_insert(last);
    let from = (*taken).max(begin.saturating_sub(REFUSALS_KEPT as u64));
    let mut reader = log.read(topology::REFUSALS, None, from + 1).await?;
    loop {
        let entry = reader.next().await?;
        let notice: RefusalNotice =
            serde_json::from_slice(&entry.payload).context("a refusal cannot be read")?;
        *taken = entry.sequence;
        with(seen, |seen| seen.refusal(notice, entry.sequence > begin));
    }
}
