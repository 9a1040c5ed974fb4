//! Keeps the processes alive: what dies is started again with back-off; what dies too often, or says with exit 78
//! that starting again is no use, is reported. Stages are stopped before the server that they need.

use std::collections::VecDeque;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::anyhow;
use jackpot_core::broker::{Broker, BrokerError};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::exit::{UNUSABLE, Unusable};

/// So many deaths of one process within [`DEATHS_WITHIN`] are too many.
const DEATHS_MAX: usize = 10;
/// See [`DEATHS_MAX`].
const DEATHS_WITHIN: Duration = Duration::from_secs(60);
/// The first pause before a process is started again, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long a stage may drain before it is killed.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// All processes that were started.
#[derive(Debug)]
pub struct Fleet {
    stages: JoinSet<()>,
    broker: JoinSet<()>,
    stop_stages: watch::Sender<bool>,
    stop_broker: watch::Sender<bool>,
    failures: mpsc::Sender<anyhow::Error>,
}

impl Fleet {
    /// No process yet, and where it will be told that one cannot be kept alive.
    pub fn new() -> (Self, mpsc::Receiver<anyhow::Error>) {
        let (failures, failed) = mpsc::channel(8);
        let (stages, broker) = (JoinSet::new(), JoinSet::new());
        let (stop_stages, stop_broker) = (watch::Sender::new(false), watch::Sender::new(false));
        (Self { stages, broker, stop_stages, stop_broker, failures }, failed)
    }

    /// Starts a stage, and keeps it alive.
    pub fn keep(&mut self, name: String, command: Command) {
        let (stop, failures) = (self.stop_stages.subscribe(), self.failures.clone());
        self.stages.spawn(async move {
            if let Err(failure) = keep(&name, command, stop).await {
                // The receiver is gone only when everything is being stopped anyway.
                drop(failures.send(failure).await);
            }
        });
    }

    /// Keeps a server alive; `name` is what it is called.
    pub fn keep_broker(&mut self, name: String, broker: Broker) {
        let (stop, failures) = (self.stop_broker.subscribe(), self.failures.clone());
        self.broker.spawn(async move {
            if let Err(failure) = keep_broker(&name, broker, stop).await {
                drop(failures.send(failure).await);
            }
        });
    }

    /// Whether nothing was started.
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty() && self.broker.is_empty()
    }

    /// Stops the stages, then the servers.
    pub async fn shut_down(mut self) {
        self.stop_stages.send_replace(true);
        while self.stages.join_next().await.is_some() {}
        self.stop_broker.send_replace(true);
        while self.broker.join_next().await.is_some() {}
    }
}

/// Runs a process again and again, until it is to stop or cannot be kept alive.
async fn keep(name: &str, mut command: Command, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let mut deaths = Deaths::default();
    loop {
        let mut child = command.spawn().map_err(|error| anyhow!("{name} cannot be started: {error}"))?;
        let status = tokio::select! {
            status = child.wait() => status.map_err(|error| anyhow!("{name} was lost: {error}"))?,
            () = asked(&mut stop) => {
                drain(name, &mut child).await;
                return Ok(());
            }
        };
        if status.code() == Some(i32::from(UNUSABLE)) {
            let advice = "its own message above says why; mend that and start again";
            return Err(Unusable::new(format!(
                "{name} ended with exit 78, which no restart will mend: {advice}"
            ))
            .into());
        }
        let pause = deaths.note(name, &status)?;
        tokio::select! {
            () = sleep(pause) => {}
            () = asked(&mut stop) => return Ok(()),
        }
    }
}

async fn keep_broker(name: &str, mut broker: Broker, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let mut deaths = Deaths::default();
    loop {
        let status = tokio::select! {
            status = broker.ended() => status.map_err(|error| anyhow!("{name} was lost: {error}"))?,
            () = asked(&mut stop) => {
                return broker.stop().await.map_err(|error| anyhow!("{name} did not stop: {error}"));
            }
        };
        let pause = deaths.note(name, &status)?;
        tokio::select! {
            again = start_again(name, &mut broker, &mut deaths, pause) => again?,
            () = asked(&mut stop) => return Ok(()),
        }
    }
}

/// Starts a server again after a pause; one that dies before it is ready has died like any other.
async fn start_again(
    name: &str,
    broker: &mut Broker,
    deaths: &mut Deaths,
    mut pause: Duration,
) -> anyhow::Result<()> {
    loop {
        sleep(pause).await;
        match broker.restart().await {
            Ok(()) => return Ok(()),
            Err(BrokerError::Ended { status, said }) => {
                eprintln!("jackpot: {name} did not get ready; it said last: {said}");
                pause = deaths.note(name, &status)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until everything is to stop.
async fn asked(stop: &mut watch::Receiver<bool>) {
    // An error means that the fleet itself is gone: that is a stop too.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Asks a process to drain, and kills it when it does not.
async fn drain(name: &str, child: &mut Child) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, Signal::TERM)
    {
        eprintln!("jackpot: {name} cannot be told to stop ({error})");
    }
    if timeout(DRAIN_MAX, child.wait()).await.is_err() {
        eprintln!("jackpot: {name} did not stop within {} s; killing it", DRAIN_MAX.as_secs());
        if let Err(error) = child.kill().await {
            eprintln!("jackpot: {name} cannot be killed ({error})");
        }
    }
}

/// When a process died.
#[derive(Debug, Default)]
struct Deaths {
    times: VecDeque<Instant>,
}

impl Deaths {
    /// Says that a process died, and how long to pause before it is started again.
    fn note(&mut self, name: &str, status: &ExitStatus) -> anyhow::Result<Duration> {
        let pause = self.pause(Instant::now()).ok_or_else(|| {
            anyhow!(
                "{name} died {DEATHS_MAX} times within {} s, at last with {status}; its messages above say why",
                DEATHS_WITHIN.as_secs()
            )
        })?;
        eprintln!("jackpot: {name} ended ({status}); starting it again in {} ms", pause.as_millis());
        Ok(pause)
    }

    /// The pause after a death at `now`, twice as long for each one shortly before; `None` when there were too many.
    fn pause(&mut self, now: Instant) -> Option<Duration> {
        self.times.push_back(now);
        while self.times.front().is_some_and(|&first| now - first > DEATHS_WITHIN) {
            self.times.pop_front();
        }
        if self.times.len() >= DEATHS_MAX {
            return None;
        }
        let doublings = u32::try_from(self.times.len() - 1).unwrap_or(u32::MAX);
        Some((PAUSE.0 * 2_u32.saturating_pow(doublings)).min(PAUSE.1))
    }
}

#[cfg(test)]
mod tests {
    use jackpot_core::broker::{BrokerSettings, Sync};

    use super::*;

    #[test]
    fn pauses_grow_and_the_tenth_death_in_a_minute_is_the_last() {
        let start = Instant::now();
        let mut deaths = Deaths::default();
        let pauses: Vec<_> = (0..10).map(|n| deaths.pause(start + Duration::from_secs(n))).collect();
        assert_eq!(pauses[0], Some(PAUSE.0));
        assert_eq!(pauses[1], Some(PAUSE.0 * 2));
        assert_eq!(pauses[8], Some(PAUSE.1));
        assert_eq!(pauses[9], None);
        let mut rare = Deaths::default();
        assert!((0..30).all(|n| rare.pause(start + Duration::from_secs(61 * n)) == Some(PAUSE.0)));
    }

    #[test]
    fn exit_78_is_not_tried_again_and_a_stop_drains() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let shell = |script: &str| {
                let mut command = Command::new("sh");
                command.args(["-c", script]).process_group(0).kill_on_drop(true);
                command
            };
            let (mut fleet, mut failures) = Fleet::new();
            fleet.keep("wrong".into(), shell("exit 78"));
            let failure = failures.recv().await.expect("a failure");
            assert!(failure.is::<Unusable>(), "{failure}");
            let drained = tempfile::NamedTempFile::new().expect("a file");
            let path = drained.path().display();
            fleet.keep("right".into(), shell(&format!("trap 'echo drained > {path}; exit 143' TERM; echo up > {path}; while :; do sleep 0.05; done")));
            while std::fs::read_to_string(drained.path()).expect("text").is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
            fleet.shut_down().await;
            assert_eq!(std::fs::read_to_string(drained.path()).expect("text"), "drained\n");
        });
    }

    /// Kills the next server that this process starts, as soon as it is there.
    async fn kill_next(known: &mut Vec<String>) {
        loop {
            let tasks = std::fs::read_dir("/proc/self/task").expect("this process has threads").flatten();
            let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
            let lists: Vec<_> = lists.collect();
            for id in lists.iter().flat_map(|list| list.split_whitespace()) {
                let comm = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
                if comm.trim() == "nats-server" && !known.iter().any(|known| known == id) {
                    known.push(id.to_owned());
                    let pid = Pid::from_raw(id.parse().expect("an id")).expect("an id");
                    return kill_process(pid, Signal::KILL).expect("our own child can be killed");
                }
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn nats_a_server_that_dies_while_it_starts_is_started_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let broker = Broker::start(BrokerSettings::new(dir.path(), Sync::Relaxed)).await.expect("a server");
        let port = broker.port();
        let (mut fleet, mut failures) = Fleet::new();
        fleet.keep_broker("nats-server".into(), broker);
        let mut killed = Vec::new();
        for _ in 0..4 {
            kill_next(&mut killed).await;
        }
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(failures.try_recv().is_err(), "the server is not given up");
            sleep(Duration::from_millis(10)).await;
        }
        fleet.shut_down().await;
        assert!(failures.try_recv().is_err(), "the server was not given up");
    }
}
