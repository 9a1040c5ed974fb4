//! Why a wager is refused, and what its producer can mend: the sentences of the stage. They go to the outside with
//! the refusal, so that they name codes and times, and no coordinates.

use jackpot_core::refusal::Reason;

use crate::rules::Standing;

/// A reason and its sentence.
pub type Grounds = (Reason, String);

pub fn location_missing() -> Grounds {
    let detail = "the wager has no `location`: send one with `jurisdiction` or coordinates, and `checked_at`";
    (Reason::LocationMissing, detail.into())
}

pub fn location_stale(age: i64, age_max: i64, place: Option<&str>) -> Grounds {
    let whose = place.map_or_else(String::new, |code| format!(" for {code}"));
    let (age, age_max) = (seconds(age), seconds(age_max));
    let detail = format!(
        "the location was checked {age} s before the wager, and {age_max} s are allowed{whose}: check it again"
    );
    (Reason::LocationStale, detail)
}

pub fn nowhere() -> Grounds {
    let detail = "the coordinates are at sea or in land that several countries claim, in no one country: \
                  locate the player again";
    (Reason::LocationUncertain, detail.into())
}

pub fn subdivision_unknown(country: &str) -> Grounds {
    let detail = format!(
        "{country} is a country alone, and the terms tell its subdivisions apart: name the subdivision ({country}-…)"
    );
    (Reason::LocationUncertain, detail)
}

pub fn too_wide(accuracy: &str, code: &str) -> Grounds {
    let detail = format!(
        "the circle of {accuracy} m around the coordinates is not wholly inside {code}: locate the player more exactly"
    );
    (Reason::LocationUncertain, detail)
}

pub fn location_conflict(claim: &str, found: &str) -> Grounds {
    let detail =
        format!("{claim} is declared, and the coordinates are in {found}: neither contains the other");
    (Reason::LocationConflict, detail)
}

pub fn impossible_travel(kilometres: &str, elapsed: u64) -> Grounds {
    let elapsed = seconds(i64::try_from(elapsed).unwrap_or(i64::MAX));
    let detail = format!(
        "the session's last accepted place is at least {kilometres} km away, and {elapsed} s lie between the two \
         checks: nobody travels faster than 1000 km/h"
    );
    (Reason::ImpossibleTravel, detail)
}

pub fn jurisdiction_blocked(standing: Standing, operator: &str, code: &str) -> Grounds {
    let detail = match standing {
        Standing::Unruled => format!("the terms have no rule for {code}, and what has no rule is blocked"),
        Standing::Blocked => format!("the terms block {code}"),
        _ => format!("the terms do not list {code} among the jurisdictions of the operator {operator}"),
    };
    (Reason::JurisdictionBlocked, detail)
}

/// Milliseconds as seconds: `1800`, `1800.001`.
fn seconds(millis: i64) -> String {
    let (whole, rest) = (millis / 1_000, millis % 1_000);
    if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:03}") }
}
