//! Every kind of frame comes back from its bytes as it was, and damaged bytes are refused or read, never a panic.

use std::fmt::Debug;

use jackpot_core::codec::{CodecError, Reader, Writer};
use jackpot_core::digest::Digest;
use jackpot_core::frame::allocations::{Allocation, Allocations, Participation};
use jackpot_core::frame::audited::{Audited, Incident};
use jackpot_core::frame::batch::{
    Accepted, Batch, Funds, Gap, HitClaim, Hits, Refusal, RefusedBatch, Verdict,
};
use jackpot_core::frame::contributions::{Contributions, Hit, PoolLevels, Posting, Sum};
use jackpot_core::frame::geofenced::{self, Geofenced};
use jackpot_core::frame::symbols::{Symbol, Symbols};
use jackpot_core::frame::validated::{self, Location, Point, Validated};
use jackpot_core::frame::{self, Body, Frame, Header, Ingress};
use jackpot_core::money::{Micro, Rate};
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::rules;
use jackpot_core::time::Millis;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// One damage to a message.
#[derive(Debug, Clone)]
enum Damage {
    /// Everything from here on is gone.
    Cut(Index),
    /// A byte is another one.
    Change(Index, u8),
    /// A byte is gone.
    Loss(Index),
    /// A byte came in.
    Gain(Index, u8),
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            any::<Index>().prop_map(Self::Cut),
            (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Self::Change(at, byte)),
            any::<Index>().prop_map(Self::Loss),
            (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Self::Gain(at, byte)),
        ]
    }

    fn done_to(&self, message: &[u8]) -> Vec<u8> {
        let mut bytes = message.to_vec();
        match self {
            Self::Cut(at) => bytes.truncate(at.index(message.len())),
            Self::Change(at, byte) => bytes[at.index(message.len())] = *byte,
            Self::Loss(at) => drop(bytes.remove(at.index(message.len()))),
            Self::Gain(at, byte) => bytes.insert(at.index(message.len() + 1), *byte),
        }
        bytes
    }
}

/// The round trip, and what must hold of damaged bytes.
fn check<B: Body + Debug + PartialEq>(frame: &Frame<B>, damages: &[Damage]) -> Result<(), TestCaseError> {
    let message = frame.encode();
    prop_assert_eq!(&frame::encode(&frame.header, &frame.body), &message);
    let decoded = Frame::<B>::decode(&message);
    prop_assert_eq!(decoded.as_ref(), Ok(frame));
    let peeked = Header::peek::<B>(&message);
    prop_assert_eq!(peeked.as_ref(), Ok(&frame.header));

    for damage in damages {
        let bytes = damage.done_to(&message);
        let read = Frame::<B>::decode(&bytes);
        if let Damage::Cut(_) = damage {
            prop_assert!(read.is_err(), "a message that ends early was read: {:?}", read);
        }
    }
    let longer = [&message[..], &[0]].concat();
    prop_assert!(Frame::<B>::decode(&longer).is_err(), "bytes are left over");
    Ok(())
}

fn header() -> impl Strategy<Value = Header> {
    let ingress = (1_000..u64::MAX, any::<u64>(), digest()).prop_map(|(position, count, chain)| Ingress {
        position,
        count,
        chain,
    });
    (any::<u16>(), any::<u64>(), any::<u64>(), option::of(time()), time(), ingress, digest(), digest())
        .prop_map(|(partition, sequence, terms, watermark, recorded_at, ingress, input, previous)| Header {
            partition,
            sequence,
            rules: rules::FIRST,
            terms,
            watermark,
            recorded_at,
            ingress,
            input,
            previous,
        })
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

/// Any time of the years 0 to 9999.
fn time() -> impl Strategy<Value = Millis> {
    (-62_167_219_200_000_i64..253_402_300_800_000).prop_map(Millis)
}

fn text() -> impl Strategy<Value = Box<str>> {
    ".{0,12}".prop_map(Into::into)
}

/// How many names every table has, so that any number below it is a symbol of it.
const NAMES: u16 = 12;

fn symbols() -> impl Strategy<Value = Symbols> {
    proptest::collection::hash_set(".{0,8}", usize::from(NAMES)).prop_map(|names| {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort();
        let mut symbols = Symbols::default();
        for name in &names {
            symbols.intern(name);
        }
        symbols
    })
}

fn symbol() -> impl Strategy<Value = Symbol> {
    (0..NAMES).prop_map(Symbol)
}

fn micro() -> impl Strategy<Value = Micro> {
    prop_oneof![any::<u64>().prop_map(|amount| Micro(amount.into())), any::<u128>().prop_map(Micro)]
}

fn funds() -> impl Strategy<Value = Funds> {
    select(&[Funds::Cash, Funds::Bonus, Funds::Free][..])
}

fn hits() -> impl Strategy<Value = Option<Box<Hits>>> {
    let claim = prop_oneof![
        Just(HitClaim::Unreadable),
        (symbol(), symbol()).prop_map(|(pool, level)| HitClaim::Level { pool, level })
    ];
    option::weighted(
        0.3,
        (text(), vec(claim, 1..4)).prop_map(|(round, claims)| Box::new(Hits { round, claims })),
    )
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (any::<u16>(), option::of(0..u8::MAX), select(StageName::ALL), select(Reason::ALL), text())
        .prop_map(|(index, hit, stage, reason, detail)| Refusal { index, hit, stage, reason, detail })
}

fn gap() -> impl Strategy<Value = Gap> {
    (any::<u64>(), any::<u64>()).prop_map(|(from, to)| Gap { from, to })
}

fn accepted<W: Debug>(wager: impl Strategy<Value = W>) -> impl Strategy<Value = Verdict<W>> {
    (any::<u64>(), vec(wager, 0..5), vec(refusal(), 0..4), vec(gap(), 0..3)).prop_map(
        |(sequence, wagers, refusals, gaps)| Verdict::Accepted(Accepted { sequence, wagers, refusals, gaps }),
    )
}

fn refused<W: Debug>() -> impl Strategy<Value = Verdict<W>> {
    (text(), select(Reason::ALL), text(), any::<bool>()).prop_map(|(batch, reason, detail, conflict)| {
        Verdict::Refused(RefusedBatch { batch, reason, detail, conflict })
    })
}

/// A frame of batches of such wagers.
fn batches<W: Debug + 'static>(
    wager: impl Strategy<Value = W> + 'static,
) -> impl Strategy<Value = (Header, Symbols, Vec<Batch<W>>)> {
    let verdict = prop_oneof![3 => accepted(wager), 1 => refused()];
    // A batch was read at or before the header's position.
    let batch = (symbol(), symbol(), 0_u64..1_000, time(), verdict);
    (header(), symbols(), vec(batch, 0..4)).prop_map(|(header, symbols, batches)| {
        let batches = batches
            .into_iter()
            .map(|(operator, source, back, recorded_at, verdict)| Batch {
                operator,
                source,
                position: header.ingress.position - back,
                recorded_at,
                verdict,
            })
            .collect();
        (header, symbols, batches)
    })
}

fn validated_wager() -> impl Strategy<Value = validated::Wager> {
    let number = || {
        use proptest::num::f64::{INFINITE, NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
        POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO | INFINITE
    };
    let point = (number(), number(), number()).prop_map(|(latitude, longitude, accuracy_m)| Point {
        latitude,
        longitude,
        accuracy_m,
    });
    let location = (option::of(symbol()), option::of(point), time())
        .prop_map(|(jurisdiction, point, checked_at)| Location { jurisdiction, point, checked_at });
    let who = (any::<u16>(), any::<[u8; 16]>(), any::<u64>(), symbol());
    let what = (micro(), symbol(), funds(), any::<bool>(), time());
    (who, what, option::of(location), hits()).prop_map(|(who, what, location, hits)| {
        let (index, session, interaction, game) = who;
        let (amount, currency, funds, opt_in, occurred_at) = what;
        validated::Wager {
            index,
            session,
            interaction,
            game,
            amount,
            currency,
            funds,
            opt_in,
            occurred_at,
            location,
            hits,
        }
    })
}

fn geofenced_wager() -> impl Strategy<Value = geofenced::Wager> {
    (any::<u16>(), symbol(), micro(), symbol(), funds(), any::<bool>(), time(), symbol(), hits()).prop_map(
        |(index, game, amount, currency, funds, opt_in, occurred_at, jurisdiction, hits)| geofenced::Wager {
            index,
            game,
            amount,
            currency,
            funds,
            opt_in,
            occurred_at,
            jurisdiction,
            hits,
        },
    )
}

fn allocation() -> impl Strategy<Value = Allocation> {
    let participation = (symbol(), micro(), option::of((1..=u64::MAX).prop_map(Rate)))
        .prop_map(|(pool, eligible, rate)| Participation { pool, eligible, rate });
    (geofenced_wager(), vec(participation, 0..4))
        .prop_map(|(wager, participations)| Allocation { wager, participations })
}

fn contributions() -> impl Strategy<Value = Frame<Contributions>> {
    let pools = vec((symbol(), vec(symbol(), 0..4)), 1..4);
    (header(), symbols(), any::<u32>(), pools).prop_flat_map(|(header, symbols, wagers, pools)| {
        let pool_count = u16::try_from(pools.len()).expect("a few");
        vec(posting(pool_count), 0..8).prop_map(move |postings| Frame {
            header: header.clone(),
            body: Contributions {
                symbols: symbols.clone(),
                wagers,
                pools: pools
                    .iter()
                    .map(|(pool, levels)| PoolLevels { pool: *pool, levels: levels.clone() })
                    .collect(),
                postings,
            },
        })
    })
}

fn posting(pools: u16) -> impl Strategy<Value = Posting> {
    let sum = (0..pools, time(), symbol(), symbol(), symbol(), any::<u32>(), micro()).prop_map(
        |(pool, at, operator, jurisdiction, game, wagers, eligible)| {
            Posting::Sum(Sum { pool, second: at.second(), operator, jurisdiction, game, wagers, eligible })
        },
    );
    let who = (symbol(), symbol(), any::<u64>(), any::<u16>());
    let what = (symbol(), text(), symbol(), time(), time());
    let hit = (0..pools, symbol(), who, what).prop_map(|(pool, level, who, what)| {
        let (operator, source, sequence, index) = who;
        let (game, round, jurisdiction, occurred_at, recorded_at) = what;
        Posting::Hit(Box::new(Hit {
            pool,
            level,
            operator,
            source,
            sequence,
            index,
            game,
            round,
            jurisdiction,
            occurred_at,
            recorded_at,
        }))
    });
    prop_oneof![3 => sum, 1 => hit]
}

fn audited() -> impl Strategy<Value = Frame<Audited>> {
    let incident = prop_oneof![
        (symbol(), symbol(), gap()).prop_map(|(operator, source, gap)| Incident::Gap {
            operator,
            source,
            gap
        }),
        (symbol(), symbol(), any::<u64>()).prop_map(|(operator, source, position)| Incident::Conflict {
            operator,
            source,
            position
        }),
    ];
    let digests = || vec(digest(), 0..8);
    (header(), symbols(), digests(), any::<u64>(), digests(), vec(incident, 0..4)).prop_map(
        |(header, symbols, leaves, tree_size, frontier, incidents)| Frame {
            header,
            body: Audited { symbols, leaves, tree_size, frontier, incidents },
        },
    )
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    vec(Damage::any(), 24)
}

proptest! {
    #[test]
    fn validated_frames(
        (header, symbols, batches) in batches(validated_wager()),
        contents in vec(any::<[u8; 16]>(), 0..4),
        damages in damages(),
    ) {
        check(&Frame { header, body: Validated { symbols, batches, contents } }, &damages)?;
    }

    /// What a build knows that knows the next rules: the bodies of both versions come back, and are not the same bytes.
    #[test]
    fn validated_bodies_of_both_rules(
        (header, symbols, batches) in batches(validated_wager()),
        contents in vec(any::<[u8; 16]>(), 1..4),
    ) {
        let body = Validated { symbols, batches, contents };
        let messages = [1, 2].map(|rules| {
            let header = Header { rules, ..header.clone() };
            let mut writer = Writer::default();
            body.encode(&header, &mut writer);
            (header, writer.finish())
        });
        for (header, bytes) in &messages {
            let read = Validated::decode(header, &mut Reader::new(bytes));
            prop_assert_eq!(read.as_ref(), Ok(&body));
        }
        prop_assert!(body.batches.is_empty() || messages[0].1 != messages[1].1);
    }

    #[test]
    fn geofenced_frames((header, symbols, batches) in batches(geofenced_wager()), damages in damages()) {
        check(&Frame { header, body: Geofenced { symbols, batches } }, &damages)?;
    }

    #[test]
    fn allocations_frames((header, symbols, batches) in batches(allocation()), damages in damages()) {
        check(&Frame { header, body: Allocations { symbols, batches } }, &damages)?;
    }

    #[test]
    fn contributions_frames(frame in contributions(), damages in damages()) {
        check(&frame, &damages)?;
    }

    #[test]
    fn audited_frames(frame in audited(), damages in damages()) {
        check(&frame, &damages)?;
    }

    #[test]
    fn any_bytes_behind_a_header(header in header(), bytes in vec(any::<u8>(), 0..200)) {
        read_behind::<Validated>(&header, &bytes);
        read_behind::<Geofenced>(&header, &bytes);
        read_behind::<Allocations>(&header, &bytes);
        read_behind::<Contributions>(&header, &bytes);
        read_behind::<Audited>(&header, &bytes);
    }

    #[test]
    fn a_frame_of_another_kind_is_refused(frame in audited()) {
        let message = frame.encode();
        prop_assert!(Frame::<Validated>::decode(&message).is_err());
        prop_assert!(Frame::<Geofenced>::decode(&message).is_err());
        prop_assert!(Frame::<Allocations>::decode(&message).is_err());
        prop_assert!(Frame::<Contributions>::decode(&message).is_err());
    }
}

#[test]
fn frames_of_later_rules_are_told_from_what_is_no_frame() {
    let of = |rules| {
        let at = Millis(0);
        let header = Header {
            partition: 0,
            sequence: 1,
            rules,
            terms: 1,
            watermark: None,
            recorded_at: at,
            ingress: Ingress::default(),
            input: Digest::ZERO,
            previous: Digest::ZERO,
        };
        frame::encode(&header, &Geofenced::default())
    };
    for rules in rules::FIRST..=rules::KNOWN {
        assert_eq!(Header::peek_any(&of(rules)).map(|header| header.rules), Ok(rules));
    }
    let later = rules::KNOWN + 1;
    assert_eq!(Header::peek_any(&of(later)), Err(CodecError::Newer(rules::Newer(later))));
    assert!(matches!(Frame::<Geofenced>::decode(&of(0)), Err(CodecError::Fault { what: "rules", .. })));
}

/// Reads `bytes` as the body of a frame; whatever comes of it, no panic does.
fn read_behind<B: Body + Default>(header: &Header, bytes: &[u8]) {
    let empty = frame::encode(header, &B::default());
    let mut body = Writer::default();
    B::default().encode(header, &mut body);
    let start = &empty[..empty.len() - body.written()];
    drop(Frame::<B>::decode(&[start, bytes].concat()));
}
