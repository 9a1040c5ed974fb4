//! Values at the bounds of their rules (contract, section 1): the last that is right, and the first that is wrong.

use super::refusals::Table;
use super::*;

/// What becomes of the one wager of a batch, with this text of it replaced: `ok`, or the reason of its refusal; of a
/// batch refused whole, that one.
fn judged(from: &str, to: &str) -> String {
    let good = wager("s", 1);
    let changed = good.replacen(from, to, 1);
    assert_ne!(changed, good, "{from} becomes {to}");
    let mut table = Table::new();
    let body = batch("eu1", 5, &[changed]);
    let told = table.judge_entry(message(table.next + 1, "lane.0.acme.eu1", RECORDED_AT, body));
    match told.strip_prefix("0 stand\n") {
        Some(refusal) => refusal.split(':').next().expect("a reason").to_owned(),
        None if told == "1 stand" => "ok".to_owned(),
        None => told.split([' ', ':']).nth(1).expect("an id and a reason").to_owned(),
    }
}

#[track_caller]
fn check(from: &str, values: &[(&str, &str)]) {
    for (to, expect) in values {
        assert_eq!(judged(from, to), *expect, "{from} becomes {to}");
    }
}

const OK: &str = "ok";
const INVALID: &str = "invalid_field";

#[test]
fn names_at_their_bounds() {
    let of = |len: usize| format!("\"{}\"", "x".repeat(len));
    for (field, most) in [("\"s\"", 64), ("\"p-6f1c\"", 64), ("\"r-99812\"", 128), ("\"quick-spin-7\"", 64)] {
        check(field, &[(&of(1), OK), (&of(most), OK), (&of(most + 1), INVALID), ("\"\"", INVALID)]);
    }
    for field in ["\"s\"", "\"p-6f1c\"", "\"r-99812\""] {
        check(field, &[("\"!~\"", OK), ("\"A/%_{}\"", OK), ("\" \"", INVALID), ("\"\\u007f\"", INVALID)]);
        check(field, &[("\"é\"", INVALID), ("\"a\\tb\"", INVALID), ("5", INVALID), ("[\"a\"]", INVALID)]);
    }
    check("\"quick-spin-7\"", &[("\"-a\"", INVALID), ("\"a-\"", OK), ("\"0\"", OK), ("\"a_b\"", INVALID)]);
}

#[test]
fn whole_numbers_are_written_without_point_or_exponent() {
    let from = "\"interaction\":1";
    let number = |number: &str| format!("\"interaction\":{number}");
    for (written, expect) in [
        ("9223372036854775807", OK),
        ("9223372036854775808", INVALID),
        ("18446744073709551617", INVALID),
        ("0", INVALID),
        ("-0", INVALID),
        ("-1", INVALID),
        ("1.0", INVALID),
        ("1e0", INVALID),
        ("10E-1", INVALID),
        ("1e400", INVALID),
        ("\"1\"", INVALID),
        ("null", INVALID),
        ("01", "malformed"),
    ] {
        check(from, &[(&number(written), expect)]);
    }
}

#[test]
fn coordinates_at_their_bounds() {
    let from = "\"jurisdiction\":\"MT\"";
    let at = |latitude: &str, longitude: &str, accuracy: &str| {
        format!("\"latitude\":{latitude},\"longitude\":{longitude},\"accuracy_m\":{accuracy}")
    };
    for (written, expect) in [
        (at("90", "180", "20000000"), OK),
        (at("-90.0", "-180.000", "0"), OK),
        (at("9e1", "1.8E+2", "2e7"), OK),
        (at("-0", "0e5", "-0.0"), OK),
        (at("90.000001", "0", "1"), INVALID),
        (at("-90.000001", "0", "1"), INVALID),
        (at("0", "180.000001", "1"), INVALID),
        (at("0", "-180.000001", "1"), INVALID),
        (at("0", "0", "20000000.01"), INVALID),
        (at("0", "0", "-0.000001"), INVALID),
        (at("\"0\"", "0", "1"), INVALID),
        (at("0", "true", "1"), INVALID),
        (at("0", "0", "null"), INVALID),
    ] {
        check(from, &[(&written, expect)]);
    }
}

#[test]
fn jurisdictions_are_those_of_the_standard() {
    let code = |code: &str| format!("\"jurisdiction\":{code}");
    for good in ["US", "US-NV", "GB-ENG", "FR-1", "MT-60", "CA-ZZZ", "AX", "UM-95"] {
        check("\"jurisdiction\":\"MT\"", &[(&code(&format!("{good:?}")), OK)]);
    }
    for bad in ["UK", "EU", "XK", "ZZ", "us", "Us-NV", "US-", "US-nv", "US-NEVA", "USNV", "US-N-V", " US", ""]
    {
        check("\"jurisdiction\":\"MT\"", &[(&code(&format!("{bad:?}")), INVALID)]);
    }
    check("\"jurisdiction\":\"MT\"", &[(&code("5"), INVALID), (&code("[\"MT\"]"), INVALID)]);
}

#[test]
fn money_of_another_type_is_no_amount() {
    for amount in
        ["2.5", "0", "-0", "1e400", "true", "false", "{}", "[]", "[\"2.50\"]", "{\"value\":\"2.50\"}"]
    {
        check("\"2.50\"", &[(amount, "invalid_amount")]);
    }
    check(
        "\"2.50\"",
        &[("\"0\"", OK), ("\"0.000000\"", OK), ("\"1000000000\"", OK), ("\"-0\"", "invalid_amount")],
    );
    check(
        "\"2.50\"",
        &[("null", INVALID), ("\"1000000000.000000\"", OK), ("\"1000000000.000001\"", "invalid_amount")],
    );
}

#[test]
fn times_around_the_receive_time() {
    let from = "2026-06-08T20:15:30.123Z";
    check(from, &[("2026-06-08T20:15:36.000Z", OK), ("2026-06-08T20:15:36.000999Z", OK)]);
    check(from, &[("2026-06-08T20:15:36.001Z", "occurred_in_future")]);
    // However old: a contribution is never lost. Its location would be stale, which is the geofence's to say.
    check(from, &[("2026-06-08T20:00:00.000Z", OK), ("2026-06-08T19:59:59.999Z", INVALID)]);
    check("\"location\":{", &[("\"location\":null,\"x\":{", OK)]);
    let body = batch(
        "eu1",
        5,
        &[wager("s", 1).replace(from, "1970-01-01T00:00:00Z").replace("\"location\"", "\"x\"")],
    );
    let mut table = Table::new();
    let told = table.judge_entry(message(table.next + 1, "lane.0.acme.eu1", RECORDED_AT, body));
    assert_eq!(told, "1 stand");
}

#[test]
fn null_is_absent() {
    for field in
        ["session", "interaction", "player", "game", "round", "amount", "currency", "funds", "occurred_at"]
    {
        let name = format!("\"{field}\":");
        check(&name, &[(&format!("\"{field}\":null,\"x\":"), INVALID)]);
        check(&name, &[("\"x\":", INVALID)]);
    }
    for field in ["opt_in", "location", "hits"] {
        let name = format!("\"{field}\":");
        check(&name, &[(&format!("\"{field}\":null,\"x\":"), OK), ("\"x\":", OK)]);
    }
    check("\"jurisdiction\":\"MT\"", &[("\"jurisdiction\":null", INVALID)]);
    check("\"checked_at\":", &[("\"checked_at\":null,\"x\":", INVALID)]);
    check("\"jurisdiction\":\"MT\"", &[("\"jurisdiction\":\"MT\",\"latitude\":null", OK)]);
}

/// What becomes of two batches: their frame's bytes, but for what says which bodies they were.
#[test]
fn unknown_fields_leave_no_trace() {
    let frame = |body: String| {
        let ingress = [marker(1, RECORDED_AT, 1), message(2, "lane.0.acme.eu1", RECORDED_AT, body)];
        let mut frames = run(&mut State::new(0), &[terms(1, [None; 2])], &ingress, &[]);
        let mut frame = frames.pop().expect("one frame");
        frame.header.ingress.chain = Digest::ZERO;
        frame.body.contents.clear();
        frame.encode()
    };
    let plain = batch("eu1", 5, &[wager("s", 1), wager("t", 1)]);
    let unknown = format!(
        "{{\"unknown\":{{\"deep\":[1e999,{{\"a\":null}}],\"text\":\"\\ud834\\udd1e\\u0000\"}},\"n\":-{}.5E-99,",
        "9".repeat(2_000)
    );
    let strange = plain.replace('{', &unknown);
    assert!(strange.len() > plain.len() + 7 * 2_000, "each object has some");
    assert_eq!(frame(strange), frame(plain));
}
