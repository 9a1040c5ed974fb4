//! The one recovery path (design, section 2). Whatever goes wrong between a runner and the log becomes a
//! [`Trouble`] here, and only here is it decided what follows: start over from what the log holds, stand by
//! because another process is ahead, or stop because two logs contradict each other.

use std::time::Duration;

use tokio::time::error::Elapsed;

use crate::log::{AppendError, LogError, ReadError};
use crate::stage::Contradiction;
use crate::terms::store::StoreError;

/// Why a runner has to leave what it was doing.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Another process appended first. Stand by while it goes on, then start over.
    #[error("{0}")]
    Fenced(AppendError),
    /// An output is full. Start over after a pause, for ever: its reader is behind, or somebody must raise its
    /// limit.
    #[error("{0}")]
    Full(AppendError),
    /// Nothing was heard for too long, though nothing said why: a reader of a stream that has more, an acknowledgement,
    /// an answer. Start over.
    #[error("{0}")]
    Stalled(Box<dyn std::error::Error + Send + Sync>),
    /// No answer, a lost connection, a reader that stopped, an append whose fate is unknown. Start over.
    #[error("{0}")]
    Transient(Box<dyn std::error::Error + Send + Sync>),
    /// Never start over: somebody must look (invariant I9).
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
}

impl Trouble {
    /// All values of [`Trouble::kind`].
    pub const KINDS: [&'static str; 5] = ["fenced", "full", "stalled", "transient", "contradiction"];

    /// The label of the metric that counts recoveries.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Fenced(_) => "fenced",
            Self::Full(_) => "full",
            Self::Stalled(_) => "stalled",
            Self::Transient(_) => "transient",
            Self::Contradiction(_) => "contradiction",
        }
    }

    /// A stream that stopped delivering although it has more.
    pub fn stalled(stream: &str) -> Self {
        Self::Stalled(format!("{stream} does not end where it was read to, but nothing came").into())
    }
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Self {
        match &error {
            LogError::Unavailable(cause) if cause.is::<Elapsed>() => Self::Stalled(Box::new(error)),
            _ => Self::Transient(Box::new(error)),
        }
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Silent(_) => Self::Stalled(Box::new(error)),
            ReadError::Gap { .. } | ReadError::Lost(_) => Self::Transient(Box::new(error)),
        }
    }
}

impl From<AppendError> for Trouble {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Fenced(_) => Self::Fenced(error),
            AppendError::Full(_) => Self::Full(error),
            AppendError::Silent(_) => Self::Stalled(Box::new(error)),
            AppendError::Unknown(_) => Self::Transient(Box::new(error)),
            AppendError::Rejected(_) => Self::Contradiction(Contradiction(format!(
                "{error}; check that the stream is the one `jackpot init` made and that this user may write to it"
            ))),
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Log(error) => error.into(),
            StoreError::Append(error) => error.into(),
            StoreError::Taken(_)
            | StoreError::Missing(_)
            | StoreError::Newer { .. }
            | StoreError::Damaged { .. } => Self::Contradiction(Contradiction(error.to_string())),
        }
    }
}

/// The pause before starting over: doubles from 10 ms to 2 s, with jitter, and begins anew after success.
#[derive(Debug)]
pub struct Backoff {
    tries: u32,
    state: u64,
}

impl Backoff {
    /// `seed` spreads processes that fail together; the pauses follow from it alone.
    pub fn new(seed: u64) -> Self {
        Self { tries: 0, state: seed | 1 }
    }

    /// Things went well again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next pause: between half and the whole of its step.
    pub fn next_pause(&mut self) -> Duration {
        let step = 10_u64 << self.tries.min(8);
        self.tries += 1;
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let whole = step.min(2_000);
        Duration::from_millis(whole / 2 + (self.state >> 33) % (whole / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_begin_anew() {
        let mut backoff = Backoff::new(7);
        let pauses: Vec<_> = (0..20).map(|_| backoff.next_pause().as_millis()).collect();
        assert!(pauses[0] <= 10 && pauses[19] >= 1_000 && pauses.iter().all(|&pause| pause <= 2_000));
        backoff.reset();
        assert!(backoff.next_pause().as_millis() <= 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_never_comes_is_a_stall() {
        let elapsed = tokio::time::timeout(Duration::from_secs(5), std::future::pending::<()>()).await;
        let error = LogError::Unavailable(elapsed.expect_err("nothing comes").into());
        assert_eq!(Trouble::from(error).kind(), "stalled");
        assert_eq!(Trouble::from(LogError::Unavailable("lost".into())).kind(), "transient");
    }

    #[test]
    fn every_fate_has_its_answer() {
        let kind = |error: AppendError| Trouble::from(error).kind();
        assert_eq!(kind(AppendError::Fenced("10071".into())), "fenced");
        assert_eq!(kind(AppendError::Full("10077".into())), "full");
        assert_eq!(kind(AppendError::Unknown("timeout".into())), "transient");
        assert_eq!(kind(AppendError::Silent(5_000)), "stalled");
        assert_eq!(Trouble::from(ReadError::Silent(3_500)).kind(), "stalled");
        assert_eq!(Trouble::stalled("wagers").kind(), "stalled");
        assert_eq!(kind(AppendError::Rejected("too large".into())), "contradiction");
        assert_eq!(Trouble::from(ReadError::Gap { got: 3, expected: 2 }).kind(), "transient");
        assert_eq!(Trouble::from(StoreError::Missing(4)).kind(), "contradiction");
    }
}
