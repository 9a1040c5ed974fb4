//! Which signatures hold, and what a producer reads where one does not.

use jackpot_core::keys::Signed;

use super::refusals::Table;
use super::*;

/// A batch of `signed` that nobody has signed.
fn unsigned(position: u64, sequence: u64) -> Entry {
    let body = batch("signed", sequence, &[wager("s", sequence)]);
    message(position, "lane.0.acme.signed", RECORDED_AT, body)
}

/// What becomes of batch `signed/5`, signed with a key and then changed.
fn check(key: &str, change: impl Fn(&mut Entry), expect: &str) {
    let mut table = Table::new();
    let mut entry = signed(unsigned(table.next + 1, 5), key, "signed", 5);
    change(&mut entry);
    assert_eq!(table.judge_entry(entry), expect);
}

/// Gives a header another value, or takes it away.
fn set<'a>(name: &'a str, value: Option<&'a str>) -> impl Fn(&mut Entry) + 'a {
    move |entry| {
        entry.headers.retain(|(header, _)| header != name);
        entry.headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }
}

fn sign(key: &str, id: &str, timestamp: &str, body: &[u8]) -> String {
    keys().get(key).expect("the key is in the file").sign(&Signed { id, timestamp, body })
}

#[test]
fn either_key_holds_and_the_timestamp_is_not_judged() {
    check("k1", |_| (), "1 stand");
    check("k2", |_| (), "1 stand");
    for timestamp in ["0", "99999999999999999999999"] {
        let again = |entry: &mut Entry| {
            let signature = sign("k1", "signed/5", timestamp, &entry.payload);
            set("webhook-timestamp", Some(timestamp))(entry);
            set("webhook-signature", Some(&signature))(entry);
        };
        check("k2", again, "1 stand");
    }
}

#[test]
fn headers_are_read_leniently() {
    let shout =
        |entry: &mut Entry| entry.headers.iter_mut().for_each(|(name, _)| *name = name.to_uppercase());
    check("k1", shout, "1 stand");
    let several = |entry: &mut Entry| {
        let (good, other) = (entry.headers[2].1.clone(), sign("k2", "x", "1", b""));
        set("webhook-signature", Some(&format!("v1a,x {other}  {good}")))(entry);
    };
    check("k1", several, "1 stand");
    let twice = |entry: &mut Entry| entry.headers.insert(0, ("Webhook-Signature".into(), "v1,none".into()));
    check("k1", twice, "1 stand");
    check("k1", |entry| entry.headers.push(("traceparent".into(), "00-1-2-01".into())), "1 stand");
}

#[test]
fn a_signature_that_does_not_hold_says_what_to_mend() {
    let none = "signed/5 bad_signature: no signature in webhook-signature fits: each is \"v1,\" and the base64 of HMAC-SHA256 over webhook-id.webhook-timestamp.body, the body's bytes as published, with key k1 or k2";
    check("k1", |entry| entry.payload = [&entry.payload[..], b"\n"].concat().into(), none);
    check("k1", set("webhook-timestamp", Some("1780949732")), none);
    check("k1", set("webhook-signature", Some("")), none);
    check("k1", set("webhook-signature", Some("v1,AAAA")), none);
    let stranger = jackpot_core::keys::Key::parse("whsec_c3RyYW5nZXI=").expect("a secret");
    let strange = |entry: &mut Entry| {
        entry.headers = keys::headers(&stranger, "signed", 5, 1_780_949_731, &entry.payload);
    };
    check("k1", strange, none);
    check(
        "k1",
        set("webhook-signature", None),
        "signed/5 bad_signature: the header webhook-signature is missing: this source must sign its batches as Standard Webhooks say, with key k1 or k2",
    );
    check(
        "k1",
        set("webhook-id", None),
        "signed/5 bad_signature: the header webhook-id is missing; it must be \"signed/5\"",
    );
    check(
        "k1",
        |entry| entry.headers = signed(entry.clone(), "k1", "signed", 4).headers,
        "signed/5 bad_signature: the header webhook-id must be \"signed/5\", and is \"signed/4\"",
    );
    check(
        "k1",
        set("webhook-timestamp", None),
        "signed/5 bad_signature: the header webhook-timestamp is missing; it must be a whole number of seconds",
    );
    check(
        "k1",
        set("webhook-timestamp", Some("1780949731.5")),
        "signed/5 bad_signature: the header webhook-timestamp must be a whole number of seconds, and is \"1780949731.5\"",
    );
}

#[test]
fn a_signature_has_its_place_among_the_refusals() {
    let mut table = Table::new();
    let mut judge = |entry: Entry, expect: &str| {
        let told = table.judge_entry(Entry { sequence: table.next + 1, ..entry });
        assert!(told.contains(expect), "{told}");
    };
    let foreign = message(2, "lane.0.other.signed", RECORDED_AT, batch("signed", 5, &[wager("s", 1)]));
    let foreign = Entry {
        payload: String::from_utf8_lossy(&foreign.payload).replace("acme", "other").into(),
        ..foreign
    };
    judge(foreign, "signed/5 unknown_source");
    judge(Entry { payload: Bytes::from_static(b"{"), ..unsigned(2, 5) }, "malformed");
    judge(unsigned(2, 5), "bad_signature");
    judge(signed(unsigned(2, 5), "k2", "signed", 5), "1 stand");
    judge(unsigned(2, 5), "signed/5 bad_signature");
    judge(
        signed(unsigned(2, 5), "k1", "signed", 5),
        "signed/5 duplicate_batch: sequence 5 was accepted before, with the same",
    );
}

#[test]
fn a_signature_of_a_source_without_keys_is_ignored() {
    let mut table = Table::new();
    let entry = message(2, "lane.0.acme.eu1", RECORDED_AT, batch("eu1", 5, &[wager("s", 1)]));
    assert_eq!(table.judge_entry(signed(entry, "k1", "other", 9)), "1 stand");
}

/// Both keys, then the new one alone: nothing that is signed with a key of its time is lost.
#[test]
fn keys_rotate_with_the_terms() {
    let with = |revision, list: &[&str]| {
        let mut terms = terms(revision, [None; 2]);
        terms.sources[2].keys = list.iter().map(|&key| key.into()).collect();
        terms
    };
    let revisions = [with(1, &["k1"]), with(2, &["k1", "k2"]), with(3, &["k2"]), with(4, &[])];
    let mut ingress = Vec::new();
    for (revision, sequence) in (1..=4).zip((1..).step_by(3)) {
        let at = 10 * revision;
        ingress.push(marker(at, RECORDED_AT, revision));
        ingress.push(signed(unsigned(at + 1, sequence), "k1", "signed", sequence));
        ingress.push(signed(unsigned(at + 2, sequence + 1), "k2", "signed", sequence + 1));
        ingress.push(unsigned(at + 3, sequence + 2));
    }
    let mut state = State::new(0);
    let frames = run(&mut state, &revisions, &ingress, &[]);
    let stands: Vec<bool> = frames
        .iter()
        .flat_map(|frame| &frame.body.batches)
        .map(|batch| matches!(batch.verdict, Verdict::Accepted(_)))
        .collect();
    let expect = [[true, false, false], [true, true, false], [false, true, false], [true, true, true]];
    assert_eq!(stands, expect.concat());
    assert_eq!(replay(State::new(0), &revisions, &frames), state, "no key is needed to fold");
}

/// What a frame records of a signature.
type Told = Result<(), Box<str>>;

/// Keys come and go; what was decided by them stays.
#[test]
fn a_frame_is_cut_again_without_keys() {
    let terms = terms(1, [None; 2]);
    let ingress = [
        marker(1, RECORDED_AT, 1),
        signed(unsigned(2, 1), "k1", "signed", 1),
        unsigned(3, 2),
        signed(unsigned(4, 1), "k2", "signed", 1),
    ];
    let frames = run(&mut State::new(0), std::slice::from_ref(&terms), &ingress, &[]);
    let [frame] = &frames[..] else { panic!("one frame") };
    let recut = |change: fn(usize, Told) -> Told| {
        let mut batches = frame.body.batches.iter().enumerate();
        let messages: Vec<_> = ingress
            .iter()
            .map(parse)
            .map(|message| match message.marker() {
                Some(_) => message,
                None => {
                    let (index, batch) = batches.next().expect("each batch is in the frame");
                    message.with_recorded(change(index, crate::recorded_signature(&batch.verdict)))
                }
            })
            .collect();
        crate::recut(&State::new(0), &CompiledTerms::new(&terms), &frame.header, &messages)
    };
    assert_eq!(recut(|_, recorded| recorded).as_ref(), Some(frame));
    let other = recut(|index, recorded| if index == 0 { Err("changed".into()) } else { recorded });
    assert_ne!(other.as_ref(), Some(frame), "what is recorded counts");
}

#[test]
fn only_a_batch_with_a_signature_keeps_its_body() {
    let held = |entry: &Entry| parse(entry).signature.is_some();
    assert!(!held(&unsigned(2, 5)));
    let entry = signed(unsigned(2, 5), "k1", "signed", 5);
    assert!(held(&entry) && parse(&entry).headers_len() > 60);
    assert!(!held(&Entry { payload: Bytes::from_static(b"{"), ..entry }));
}
