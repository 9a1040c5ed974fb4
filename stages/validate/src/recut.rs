//! Makes a recorded frame again: from the ingress that it was cut from, with its cut, its revision of the terms and
//! its watermark, which hangs on a setting. The receive times that it records count, too: those of a stream that was
//! put together again from a backup are others; and what it records of signatures, which hangs on a file of keys. The intake does so with the last frame of the spine at a start, and with
//! frames that the spine lost; whoever proves a log does it with all. Nothing here reads or writes a log.

use jackpot_core::frame::batch::Verdict;
use jackpot_core::frame::validated::Validated;
use jackpot_core::frame::{Frame, Header};
use jackpot_core::refusal::Reason;

use crate::batch::ParsedMessage;
use crate::cut::{Cutter, Taken};
use crate::state::State;
use crate::terms::CompiledTerms;

/// The frame that the ingress gives after the last one that `state` has folded, where `recorded` says that it was cut;
/// `None` where no frame can be cut there. `messages` are all of the ingress from the end of the frame before to the
/// position that `recorded` names, read with their recorded receive times, and with what is recorded of their signatures
/// ([`ParsedMessage::with_recorded`]); `terms` are those of its revision.
///
/// The frame is the recorded one when its message has the recorded digest.
pub fn recut(
    state: &State,
    terms: &CompiledTerms,
    recorded: &Header,
    messages: &[ParsedMessage],
) -> Option<Frame<Validated>> {
    if terms.revision() < state.tail().terms {
        return None;
    }
    let mut cutter = Cutter::new(state, terms, 0);
    for message in messages {
        match cutter.take(message) {
            Taken::In => {}
            Taken::Full | Taken::Turn(_) => return None,
        }
    }
    let mut frame = cutter.finish()?;
    frame.header.watermark = recorded.watermark;
    frame.header.recorded_at = recorded.recorded_at;
    Some(frame)
}

/// What a frame records of the signature of a batch: that it held or was not asked for, or why it did not.
pub fn recorded_signature<W>(verdict: &Verdict<W>) -> Result<(), Box<str>> {
    match verdict {
        Verdict::Refused(refused) if refused.reason == Reason::BadSignature => Err(refused.detail.clone()),
        _ => Ok(()),
    }
}
