//! `jackpot explain ID`: one wager, or one batch, through every stage: where it was stored, what each stage decided and
//! why, what it gave to which level and at which rates, what it won, and where the audit holds it.
//! Of a frame that was trimmed it tells what the records hold: `wagers`, `allocations-p`, `audit-p` and `commits`.
//! It reads and shows what the logs hold; whether that is right is [`crate::verify`]'s matter.

pub mod account;
pub mod find;
mod objections;
mod rates;
mod render;

use std::fmt;
use std::io::Write;

use jackpot_core::log::{Log, LogError, ReadError};

use crate::server::Server;

/// How often it is begun again when the connection is lost, as it is over a message that the client cannot parse.
const ATTEMPTS_MAX: u32 = 5;

/// Shows one wager through every stage: what each did, why, and where it ended.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) server: Server,
    /// The wager, the batch, or where in `wagers` a batch is stored.
    #[arg(
        value_name = "WAGER_ID",
        value_parser = Id::parse,
        help = "<source>/<sequence>/<index> for a wager, <source>/<sequence> for a batch, or @<stream sequence>"
    )]
    id: Id,
    /// For programs: one JSON object.
    #[arg(long)]
    json: bool,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// A batch of a source, or one of its wagers.
    Batch {
        /// The source.
        source: String,
        /// The source's number of the batch.
        sequence: u64,
        /// The wager's index in it, from 0.
        index: Option<u16>,
    },
    /// A message of the stream `wagers`.
    Stored(u64),
}

impl Id {
    /// Reads an id as the contract writes it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read = || {
            if let Some(sequence) = text.strip_prefix('@') {
                return Some(Self::Stored(sequence.parse().ok().filter(|&sequence| sequence > 0)?));
            }
            let mut parts = text.split('/');
            let source = parts.next().filter(|source| jackpot_core::names::is_identifier(source))?.to_owned();
            let sequence = parts.next()?.parse().ok().filter(|&sequence| sequence > 0)?;
            let index =
                parts.next().map(|index| index.parse().ok()).map_or(Some(None), |index| index.map(Some))?;
            parts.next().is_none().then_some(Self::Batch { source, sequence, index })
        };
        read().ok_or_else(|| {
            "an id is <source>/<sequence>/<index>, <source>/<sequence>, or @<stream sequence>".to_owned()
        })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch { source, sequence, index: None } => write!(f, "{source}/{sequence}"),
            Self::Batch { source, sequence, index: Some(index) } => write!(f, "{source}/{sequence}/{index}"),
            Self::Stored(sequence) => write!(f, "@{sequence}"),
        }
    }
}

/// Runs the command.
pub async fn run<L: Log>(args: &Args, log: &L, out: &mut impl Write) -> anyhow::Result<()> {
    let explanation = explain(log, &args.id).await?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&explanation)?)?;
    } else {
        out.write_all(render::text(&explanation).as_bytes())?;
    }
    Ok(())
}

async fn explain<L: Log>(log: &L, id: &Id) -> anyhow::Result<account::Explanation> {
    let mut attempts = 0;
    loop {
        match account::explain(log, id).await {
            Err(error) if attempts < ATTEMPTS_MAX && is_passing(&error) => attempts += 1,
            result => return result,
        }
    }
}

/// Whether the broker did not answer, or a reader got no further.
fn is_passing(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(LogError::Unavailable(_))) || cause.is::<ReadError>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_contract() {
        for text in ["eu1/4711/3", "eu1/4711", "@17"] {
            assert_eq!(Id::parse(text).map(|id| id.to_string()).as_deref(), Ok(text));
        }
        let wrong = [
            "",
            "eu1",
            "EU1/1/0",
            "eu1/0/0",
            "eu1/1/",
            "eu1/1/70000",
            "eu1/1/2/3",
            "@",
            "@0",
            "@x",
            "1/-1/0",
        ];
        for wrong in wrong {
            assert!(Id::parse(wrong).is_err(), "{wrong}");
        }
    }
}
