//! Wagers with coordinates: which place is recorded, and which of the reasons holds.

use super::*;

const LAS_VEGAS: (f64, f64) = (36.1699, -115.1398);
const RENO: (f64, f64) = (39.5296, -119.8138);
const SALT_LAKE_CITY: (f64, f64) = (40.7608, -111.8910);
const DETROIT: (f64, f64) = (42.3314, -83.0458);
const WINDSOR: (f64, f64) = (42.3149, -83.0364);
const VALLETTA: (f64, f64) = (35.8989, 14.5146);
const GIBRALTAR: (f64, f64) = (36.1408, -5.3536);
const GENEVA: (f64, f64) = (46.2044, 6.1432);
const LONDON: (f64, f64) = (51.5074, -0.1278);
const GRETNA: (f64, f64) = (54.9957, -3.0670);
const MILAN: (f64, f64) = (45.4642, 9.1900);
const BOLZANO: (f64, f64) = (46.4983, 11.3548);
const SUVA: (f64, f64) = (-18.1416, 178.4419);
const ATLANTIC: (f64, f64) = (0.0, -20.0);
const SEVASTOPOL: (f64, f64) = (44.6167, 33.5254);
const NORTH_POLE: (f64, f64) = (90.0, 0.0);

/// Judges a wager by its reason alone.
#[track_caller]
fn check(
    operator: &'static str,
    jurisdiction: Option<&'static str>,
    (latitude, longitude): (f64, f64),
    accuracy_m: f64,
    age_s: i64,
    expect: &str,
) {
    let point = Some(Point { latitude, longitude, accuracy_m });
    let got = judged(Some(Case { operator, jurisdiction, point, age: age_s * 1_000 }));
    let got = got.unwrap_or_else(|refused| refused.split(':').next().expect("a reason").to_owned());
    assert_eq!(got, expect);
}

#[test]
fn the_finer_of_claim_and_point_is_recorded() {
    check("acme", None, LAS_VEGAS, 100.0, 0, "US-NV");
    check("acme", Some("US-NV"), LAS_VEGAS, 100.0, 0, "US-NV");
    check("acme", Some("US"), LAS_VEGAS, 100.0, 0, "US-NV");
    check("acme", None, VALLETTA, 100.0, 0, "MT");
    check("acme", Some("MT"), VALLETTA, 100.0, 0, "MT");
    check("acme", Some("GB"), LONDON, 100.0, 0, "GB-ENG");
    check("acme", None, GIBRALTAR, 50.0, 0, "GI");
    check("acme", None, SUVA, 100.0, 0, "FJ");
    // The boundaries know Malta as a whole, so that a finer claim stands.
    check("acme", Some("MT-60"), VALLETTA, 100.0, 0, "MT-60");
    check("north", Some("CA-ON"), WINDSOR, 100.0, 0, "CA-ON");
}

#[test]
fn stale_by_the_rule_of_the_finer_place() {
    // US-NV allows 60 s, other states 1800 s, Malta 600 s, Great Britain 900 s.
    check("acme", None, LAS_VEGAS, 100.0, 60, "US-NV");
    check("acme", None, LAS_VEGAS, 100.0, 61, "location_stale");
    check("acme", Some("US"), LAS_VEGAS, 100.0, 61, "location_stale");
    check("acme", Some("US-NV"), LAS_VEGAS, 100.0, 61, "location_stale");
    check("acme", Some("GB"), LONDON, 100.0, 900, "GB-ENG");
    check("acme", Some("GB"), LONDON, 100.0, 901, "location_stale");
    // In conflict, the point's: longer than the claim's, and shorter.
    check("acme", Some("US-NV"), VALLETTA, 100.0, 600, "location_conflict");
    check("acme", Some("US-NV"), VALLETTA, 100.0, 601, "location_stale");
    check("acme", Some("MT"), LAS_VEGAS, 100.0, 60, "location_conflict");
    check("acme", Some("MT"), LAS_VEGAS, 100.0, 61, "location_stale");
    // Where the coordinates are in no country, the claim's; without one, the default.
    check("acme", Some("MT"), ATLANTIC, 100.0, 600, "location_uncertain");
    check("acme", Some("MT"), ATLANTIC, 100.0, 601, "location_stale");
    check("acme", None, ATLANTIC, 100.0, 1_800, "location_uncertain");
    check("acme", None, ATLANTIC, 100.0, 1_801, "location_stale");
    // However wide the circle: its centre tells the place.
    check("acme", None, LAS_VEGAS, 100_000.0, 61, "location_stale");
}

#[test]
fn uncertain_where_the_circle_leaves_the_country() {
    check("acme", None, DETROIT, 100.0, 0, "US-MI");
    check("acme", None, DETROIT, 5_000.0, 0, "location_uncertain");
    check("acme", Some("US-MI"), DETROIT, 5_000.0, 0, "location_uncertain");
    check("north", None, WINDSOR, 5_000.0, 0, "location_uncertain");
    check("acme", Some("CA-ON"), DETROIT, 5_000.0, 0, "location_uncertain");
    check("acme", Some("FR"), GENEVA, 10_000.0, 0, "location_uncertain");
    check("acme", None, GIBRALTAR, 5_000.0, 0, "location_uncertain");
    check("acme", Some("GI"), GIBRALTAR, 5_000.0, 0, "location_uncertain");
    check("acme", Some("MT"), VALLETTA, 20_000_000.0, 0, "location_uncertain");
}

#[test]
fn uncertain_where_the_circle_leaves_a_subdivision_that_matters() {
    check("acme", None, RENO, 100.0, 0, "US-NV");
    check("acme", None, RENO, 20_000.0, 0, "location_uncertain");
    check("acme", Some("US-NV"), RENO, 20_000.0, 0, "location_uncertain");
    check("acme", Some("US"), RENO, 20_000.0, 0, "location_uncertain");
    // Nobody tells the parts of Great Britain apart.
    check("acme", Some("GB"), GRETNA, 3_000.0, 0, "GB-SCT");
    // One operator tells those of Italy apart; the boundaries know some of them, and Lombardy is not among those.
    check("north", Some("IT-25"), MILAN, 1_000.0, 0, "IT-25");
    check("north", Some("IT-25"), MILAN, 150_000.0, 0, "location_uncertain");
    check("north", None, MILAN, 1_000.0, 0, "location_uncertain");
    check("north", Some("IT"), MILAN, 1_000.0, 0, "location_uncertain");
    check("north", None, BOLZANO, 1_000.0, 0, "IT-32");
    check("north", Some("IT-32"), MILAN, 1_000.0, 0, "location_uncertain");
    check("acme", Some("IT"), MILAN, 1_000.0, 0, "jurisdiction_blocked");
}

#[test]
fn uncertain_in_no_one_country() {
    for claim in [None, Some("MT"), Some("US-NV")] {
        check("acme", claim, ATLANTIC, 10.0, 0, "location_uncertain");
        check("acme", claim, SEVASTOPOL, 10.0, 0, "location_uncertain");
        check("acme", claim, NORTH_POLE, 0.0, 0, "location_uncertain");
    }
    check("acme", Some("MT"), (f64::NAN, 14.5), 0.0, 0, "location_uncertain");
}

#[test]
fn conflict_where_neither_contains_the_other() {
    check("acme", Some("MT"), LAS_VEGAS, 100.0, 0, "location_conflict");
    check("acme", Some("US-UT"), LAS_VEGAS, 100.0, 0, "location_conflict");
    check("acme", Some("US-NV"), SALT_LAKE_CITY, 100.0, 0, "location_conflict");
    check("acme", Some("GB"), GIBRALTAR, 50.0, 0, "location_conflict");
    check("acme", Some("GB-LND"), LONDON, 100.0, 0, "location_conflict");
    check("acme", Some("FR"), GENEVA, 500.0, 0, "location_conflict");
    // A country of which subdivisions matter is no certain place, even against its coordinates.
    check("acme", Some("US"), VALLETTA, 100.0, 0, "location_conflict");
}

#[test]
fn blocked_by_the_rule_of_the_finer_place() {
    check("acme", None, SALT_LAKE_CITY, 100.0, 0, "jurisdiction_blocked");
    check("acme", Some("US"), SALT_LAKE_CITY, 100.0, 0, "jurisdiction_blocked");
    check("acme", None, GENEVA, 500.0, 0, "jurisdiction_blocked");
    check("north", None, VALLETTA, 100.0, 0, "jurisdiction_blocked");
    check("acme", None, WINDSOR, 100.0, 0, "jurisdiction_blocked");
}

#[test]
fn details_say_what_to_mend_and_no_coordinates() {
    let detail = |jurisdiction, (latitude, longitude), accuracy_m| {
        let point = Some(Point { latitude, longitude, accuracy_m });
        judged(Some(Case { operator: "acme", jurisdiction, point, age: 0 })).expect_err("refused")
    };
    assert_eq!(
        detail(None, RENO, 20_000.4),
        "location_uncertain: the circle of 20000 m around the coordinates is not wholly inside US-NV: \
         locate the player more exactly"
    );
    assert_eq!(
        detail(None, DETROIT, 5_000.0),
        "location_uncertain: the circle of 5000 m around the coordinates is not wholly inside US: \
         locate the player more exactly"
    );
    assert_eq!(
        detail(Some("MT"), LAS_VEGAS, 0.0),
        "location_conflict: MT is declared, and the coordinates are in US-NV: neither contains the other"
    );
    assert_eq!(
        detail(None, SEVASTOPOL, 0.0),
        "location_uncertain: the coordinates are at sea or in land that several countries claim, in no one \
         country: locate the player again"
    );
}
