//! The examples of `schemas/wager-batch`, judged by this stage: valid ones stand, and each invalid one leads to the
//! refusal that it is named for. The schema itself is held against the examples in `pipeline/core/tests/schemas.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jackpot_core::frame::batch::{HitClaim, Verdict};
use jackpot_core::frame::validated::{Validated, Wager};
use jackpot_core::log::Entry;
use jackpot_core::refusal::Reason;
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;
use validate::{CompiledTerms, Cutter, State, Taken, parse};

fn schemas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas")
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The examples of a folder by name: `invalid_amount-number`.
fn examples(kind: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = schemas().join("wager-batch").join(kind);
    let list = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    list.map(|entry| entry.expect("a folder can be listed").path())
        .map(|path| (path.file_stem().expect("a name").to_string_lossy().into_owned(), read(&path)))
        .collect()
}

/// What becomes of a batch that is the first of its source.
fn judge(body: Vec<u8>) -> Verdict<Wager> {
    let terms = Terms::parse(&read(&schemas().join("terms/valid/unsigned.json"))).expect("terms");
    let (state, terms) = (State::new(0), CompiledTerms::new(&terms));
    let mut cutter = Cutter::new(&state, &terms, 2_000);
    let taken = cutter.take(&parse(&Entry {
        sequence: 1,
        subject: "lane.0.acme.acme-spin-eu1".into(),
        recorded_at: Millis::parse("2026-06-08T20:15:31.004Z").expect("a time"),
        headers: Vec::new(),
        payload: Bytes::from(body),
    }));
    assert_eq!(taken, Taken::In);
    let Validated { mut batches, .. } = cutter.finish().expect("a frame of one batch").body;
    batches.remove(0).verdict
}

#[test]
fn valid_examples_stand() {
    for (name, body) in examples("valid") {
        let Verdict::Accepted(accepted) = judge(body) else { panic!("{name} is refused whole") };
        assert_eq!(accepted.refusals, [], "{name}");
    }
}

#[test]
fn invalid_examples_are_refused_for_the_reason_in_their_names() {
    for (name, body) in examples("invalid") {
        let reason = name.split_once('-').and_then(|(reason, _)| Reason::from_name(reason));
        let reason = reason.unwrap_or_else(|| panic!("{name} names no reason"));
        match judge(body) {
            Verdict::Refused(refused) => assert_eq!(refused.reason, reason, "{name}: {}", refused.detail),
            Verdict::Accepted(accepted) if reason == Reason::HitRefused => {
                assert_eq!(accepted.refusals, [], "{name}: the wager stands, and allocate refuses the hit");
                let hits = accepted.wagers[0].hits.as_ref().expect("the wager has hits");
                assert_eq!(hits.claims, [HitClaim::Unreadable], "{name}");
            }
            Verdict::Accepted(accepted) => {
                let reasons: Vec<_> = accepted.refusals.iter().map(|refusal| refusal.reason).collect();
                assert_eq!((reasons, accepted.wagers.len()), (vec![reason], 0), "{name}");
            }
        }
    }
}
