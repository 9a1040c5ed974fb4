//! What the business looks at, where it is asked for: the state of each level, and who contributed to which pool.
//! The views of the ledger hand in what they show; nobody on the way of a wager does. Amounts are added up exactly here
//! and become numbers of Prometheus only when somebody asks: they are for watching, the exact ones are in the record.
//! Labels are names of the terms, and so may be many: there is a bound, and what is beyond it is counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{IntCounter, Opts};

use super::{Metrics, register, units};
use crate::money::Pico;
use crate::record::{LevelTotals, Window};
use crate::refusal::StageName;

/// Series at most, over all of what is here.
pub const SERIES_MAX: usize = 1_000;
/// The label of all metrics.
const STAGE: &str = "stage";
/// The labels of what is told of each level.
const LEVEL: &[&str] = &["pool", "level", "currency"];
/// The families that tell something of each level.
const LEVELS: std::ops::Range<usize> = 0..8;
/// The family of contributions by operator and jurisdiction.
const OPERATORS: usize = 8;
/// The family of contributions by game.
const GAMES: usize = 9;

/// A metric: its name, what it says, whether it only grows, and its labels.
struct Described {
    name: &'static str,
    help: &'static str,
    grows: bool,
    labels: &'static [&'static str],
}

/// All of them. A level has one series in each family of [`LEVELS`].
const FAMILIES: [Described; 10] = [
    Described {
        name: "jackpot_level_current",
        help: "The amount owed to a level's next winner, to 15 digits; the exact one is in totals.",
        grows: false,
        labels: LEVEL,
    },
    Described {
        name: "jackpot_level_reserve",
        help: "A level's hidden reserve, to 15 digits; the exact one is in totals.",
        grows: false,
        labels: LEVEL,
    },
    Described {
        name: "jackpot_level_diversion",
        help: "What would have lifted a level above its ceiling, to 15 digits; the exact amount is in totals.",
        grows: false,
        labels: LEVEL,
    },
    Described {
        name: "jackpot_level_wagers_total",
        help: "Wagers that took part in a level since it began.",
        grows: true,
        labels: LEVEL,
    },
    Described {
        name: "jackpot_level_wagered_total",
        help: "The sum of their eligible amounts, to 15 digits; the exact one is in totals.",
        grows: true,
        labels: LEVEL,
    },
    Described {
        name: "jackpot_level_contributed_total",
        help: "What they contributed to a level since it began, to 15 digits; the exact amount is in totals.",
        grows: true,
        labels: LEVEL,
    },
    Described {
        name: "jackpot_level_paid_total",
        help: "What a level paid since it began, to 15 digits; the exact amount is in totals.",
        grows: true,
        labels: LEVEL,
    },
    Described {
        name: "jackpot_level_hits_total",
        help: "How often a level was won since it began.",
        grows: true,
        labels: LEVEL,
    },
    Described {
        name: "jackpot_operator_contributed_total",
        help: "Contributions to a pool in windows that this process published, to 15 digits; exact in windows.",
        grows: true,
        labels: &["pool", "currency", "operator", "jurisdiction"],
    },
    Described {
        name: "jackpot_game_contributed_total",
        help: "Contributions to a pool in windows that this process published, to 15 digits; exact in windows.",
        grows: true,
        labels: &["pool", "currency", "game"],
    },
];

/// What a series stands at.
#[derive(Debug, Clone, Copy)]
enum Value {
    Amount(Pico),
    Count(u64),
}

/// By family: what each series stands at, by the values of its labels.
type Series = [BTreeMap<Vec<String>, Value>; FAMILIES.len()];

/// The business metrics of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Business {
    series: Arc<Mutex<Series>>,
    /// The length of the windows that are counted; `None` where no window tells of operators and games together.
    seconds: Option<u32>,
    left_out: IntCounter,
}

impl Business {
    /// Adds them to a process's metrics. `seconds` is the length of the windows to count.
    pub fn register(metrics: &Metrics, stage: StageName, seconds: Option<u32>) -> Self {
        let series = Arc::<Mutex<Series>>::default();
        let name = "jackpot_business_left_out_total";
        let left_out =
            Opts::new(name, "Updates of series that are not there, since there are 1,000 of them already.");
        let left_out = IntCounter::with_opts(left_out.const_label(STAGE, stage.as_str()));
        let shown = Box::new(Shown::new(series.clone(), stage));
        metrics.registry().register(shown).expect("a process registers them once");
        Self { series, seconds, left_out: register(metrics.registry(), left_out) }
    }

    /// A level is shown as it is now. The numbers that only grow are those of the record: they begin with the level, not
    /// with this process.
    pub fn level(&self, state: &LevelTotals) {
        let labels = vec![state.pool.clone(), state.level.clone(), state.currency.clone()];
        let values = [
            Value::Amount(state.current),
            Value::Amount(state.reserve),
            Value::Amount(state.diversion),
            Value::Count(state.wagers),
            Value::Amount(state.wagered),
            Value::Amount(state.contributed),
            Value::Amount(state.paid),
            Value::Count(state.hits),
        ];
        let mut series = self.held();
        if !series[0].contains_key(&labels) && count(&series) + LEVELS.len() > SERIES_MAX {
            self.left_out.inc();
            return;
        }
        for (family, value) in LEVELS.zip(values) {
            series[family].insert(labels.clone(), value);
        }
    }

    /// Another process shows the levels now: what this one knows of them is soon of the past.
    pub fn forget_levels(&self) {
        self.held()[LEVELS].iter_mut().for_each(BTreeMap::clear);
    }

    /// Whether windows of this length are counted.
    pub fn counts(&self, seconds: u32) -> bool {
        self.seconds == Some(seconds)
    }

    /// A window of that length was published.
    pub fn window(&self, window: &Window) {
        let Window { pool, currency, by_operator_jurisdiction, by_game, .. } = window;
        let mut series = self.held();
        for (pair, share) in by_operator_jurisdiction.iter().flatten() {
            if let Some((operator, jurisdiction)) = pair.split_once('/') {
                let labels = [pool, currency, operator, jurisdiction].map(str::to_owned);
                self.add(&mut series, OPERATORS, labels.into(), share.contributed);
            }
        }
        for (game, share) in by_game.iter().flatten() {
            let labels = [pool, currency, game.as_str()].map(str::to_owned);
            self.add(&mut series, GAMES, labels.into(), share.contributed);
        }
    }

    fn add(&self, series: &mut Series, family: usize, labels: Vec<String>, amount: Pico) {
        if let Some(Value::Amount(sum)) = series[family].get_mut(&labels) {
            *sum += amount;
        } else if count(series) < SERIES_MAX {
            series[family].insert(labels, Value::Amount(amount));
        } else {
            self.left_out.inc();
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Series> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(series: &Series) -> usize {
    series.iter().map(BTreeMap::len).sum()
}

/// What the registry asks when somebody wants to see the metrics.
struct Shown {
    series: Arc<Mutex<Series>>,
    stage: StageName,
    described: Vec<Desc>,
}

impl Shown {
    fn new(series: Arc<Mutex<Series>>, stage: StageName) -> Self {
        let described = FAMILIES.iter().map(|family| {
            let labels = family.labels.iter().map(|&label| label.to_owned()).collect();
            let constant = HashMap::from([(STAGE.to_owned(), stage.to_string())]);
            let described = Desc::new(family.name.to_owned(), family.help.to_owned(), labels, constant);
            described.expect("the names of metrics are valid")
        });
        Self { series, stage, described: described.collect() }
    }

    fn metric(&self, family: &Described, labels: &[String], value: Value) -> Metric {
        let pair = |(name, value): (&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        };
        let named = family.labels.iter().copied().zip(labels.iter().map(String::as_str));
        let mut pairs: Vec<_> = named.chain([(STAGE, self.stage.as_str())]).collect();
        pairs.sort_unstable();
        let mut metric = Metric::from_label(pairs.into_iter().map(pair).collect());
        let value = match value {
            Value::Amount(amount) => units(amount),
            Value::Count(count) => units(Pico(i128::from(count) * crate::money::PICO)),
        };
        if family.grows {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    }
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        self.described.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let families = FAMILIES.iter().zip(series).filter(|(_, series)| !series.is_empty());
        let families = families.map(|(family, series)| {
            let metrics = series.iter().map(|(labels, &value)| self.metric(family, labels, value)).collect();
            let mut shown = MetricFamily::default();
            shown.set_name(family.name.to_owned());
            shown.set_help(family.help.to_owned());
            shown.set_field_type(if family.grows { MetricType::COUNTER } else { MetricType::GAUGE });
            shown.set_metric(metrics);
            shown
        });
        families.collect()
    }
}
