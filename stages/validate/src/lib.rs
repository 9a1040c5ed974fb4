//! The validate stage: decides what is a wager, and cuts the ingress of a partition into frames.
//!
//! What runs through it: `parse` reads a message, ahead and anywhere; a [`Cutter`] takes parsed messages into one
//! frame, judging them against the [`State`] and the [`CompiledTerms`]; when the frame is stored, [`State::fold`]
//! takes it in, as it does every frame of the output, whoever made it. Messages stay with the caller until a fold
//! has covered them (`State::tail().ingress.position`), so that a frame which loses its race costs nothing.
//!
//! | room | what lives there |
//! |---|---|
//! | `json` | the scanner |
//! | `detail` | sentences of refusals |
//! | `wager`, `batch` | what a message says by itself |
//! | `signature` | what its headers say, and whether that holds |
//! | `window`, `state` | what is remembered |
//! | `terms`, `keys` | what is in force, and the secrets that it names |
//! | `draft`, `cut` | the frame being cut |
//! | `recut` | a recorded frame, made again |
//! | `alarms` | what of a frame somebody must look at |
//! | [`intake`] | reads the ingress and appends the frames |
//! | `parts` | what runs a partition |

mod alarms;
mod batch;
mod cut;
mod detail;
mod draft;
pub mod intake;
mod json;
mod keys;
mod parts;
mod recut;
mod signature;
mod state;
mod terms;
mod wager;
mod window;

pub use batch::{ParsedMessage, parse};
pub use cut::{Cutter, Taken, tally};
pub use keys::KeyFile;
pub use parts::parts;
pub use recut::{recorded_signature, recut};
pub use state::{State, Tail};
pub use terms::CompiledTerms;

#[cfg(test)]
mod tests;
