//! What of a frame somebody must look at: numbers of a source that never came, and numbers that were used twice with
//! different content (contract, section 3). The intake puts each sentence into its log when the frame is stored, once,
//! beside the metrics; both are in the frame too, and from there in the audit log. Nothing is decided here.

use std::fmt::Write as _;

use jackpot_core::frame::batch::{Batch, Gap, Verdict};
use jackpot_core::frame::validated::Validated;

/// Runs of numbers that one sentence names at most.
const GAPS_NAMED_MAX: usize = 8;

/// One sentence for each batch of a frame that brought a gap to light, or conflicts with another one.
pub fn alarms(body: &Validated) -> Vec<String> {
    let alarm = |batch: &Batch<_>| match &batch.verdict {
        Verdict::Accepted(accepted) if !accepted.gaps.is_empty() => {
            Some(gaps(body.symbols.name(batch.source), &accepted.gaps))
        }
        Verdict::Refused(refused) if refused.conflict => Some(format!(
            "batch {} came again with other content, and was refused: its number was accepted before; ask the source's \
             supplier what the second one was, and to give every new batch the next number",
            refused.batch
        )),
        Verdict::Accepted(_) | Verdict::Refused(_) => None,
    };
    body.batches.iter().filter_map(alarm).collect()
}

fn gaps(source: &str, gaps: &[Gap]) -> String {
    let missing: u64 = gaps.iter().map(|gap| gap.to - gap.from + 1).sum();
    let mut named = String::new();
    for (i, Gap { from, to }) in gaps.iter().take(GAPS_NAMED_MAX).enumerate() {
        let separator = if i == 0 { "" } else { ", " };
        let range = if from == to { from.to_string() } else { format!("{from} to {to}") };
        write!(named, "{separator}{range}").expect("a string takes everything");
    }
    if gaps.len() > GAPS_NAMED_MAX {
        write!(named, " and {} more runs", gaps.len() - GAPS_NAMED_MAX).expect("a string takes everything");
    }
    format!(
        "batches of source {source} never came, and will not be accepted any more: {named} ({missing} in all); ask its \
         supplier whether they hold wagers"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_the_source_and_the_numbers() {
        let run = |from, to| Gap { from, to };
        let check = |runs: &[Gap], expect: &str| {
            let told = gaps("eu1", runs);
            assert!(told.starts_with("batches of source eu1 never came"), "{told}");
            assert!(told.contains(expect), "{told}");
        };
        check(&[run(4, 4)], ": 4 (1 in all);");
        check(&[run(4, 6), run(9, 9)], ": 4 to 6, 9 (4 in all);");
        let many: Vec<_> = (1..=10).map(|n| run(10 * n, 10 * n + 1)).collect();
        check(&many, "70 to 71, 80 to 81 and 2 more runs (20 in all);");
    }
}
