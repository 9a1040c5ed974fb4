//! `jackpot frame STREAM SEQUENCE`: prints one frame of a lane as JSON, for people who want to see what a stage wrote.
//! How a frame looks as JSON is [`view`]'s matter, and [`crate::explain`] shows wagers the same way.
//! Nothing is checked here beyond that the frame can be read; [`crate::verify`] proves it.

pub mod view;

use std::io::Write;

use anyhow::{Context, anyhow, bail};
use jackpot_core::digest::Digest;
use jackpot_core::frame::allocations::Allocations;
use jackpot_core::frame::audited::Audited;
use jackpot_core::frame::contributions::Contributions;
use jackpot_core::frame::geofenced::Geofenced;
use jackpot_core::frame::validated::Validated;
use jackpot_core::frame::{Body, Frame, Header};
use jackpot_core::limits;
use jackpot_core::log::{Entry, Extent, Log, LogError};
use jackpot_core::topology::Lane;
use serde::Serialize;

use crate::server::Server;
use crate::verify::lane::is_record;
use view::{HeaderView, Shown};

/// Prints a frame of a lane as JSON.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) server: Server,
    /// The stream: validated-0, geofenced-0, allocations-0, contributions-0, audit-0.
    stream: String,
    /// The frame's number in it, from 1.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    sequence: u64,
}

/// A frame with what the stream says of its message.
#[derive(Serialize)]
struct Message<'a, B> {
    stream: &'a str,
    sequence: u64,
    /// When the broker received it.
    stored_at: jackpot_core::time::Millis,
    bytes: usize,
    digest: Digest,
    header: HeaderView<'a>,
    body: B,
}

/// Runs the command.
pub async fn run<L: Log>(args: &Args, log: &L, out: &mut impl Write) -> anyhow::Result<()> {
    let lane = lane_of(&args.stream)?;
    let entry = match log.get(&args.stream, args.sequence).await {
        Ok(entry) => entry,
        Err(LogError::NoStream(stream)) => {
            bail!("there is no stream {stream} here; `jackpot status` shows which partitions there are")
        }
        Err(error) => return Err(error.into()),
    };
    let Some(entry) = entry else { return Err(missing(args, lane, &log.extent(&args.stream).await?)) };
    match lane {
        Lane::Validated => print::<Validated>(args, &entry, out),
        Lane::Geofenced => print::<Geofenced>(args, &entry, out),
        Lane::Allocations => print::<Allocations>(args, &entry, out),
        Lane::Contributions => print::<Contributions>(args, &entry, out),
        Lane::Audit => print::<Audited>(args, &entry, out),
    }
}

/// Why there is no such frame.
fn missing(args: &Args, lane: Lane, extent: &Extent) -> anyhow::Error {
    let Args { stream, sequence, .. } = args;
    let Extent { first, last, .. } = extent;
    if is_record(lane) || sequence >= first || last < first {
        return anyhow!("{stream} holds no frame {sequence}; it holds {first} to {last}");
    }
    let record = stream.replacen(lane.as_str(), Lane::Allocations.as_str(), 1);
    anyhow!(
        "frame {sequence} of {stream} was trimmed, since no stage needs it any more, and {stream} begins with {first}; see \
         `jackpot frame {record} {sequence}` for what became of its wagers, and `jackpot explain` for each"
    )
}

/// The lane that a stream belongs to.
fn lane_of(stream: &str) -> anyhow::Result<Lane> {
    let lane = stream.rsplit_once('-').and_then(|(kind, partition)| {
        let partition: u16 = partition.parse().ok()?;
        let lane = Lane::ALL.into_iter().find(|lane| lane.as_str() == kind)?;
        (partition < limits::PARTITIONS_MAX && lane.stream(partition) == stream).then_some(lane)
    });
    lane.ok_or_else(|| {
        let lanes = Lane::ALL.map(|lane| lane.stream(0)).join(", ");
        anyhow!("`{stream}` is no lane; name one of {lanes}, or the same of another partition")
    })
}

fn print<B: Body + Shown>(args: &Args, entry: &Entry, out: &mut impl Write) -> anyhow::Result<()> {
    let frame: Frame<B> = read(&args.stream, entry)?;
    let message = Message {
        stream: &args.stream,
        sequence: entry.sequence,
        stored_at: entry.recorded_at,
        bytes: entry.payload.len(),
        digest: Digest::of(&entry.payload),
        header: HeaderView::of(&frame.header),
        body: frame.body.shown(),
    };
    // Written in one piece: serde hides that the reader of our output has gone.
    writeln!(out, "{}", serde_json::to_string_pretty(&message)?)?;
    Ok(())
}

/// Reads a frame, or says what to do where that cannot be.
pub fn read<B: Body>(stream: &str, entry: &Entry) -> anyhow::Result<Frame<B>> {
    Frame::decode(&entry.payload).with_context(|| unreadable(stream, entry.sequence))
}

/// Reads a header alone.
pub fn peek(stream: &str, entry: &Entry) -> anyhow::Result<Header> {
    Header::peek_any(&entry.payload).with_context(|| unreadable(stream, entry.sequence))
}

fn unreadable(stream: &str, sequence: u64) -> String {
    format!("cannot read frame {sequence} of {stream}; run this command in the stages' version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_told_from_other_streams() {
        for lane in Lane::ALL {
            assert_eq!(lane_of(&lane.stream(3)).ok(), Some(lane));
        }
        for other in ["wagers", "commits", "validated", "validated-64", "validated-00", "validated--1", "x-0"]
        {
            let error = lane_of(other).expect_err("no lane");
            assert!(error.to_string().contains("validated-0, geofenced-0"), "{error}");
        }
    }
}
