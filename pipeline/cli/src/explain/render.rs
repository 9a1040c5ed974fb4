//! An account for people: one stage under the other, a name on the left and sentences on the right, in 100 columns.

use std::fmt::Write;

use jackpot_core::money::Pico;
use jackpot_core::record::Pending;
use jackpot_core::refusal::StageName;

use super::account::{Claim, Ended, Explanation, Given, Line, Part, Step};
use super::objections::Objection;
use super::rates::Rates;
use crate::progress::{counted, grouped};

/// Columns at most.
const WIDTH: usize = 100;
/// The column that sentences begin at.
const INDENT: usize = 12;
/// Pools that a wager did not join that are told.
const NOT_JOINED_MAX: usize = 16;

/// The whole account.
pub fn text(of: &Explanation) -> String {
    let mut page = Page::default();
    page.entry(if of.wagers.is_empty() { "id" } else { "batch" }, &of.id);
    page.entry("ended", &ending(of));
    page.gap();
    stored(of, &mut page);
    for repeat in &of.repeats {
        page.entry("", &format!("came again at {}: {} (frame {})", repeat.at, repeat.detail, repeat.frame));
    }
    if let Some(frame) = &of.frame {
        page.entry(
            "frame",
            &format!(
                "{} of partition {}, under revision {} of the terms",
                frame.frame, frame.partition, frame.terms
            ),
        );
        for lane in &frame.lanes {
            let what = match lane.stored_at {
                Some(at) => format!("stored {at}"),
                None => "trimmed, since no stage needs it any more".to_owned(),
            };
            page.line(&format!("{:<16} {what}", lane.stream));
        }
    }
    page.gap();
    of.stages.iter().for_each(|step| stage(step, &mut page));
    of.pools.iter().for_each(|part| pool(part, &mut page));
    not_joined(&of.not_joined, &mut page);
    of.hits.iter().for_each(|claim| hit(claim, &mut page));
    wagers(&of.wagers, &mut page);
    page.gap();
    end(of, &mut page);
    page.0
}

fn ending(of: &Explanation) -> String {
    match of.ended {
        Ended::Allocated if of.pools.is_empty() => "allocated, to no pool".into(),
        Ended::Allocated => {
            let pools =
                of.pools.iter().map(|part| format!("{} {} to {}", part.eligible, part.currency, part.pool));
            let paid: Vec<_> = of
                .hits
                .iter()
                .filter_map(|claim| claim.payoff.as_ref())
                .map(|hit| format!("won {} {} of {}/{}", hit.payoff, hit.currency, hit.pool, hit.level))
                .collect();
            let pools: Vec<_> = pools.chain(paid).collect();
            format!("allocated: {}", pools.join(", "))
        }
        Ended::Refused | Ended::BatchRefused => {
            let step = of.stages.iter().find(|step| step.outcome == "refused");
            let what =
                if of.ended == Ended::BatchRefused { "its whole batch was refused" } else { "refused" };
            step.and_then(|step| Some(format!("{what} by {} as {}", step.stage, step.reason?)))
                .unwrap_or_else(|| what.into())
        }
        Ended::Accepted => {
            let refused = of.wagers.iter().filter(|line| line.refused.is_some()).count();
            format!("accepted: {} wagers allocated, {refused} refused", of.wagers.len() - refused)
        }
        Ended::Waiting => "not yet: it is on its way".into(),
    }
}

fn stored(of: &Explanation, page: &mut Page) {
    let stored = &of.stored;
    page.entry("stored", &format!("wagers @{} as {}", stored.sequence, stored.subject));
    if let Some(batch) = &stored.batch {
        page.line(&format!("batch {batch} of operator {}", stored.operator));
    }
    let wagers = stored.wagers.map_or_else(String::new, |wagers| format!(" of {}", plural(wagers, "wager")));
    page.line(&format!("received {}, a batch{wagers} in {} bytes", stored.recorded_at, stored.bytes));
    let read = counted(of.found.messages_read, "message", "messages");
    page.line(&format!("found by {}, reading {read} of the stream", of.found.by));
    if let Some(raw) = &stored.raw {
        page.line(&compact(raw.get()));
    }
}

fn stage(step: &Step, page: &mut Page) {
    let name = step.stage.as_str();
    match (step.outcome, step.reason) {
        ("refused", Some(reason)) => {
            page.entry(name, &format!("refused it as {reason}"));
            page.line(step.detail.as_deref().unwrap_or_default());
        }
        ("waiting", _) => page.entry(name, "has not come to it yet"),
        _ => {
            let note = step.note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
            page.entry(name, &format!("{}{note}", passed(step.stage)));
        }
    }
}

fn passed(stage: StageName) -> &'static str {
    match stage {
        StageName::Validate => "accepted it",
        StageName::Geofence => "placed it",
        _ => "allocated it",
    }
}

fn pool(part: &Part, page: &mut Page) {
    page.gap();
    let Part { pool, currency, amount, from, .. } = part;
    page.entry("pool", &format!("{pool}, in {currency}"));
    match (&part.rate, &part.exact) {
        (Some(rate), Some(exact)) => {
            let converted = part.converted;
            let rounded = match *exact == converted.to_string() {
                true => "exactly".to_owned(),
                false => format!("rounded half to even to {converted}"),
            };
            page.line(&format!("{amount} {from} × {rate} = {exact} {currency}, {rounded}"));
        }
        _ => page.line(&format!("{amount} {from}, the pool's own currency")),
    }
    if let Some(max) = part.max_wager.filter(|max| *max < part.converted) {
        page.line(&format!("above max_wager {max}: only that counts"));
    }
    page.line(&format!("eligible {} {currency}", part.eligible));
    part.levels.iter().for_each(|given| level(part, given, page));
}

fn level(part: &Part, given: &Given, page: &mut Page) {
    let Some(rates) = &given.rates else {
        return page.line(&format!("{}: the terms that say its rates are gone", given.level));
    };
    let share = |ppm: u32, to: &str, gives: Option<Pico>| {
        format!("{} × {ppm} ppm = {} to {to}", part.eligible, gives.unwrap_or_default())
    };
    let current = share(rates.increment_ppm, "current", given.increment);
    let reserve = share(rates.reserve_ppm, "reserve", given.reserve);
    page.line(&format!("{:<8}  {current}", given.level));
    page.line(&format!("{:<8}  {reserve}", ""));
    page.line(&format!("{:<8}  {}", "", since(rates)));
    let Some(after) = &given.after else { return };
    let ceiling = after.ceiling.map_or_else(String::new, |ceiling| format!(", ceiling {ceiling}"));
    page.line(&format!("{:<8}  current after the commit {}{ceiling}", "", after.current));
    if after.ceiling.is_some_and(|ceiling| ceiling <= after.current) {
        page.line(&format!("{:<8}  what would have lifted it above the ceiling went to the diversion", ""));
    }
    if let Some(pending) = &after.pending {
        page.line(&format!("{:<8}  waiting for the next hit: {}", "", waiting(pending)));
    }
}

fn since(rates: &Rates) -> String {
    let revision = rates.revision;
    match &rates.since_hit {
        Some(wager) => {
            format!("rates of revision {revision}, since the hit of {wager} in commit {}", rates.since_commit)
        }
        None => format!(
            "rates of revision {revision}, since the level was opened in commit {}; never hit before",
            rates.since_commit
        ),
    }
}

fn waiting(pending: &Pending) -> String {
    let rate =
        |name: &str, ppm: Option<jackpot_core::money::Ppm>| ppm.map(|ppm| format!("{name} {} ppm", ppm.0));
    let parts = [
        rate("increment", pending.increment_ppm),
        rate("reserve", pending.reserve_ppm),
        pending.ceiling.map(|ceiling| format!("ceiling {ceiling}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn not_joined(objections: &[Objection], page: &mut Page) {
    if objections.is_empty() {
        return;
    }
    page.gap();
    for (number, Objection { pool, why }) in objections.iter().take(NOT_JOINED_MAX).enumerate() {
        page.entry(if number == 0 { "not joined" } else { "" }, &format!("{pool} {why}"));
    }
    if objections.len() > NOT_JOINED_MAX {
        page.line(&format!("and {} more; --json tells all", objections.len() - NOT_JOINED_MAX));
    }
}

fn hit(claim: &Claim, page: &mut Page) {
    page.gap();
    let name = match (&claim.pool, &claim.level) {
        (Some(pool), Some(level)) => format!("hits[{}], {pool}/{level}", claim.number),
        _ => format!("hits[{}], which cannot be read", claim.number),
    };
    page.entry("hit", &format!("{name}: {}", claim.outcome));
    if let Some(detail) = &claim.detail {
        page.line(detail);
    }
    let Some(hit) = &claim.payoff else { return };
    page.line(&format!(
        "paid {} {}: number {} of the level, order {} in commit {}",
        hit.payoff, hit.currency, hit.sequence, hit.order, hit.commit
    ));
    page.line(&format!(
        "refilled with {}: {} from the diversion, {} from the reserve, {} from the house",
        hit.base, hit.from_diversion, hit.from_reserve, hit.from_house
    ));
    page.line(&format!("current after it {}", hit.current));
}

fn wagers(lines: &[Line], page: &mut Page) {
    if lines.is_empty() {
        return;
    }
    page.gap();
    for (number, line) in lines.iter().enumerate() {
        let what = match (&line.refused, &line.amount, &line.currency) {
            (Some((stage, reason)), _, _) => format!("refused by {stage} as {reason}"),
            (None, Some(amount), Some(currency)) => {
                let pools = if line.pools.is_empty() { "no pool".to_owned() } else { line.pools.join(", ") };
                format!("{amount} {currency} to {pools}")
            }
            _ => String::new(),
        };
        page.entry(if number == 0 { "wagers" } else { "" }, &format!("{:>3}  {what}", line.index));
    }
}

fn end(of: &Explanation, page: &mut Page) {
    match &of.commit {
        Some(commit) => {
            let as_of = commit.as_of.map_or_else(String::new, |at| format!(", as of {at}"));
            page.entry(
                "commit",
                &format!("{}, running revision {}{as_of}", grouped(&commit.commit.to_string()), commit.terms),
            );
        }
        None if matches!(of.ended, Ended::Allocated | Ended::Accepted) => {
            page.entry("commit", "the ledger has not come to it yet");
        }
        None => {}
    }
    match (&of.leaf, &of.frame) {
        (Some(leaf), Some(frame)) => {
            page.entry(
                "audit",
                &format!(
                    "leaf {} of the tree of partition {}, there from {} leaves on",
                    grouped(&leaf.number.to_string()),
                    frame.partition,
                    grouped(&leaf.tree_size.to_string())
                ),
            );
            page.line(&format!("hash {}", leaf.hash));
        }
        _ if of.frame.as_ref().is_some_and(|frame| frame.lanes.len() < 4) => {
            page.entry("audit", "has not come to it yet");
        }
        _ => {}
    }
}

fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// JSON on one line, with no space but within texts.
fn compact(json: &str) -> String {
    let (mut text, mut within, mut escaped) = (String::with_capacity(json.len()), false, false);
    for c in json.chars() {
        let quote = c == '"' && !escaped;
        within ^= quote;
        escaped = c == '\\' && !escaped;
        if within || quote || !c.is_ascii_whitespace() {
            text.push(c);
        }
    }
    text
}

/// Lines of a name and a sentence.
#[derive(Default)]
struct Page(String);

impl Page {
    fn entry(&mut self, name: &str, sentence: &str) {
        for (number, line) in wrapped(sentence, WIDTH - INDENT).into_iter().enumerate() {
            let name = if number == 0 { name } else { "" };
            let line = format!("{name:<INDENT$}{line}");
            writeln!(self.0, "{}", line.trim_end()).expect("a String takes everything");
        }
    }

    fn line(&mut self, sentence: &str) {
        self.entry("", sentence);
    }

    /// An empty line, never two.
    fn gap(&mut self) {
        if !self.0.ends_with("\n\n") {
            self.0.push('\n');
        }
    }
}

/// Lines of at most so many characters, broken behind a space or a comma where there is one; what follows a break is
/// indented as the first line is.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let indent = clean.chars().take_while(|c| *c == ' ').count().min(width / 2);
    let mut rest: Vec<char> = clean.chars().collect();
    let mut lines = Vec::new();
    while rest.len() > width {
        let breaks = |at: &usize| matches!(rest[*at - 1], ' ' | ',');
        let at = (indent + 1..=width).rev().find(breaks).unwrap_or(width);
        let tail = rest.split_off(at);
        lines.push(rest.into_iter().collect());
        rest = std::iter::repeat_n(' ', indent).chain(tail).collect();
    }
    lines.push(rest.into_iter().collect());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_behind_commas_and_spaces() {
        assert_eq!(wrapped("ab, cd", 10), ["ab, cd"]);
        assert_eq!(wrapped("ab,cd ef", 5), ["ab,", "cd ef"]);
        assert_eq!(wrapped("  ab cd ef", 6), ["  ab ", "  cd ", "  ef"]);
        assert_eq!(wrapped("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrapped("", 3), [""]);
        assert_eq!(wrapped("a\u{1b}b", 9), ["a b"]);
    }

    #[test]
    fn json_is_shown_on_one_line() {
        assert_eq!(compact("{ \"a b\" :\n [1, \"\\\" x\"] }"), "{\"a b\":[1,\"\\\" x\"]}");
    }
}
