//! Bad input, end to end: one whole pipeline, into which a plain client publishes whatever anybody could. Each body is
//! refused with exactly its reason and id, all others count to the last digit, and no stage so much as restarts.
//! The stages' binaries must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[path = "support/client.rs"]
mod client;
#[allow(dead_code, reason = "each test crate uses a part of what they share")]
#[path = "support/pipeline.rs"]
mod pipeline;

use jackpot_core::time::Millis;
use serde_json::{Value, json};

use client::{Answer, Client};
use pipeline::{Pipeline, STAGES};

const SOURCE: &str = "acme-spin-eu1";
const SUBJECT: &str = "wagers.acme.acme-spin-eu1";
/// The hundredths of the one amount that wagers of these tests have, where nothing is wrong with theirs.
const HUNDREDTHS: u64 = 125;

/// A producer, and what it must read in the end.
struct Producer {
    client: Client,
    /// The number of its last batch, counted or not: whatever is refused, the next one is new.
    sequence: u64,
    /// Wagers that must count, each with [`HUNDREDTHS`].
    counted: u64,
    /// The refusals, in the order of the log: on which subject, of what, and why.
    refused: Vec<(String, String, &'static str)>,
}

impl Producer {
    fn new(url: &str) -> Self {
        Self { client: Client::connect(url), sequence: 0, counted: 0, refused: Vec::new() }
    }

    /// The body of the next batch.
    fn batch(&mut self, wagers: &[Value]) -> Value {
        self.sequence += 1;
        json!({ "schema": "wager-batch/1", "operator": "acme", "source": SOURCE, "sequence": self.sequence, "wagers": wagers })
    }

    /// A wager of a session of its own, as an object to be spoilt.
    fn wager(&self) -> Value {
        let now = Millis::now().plus(-1_000);
        json!({
            "session": format!("s-{}", self.sequence), "interaction": 1, "player": "p-1", "game": "quick-spin-7",
            "round": "r-1", "amount": "1.25", "currency": "EUR", "funds": "cash", "occurred_at": now,
            "location": {"jurisdiction": "MT", "checked_at": now},
        })
    }

    /// A batch of one good wager as text, to be spoilt.
    fn text(&mut self) -> String {
        let wager = self.wager();
        self.batch(&[wager]).to_string()
    }

    fn store(&mut self, subject: &[u8], headers: &[u8], body: &[u8]) -> u64 {
        match self.client.publish(subject, headers, body) {
            Answer::Stored(sequence) => sequence,
            other => panic!("it is not stored: {other:?}"),
        }
    }

    /// Publishes what must count: so many wagers.
    fn counts(&mut self, body: impl AsRef<[u8]>, wagers: u64) {
        self.store(SUBJECT.as_bytes(), b"", body.as_ref());
        self.counted += wagers;
    }

    /// Publishes what must be refused whole as `malformed`, and cannot be read far enough to be named.
    fn unreadable(&mut self, body: impl AsRef<[u8]>) {
        let sequence = self.store(SUBJECT.as_bytes(), b"", body.as_ref());
        self.told(SUBJECT, format!("@{sequence}"), "malformed");
    }

    /// Publishes what must be refused whole for this reason, under the number of the last batch.
    fn refuses(&mut self, body: impl AsRef<[u8]>, reason: &'static str) {
        self.store(SUBJECT.as_bytes(), b"", body.as_ref());
        self.told(SUBJECT, format!("{SOURCE}/{}", self.sequence), reason);
    }

    /// Publishes a batch of one wager that is changed so that it is refused for this reason, between two good ones.
    fn refuses_one(&mut self, change: impl FnOnce(&mut Value), reason: &'static str) {
        let (mut before, mut spoilt, mut after) = (self.wager(), self.wager(), self.wager());
        (before["interaction"], spoilt["interaction"], after["interaction"]) = (1.into(), 2.into(), 3.into());
        change(&mut spoilt);
        let body = self.batch(&[before, spoilt, after]).to_string();
        self.counts(body, 2);
        self.told(SUBJECT, format!("{SOURCE}/{}/1", self.sequence), reason);
    }

    /// The same with the text of the batch.
    fn refuses_text(&mut self, from: &str, to: &str, reason: &'static str) {
        let text = self.text();
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        self.counts(changed, 0);
        self.told(SUBJECT, format!("{SOURCE}/{}/0", self.sequence), reason);
    }

    fn told(&mut self, subject: &str, id: String, reason: &'static str) {
        self.refused.push((subject.replacen("wagers", "refusals", 1), id, reason));
    }
}

/// Replaces the opening brace of a body, so that another field comes first.
fn with_field(body: &str, field: &str) -> String {
    body.replacen('{', &format!("{{{field},"), 1)
}

/// So many arrays, one in the other.
fn nest(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

#[test]
fn nats_bad_input_is_refused_and_the_rest_counts() {
    let directory = tempfile::tempdir().unwrap();
    // A partition that does not count as idle has the event time of its wagers alone, however old they are.
    let start = || Pipeline::start(directory.path(), &["--partitions", "2"], &[("JACKPOT_IDLE_AFTER", "1h")]);
    let pipeline = start();
    let pids = STAGES.map(|stage| pipeline.pid(stage).unwrap());
    let mut producer = Producer::new(&pipeline.url);

    no_batches(&mut producer);
    no_json(&mut producer);
    envelopes(&mut producer);
    wagers(&mut producer);
    amounts(&mut producer);
    sizes(&mut producer, &pipeline.url);
    subjects(&mut producer);
    headers(&mut producer);
    let last = producer.text();
    producer.counts(last, 1);

    check(&pipeline, &producer);
    assert_eq!(STAGES.map(|stage| pipeline.pid(stage).unwrap()), pids, "no stage was started again");
    pipeline.stop();

    // Whatever was stored can be read again.
    let pipeline = start();
    producer.client = Client::connect(&pipeline.url);
    let again = producer.text();
    producer.counts(again, 1);
    check(&pipeline, &producer);
    pipeline.stop();
}

/// What is no object, or nothing at all; and the oldest wager that can be written, first of its partition.
fn no_batches(producer: &mut Producer) {
    let mut oldest = producer.wager();
    oldest["occurred_at"] = json!("0000-01-01T00:00:00Z");
    oldest["location"]["checked_at"] = json!("0000-01-01T00:00:00Z");
    let body = producer.batch(&[oldest]).to_string();
    producer.counts(body, 1);
    for body in ["", " ", "\n", "no JSON", "[]", "[1, 2]", "null", "true", "5", "\"text\"", "{", "}", "{}"] {
        producer.unreadable(body);
    }
    let body = format!("[{}]", producer.text());
    producer.unreadable(body);
    let two = format!("{}\n{}", producer.text(), producer.text());
    producer.unreadable(two);
}

/// Texts that are nearly JSON.
fn no_json(producer: &mut Producer) {
    let spoilt = |producer: &mut Producer, change: &dyn Fn(&[u8]) -> Vec<u8>| {
        let body = change(producer.text().as_bytes());
        producer.unreadable(body);
    };
    spoilt(producer, &|body| [b"\xef\xbb\xbf", body].concat());
    spoilt(producer, &|body| [body, b"\0"].concat());
    spoilt(producer, &|body| [b"\0", body].concat());
    spoilt(producer, &|body| [body, b","].concat());
    spoilt(producer, &|body| body[..body.len() - 1].to_vec());
    spoilt(producer, &|body| body.iter().copied().flat_map(|byte| [byte, 0]).collect());
    let replaced = |producer: &mut Producer, from: &str, to: &[u8]| {
        let text = producer.text();
        let (before, after) = text.split_once(from).unwrap();
        let body = [before.as_bytes(), to, after.as_bytes()].concat();
        producer.unreadable(body);
    };
    replaced(producer, "p-1", b"p\0");
    replaced(producer, "p-1", b"p\n");
    replaced(producer, "p-1", b"\xff");
    replaced(producer, "p-1", b"\xed\xa0\x80");
    replaced(producer, "p-1", b"\xc0\xaf");
    replaced(producer, "p-1", b"\\ud800");
    replaced(producer, "p-1", b"\\udc00\\ud800");
    replaced(producer, "p-1", b"\\x41");
    replaced(producer, "\"player\"", b"\"x\":\"\\uDFFF\",\"player\"");
    replaced(producer, "\"player\"", b"\"\\ud800\":1,\"player\"");
    replaced(producer, "\"player\"", b"'player'");
    replaced(producer, "\"player\"", b"\"player\":\"p-1\",\"player\"");
    replaced(producer, "\"player\"", b"\"\\u0070layer\":\"p-1\",\"player\"");
    replaced(producer, "\"schema\"", b"\"sequence\":1,\"schema\"");
    replaced(producer, "\"schema\"", b"\"x\":{\"a\":1,\"a\":1},\"schema\"");
    for value in ["01", "+1", "1.", ".5", "1e", "0x10", "NaN", "-Infinity", "/**/1", "1,", "True"] {
        let body = with_field(&producer.text(), &format!("\"x\":{value}"));
        producer.unreadable(body);
    }
    // The body itself and what stands in it: an array inside 32 others, and one more.
    let body = with_field(&producer.text(), &format!("\"x\":{}", nest(32)));
    producer.counts(body, 1);
    for depth in [33, 10_000, 200_000] {
        let body = with_field(&producer.text(), &format!("\"x\":{}", nest(depth)));
        producer.unreadable(body);
    }
    producer.unreadable("[".repeat(500_000));
    producer.unreadable("{\"a\":".repeat(100_000));
    for number in [&"9".repeat(100_000), "1e400", "-0", "0.0e-0", &format!("0.{}", "0".repeat(1_000))] {
        let body = with_field(&producer.text(), &format!("\"x\":{number}"));
        producer.counts(body, 1);
    }
}

/// Envelopes with a fault.
fn envelopes(producer: &mut Producer) {
    let spoilt = |producer: &mut Producer, field: &str, value: Value| {
        let wager = producer.wager();
        let mut batch = producer.batch(&[wager]);
        batch[field] = value;
        batch.to_string()
    };
    for value in [json!(null), json!(1), json!(["wager-batch/1"])] {
        let body = spoilt(producer, "schema", value);
        producer.refuses(body, "malformed");
    }
    for value in ["", "wager-batch/2", "WAGER-BATCH/1"] {
        let body = spoilt(producer, "schema", value.into());
        producer.refuses(body, "unsupported_schema");
    }
    for value in [json!([]), json!({}), json!("x"), json!(null)] {
        let body = spoilt(producer, "wagers", value);
        producer.refuses(body, "malformed");
    }
    for value in [json!(null), json!(5), json!("Acme"), json!("")] {
        let body = spoilt(producer, "operator", value);
        producer.refuses(body, "malformed");
    }
    for value in [json!(null), json!(5), json!("acme_spin"), json!("x".repeat(65)), json!({"a": 1})] {
        let body = spoilt(producer, "source", value);
        producer.unreadable(body);
    }
    for number in ["0", "-1", "1.0", "1e2", "9223372036854775808", "1e400", "\"5\"", "null", "[5]", "true"] {
        let text = producer.text();
        let body = text.replacen(
            &format!("\"sequence\":{}", producer.sequence),
            &format!("\"sequence\":{number}"),
            1,
        );
        assert_ne!(body, text);
        producer.unreadable(body);
    }
    let body = spoilt(producer, "operator", json!("nobody"));
    producer.refuses(body, "subject_mismatch");
    // The same again, and under the same number something else.
    let body = producer.text();
    producer.counts(&body, 1);
    producer.refuses(&body, "duplicate_batch");
    producer.refuses(body + " ", "duplicate_batch");
    producer.sequence += 1_000_000;
    let body = producer.text();
    producer.refuses(body, "sequence_jump");
    producer.sequence -= 1_000_001;
}

/// Batches with one wager that is wrong.
fn wagers(producer: &mut Producer) {
    let mut many: Vec<Value> = (1..=500_u64)
        .map(|interaction| {
            let mut wager = producer.wager();
            wager["interaction"] = interaction.into();
            wager
        })
        .collect();
    many[250]["funds"] = json!("credit");
    let body = producer.batch(&many).to_string();
    producer.counts(body, 499);
    producer.told(SUBJECT, format!("{SOURCE}/{}/250", producer.sequence), "invalid_field");

    for value in [json!(null), json!(7), json!("x"), json!([]), json!({}), json!([{}]), json!(false)] {
        producer.refuses_one(|wager| *wager = value, "invalid_field");
    }
    for field in
        ["session", "interaction", "player", "game", "round", "amount", "currency", "funds", "occurred_at"]
    {
        producer.refuses_one(|wager| wager[field] = json!(null), "invalid_field");
        if field != "amount" {
            producer.refuses_one(|wager| wager[field] = json!([["x"]]), "invalid_field");
        }
    }
    for (field, value) in [
        ("round", json!("\u{0}")),
        ("session", json!("é")),
        ("session", json!("x".repeat(65))),
        ("player", json!("Jane Doe")),
        ("round", json!("x".repeat(129))),
        ("game", json!("quick_spin")),
        ("interaction", json!(1.0)),
        ("interaction", json!(-1)),
        ("opt_in", json!("true")),
        ("location", json!("MT")),
        ("location", json!({})),
        ("occurred_at", json!("2026-06-08T20:15:30+02:00")),
        ("hits", json!({ "pool": "mega", "level": "grand" })),
        ("hits", json!(vec![json!({ "pool": "mega", "level": "minor" }); 17])),
    ] {
        producer.refuses_one(|wager| wager[field] = value, "invalid_field");
    }
    for number in
        ["1e400", "-1e400", "1E999999999", &"9".repeat(1_000), "\"35.9\"", "null", "{}", "90.000001"]
    {
        let to = format!("\"location\":{{\"latitude\":{number},\"longitude\":14.4,\"accuracy_m\":20,");
        producer.refuses_text("\"location\":{", &to, "invalid_field");
    }
    producer.refuses_one(|wager| wager["currency"] = json!("eur"), "unknown_currency");
    producer.refuses_one(|wager| wager["currency"] = json!("XYZ"), "unknown_currency");
    producer
        .refuses_one(|wager| wager["occurred_at"] = json!("9999-12-31T23:59:59.999Z"), "occurred_in_future");
    producer.refuses_one(|wager| wager["interaction"] = json!(1), "duplicate_interaction");
    producer.refuses_one(|wager| wager["location"] = json!(null), "location_missing");
    producer.refuses_one(|wager| wager["game"] = json!("no-such-game"), "unknown_game");
    producer.refuses_one(|wager| wager["location"]["jurisdiction"] = json!("FR"), "jurisdiction_blocked");

    // A hit that cannot be read, however deep: the wager stands.
    for hit in
        [json!(null), json!([[[[[]]]]]), json!({"pool": {"pool": "mega"}, "level": "minor"}), json!("minor")]
    {
        producer.refuses_one(|wager| wager["hits"] = json!([hit]), "hit_refused");
        producer.counted += 1;
    }
    let depth = 28;
    let text = producer.text();
    let body = text.replacen("\"round\"", &format!("\"hits\":[{}],\"round\"", nest(depth)), 1);
    producer.counts(body, 1);
    producer.told(SUBJECT, format!("{SOURCE}/{}/0", producer.sequence), "hit_refused");
    let text = producer.text();
    let body = text.replacen("\"round\"", &format!("\"hits\":[{}],\"round\"", nest(depth + 2)), 1);
    producer.unreadable(body);
}

/// Money that is none.
fn amounts(producer: &mut Producer) {
    let thirty = format!("\"0.{}1\"", "0".repeat(29));
    for amount in [
        "2.5",
        "0",
        "-0",
        "-0.0",
        "1e400",
        "-1e400",
        "true",
        "{}",
        "[]",
        "[\"1\"]",
        "\"\"",
        "\"-0\"",
        "\"-1\"",
        "\"+1\"",
        "\"1e3\"",
        "\"1e400\"",
        "\"1.\"",
        "\".5\"",
        "\"01\"",
        "\"1,5\"",
        "\" 1\"",
        "\"1\\u0000\"",
        "\"0x1\"",
        "\"NaN\"",
        "\"Infinity\"",
        "\"\u{661}\"",
        "\"1000000000.000001\"",
        "\"10000000000\"",
        "\"0.0000001\"",
        &thirty,
    ] {
        producer.refuses_text("\"1.25\"", amount, "invalid_amount");
    }
    let huge = "9".repeat(100_000);
    producer.refuses_text("\"1.25\"", &huge, "invalid_amount");
    producer.refuses_text("\"1.25\"", &format!("\"{huge}\""), "invalid_amount");
    // Other ways to write the same amount.
    for amount in ["\"1.250000\"", "\"\\u0031.25\""] {
        let body = producer.text().replacen("\"1.25\"", amount, 1);
        producer.counts(body, 1);
    }
}

/// What is too large: for the contract, and for the broker, which refuses it and stores nothing.
fn sizes(producer: &mut Producer, url: &str) {
    let padded = |producer: &mut Producer, size: usize| {
        let text = with_field(&producer.text(), "\"x\":\"\"");
        let padding = "x".repeat(size - text.len());
        text.replacen("\"x\":\"\"", &format!("\"x\":\"{padding}\""), 1)
    };
    let body = padded(producer, 512 * 1024);
    producer.counts(body, 1);
    let body = padded(producer, 512 * 1024 + 1);
    producer.refuses(body, "malformed");
    let body = padded(producer, 1024 * 1024);
    producer.refuses(body, "malformed");
    let text = producer.text().replacen("p-1", &"p".repeat(1_000_000), 1);
    producer.refuses(text, "malformed");
    let body = padded(producer, 1024 * 1024 + 1);
    let answer = producer.client.publish(SUBJECT.as_bytes(), b"", body.as_bytes());
    assert_eq!(answer, Answer::Refused("-ERR 'Maximum Payload Violation'".into()));
    producer.client = Client::connect(url);

    let wagers = |producer: &Producer, count: u64, hits: usize| -> Vec<Value> {
        let wager = |interaction: u64| {
            let mut wager = producer.wager();
            wager["interaction"] = interaction.into();
            wager["hits"] = json!(vec![json!({ "pool": "nobody", "level": "minor" }); hits]);
            wager
        };
        (1..=count).map(wager).collect()
    };
    let many = wagers(producer, 501, 0);
    let body = producer.batch(&many).to_string();
    producer.refuses(body, "malformed");
    let hitting = wagers(producer, 5, 13);
    let body = producer.batch(&hitting).to_string();
    producer.refuses(body, "malformed");
    let hitting = wagers(producer, 4, 16);
    let body = producer.batch(&hitting).to_string();
    producer.counts(body, 4);
    for index in 0..64 {
        producer.told(SUBJECT, format!("{SOURCE}/{}/{}", producer.sequence, index / 16), "hit_refused");
    }
}

/// Subjects that are not the batch's, and some that nobody listens to.
fn subjects(producer: &mut Producer) {
    let long = format!("wagers.{}.{}", "x".repeat(2_000), "y".repeat(2_000));
    for subject in [
        "wagers.acme.acme-spin-eu2",
        "wagers.fjordbet.acme-spin-eu1",
        "wagers.nobody.nothing",
        "wagers.ACME.Acme-Spin-EU1",
        "wagers.é.$SYS",
        &long,
    ] {
        let body = producer.text();
        producer.store(subject.as_bytes(), b"", body.as_bytes());
        producer.told(subject, format!("{SOURCE}/{}", producer.sequence), "subject_mismatch");
    }
    let body = producer.text().replace(SOURCE, "acme-unheard-of");
    producer.store(b"wagers.acme.acme-unheard-of", b"", body.as_bytes());
    producer.told(
        "wagers.acme.acme-unheard-of",
        format!("acme-unheard-of/{}", producer.sequence),
        "unknown_source",
    );
    let body = producer.text();
    producer.store(b"wagers.\xff.acme-spin-eu1", b"", body.as_bytes());
    producer.told(
        "wagers.\u{fffd}.acme-spin-eu1",
        format!("{SOURCE}/{}", producer.sequence),
        "subject_mismatch",
    );
    for subject in ["wagers", "wagers.acme", "wagers.acme.acme-spin-eu1.x", "wager.acme.acme-spin-eu1"] {
        let body = producer.text();
        assert_eq!(
            producer.client.publish(subject.as_bytes(), b"", body.as_bytes()),
            Answer::Nobody,
            "{subject}"
        );
    }
}

/// Headers that no producer needs.
fn headers(producer: &mut Producer) {
    let many: Vec<u8> =
        (0..500).flat_map(|i| format!("x-{i}: {}\r\n", "y".repeat(50)).into_bytes()).collect();
    let blocks: [&[u8]; 9] = [
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0 503 No Responders\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 999999\r\n\r\n",
        b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 1\r\nNats-Pending-Bytes: 1\r\n\r\n",
        b"NATS/1.0\r\nno colon\r\n: no name\r\nno value:\r\n\r\n",
        b"NATS/1.0\r\nx: \xff\xfe\r\n\r\n",
        b"NATS/1.0\r\nwebhook-id: a\r\nwebhook-id: b\r\nwebhook-signature: v1,\r\nwebhook-signature: v9\r\n\r\n",
        b"NATS/1.0\r\nx: \0\r\n folded: yes\r\n\r\n",
        &[b"NATS/1.0\r\n", &many[..], b"\r\n"].concat(),
    ];
    for block in blocks {
        let body = producer.text();
        producer.store(SUBJECT.as_bytes(), block, body.as_bytes());
        producer.counted += 1;
        let sequence = producer.store(SUBJECT.as_bytes(), block, b"");
        producer.told(SUBJECT, format!("@{sequence}"), "malformed");
    }
    // A message that the client cannot read and that is as large as the broker takes.
    let body = with_field(&producer.text(), &format!("\"x\":\"{}\"", "x".repeat(1_000_000)));
    producer.store(SUBJECT.as_bytes(), b"NATS/1.0\r\nno colon\r\n\r\n", body.as_bytes());
    producer.told(SUBJECT, format!("{SOURCE}/{}", producer.sequence), "malformed");
}

/// All that was published is through: what must count counts, and the refusals are these, in this order.
fn check(pipeline: &Pipeline, producer: &Producer) {
    pipeline.wait();
    for total in pipeline.json(&["totals", "--pool", "mega"]) {
        let hundredths = producer.counted * HUNDREDTHS;
        let wagered = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        let wagered = wagered.trim_end_matches('0').trim_end_matches('.');
        assert_eq!(
            (&total["wagers"], &total["wagered"]),
            (&json!(producer.counted), &json!(wagered)),
            "{total}"
        );
    }
    let mut told = pipeline.json(&["refusals"]);
    told.sort_by_key(|refusal| {
        (refusal["partition"].as_u64(), refusal["frame"].as_u64(), refusal["number"].as_u64())
    });
    for subject in producer.refused.iter().map(|(subject, ..)| subject) {
        let expect: Vec<_> = producer.refused.iter().filter(|(on, ..)| on == subject).collect();
        let on = |refusal: &&Value| {
            *subject == format!("refusals.{}.{}", word(refusal, "operator"), word(refusal, "source"))
        };
        let told: Vec<_> = told.iter().filter(on).map(read).collect();
        let expect: Vec<_> =
            expect.into_iter().map(|(_, id, reason)| (id.clone(), (*reason).to_owned())).collect();
        let differ = told.iter().zip(&expect).find(|(told, expect)| told != expect);
        assert_eq!(differ, None, "on {subject}");
        assert_eq!(told.len(), expect.len(), "on {subject}");
    }
    assert_eq!(told.len(), producer.refused.len());
    // Exit 0: no part has stopped.
    pipeline.ok(&["status"]);
    // Those of odd headers among them.
    for sequence in [1].into_iter().chain((1..=producer.sequence).rev().take(11).step_by(2)) {
        let told = pipeline.ok(&["explain", &format!("{SOURCE}/{sequence}")]);
        assert!(told.contains("ended "), "{told}");
    }
    let verified = pipeline.ok(&["verify"]);
    assert!(verified.trim_end().ends_with("verified"), "{verified}");
}

fn word<'a>(refusal: &'a Value, field: &str) -> &'a str {
    refusal[field].as_str().unwrap()
}

/// What a refusal is about, and its reason; whatever else it must have is there.
fn read(refusal: &Value) -> (String, String) {
    assert!(!word(refusal, "detail").is_empty() && word(refusal, "detail").len() <= 300, "{refusal}");
    assert!(Millis::parse(word(refusal, "at")).is_some(), "{refusal}");
    let stage = match word(refusal, "reason") {
        "unknown_game" | "hit_refused" => "allocate",
        "jurisdiction_blocked" | "location_missing" => "geofence",
        _ => "validate",
    };
    assert_eq!(word(refusal, "stage"), stage, "{refusal}");
    let id = match (&refusal["wager"], &refusal["batch"]) {
        (Value::String(id), Value::Null) | (Value::Null, Value::String(id)) => id.clone(),
        _ => panic!("{refusal} names a wager or a batch"),
    };
    (id, word(refusal, "reason").to_owned())
}
