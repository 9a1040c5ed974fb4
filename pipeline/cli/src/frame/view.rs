//! Frames as JSON: names written out, amounts as exact decimals, times as RFC 3339, what is absent left out.
//! Written for people who look; programs that decode frames go by `schemas/frames.md`.
//! Only shows: nothing is computed here.

use jackpot_core::digest::Digest;
use jackpot_core::frame::allocations::{Allocation, Allocations, Participation};
use jackpot_core::frame::audited::{Audited, Incident};
use jackpot_core::frame::batch::{Accepted, Batch, Gap, HitClaim, Hits, Refusal, Verdict};
use jackpot_core::frame::contributions::{Contributions, Posting};
use jackpot_core::frame::geofenced::{self, Geofenced};
use jackpot_core::frame::symbols::Symbols;
use jackpot_core::frame::validated::{self, Validated};
use jackpot_core::frame::{Header, Ingress};
use jackpot_core::money::{Pico, Rate};
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::time::Millis;
use serde::Serialize;

/// A body that can be shown.
pub trait Shown {
    /// Its form as JSON.
    type View<'a>: Serialize
    where
        Self: 'a;
    /// What is written.
    fn shown(&self) -> Self::View<'_>;
}

/// A header.
#[derive(Debug, Serialize)]
pub struct HeaderView<'a> {
    partition: u16,
    sequence: u64,
    rules: u16,
    terms: u64,
    watermark: Option<Millis>,
    recorded_at: Millis,
    ingress: IngressView<'a>,
    input: &'a Digest,
    previous: &'a Digest,
}

#[derive(Debug, Serialize)]
struct IngressView<'a> {
    position: u64,
    count: u64,
    chain: &'a Digest,
}

impl<'a> HeaderView<'a> {
    /// Of this header.
    pub fn of(header: &'a Header) -> Self {
        let Ingress { position, count, chain } = &header.ingress;
        Self {
            partition: header.partition,
            sequence: header.sequence,
            rules: header.rules,
            terms: header.terms,
            watermark: header.watermark,
            recorded_at: header.recorded_at,
            ingress: IngressView { position: *position, count: *count, chain },
            input: &header.input,
            previous: &header.previous,
        }
    }
}

/// The batches of a frame.
#[derive(Debug, Serialize)]
pub struct BatchesView<'a> {
    batches: Vec<BatchView<'a>>,
}

/// A batch: accepted ones have wagers, those refused whole a reason.
#[derive(Debug, Serialize)]
pub struct BatchView<'a> {
    operator: &'a str,
    source: &'a str,
    position: u64,
    recorded_at: Millis,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wagers: Option<Vec<WagerView<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusals: Option<Vec<RefusalView<'a>>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<GapView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict: Option<bool>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct GapView {
    from: u64,
    to: u64,
}

/// A refused wager or hit.
#[derive(Debug, Clone, Serialize)]
pub struct RefusalView<'a> {
    /// The wager's index.
    pub index: u16,
    /// The hit's, where it is about a hit alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hit: Option<u8>,
    /// Who refused it.
    pub stage: StageName,
    /// Why.
    pub reason: Reason,
    /// What the producer can mend.
    pub detail: &'a str,
}

/// A wager at some stage: what that stage knows of it.
#[derive(Debug, Serialize)]
pub struct WagerView<'a> {
    index: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interaction: Option<u64>,
    game: &'a str,
    amount: Pico,
    currency: &'a str,
    funds: &'static str,
    opt_in: bool,
    occurred_at: Millis,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<LocationView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jurisdiction: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hits: Option<HitsView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    participations: Option<Vec<ParticipationView<'a>>>,
}

#[derive(Debug, Serialize)]
struct LocationView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    jurisdiction: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    point: Option<PointView>,
    checked_at: Millis,
}

#[derive(Debug, Serialize)]
struct PointView {
    latitude: f64,
    longitude: f64,
    accuracy_m: f64,
}

#[derive(Debug, Serialize)]
struct HitsView<'a> {
    round: &'a str,
    claims: Vec<ClaimView<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ClaimView<'a> {
    Level { pool: &'a str, level: &'a str },
    Unreadable { unreadable: bool },
}

/// A wager's part in a pool.
#[derive(Debug, Serialize)]
pub struct ParticipationView<'a> {
    pool: &'a str,
    eligible: Pico,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<String>,
}

impl<'a> RefusalView<'a> {
    /// Of this refusal.
    pub fn of(refusal: &'a Refusal) -> Self {
        Self {
            index: refusal.index,
            hit: refusal.hit,
            stage: refusal.stage,
            reason: refusal.reason,
            detail: &refusal.detail,
        }
    }
}

impl<'a> WagerView<'a> {
    /// As validate wrote it.
    pub fn validated(symbols: &'a Symbols, wager: &'a validated::Wager) -> Self {
        let location = wager.location.as_ref().map(|location| LocationView {
            jurisdiction: location.jurisdiction.map(|code| symbols.name(code)),
            point: location.point.map(|point| PointView {
                latitude: point.latitude,
                longitude: point.longitude,
                accuracy_m: point.accuracy_m,
            }),
            checked_at: location.checked_at,
        });
        Self {
            index: wager.index,
            session: Some(hex(&wager.session)),
            interaction: Some(wager.interaction),
            game: symbols.name(wager.game),
            amount: wager.amount.pico(),
            currency: symbols.name(wager.currency),
            funds: wager.funds.as_str(),
            opt_in: wager.opt_in,
            occurred_at: wager.occurred_at,
            location,
            jurisdiction: None,
            hits: wager.hits.as_deref().map(|hits| HitsView::of(symbols, hits)),
            participations: None,
        }
    }

    /// As geofence wrote it.
    pub fn geofenced(symbols: &'a Symbols, wager: &'a geofenced::Wager) -> Self {
        Self {
            index: wager.index,
            session: None,
            interaction: None,
            game: symbols.name(wager.game),
            amount: wager.amount.pico(),
            currency: symbols.name(wager.currency),
            funds: wager.funds.as_str(),
            opt_in: wager.opt_in,
            occurred_at: wager.occurred_at,
            location: None,
            jurisdiction: Some(symbols.name(wager.jurisdiction)),
            hits: wager.hits.as_deref().map(|hits| HitsView::of(symbols, hits)),
            participations: None,
        }
    }

    /// As allocate wrote it.
    pub fn allocated(symbols: &'a Symbols, allocation: &'a Allocation) -> Self {
        let part = |part: &Participation| ParticipationView {
            pool: symbols.name(part.pool),
            eligible: part.eligible.pico(),
            rate: part.rate.map(|rate: Rate| rate.to_string()),
        };
        let participations = Some(allocation.participations.iter().map(part).collect());
        Self { participations, ..Self::geofenced(symbols, &allocation.wager) }
    }
}

impl<'a> HitsView<'a> {
    fn of(symbols: &'a Symbols, hits: &'a Hits) -> Self {
        let claim = |claim: &HitClaim| match *claim {
            HitClaim::Level { pool, level } => {
                ClaimView::Level { pool: symbols.name(pool), level: symbols.name(level) }
            }
            HitClaim::Unreadable => ClaimView::Unreadable { unreadable: true },
        };
        Self { round: &hits.round, claims: hits.claims.iter().map(claim).collect() }
    }
}

impl<'a> BatchView<'a> {
    fn of<W>(
        symbols: &'a Symbols,
        batch: &'a Batch<W>,
        wager: impl Fn(&'a Symbols, &'a W) -> WagerView<'a>,
    ) -> Self {
        let mut view = Self {
            operator: symbols.name(batch.operator),
            source: symbols.name(batch.source),
            position: batch.position,
            recorded_at: batch.recorded_at,
            verdict: "accepted",
            sequence: None,
            content: None,
            wagers: None,
            refusals: None,
            gaps: Vec::new(),
            batch: None,
            reason: None,
            detail: None,
            conflict: None,
        };
        match &batch.verdict {
            Verdict::Accepted(Accepted { sequence, wagers, refusals, gaps }) => {
                view.sequence = Some(*sequence);
                view.wagers = Some(wagers.iter().map(|of| wager(symbols, of)).collect());
                view.refusals = Some(refusals.iter().map(RefusalView::of).collect());
                view.gaps = gaps.iter().map(|&Gap { from, to }| GapView { from, to }).collect();
            }
            Verdict::Refused(refused) => {
                view.verdict = "refused";
                view.batch = Some(&refused.batch);
                view.reason = Some(refused.reason);
                view.detail = Some(&refused.detail);
                view.conflict = Some(refused.conflict);
            }
        }
        view
    }
}

impl Shown for Validated {
    type View<'a> = BatchesView<'a>;

    fn shown(&self) -> BatchesView<'_> {
        let mut contents = self.contents.iter();
        let batch = |batch| {
            let mut view = BatchView::of(&self.symbols, batch, WagerView::validated);
            if view.sequence.is_some() {
                view.content = contents.next().map(|content| hex(content));
            }
            view
        };
        BatchesView { batches: self.batches.iter().map(batch).collect() }
    }
}

impl Shown for Geofenced {
    type View<'a> = BatchesView<'a>;

    fn shown(&self) -> BatchesView<'_> {
        let batch = |batch| BatchView::of(&self.symbols, batch, WagerView::geofenced);
        BatchesView { batches: self.batches.iter().map(batch).collect() }
    }
}

impl Shown for Allocations {
    type View<'a> = BatchesView<'a>;

    fn shown(&self) -> BatchesView<'_> {
        let batch = |batch| BatchView::of(&self.symbols, batch, WagerView::allocated);
        BatchesView { batches: self.batches.iter().map(batch).collect() }
    }
}

/// What a frame says to the ledger.
#[derive(Debug, Serialize)]
pub struct ContributionsView<'a> {
    wagers: u32,
    pools: Vec<PoolView<'a>>,
    postings: Vec<PostingView<'a>>,
}

#[derive(Debug, Serialize)]
struct PoolView<'a> {
    pool: &'a str,
    levels: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "posting", rename_all = "snake_case")]
enum PostingView<'a> {
    Sum {
        pool: &'a str,
        second: Millis,
        operator: &'a str,
        jurisdiction: &'a str,
        game: &'a str,
        wagers: u32,
        eligible: Pico,
    },
    Hit {
        pool: &'a str,
        level: &'a str,
        wager: String,
        operator: &'a str,
        game: &'a str,
        round: &'a str,
        jurisdiction: &'a str,
        occurred_at: Millis,
        recorded_at: Millis,
    },
}

impl Shown for Contributions {
    type View<'a> = ContributionsView<'a>;

    fn shown(&self) -> ContributionsView<'_> {
        let name = |symbol| self.symbols.name(symbol);
        ContributionsView {
            wagers: self.wagers,
            pools: self
                .pools
                .iter()
                .map(|pool| PoolView {
                    pool: name(pool.pool),
                    levels: pool.levels.iter().map(|&level| name(level)).collect(),
                })
                .collect(),
            postings: self.postings.iter().map(|of| posting_view(self, of)).collect(),
        }
    }
}

fn posting_view<'a>(body: &'a Contributions, posting: &'a Posting) -> PostingView<'a> {
    let name = |symbol| body.symbols.name(symbol);
    let pool = |index: u16| name(body.pools[usize::from(index)].pool);
    match posting {
        Posting::Sum(sum) => PostingView::Sum {
            pool: pool(sum.pool),
            second: Millis(sum.second.saturating_mul(1_000)),
            operator: name(sum.operator),
            jurisdiction: name(sum.jurisdiction),
            game: name(sum.game),
            wagers: sum.wagers,
            eligible: sum.eligible.pico(),
        },
        Posting::Hit(hit) => PostingView::Hit {
            pool: pool(hit.pool),
            level: name(hit.level),
            wager: format!("{}/{}/{}", name(hit.source), hit.sequence, hit.index),
            operator: name(hit.operator),
            game: name(hit.game),
            round: &hit.round,
            jurisdiction: name(hit.jurisdiction),
            occurred_at: hit.occurred_at,
            recorded_at: hit.recorded_at,
        },
    }
}

/// An entry of the audit.
#[derive(Debug, Serialize)]
pub struct AuditedView<'a> {
    tree_size: u64,
    leaves: &'a [Digest],
    frontier: &'a [Digest],
    incidents: Vec<IncidentView<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "incident", rename_all = "snake_case")]
enum IncidentView<'a> {
    Gap { operator: &'a str, source: &'a str, from: u64, to: u64 },
    Conflict { operator: &'a str, source: &'a str, position: u64 },
}

impl Shown for Audited {
    type View<'a> = AuditedView<'a>;

    fn shown(&self) -> AuditedView<'_> {
        let name = |symbol| self.symbols.name(symbol);
        let incident = |incident: &Incident| match *incident {
            Incident::Gap { operator, source, gap: Gap { from, to } } => {
                IncidentView::Gap { operator: name(operator), source: name(source), from, to }
            }
            Incident::Conflict { operator, source, position } => {
                IncidentView::Conflict { operator: name(operator), source: name(source), position }
            }
        };
        AuditedView {
            tree_size: self.tree_size,
            leaves: &self.leaves,
            frontier: &self.frontier,
            incidents: self.incidents.iter().map(incident).collect(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}
