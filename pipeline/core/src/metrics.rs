//! The metrics that every stage has (contract, section 6): handles with verbs over a registry of the process's own.
//! Labels come from closed sets, never from data. The table in the README describes each of them; a test holds the two
//! together. A counter exists from the start, at 0, wherever its labels are known, so that its first rise is seen.

pub mod business;

use std::time::Duration;

use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use tokio::time::Instant;

use crate::log::Extent;
use crate::money::Pico;
use crate::recovery::Trouble;
use crate::refusal::{Reason, StageName};
use crate::stage::Tally;
use crate::time::Millis;
use crate::topology;

/// The bounds of the time that an append takes: from a fast disk to one that everybody waits for.
const APPEND_BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// The bounds of the time that wagers take to come through: what came while a stage was away may have waited for long.
const END_TO_END_BOUNDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0];

/// The metrics of one stage process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    stage: StageName,
    registry: Registry,
    wagers_in: IntCounter,
    wagers_out: IntCounter,
    batches_in: IntCounter,
    refusals: IntCounterVec,
    frames: IntCounterVec,
    recoveries: IntCounterVec,
    position: IntGaugeVec,
    stopped: IntGaugeVec,
    append_seconds: Histogram,
    end_to_end_seconds: Histogram,
    held_back_seconds: CounterVec,
    heartbeat: GaugeVec,
    watermark: GaugeVec,
    conservation: Gauge,
    stream_bytes: IntGaugeVec,
    stream_bytes_max: IntGaugeVec,
    stream_seconds_left: GaugeVec,
    gaps: IntCounter,
    gap_batches: IntCounter,
    conflicts: IntCounter,
    clock_astray: IntGauge,
    owned: IntGauge,
    partitions: IntGauge,
}

impl Metrics {
    /// Registers everything, at zero, with the constant label `stage`.
    pub fn new(stage: StageName) -> Self {
        let registry = Registry::new();
        let opts = |name: &str, help: &str| Opts::new(name, help).const_label("stage", stage.as_str());
        let counter = |name, help| register(&registry, IntCounter::with_opts(opts(name, help)));
        // What validate alone decides or looks at is served by no other stage: there it counts in nobody's registry.
        let nobodys = Registry::new();
        let own = if stage == StageName::Validate { &registry } else { &nobodys };
        // The ledger is not divided.
        let divided = if stage == StageName::Aggregate { &nobodys } else { &registry };
        let ledgers = if stage == StageName::Aggregate { &registry } else { &nobodys };
        let alarm = |name, help| register(own, IntCounter::with_opts(opts(name, help)));
        let counters =
            |name, help, labels: &[&str]| register(&registry, IntCounterVec::new(opts(name, help), labels));
        let gauges =
            |name, help, labels: &[&str]| register(&registry, IntGaugeVec::new(opts(name, help), labels));
        let ledgers_gauges = |name, help| register(ledgers, GaugeVec::new(opts(name, help), &["partition"]));
        let histogram = |name, help: &str, bounds: &[f64]| {
            let opts = HistogramOpts::new(name, help).const_label("stage", stage.as_str());
            register(&registry, Histogram::with_opts(opts.buckets(bounds.to_vec())))
        };
        let metrics = Self {
            stage,
            wagers_in: counter(
                "jackpot_wagers_in_total",
                "Wagers judged; those of batches refused whole are in none of the wager counters.",
            ),
            wagers_out: counter(
                "jackpot_wagers_out_total",
                "Wagers handed on to the next stage; by the first three stages.",
            ),
            batches_in: counter("jackpot_batches_in_total", "Batches judged; by validate alone."),
            refusals: counters("jackpot_refusals_total", "Refusals of this stage, by reason.", &["reason"]),
            frames: counters(
                "jackpot_frames_total",
                "Frames (aggregate: commits) that this process appended.",
                &["partition"],
            ),
            recoveries: counters(
                "jackpot_recoveries_total",
                "Times that a part started over or stood by, by cause.",
                &["cause"],
            ),
            position: gauges(
                "jackpot_position_frames",
                "The last frame, commit or message of a view that was appended or read.",
                &["partition"],
            ),
            stopped: gauges(
                "jackpot_partition_stopped",
                "1 where a partition or view stopped until somebody looks.",
                &["partition"],
            ),
            append_seconds: histogram(
                "jackpot_append_seconds",
                "From sending an append to its acknowledgement.",
                &APPEND_BOUNDS,
            ),
            end_to_end_seconds: histogram(
                "jackpot_end_to_end_seconds",
                "From the broker's receipt of a frame's newest wagers until what this stage made of the frame is stored.",
                &END_TO_END_BOUNDS,
            ),
            held_back_seconds: register(
                &registry,
                CounterVec::new(
                    opts(
                        "jackpot_held_back_seconds_total",
                        "Time in which a part took nothing in, since what it had taken in was not stored yet.",
                    ),
                    &["partition"],
                ),
            ),
            heartbeat: ledgers_gauges(
                "jackpot_heartbeat_timestamp_seconds",
                "The broker's time of the newest frame or idle notice of a partition that is in a commit.",
            ),
            watermark: ledgers_gauges(
                "jackpot_watermark_timestamp_seconds",
                "The event time up to which a partition is counted; windows close by it.",
            ),
            conservation: register(
                ledgers,
                Gauge::with_opts(opts(
                    "jackpot_conservation_difference",
                    "What the books of the levels shown are out of balance by, over all levels; must be 0.",
                )),
            ),
            stream_bytes: gauges("jackpot_stream_bytes", "What a stream holds.", &["stream"]),
            stream_bytes_max: gauges(
                "jackpot_stream_bytes_max",
                "What a stream may hold; then it refuses new messages.",
                &["stream"],
            ),
            stream_seconds_left: register(
                &registry,
                GaugeVec::new(
                    opts(
                        "jackpot_stream_seconds_left",
                        "Until a stream is full at the pace of the last hour, in whole hours; +Inf where it does not grow.",
                    ),
                    &["stream"],
                ),
            ),
            gaps: alarm(
                "jackpot_gaps_total",
                "Runs of a source's batch numbers that left its window and never came.",
            ),
            gap_batches: alarm("jackpot_gap_batches_total", "The batch numbers in those runs."),
            conflicts: alarm(
                "jackpot_conflicts_total",
                "Batches refused because their number was accepted before with other content.",
            ),
            clock_astray: register(
                own,
                IntGauge::with_opts(opts(
                    "jackpot_clock_astray",
                    "1 while this machine's clock is more than 500 ms off the broker's.",
                )),
            ),
            owned: register(
                divided,
                IntGauge::with_opts(opts("jackpot_owned_partitions", "Partitions that this process runs.")),
            ),
            partitions: register(
                &registry,
                IntGauge::with_opts(opts(
                    "jackpot_partitions",
                    "Partitions that the deployment has; 0 until the broker has told.",
                )),
            ),
            registry,
        };
        let build = opts("jackpot_build_info", "Always 1; the version is a label.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        register(&metrics.registry, IntGauge::with_opts(build)).set(1);
        for reason in Reason::ALL.iter().filter(|reason| reason.stage() == stage) {
            metrics.refusals.with_label_values(&[reason.as_str()]);
        }
        for cause in Trouble::KINDS {
            metrics.recoveries.with_label_values(&[cause]);
        }
        if stage == StageName::Aggregate {
            metrics.frames.with_label_values(&[topology::COMMITS]);
            metrics.held_back_seconds.with_label_values(&[topology::COMMITS]);
        }
        metrics
    }

    /// Whose they are.
    pub fn stage(&self) -> StageName {
        self.stage
    }

    /// The registry, for what a single stage has beyond the common set.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A frame of this process's own is stored.
    pub fn appended(&self, partition: &str, frame: u64, tally: &Tally) {
        self.wagers_in.inc_by(tally.wagers_in);
        self.wagers_out.inc_by(tally.wagers_out);
        self.batches_in.inc_by(tally.batches_in);
        for &(reason, count) in &tally.refused {
            self.refusals.with_label_values(&[reason.as_str()]).inc_by(count);
        }
        self.gaps.inc_by(tally.gaps);
        self.gap_batches.inc_by(tally.gap_batches);
        self.conflicts.inc_by(tally.conflicts);
        self.frames.with_label_values(&[partition]).inc();
        self.at(partition, frame);
    }

    /// Where a partition stands, or a view.
    pub fn at(&self, partition: &str, frame: u64) {
        if partition.bytes().all(|byte| byte.is_ascii_digit()) {
            self.frames.with_label_values(&[partition]);
            self.held_back_seconds.with_label_values(&[partition]);
        }
        self.position.with_label_values(&[partition]).set(i64::try_from(frame).unwrap_or(i64::MAX));
    }

    /// An append was acknowledged after so long.
    pub fn acknowledged(&self, after: Duration) {
        self.append_seconds.observe(after.as_secs_f64());
    }

    /// What was made of a frame is stored now; the broker received its newest wagers at `recorded_at`.
    pub fn came_through(&self, recorded_at: Millis, now: Millis) {
        self.end_to_end_seconds.observe(seconds(Millis(now.0.saturating_sub(recorded_at.0))));
    }

    /// Measures how long a part takes nothing in.
    pub fn gate(&self, partition: &str) -> Gate {
        Gate { seconds: self.held_back_seconds.with_label_values(&[partition]), shut: None }
    }

    /// A commit holds what a partition had to say at this time, by the broker's clock: a frame or an idle notice.
    pub fn heartbeat(&self, partition: &str, at: Millis) {
        self.heartbeat.with_label_values(&[partition]).set(seconds(at));
    }

    /// A commit went by this watermark of a partition.
    pub fn watermark(&self, partition: &str, at: Millis) {
        self.watermark.with_label_values(&[partition]).set(seconds(at));
    }

    /// By so much the books that are shown are out of balance, over all levels.
    pub fn conservation(&self, difference: Pico) {
        self.conservation.set(units(difference));
    }

    /// The recovery path is taken.
    pub fn recovering(&self, trouble: &Trouble) {
        self.recoveries.with_label_values(&[trouble.kind()]).inc();
    }

    /// What a stream holds and may hold, and in how many hours it is full, where it grows.
    pub fn room(&self, stream: &str, extent: &Extent, hours_left: Option<u32>) {
        let bytes = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.stream_bytes.with_label_values(&[stream]).set(bytes(extent.bytes));
        self.stream_bytes_max.with_label_values(&[stream]).set(bytes(extent.max_bytes));
        let seconds = |hours| Duration::from_secs(u64::from(hours) * 3_600).as_secs_f64();
        self.stream_seconds_left.with_label_values(&[stream]).set(hours_left.map_or(f64::INFINITY, seconds));
    }

    /// Whether this machine's clock is too far off the broker's; set by who compares them.
    pub fn clock_astray(&self) -> IntGauge {
        self.clock_astray.clone()
    }

    /// A partition is at work, or stopped until somebody looks.
    pub fn stopped(&self, partition: &str, stopped: bool) {
        self.stopped.with_label_values(&[partition]).set(i64::from(stopped));
    }

    /// A partition is not run here any more.
    pub fn left(&self, partition: &str) {
        self.stopped(partition, false);
        // Where it stands is for another process to say; there may have been nothing to say yet.
        drop(self.position.remove_label_values(&[partition]));
    }

    /// How many partitions this process runs.
    pub fn owns(&self, partitions: usize) {
        self.owned.set(i64::try_from(partitions).unwrap_or(i64::MAX));
    }

    /// How many partitions the deployment has.
    pub fn partitions(&self, total: u16) {
        self.partitions.set(i64::from(total));
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

/// Tells how long a part takes nothing in, since what it has taken in is not stored yet: back-pressure.
#[derive(Debug)]
pub struct Gate {
    seconds: Counter,
    /// Since when nothing is taken in.
    shut: Option<Instant>,
}

impl Gate {
    /// Whether the part takes something in now; gives it back. The clock is read only where that has changed.
    pub fn open(&mut self, open: bool) -> bool {
        match self.shut {
            None if !open => self.shut = Some(Instant::now()),
            Some(since) if open => {
                self.seconds.inc_by(since.elapsed().as_secs_f64());
                self.shut = None;
            }
            _ => {}
        }
        open
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open(true);
    }
}

/// A time as Prometheus has it; 0 before 1970.
fn seconds(at: Millis) -> f64 {
    Duration::from_millis(u64::try_from(at.0).unwrap_or(0)).as_secs_f64()
}

/// An amount in whole units of its currency, as the nearest number that Prometheus has: for watching, not for books.
fn units(amount: Pico) -> f64 {
    amount.to_string().parse().expect("a decimal is a number")
}

fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> C {
    let collector = made.expect("the names of metrics are valid");
    registry.register(Box::new(collector.clone())).expect("the names of metrics are unique");
    collector
}
