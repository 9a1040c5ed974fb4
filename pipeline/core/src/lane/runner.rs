//! Carries a [`Lane`]'s decisions to the log, and the log's answers back. One per partition and process.

use std::collections::VecDeque;

use tokio::time::{Instant, sleep_until, timeout};

use crate::lane::Lane;
use crate::log::{Append, AppendError, Appender, Entry, Log, Reader};
use crate::publication::Publisher;
use crate::recovery::Trouble;
use crate::runner::{Context, GRACE, Name, Part, Standing, WATCHDOG, Watch, first, stored, tail};
use crate::snapshot::{self, Desk, Key, free, held_up};
use crate::stage::Stage;
use crate::time::Millis;
use crate::topology;

/// Drives one stage of one partition.
pub struct LaneRunner<S: Stage, L: Log> {
    context: Context<L>,
    name: Name,
    partition: u16,
    lane: Lane<S>,
    publisher: Publisher<L>,
    /// Where snapshots of the stage's state are handed in.
    desk: Option<Desk>,
}

impl<S: Stage, L: Log> LaneRunner<S, L> {
    /// A runner that has yet to be [driven](crate::runner::drive).
    pub fn new(context: Context<L>, partition: u16, stage: S) -> Self {
        let publisher = Publisher::new(context.log.clone(), topology::REFUSALS);
        let name = Name::partition(partition);
        Self { context, name, partition, lane: Lane::new(stage, partition), publisher, desk: None }
    }

    /// The same, handing in snapshots of the stage's state there.
    pub fn with_desk(self, desk: Desk) -> Self {
        Self { desk: Some(desk), ..self }
    }

    /// Reads the outputs' tails from their leaders and tells the lane; gives where to open the input, and what to append
    /// first.
    async fn resume(&mut self) -> Result<(u64, Vec<(usize, Append)>), Trouble> {
        let log = &self.context.log;
        let mut tails = Vec::new();
        for lane in S::OUTPUTS {
            tails.push(tail(log, &lane.stream(self.partition), &lane.subject(self.partition)).await?);
        }
        let input = log.extent(&S::INPUT.stream(self.partition)).await?;
        if S::REPLAYS {
            self.take_back(tails[0].as_ref().map_or(0, |entry| entry.sequence), input.first).await?;
        }
        let log = &self.context.log;
        let resume = self.lane.resume(&tails, input.last)?;
        for (output, sequence) in resume.wanted {
            let stream = S::OUTPUTS[output].stream(self.partition);
            let entry = stored(log, &stream, sequence).await?;
            self.lane.recorded(output, &entry)?;
        }
        self.context.metrics.at(&self.name.label, self.lane.position());
        Ok((resume.from, resume.again))
    }

    /// Takes a snapshot back, where what this process has folded is of no use for an output that ends so, or what comes
    /// next was trimmed while it stood by: the input begins with frame `first`.
    async fn take_back(&mut self, end: u64, first: u64) -> Result<(), Trouble> {
        if self.lane.goes_on_from(end) && first <= self.lane.taken() + 1 {
            return Ok(());
        }
        let key = Key::partition(S::NAME, self.partition);
        let stream = S::OUTPUTS[0].stream(self.partition);
        let inputs = [S::INPUT.stream(self.partition)];
        let log = &self.context.log;
        let (all, _) = snapshot::list(log, &key).await?;
        let format = S::SNAPSHOT_FORMAT;
        if let Some((kept, content)) =
            snapshot::greatest(log, &key, all, (&stream, end), &inputs, format).await?
        {
            self.lane.thaw(&kept, &content).map_err(|error| error.of(&key, kept.frame))?;
        }
        Ok(())
    }

    /// Freezes the stage's state when a snapshot is due, and hands it in once its frame is stored.
    fn archive(&mut self) {
        let Some(desk) = &self.desk else { return };
        if !self.lane.is_frozen() && desk.is_due(self.lane.unfrozen()) {
            self.lane.freeze();
        }
        if let Some(frozen) = self.lane.frozen() {
            desk.hand_in(frozen);
        }
    }

    /// Whether it has come too far while a snapshot waits for its frame to be stored.
    fn outruns(&self) -> bool {
        self.lane.is_frozen() && self.desk.as_ref().is_some_and(|desk| desk.is_ahead(self.lane.unfrozen()))
    }

    /// Computes one frame and hands its appends to the connection.
    async fn forward(
        &mut self,
        entry: &Entry,
        appenders: &mut [L::Appender],
        sent: &mut Sent,
    ) -> Result<(), Trouble> {
        if let Some(revision) = self.lane.terms_wanted(entry)? {
            let terms = self.context.terms.get(revision).await?;
            self.lane.learn(revision, &terms);
        }
        self.context.touch();
        let step = self.lane.accept(entry)?;
        if !step.publications.is_empty() {
            self.publisher.publish(step.publications).await?;
        }
        send(step.appends, Some(step.recorded_at), appenders, sent).await?;
        self.archive();
        Ok(())
    }

    fn settle(&mut self, output: usize, sequence: u64, sent: &mut Sent) {
        let sent = sent.appends[output].pop_front();
        if let Some((at, _)) = sent {
            self.context.metrics.acknowledged(at.elapsed());
        }
        if let Some(tally) = self.lane.acknowledged(output, sequence) {
            self.context.metrics.appended(&self.name.label, sequence, &tally);
            if let Some((_, Some(recorded_at))) = sent {
                self.context.metrics.came_through(recorded_at, self.context.clock.now());
            }
            self.archive();
        }
    }

    /// A reader that says nothing is believed only while its stream ends where it was read to.
    async fn check_stall(&self, input: &str, watch: &mut Watch) -> Result<(), Trouble> {
        let last = self.context.log.extent(input).await?.last;
        let taken = self.lane.taken();
        if last < taken || watch.stalled(last, taken) { Err(Trouble::stalled(input)) } else { Ok(()) }
    }
}

impl<S: Stage, L: Log> Part for LaneRunner<S, L> {
    fn name(&self) -> &Name {
        &self.name
    }

    fn progress(&self) -> u64 {
        self.lane.proved()
    }

    async fn pass(&mut self) -> Result<(), Trouble> {
        let (from, again) = self.resume().await?;
        let input = S::INPUT.stream(self.partition);
        let mut reader = self.context.log.read(&input, None, from).await?;
        let mut appenders = Vec::new();
        for _ in S::OUTPUTS {
            appenders.push(self.context.log.appender().await?);
        }
        self.context.working(&self.name);
        let mut sent = Sent::new(S::OUTPUTS.len());
        send(again, None, &mut appenders, &mut sent).await?;
        let mut gate = self.context.metrics.gate(&self.name.label);
        let mut watch = Watch::default();
        loop {
            let watchdog = sleep_until(Instant::now() + WATCHDOG);
            let held_up = held_up(self.desk.as_ref(), self.lane.unfrozen());
            let open = gate.open(self.lane.wants_input() && held_up.is_none() && !self.outruns());
            tokio::select! {
                biased;
                () = self.context.stopped() => break,
                () = free(held_up.as_ref()), if held_up.is_some() => self.archive(),
                (output, fate) = next_fate(&mut appenders), if !self.lane.settled() => {
                    self.settle(output, fate?, &mut sent);
                }
                entry = reader.next(), if open => {
                    self.forward(&entry?, &mut appenders, &mut sent).await?;
                }
                () = watchdog, if self.lane.settled() && held_up.is_none() => {
                    self.check_stall(&input, &mut watch).await?;
                }
            }
        }
        let settling = async {
            while !self.lane.settled() {
                let (output, fate) = next_fate(&mut appenders).await;
                self.settle(output, fate?, &mut sent);
            }
            Ok(())
        };
        timeout(GRACE, settling).await.unwrap_or(Ok(()))
    }

    async fn standing(&mut self) -> Result<Standing, Trouble> {
        let log = &self.context.log;
        let mut output = u64::MAX;
        for lane in S::OUTPUTS {
            output = output.min(log.extent(&lane.stream(self.partition)).await?.last);
        }
        let input = log.extent(&S::INPUT.stream(self.partition)).await?.last;
        Ok(Standing { output, waiting: input > output })
    }
}

/// Of the appends in flight, per output: when each was sent, and when the broker received what its frame brings.
struct Sent {
    appends: Vec<VecDeque<(Instant, Option<Millis>)>>,
}

impl Sent {
    fn new(outputs: usize) -> Self {
        Self { appends: vec![VecDeque::new(); outputs] }
    }
}

/// Hands appends to the connection.
async fn send<A: Appender>(
    appends: Vec<(usize, Append)>,
    recorded_at: Option<Millis>,
    appenders: &mut [A],
    sent: &mut Sent,
) -> Result<(), Trouble> {
    for (output, append) in appends {
        sent.appends[output].push_back((Instant::now(), recorded_at));
        appenders[output].send(append).await?;
    }
    Ok(())
}

/// The next fate of any appender, with its index. Safe to cancel.
async fn next_fate<A: Appender>(appenders: &mut [A]) -> (usize, Result<u64, AppendError>) {
    let in_flight = appenders.iter_mut().enumerate().filter(|(_, appender)| appender.in_flight() > 0);
    let fates = in_flight.map(|(index, appender)| async move { (index, appender.acknowledged().await) });
    first(fates).await
}
