//! Every refusal of validate, with the sentence that the producer reads; and what stands.

use std::collections::BTreeSet;

use jackpot_core::limits;
use jackpot_core::refusal::Reason;
use jackpot_core::rules;

use super::*;

/// What becomes of one body under `terms(1)`, after the bodies before it: `reason: detail`, one line for the batch
/// or for each refused wager, or the wagers that stand.
pub(super) struct Table {
    state: State,
    pub(super) next: u64,
    seen: BTreeSet<Reason>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { state: State::new(0), next: 1, seen: BTreeSet::new() }
    }

    fn judge(&mut self, subject: &str, body: &[u8]) -> String {
        self.judge_entry(message(self.next + 1, subject, RECORDED_AT, body.to_vec()))
    }

    pub(super) fn judge_entry(&mut self, entry: Entry) -> String {
        let ingress = [marker(self.next, RECORDED_AT, 1), entry];
        self.next += 2;
        let frames = run(&mut self.state, &[terms(1, [None; 2])], &ingress, &[]);
        let [frame] = &frames[..] else { panic!("one batch is one frame") };
        assert_eq!(frame.header.ingress.count, self.next - 1, "markers are counted");
        let mut lines = Vec::new();
        match &frame.body.batches[0].verdict {
            Verdict::Refused(refused) => {
                self.seen.insert(refused.reason);
                let conflict = if refused.conflict { " CONFLICT" } else { "" };
                lines.push(format!("{} {}: {}{conflict}", refused.batch, refused.reason, refused.detail));
            }
            Verdict::Accepted(accepted) => {
                lines.push(format!("{} stand", accepted.wagers.len()));
                for refusal in &accepted.refusals {
                    assert!(refusal.detail.len() <= limits::DETAIL_BYTES_MAX);
                    self.seen.insert(refusal.reason);
                    lines.push(format!("{}: {}", refusal.reason, refusal.detail));
                }
            }
        }
        lines.join("\n")
    }

    fn check(&mut self, body: &str, expect: &str) {
        assert_eq!(self.judge("lane.0.acme.eu1", body.as_bytes()), expect, "{body}");
    }
}

#[test]
fn every_refusal_has_its_place() {
    let mut table = Table::new();
    let good = batch("eu1", 5, &[wager("s", 1)]);
    table.check(
        "{",
        "@2 malformed: the body is no JSON as the contract has it: the end within an object or array at byte 1",
    );
    table.check("[1]", "@4 malformed: the body must be an object, and is an array");
    table.check("{}", "@6 malformed: schema is missing; it must be the string \"wager-batch/1\"");
    table.check(
        r#"{"schema":"wager-batch/2","source":"eu1","sequence":5}"#,
        "eu1/5 unsupported_schema: schema must be \"wager-batch/1\", and is \"wager-batch/2\"",
    );
    table.check(
        &good.replace("\"eu1\"", "\"eu2\""),
        "eu2/5 subject_mismatch: the batch must be published to wagers.acme.eu2, and came on the subject of source \"eu1\" of operator \"acme\"",
    );
    assert_eq!(
        table.judge("lane.0.acme.eu3", good.replace("\"eu1\"", "\"eu3\"").as_bytes()),
        "eu3/5 unknown_source: revision 1 of the terms lists no source \"eu3\" of operator \"acme\"",
    );
    assert_eq!(
        table.judge("lane.0.acme.signed", good.replace("\"eu1\"", "\"signed\"").as_bytes()),
        "signed/5 bad_signature: the header webhook-signature is missing: this source must sign its batches as Standard Webhooks say, with key k1 or k2",
    );
    table.check(&good, "1 stand");
    table.check(&good, "eu1/5 duplicate_batch: sequence 5 was accepted before, with the same content; there is nothing to do");
    table.check(
        &format!("{good} "),
        "eu1/5 duplicate_batch: sequence 5 was accepted before, with other content; give every new batch the next number CONFLICT",
    );
    table.check(
        &good.replace(":5,", ":1000006,"),
        "eu1/1000006 sequence_jump: sequence 1000006 lies more than 1000000 above 5, the highest that was accepted; mend the counter, or give the source a new sequence_from in the terms",
    );
    table.check(
        &good.replace(":5,", ":1000005,"),
        "0 stand\nduplicate_interaction: wagers[0].interaction 1 of its session was accepted before",
    );
    table.check(
        &good.replace(":5,", ":998980,"),
        "eu1/998980 stale_sequence: sequence 998980 lies below 998981, the lowest that can still be accepted; a source that lost its counter needs a new sequence_from in the terms",
    );
    let mut sequence = 1_000_005;
    let mut one = |table: &mut Table, from: &str, to: &str, expect: &str| {
        sequence += 1;
        let before = wager("s", sequence);
        let changed = before.replacen(from, to, 1);
        assert!(from == to || changed != before, "{from}");
        table.check(&batch("eu1", sequence, &[changed]), expect);
    };
    one(
        &mut table,
        "\"EUR\"",
        "5",
        "0 stand\ninvalid_field: wagers[0].currency must be three capitals that are an active ISO 4217 code, and is the number 5",
    );
    one(
        &mut table,
        "\"EUR\"",
        "\"eur\"",
        "0 stand\nunknown_currency: wagers[0].currency must be three capitals that are an active ISO 4217 code, and is \"eur\"",
    );
    one(
        &mut table,
        "\"2.50\"",
        "2.50",
        "0 stand\ninvalid_amount: wagers[0].amount must be a decimal string with at most 6 digits after the point, like \"2.50\", and is the number 2.50",
    );
    one(
        &mut table,
        "\"2.50\"",
        "\"1000000000.1\"",
        "0 stand\ninvalid_amount: wagers[0].amount must be at most \"1000000000\", and is \"1000000000.1\"",
    );
    one(
        &mut table,
        "20:15:30.123",
        "20:15:36.001",
        "0 stand\noccurred_in_future: wagers[0].occurred_at is 5001 ms after the broker received it, more than 5000; mend the clock of the source",
    );
    one(&mut table, "20:15:30.123", "20:15:36.000", "1 stand");
    for reason in Reason::ALL.iter().take_while(|&&reason| reason < Reason::LocationMissing) {
        assert!(table.seen.contains(reason), "{reason}");
    }
}

#[test]
fn the_envelope_is_judged_field_by_field() {
    let good = batch("eu1", 5, &[wager("s", 1)]);
    let check = |from: &str, to: &str, expect: &str| {
        let mut table = Table::new();
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{from}");
        table.check(&changed, expect);
    };
    check(
        "\"wager-batch/1\"",
        "1",
        "eu1/5 malformed: schema must be the string \"wager-batch/1\", and is the number 1",
    );
    check(
        "\"wager-batch/1\"",
        "null",
        "eu1/5 malformed: schema is missing; it must be the string \"wager-batch/1\"",
    );
    check(
        ":5,",
        ":0,",
        "@2 malformed: sequence must be a whole number from 1 to 9223372036854775807, and is the number 0",
    );
    check(
        ":5,",
        ":5.0,",
        "@2 malformed: sequence must be a whole number from 1 to 9223372036854775807, and is the number 5.0",
    );
    check(
        ":5,",
        ":5e0,",
        "@2 malformed: sequence must be a whole number from 1 to 9223372036854775807, and is the number 5e0",
    );
    check(":5,", ":9223372036854775807,", "1 stand");
    check(
        ":5,",
        ":9223372036854775808,",
        "@2 malformed: sequence must be a whole number from 1 to 9223372036854775807, and is the number 9223372036854775808",
    );
    check(
        ":5,",
        &format!(":{},", "9".repeat(5_000)),
        "@2 malformed: sequence must be a whole number from 1 to 9223372036854775807, and is a number",
    );
    check(
        "\"eu1\"",
        "\"EU1\"",
        "@2 malformed: source must be an identifier: [a-z0-9][a-z0-9-]{0,63}, and is \"EU1\"",
    );
    check("\"eu1\"", "\"\\u0065u1\"", "1 stand");
    check(
        "\"acme\",",
        "[{}],",
        "eu1/5 malformed: operator must be an identifier: [a-z0-9][a-z0-9-]{0,63}, and is an array",
    );
    check(
        "\"operator\":\"acme\",",
        "",
        "eu1/5 malformed: operator is missing; it must be an identifier: [a-z0-9][a-z0-9-]{0,63}",
    );
    check("\"wagers\":", "\"wagerz\":", "eu1/5 malformed: wagers is missing; it must be an array");
    check("{\"schema\"", "{\"x\":{\"a\":[1,2,{}]},\"schema\"", "1 stand");
    check(
        "{\"schema\"",
        "{\"x\":{\"a\":1,\"\\u0061\":2},\"schema\"",
        "@2 malformed: the body is no JSON as the contract has it: the end of a name that its object has already at byte 20",
    );
    check(
        "\"mega\"",
        "\"\\ud800\"",
        "@2 malformed: the body is no JSON as the contract has it: half of a surrogate pair at byte 370",
    );
    let sized = |wagers: &[String], expect: &str| Table::new().check(&batch("eu1", 5, wagers), expect);
    sized(&[], "eu1/5 malformed: wagers must have 1 to 500 entries, and has 0");
    let many: Vec<_> =
        (1..=501).map(|i| wager("s", i).replace(r#"{"pool":"mega","level":"grand"}"#, "")).collect();
    sized(&many[..500], "500 stand");
    sized(&many, "eu1/5 malformed: wagers must have 1 to 500 entries, and has 501");
    let hitting: Vec<_> = (1..=65).map(|i| wager("s", i)).collect();
    sized(&hitting[..64], "64 stand");
    sized(&hitting, "eu1/5 malformed: the wagers must have at most 64 entries of hits in all, and have 65");
    let padded = |len: usize| format!("{good}{}", " ".repeat(len - good.len()));
    Table::new().check(&padded(limits::BATCH_BYTES_MAX), "1 stand");
    Table::new().check(
        &padded(limits::BATCH_BYTES_MAX + 1),
        "eu1/5 malformed: the body must have at most 524288 bytes, and has 524289; publish smaller batches",
    );
    let other = padded(limits::BATCH_BYTES_MAX + 1).replace("wager-batch/1", "wager-batch/9");
    Table::new().check(
        &other,
        "eu1/5 unsupported_schema: schema must be \"wager-batch/1\", and is \"wager-batch/9\"",
    );
}

#[test]
fn wagers_are_judged_field_by_field() {
    let check = |from: &str, to: &str, expect: &str| {
        let good = wager("s", 1);
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{from}");
        let expect = match expect {
            "" => "1 stand".to_owned(),
            fault => format!("0 stand\n{fault}"),
        };
        Table::new().check(&batch("eu1", 5, &[changed]), &expect);
    };
    let invalid = |from: &str, to: &str, expect: &str| {
        check(from, to, &format!("invalid_field: wagers[0].{expect}"));
    };
    check(&wager("s", 1), "7", "invalid_field: wagers[0] must be an object, and is the number 7");
    check(&wager("s", 1), "null", "invalid_field: wagers[0] must be an object, and is null");
    const TOKEN: &str = "must be a string of 1 to 64 printable ASCII characters without space";
    invalid("\"s\"", "\"a b\"", &format!("session {TOKEN}"));
    invalid("\"s\"", "7", &format!("session {TOKEN}, and is a number"));
    invalid("\"p-6f1c\"", "441632960961", &format!("player {TOKEN}, and is a number"));
    invalid("\"s\"", "null", "session is missing");
    check("\"s\"", &format!("\"{}\"", "x".repeat(64)), "");
    invalid("\"s\"", &format!("\"{}\"", "x".repeat(65)), &format!("session {TOKEN}"));
    invalid("\"p-6f1c\"", "\"Jane Doe\"", &format!("player {TOKEN}"));
    invalid(
        "\"r-99812\"",
        "\"\\u0000\"",
        "round must be a string of 1 to 128 printable ASCII characters without space, and is \"\\u{0}\"",
    );
    invalid(
        "\"interaction\":1",
        "\"interaction\":-1",
        "interaction must be a whole number from 1 to 9223372036854775807, and is the number -1",
    );
    invalid(
        "\"interaction\":1",
        "\"interaction\":\"1\"",
        "interaction must be a whole number from 1 to 9223372036854775807, and is \"1\"",
    );
    invalid(
        "\"quick-spin-7\"",
        "\"Quick\"",
        "game must be an identifier: [a-z0-9][a-z0-9-]{0,63}, and is \"Quick\"",
    );
    invalid("\"cash\"", "\"Cash\"", "funds must be \"cash\", \"bonus\" or \"free\", and is \"Cash\"");
    invalid("\"opt_in\":true", "\"opt_in\":1", "opt_in must be true or false, and is the number 1");
    check("\"opt_in\":true", "\"opt_in\":null", "");
    invalid("\"amount\":\"2.50\",", "", "amount is missing");
    invalid("\"2.50\"", "null", "amount is missing");
    check("\"2.50\"", "\"0\"", "");
    check(
        "\"2.50\"",
        "{\"a\":[]}",
        "invalid_amount: wagers[0].amount must be a decimal string with at most 6 digits after the point, like \"2.50\", and is an object",
    );
    invalid(
        "\"2026-06-08T20:15:30.123Z\"",
        "\"2026-06-08T20:15:30+00:00\"",
        "occurred_at must be a time in UTC of the form 2026-06-08T20:15:30.123Z, and is \"2026-06-08T20:15:30+00:00\"",
    );
    check(
        "2026-06-08T20:15:30.123Z",
        "9999-12-31T23:59:59Z",
        "occurred_in_future: wagers[0].occurred_at is 251621351068000 ms after the broker received it, more than 5000; mend the clock of the source",
    );
    let point = "\"latitude\":35.9,\"longitude\":14.5,\"accuracy_m\":20";
    let located = |fields: &str, expect: &str| {
        let to = format!("\"location\":{{{fields}}},");
        let from = "\"location\":{\"jurisdiction\":\"MT\",\"checked_at\":\"2026-06-08T20:01:00.000Z\"},";
        let expect =
            if expect.is_empty() { String::new() } else { format!("invalid_field: wagers[0].{expect}") };
        check(from, &to, &expect);
    };
    let at = |time: &str| format!("\"checked_at\":\"2026-06-08T{time}Z\"");
    let fresh = at("20:01:00.000");
    located("", "location.checked_at is missing");
    located(&fresh, "location must have jurisdiction, or latitude, longitude and accuracy_m");
    located(&format!("{fresh},{point}"), "");
    located(&format!("{fresh},{point},\"jurisdiction\":\"US-NV\""), "");
    located(
        &format!("{fresh},\"latitude\":1,\"jurisdiction\":\"MT\""),
        "location must have latitude, longitude and accuracy_m, or none of them",
    );
    located(
        &format!("{fresh},{}", point.replace("35.9", "90.1")),
        "location.latitude must be a number from -90 to 90, and is the number 90.1",
    );
    located(
        &format!("{fresh},{}", point.replace("14.5", "1e999")),
        "location.longitude must be a number from -180 to 180, and is the number 1e999",
    );
    located(
        &format!("{fresh},{}", point.replace("20", "-1")),
        "location.accuracy_m must be a number from 0 to 20000000, and is the number -1",
    );
    located(&format!("{fresh},{}", point.replace("35.9", "-9.0e1")), "");
    located(
        &format!("{fresh},\"jurisdiction\":\"XX\""),
        "location.jurisdiction must be an ISO 3166-1 alpha-2 or 3166-2 code, and is \"XX\"",
    );
    located(&format!("{},\"jurisdiction\":\"MT\"", at("20:16:30.123")), "");
    located(
        &format!("{},\"jurisdiction\":\"MT\"", at("20:16:30.124")),
        "location.checked_at is 60001 ms after occurred_at; a location is checked before the wager, or at most 60000 ms after",
    );
    check("\"location\":{", "\"location\":null,\"elsewhere\":{", "");
    invalid(
        "\"location\":{",
        "\"location\":5,\"elsewhere\":{",
        "location must be an object, and is the number 5",
    );
    let hits = "[{\"pool\":\"mega\",\"level\":\"grand\"}]";
    check(hits, "null", "");
    check(hits, "[]", "");
    invalid(hits, "{}", "hits must be an array, and is an object");
    let of = |count: usize| format!("[{}]", vec!["{\"pool\":\"mega\",\"level\":\"grand\"}"; count].join(","));
    check(hits, &of(16), "");
    invalid(hits, &of(17), "hits must have at most 16 entries, and has 17");
    check(hits, "[null,{},{\"pool\":1,\"level\":\"a\"},{\"pool\":\"A\",\"level\":\"a\"},[[]]]", "");
}

#[test]
fn of_several_faults_the_first_is_told() {
    let check = |changes: &[(&str, &str)], expect: &str| {
        let changed = changes.iter().fold(wager("s", 1), |text, (from, to)| text.replacen(from, to, 1));
        let told = Table::new().judge("lane.0.acme.eu1", batch("eu1", 5, &[changed]).as_bytes());
        assert!(told.starts_with(&format!("0 stand\n{expect}")), "{told}");
    };
    let (amount, currency) = (("\"2.50\"", "2.50"), ("EUR", "eur"));
    let future = ("20:15:30.123", "21:15:30.123");
    let funds = ("\"cash\"", "\"x\"");
    check(&[amount, currency, future, funds], "invalid_field: wagers[0].funds");
    check(&[amount, currency, future], "invalid_amount");
    check(&[currency, future], "unknown_currency");
    check(&[future], "occurred_in_future");
    check(&[("\"hits\":[", "\"hits\":0,\"x\":["), funds], "invalid_field: wagers[0].funds");
    let twice = [wager("s", 1), wager("s", 1).replacen(future.0, future.1, 1), wager("s", 1)];
    let told = Table::new().judge("lane.0.acme.eu1", batch("eu1", 5, &twice).as_bytes());
    let reasons: Vec<_> = told.lines().map(|line| line.split(':').next().expect("a word")).collect();
    assert_eq!(reasons, ["1 stand", "occurred_in_future", "duplicate_interaction"]);
}

/// Each body has all the faults of those after it, too.
#[test]
fn of_several_faults_of_a_batch_the_first_is_told() {
    let mut table = Table::new();
    let unsigned = batch("signed", 5, &[wager("s", 1)]);
    let signed_before =
        signed(message(2, "lane.0.acme.signed", RECORDED_AT, unsigned.clone()), "k1", "signed", 5);
    assert_eq!(table.judge_entry(signed_before), "1 stand");
    let unknown = unsigned.replace("acme", "other");
    let elsewhere = unknown.replace("\"signed\"", "\"elsewhere\"");
    let empty = elsewhere.replace("\"wagers\":[", "\"wagers\":[],\"x\":[");
    let unsupported = empty.replace("wager-batch/1", "wager-batch/7");
    let shapeless = unsupported.replace("\"wager-batch/7\"", "7");
    let broken = shapeless.replace("\"x\":[", "\"x\":[,");
    for (subject, body, expect) in [
        ("lane.0.other.signed", &broken, "malformed: the body is no JSON"),
        ("lane.0.other.signed", &shapeless, "malformed: schema must be"),
        ("lane.0.other.signed", &unsupported, "unsupported_schema: "),
        ("lane.0.other.signed", &empty, "malformed: wagers must have 1 to 500 entries"),
        ("lane.0.other.signed", &elsewhere, "subject_mismatch: "),
        ("lane.0.other.signed", &unknown, "unknown_source: "),
        ("lane.0.acme.signed", &unsigned, "bad_signature: "),
    ] {
        let told = table.judge(subject, body.as_bytes());
        assert!(told.contains(expect), "{expect} and not {told}");
    }
    let again =
        signed(message(table.next + 1, "lane.0.acme.signed", RECORDED_AT, unsigned), "k1", "signed", 5);
    assert!(table.judge_entry(again).contains("duplicate_batch: "));
}

#[test]
fn one_bad_wager_does_not_take_its_batch_down() {
    let wagers = [wager("s", 1), "7".into(), wager("s", 1), wager("t", 1), wager("s", 2)];
    Table::new().check(
        &batch("eu1", 1, &wagers),
        "3 stand\ninvalid_field: wagers[1] must be an object, and is the number 7\nduplicate_interaction: wagers[2].interaction 1 of its session was accepted before",
    );
}

#[test]
fn details_quote_no_player() {
    let body = batch("eu1", 1, &[wager("s", 1).replace("p-6f1c", "Jane Doe"), wager("my secret", 1)]);
    let told = Table::new().judge("lane.0.acme.eu1", body.as_bytes());
    assert!(!told.contains("Jane") && !told.contains("secret"), "{told}");
}

#[test]
fn frames_are_made_by_the_rules_of_their_terms() {
    let mut state = State::new(0);
    let body = |sequence| batch("eu1", sequence, &[wager("s", sequence)]);
    let ingress = [
        marker(3, RECORDED_AT, 1),
        message(4, "lane.0.acme.eu1", RECORDED_AT, body(1)),
        marker(5, RECORDED_AT, 2),
        message(6, "lane.0.acme.eu1", RECORDED_AT, body(2)),
    ];
    let mut cutter_of = |revision: u64, rules: u16, ingress: &[Entry]| {
        let terms = CompiledTerms::new(&Terms { rules, ..terms(revision, [None; 2]) });
        let mut cutter = Cutter::new(&state, &terms, LATENESS_MS);
        for entry in ingress {
            assert_eq!(cutter.take(&parse(entry)), Taken::In);
        }
        let frame = cutter.finish().expect("a frame");
        state.fold(&frame, Digest::of(&frame.encode()), &terms).expect("it follows");
        (frame.header.terms, frame.header.rules)
    };
    assert_eq!(cutter_of(1, 1, &ingress[..2]), (1, 1));
    assert_eq!(cutter_of(2, 2, &ingress[2..]), (2, 2));
}

#[test]
fn what_is_accepted_is_carried_on() {
    let mut state = State::new(0);
    let second = wager("t", 9)
        .replace("\"jurisdiction\":\"MT\"", "\"latitude\":35.9,\"longitude\":-14.5,\"accuracy_m\":20")
        .replace("[{", "[0,{");
    let ingress = [
        marker(3, RECORDED_AT, 1),
        message(8, "lane.0.acme.eu1", RECORDED_AT.plus(5), batch("eu1", 4711, &[wager("s", 17), second])),
    ];
    let frames = run(&mut state, &[terms(1, [None; 2])], &ingress, &[]);
    let header = &frames[0].header;
    assert_eq!((header.sequence, header.terms, header.rules), (1, 1, rules::FIRST));
    assert_eq!((header.ingress.position, header.ingress.count), (8, 2));
    let chain = ingress.iter().fold(Digest::ZERO, |chain, entry| {
        let body = Digest::of(&entry.payload);
        Digest::of_parts(&[&chain.0, &entry.sequence.to_le_bytes(), entry.subject.as_bytes(), &body.0])
    });
    assert_eq!(header.ingress.chain, chain);
    assert_eq!(header.recorded_at, RECORDED_AT.plus(5));
    assert_eq!(header.watermark, Millis::parse("2026-06-08T20:15:28.123Z"));
    assert_eq!((header.input, header.previous), (Digest::ZERO, Digest::ZERO));
    let body = &frames[0].body;
    assert_eq!(body.contents, [Digest::of(&ingress[1].payload).short()]);
    let names: Vec<_> = body.symbols.names().collect();
    assert_eq!(names, ["acme", "eu1", "quick-spin-7", "EUR", "MT", "mega", "grand"]);
    let Verdict::Accepted(accepted) = &body.batches[0].verdict else { panic!("it is accepted") };
    let [first, second] = &accepted.wagers[..] else { panic!("two stand") };
    assert_eq!((first.index, first.interaction, first.amount.0), (0, 17, 2_500_000));
    assert_eq!(first.session, Digest::of(b"s").short());
    assert!(first.opt_in && first.location.is_some_and(|place| place.point.is_none()));
    let hits = second.hits.as_deref().expect("it has hits");
    assert_eq!(&*hits.round, "r-99812");
    assert!(matches!(hits.claims[..], [HitClaim::Unreadable, HitClaim::Level { .. }]));
    let point = second.location.and_then(|place| place.point).expect("it was measured");
    assert_eq!((point.latitude, point.longitude, point.accuracy_m), (35.9, -14.5, 20.0));
}

/// A watermark that lies before the first year could not be written.
#[test]
fn the_first_instant_of_the_calendar_is_no_trouble() {
    let oldest = "0000-01-01T00:00:00Z";
    let ancient =
        wager("s", 1).replace("2026-06-08T20:15:30.123Z", oldest).replace("2026-06-08T20:01:00.000Z", oldest);
    let ingress =
        [marker(1, RECORDED_AT, 1), message(2, "lane.0.acme.eu1", RECORDED_AT, batch("eu1", 1, &[ancient]))];
    let frames = run(&mut State::new(0), &[terms(1, [None; 2])], &ingress, &[]);
    let watermark = frames[0].header.watermark.expect("the wager is accepted, however old");
    assert_eq!(watermark, Millis::FIRST);
    assert_eq!(Millis::parse(&watermark.to_string()), Some(watermark));
}
