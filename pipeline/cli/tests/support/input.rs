//! What tests publish: generated traffic, as lines of batches, and the ways in which it is spoilt on purpose.
//! All of it is the same bytes at every run. Never here: what must become of it.

use std::collections::BTreeMap;

use jackpot::load::traffic::{Settings, Traffic};
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;
use serde_json::{Value, json};

use super::model::{list, millis, text};

/// The example terms.
pub fn example_terms() -> Value {
    serde_json::from_str(include_str!("../../terms/example.json")).unwrap()
}

/// Generated batches of all sources in the order in which they fall due: so many wagers, 2,000 a second of event
/// time from a quarter of a minute before an hour ends, so that windows of every length end on the way.
pub fn generate(terms: &Value, seed: u64, wagers: u64) -> Vec<Value> {
    let compiled = Terms::parse(terms.to_string().as_bytes()).expect("terms without a fault");
    let start = Millis::parse("2026-06-08T20:59:45Z").unwrap();
    let settings = Settings { seed, start, rate: 2_000, wagers, batch: 100, from: BTreeMap::new() };
    let traffic = Traffic::new(&compiled, settings).unwrap();
    traffic.map(|batch| serde_json::from_slice(&batch.body).unwrap()).collect()
}

/// Batches as lines.
pub fn lines(batches: &[Value]) -> Vec<String> {
    batches.iter().map(Value::to_string).collect()
}

/// Spoils one wager in 97, each in another way; some stand all the same.
pub fn spoil_wagers(batches: &mut [Value]) {
    let (mut count, mut ways) = (0, WAYS.iter().cycle());
    for batch in batches {
        let wagers = batch["wagers"].as_array_mut().unwrap();
        for index in 0..wagers.len() {
            count += 1;
            if count % 97 == 0 {
                let before = wagers[index.saturating_sub(1)].clone();
                ways.next().unwrap()(&mut wagers[index], &before);
            }
        }
    }
}

/// Changes a wager; the second one is the wager before it.
type Way = fn(&mut Value, &Value);

const WAYS: &[Way] = &[
    // What is no wager, and fields that are missing or out of their rule.
    |wager, _| *wager = json!("not an object"),
    |wager, _| *wager = Value::Null,
    |wager, _| drop(wager.as_object_mut().unwrap().remove("session")),
    |wager, _| wager["session"] = json!("two words"),
    |wager, _| wager["session"] = json!("s".repeat(65)),
    |wager, _| wager["interaction"] = json!(0),
    |wager, _| wager["interaction"] = json!(1.5),
    |wager, _| wager["interaction"] = json!("7"),
    |wager, _| wager["player"] = Value::Null,
    |wager, _| wager["game"] = json!("Quick Spin"),
    |wager, _| wager["round"] = json!(""),
    |wager, _| wager["funds"] = json!("credit"),
    |wager, _| wager["opt_in"] = json!("yes"),
    |wager, _| wager["occurred_at"] = json!("yesterday"),
    |wager, _| wager["currency"] = json!(978),
    |wager, _| wager["amount"] = Value::Null,
    |wager, _| wager["location"] = json!("MT"),
    |wager, _| wager["location"] = json!({ "jurisdiction": "MT" }),
    |wager, _| wager["location"]["jurisdiction"] = json!("XX"),
    |wager, _| wager["location"]["latitude"] = json!(90.5),
    |wager, _| wager["location"]["checked_at"] = moved(&wager["occurred_at"], 60_001),
    |wager, _| wager["hits"] = json!({ "pool": "mega", "level": "minor" }),
    |wager, _| wager["hits"] = vec![json!({ "pool": "mega", "level": "minor" }); 17].into(),
    // Amounts.
    |wager, _| wager["amount"] = json!(2.5),
    |wager, _| wager["amount"] = json!("1.2345678"),
    |wager, _| wager["amount"] = json!("007"),
    |wager, _| wager["amount"] = json!("1e3"),
    |wager, _| wager["amount"] = json!("-1"),
    |wager, _| wager["amount"] = json!("1."),
    |wager, _| wager["amount"] = json!("1000000000.000001"),
    |wager, _| wager["amount"] = json!("1000000000"),
    |wager, _| wager["amount"] = json!("0"),
    |wager, _| wager["amount"] = json!("0.100001"),
    // Currencies: two that are none, one that no pool takes.
    |wager, _| wager["currency"] = json!("eur"),
    |wager, _| wager["currency"] = json!("XQZ"),
    |wager, _| wager["currency"] = json!("JPY"),
    // Times.
    |wager, _| wager["occurred_at"] = json!("2199-01-01T00:00:00Z"),
    // Repeated interactions.
    |wager, before| {
        wager["session"] = before["session"].clone();
        wager["interaction"] = before["interaction"].clone();
    },
    |wager, _| veteran(wager, 1_000),
    |wager, _| veteran(wager, 936),
    |wager, _| veteran(wager, 935),
    // Places.
    |wager, _| drop(wager.as_object_mut().unwrap().remove("location")),
    |wager, _| wager["location"]["checked_at"] = moved(&wager["occurred_at"], -1_800_000),
    |wager, _| wager["location"]["checked_at"] = moved(&wager["occurred_at"], -1_800_001),
    |wager, _| wager["location"]["checked_at"] = moved(&wager["occurred_at"], 60_000),
    |wager, _| wager["location"] = place(wager, "US"),
    |wager, _| wager["location"] = place(wager, "US-UT"),
    |wager, _| wager["location"] = place(wager, "US-CA"),
    |wager, _| wager["location"] = place(wager, "US-NV"),
    |wager, _| wager["location"] = place(wager, "SE"),
    |wager, _| wager["location"] = place(wager, "FR"),
    |wager, _| wager["location"] = located(wager, Value::Null, (36.17, -115.14), 100),
    |wager, _| wager["location"] = located(wager, json!("US"), (40.4862, -74.4518), 1_000),
    |wager, _| wager["location"] = located(wager, json!("GB"), (51.5074, -0.1278), 1_000),
    |wager, _| wager["location"] = located(wager, json!("GB"), (35.8904, 14.4378), 100),
    |wager, _| wager["location"] = located(wager, json!("MT"), (59.2747, 15.2152), 100),
    |wager, _| wager["location"] = located(wager, json!("US-NJ"), (39.9448, -75.119), 8_000),
    |wager, _| wager["location"] = located(wager, json!("DE"), (47.6779, 9.1732), 20_000),
    |wager, _| wager["location"] = located(wager, json!("MT"), (0.0, -20.0), 0),
    |wager, before| {
        // The session of the wager before it, at another end of the world: no repeat.
        wager["session"] = before["session"].clone();
        wager["interaction"] = json!(before["interaction"].as_u64().unwrap_or(1) + 1_000_000);
        wager["location"] = located(wager, Value::Null, (35.8904, 14.4378), 100);
    },
    |wager, before| {
        wager["session"] = before["session"].clone();
        wager["interaction"] = json!(before["interaction"].as_u64().unwrap_or(1) + 2_000_000);
        wager["location"] = located(wager, Value::Null, (40.4862, -74.4518), 100);
    },
    // What allocate finds.
    |wager, _| wager["game"] = json!("no-such-game"),
    |wager, _| {
        wager["hits"] = json!([{ "pool": "mega", "level": "minor" }, { "pool": "mega", "level": "minor" }])
    },
    |wager, _| {
        wager["hits"] = json!([{ "pool": "mega", "level": "nobody" }, { "pool": "nobody", "level": "minor" }])
    },
    |wager, _| wager["hits"] = json!([7, {}, { "pool": "mega" }, { "pool": "Mega", "level": "minor" }]),
    |wager, _| {
        wager["hits"] = json!([
            { "pool": "nordic-daily", "level": "hourly" },
            { "pool": "desert-link", "level": "mini" },
            { "pool": "mega", "level": "major" },
            { "pool": "mega", "level": "grand" },
        ]);
    },
    // What changes nothing.
    |wager, _| {
        wager["opt_in"] = Value::Null;
        wager["hits"] = Value::Null;
        wager["comment"] = json!({ "of": ["a", "supplier"] });
    },
];

/// A wager of a session that several wagers share. It has no point: together they would be an impossible journey.
fn veteran(wager: &mut Value, interaction: u64) {
    wager["session"] = json!("veteran");
    wager["interaction"] = json!(interaction);
    for field in ["latitude", "longitude", "accuracy_m"] {
        wager["location"].as_object_mut().unwrap().remove(field);
    }
}

/// Adds and takes away batches: numbers out of order, gaps, repeats with the same and with other content, and
/// batches that are refused whole.
pub fn spoil_batches(batches: Vec<Value>) -> Vec<Value> {
    let mut spoilt: Vec<Value> = Vec::new();
    let mut held: Option<(Value, usize)> = None;
    for (number, batch) in batches.into_iter().enumerate() {
        match number % 61 {
            7 => {
                // Told once more, and once more with other wagers.
                let mut other = batch.clone();
                other["wagers"][0]["amount"] = json!("99");
                spoilt.extend([batch.clone(), batch, other]);
            }
            19 => held = Some((batch, spoilt.len() + 11)),
            // Never told: a gap.
            31 => {}
            43 => {
                let changes = ENVELOPES[number / 61 % ENVELOPES.len()];
                let mut wrong = batch.clone();
                changes(&mut wrong);
                spoilt.extend([wrong, batch]);
            }
            _ => spoilt.push(batch),
        }
        if let Some((late, _)) = held.take_if(|(_, until)| spoilt.len() >= *until) {
            spoilt.push(late);
        }
    }
    spoilt
}

/// Ways to make a batch one that is refused whole.
const ENVELOPES: &[fn(&mut Value)] = &[
    |batch| drop(batch.as_object_mut().unwrap().remove("schema")),
    |batch| batch["schema"] = json!(1),
    |batch| batch["schema"] = json!("wager-batch/2"),
    |batch| batch["sequence"] = json!(0),
    |batch| batch["sequence"] = json!("17"),
    |batch| batch["sequence"] = json!(9_223_372_036_854_775_808_u64),
    |batch| batch["wagers"] = json!([]),
    |batch| batch["wagers"] = json!({}),
    |batch| batch["wagers"] = vec![batch["wagers"][0].clone(); 501].into(),
    |batch| {
        let claim = json!({ "pool": "mega", "level": "minor" });
        let claimant = json!({ "hits": vec![claim; 13] });
        batch["wagers"] = vec![claimant; 5].into();
    },
    |batch| batch["comment"] = json!("x".repeat(512 * 1024)),
    |batch| batch["source"] = json!("acme-unheard-of"),
    |batch| batch["operator"] = json!("nobody"),
    |batch| batch["source"] = json!("Upper_Case"),
];

/// What a source tells at last: numbers below its window, far above it, and at the edges of both. `template` is a
/// batch of that source whose number and wagers are replaced.
pub fn edges(template: &Value, highest: u64) -> Vec<Value> {
    // Accepted, just within, just below, far above, just within, just above, just within, just below.
    let steps = [1_030, 6, 5, 3_000_000, 1_001_030, 2_001_031, 1_000_006, 1_000_005];
    let batches = (1_u64..).zip(steps.map(|step| highest + step)).map(|(interaction, number)| {
        let mut batch = template.clone();
        let mut wager = list(template, "wagers").iter().find(|wager| wager.is_object()).unwrap().clone();
        (wager["session"], wager["interaction"]) = (json!("at-the-edge"), interaction.into());
        (batch["sequence"], batch["wagers"]) = (number.into(), json!([wager]));
        batch
    });
    batches.collect()
}

fn place(wager: &Value, code: &str) -> Value {
    json!({ "jurisdiction": code, "checked_at": wager["occurred_at"] })
}

fn located(wager: &Value, claim: Value, (latitude, longitude): (f64, f64), accuracy_m: u32) -> Value {
    json!({
        "jurisdiction": claim, "latitude": latitude, "longitude": longitude, "accuracy_m": accuracy_m,
        "checked_at": wager["occurred_at"],
    })
}

/// A time so many milliseconds later.
fn moved(time: &Value, by_ms: i64) -> Value {
    let moved = jiff::Timestamp::from_millisecond(millis(time).unwrap() + by_ms).unwrap();
    moved.to_string().into()
}

/// The highest number of a source's batches.
pub fn highest(batches: &[Value], source: &str) -> u64 {
    let own = batches.iter().filter(|batch| text(batch, "source") == source);
    own.filter_map(|batch| batch["sequence"].as_u64()).max().unwrap_or(0)
}
