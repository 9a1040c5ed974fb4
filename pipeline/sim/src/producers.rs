//! Everybody outside: suppliers who publish, each batch until it is acknowledged, and the operator, who applies terms
//! and keeps the file of keys.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jackpot_core::keys::Keys;
use jackpot_core::log::{Append, AppendError, Appender, Expect, Log};
use jackpot_core::terms::Terms;
use jackpot_core::terms::store::{self, StoreError};
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use crate::dice::Dice;
use crate::network::link::Link;
use crate::trace::Trace;
use crate::workload::{Edit, Planned, secret};

/// Before the next try.
const PAUSE: Duration = Duration::from_millis(100);

/// What was acknowledged: the sequence in `wagers`, and the body.
pub type Acknowledged = Rc<RefCell<Vec<(u64, Bytes)>>>;

/// Publishes what a source has, in order, a few at a time; after anything but an acknowledgement from the first one on
/// that was not acknowledged, as `jackpot publish` does.
pub async fn publish(link: Link, planned: Vec<Planned>, mut dice: Dice, done: Acknowledged, start: Instant) {
    let window = dice.place(8) + 1;
    let mut next = 0;
    while next < planned.len() {
        if let Ok(appender) = link.appender().await {
            next = publish_some(appender, &planned, next, window, &done, start).await;
        }
        sleep(PAUSE).await;
    }
}

/// Until the first trouble; gives what is to be published then.
async fn publish_some<A: Appender>(
    mut appender: A,
    planned: &[Planned],
    from: usize,
    window: usize,
    done: &Acknowledged,
    start: Instant,
) -> usize {
    let mut sent: VecDeque<usize> = VecDeque::new();
    let (mut next, mut confirmed) = (from, from);
    loop {
        while sent.len() < window && next < planned.len() && start + planned[next].at <= Instant::now() {
            let Planned { subject, headers, body, .. } = planned[next].clone();
            let append = Append { subject, headers, payload: body, expect: Expect::Any };
            if appender.send(append).await.is_err() {
                return confirmed;
            }
            sent.push_back(next);
            next += 1;
        }
        if sent.is_empty() {
            let Some(planned) = planned.get(next) else { return next };
            sleep_until(start + planned.at).await;
            continue;
        }
        match appender.acknowledged().await {
            Ok(sequence) => {
                confirmed = sent.pop_front().expect("one was sent") + 1;
                done.borrow_mut().push((sequence, planned[confirmed - 1].body.clone()));
            }
            Err(AppendError::Rejected(what)) => panic!("the broker takes every batch, but: {what}"),
            Err(_) => return confirmed,
        }
    }
}

/// Applies revisions of the terms when their time has come, each until it is stored and its markers are there, as
/// `jackpot terms apply` does.
pub async fn apply(
    link: Link,
    partitions: u16,
    revisions: Vec<(Duration, Value)>,
    trace: Trace,
    start: Instant,
) {
    for (at, document) in revisions {
        sleep_until(start + at).await;
        let terms = Terms::parse(document.to_string().as_bytes());
        let terms = terms.unwrap_or_else(|faults| panic!("the workload's terms have faults: {faults:?}"));
        loop {
            match try_apply(&link, partitions, &terms).await {
                Ok(()) => break,
                Err(StoreError::Log(_) | StoreError::Append(_)) => sleep(PAUSE).await,
                Err(error) => panic!("terms that nobody else applies cannot be applied: {error}"),
            }
        }
        trace.say(format_args!("revision {} is applied", terms.revision));
    }
}

/// Edits the key file.
pub async fn edit_keys(file: Arc<Mutex<Keys>>, edits: Vec<Edit>, trace: Trace, start: Instant) {
    for Edit { at, holds } in edits {
        sleep_until(start + at).await;
        trace.say(format_args!("the key file holds {holds:?}"));
        let lines: String = holds.iter().map(|id| format!("{id} {}\n", secret(id))).collect();
        *file.lock().unwrap_or_else(PoisonError::into_inner) =
            Keys::parse(lines.as_bytes()).expect("a file of keys");
    }
}

async fn try_apply(link: &Link, partitions: u16, terms: &Terms) -> Result<(), StoreError> {
    let claim = store::store(link, terms).await?;
    store::activate(link, partitions, &claim).await
}
