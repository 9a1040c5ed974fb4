//! What the operator's commands ask of the streams beyond the log port: how many partitions there are,
//! and all messages of a view that are there now.

use anyhow::{Context, bail};
use jackpot_core::limits;
use jackpot_core::log::{Entry, Log, LogError, Reader};
use jackpot_core::topology::Lane;

/// How many partitions the streams were made for.
pub async fn partitions<L: Log>(log: &L) -> anyhow::Result<u16> {
    let mut count = 0;
    while count < limits::PARTITIONS_MAX {
        match log.extent(&Lane::Validated.stream(count)).await {
            Ok(_) => count += 1,
            Err(LogError::NoStream(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    if count == 0 {
        bail!("the server has no streams of the pipeline; run `jackpot init`, or `jackpot up`");
    }
    Ok(count)
}

/// Gives each message whose subject fits `filter` that is stored now to `each`, in order.
pub async fn each<L: Log>(
    log: &L,
    stream: &str,
    filter: &str,
    each: impl FnMut(Entry) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    each_from(log, stream, filter, 1, each).await
}

/// The same from a sequence on.
pub async fn each_from<L: Log>(
    log: &L,
    stream: &str,
    filter: &str,
    from: u64,
    mut each: impl FnMut(Entry) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(last) = log.last(stream, filter).await? else { return Ok(()) };
    let mut from = from.max(log.extent(stream).await?.first);
    let mut attempts = 0;
    while from <= last.sequence {
        let mut reader = log.read(stream, Some(filter), from).await?;
        loop {
            match reader.next().await {
                Ok(entry) => {
                    attempts = 0;
                    from = entry.sequence + 1;
                    if entry.sequence <= last.sequence {
                        each(entry)?;
                    }
                    if from > last.sequence {
                        return Ok(());
                    }
                }
                Err(_) if attempts < 5 => break,
                Err(error) => return Err(error).with_context(|| format!("cannot read the stream {stream}")),
            }
        }
        attempts += 1;
    }
    Ok(())
}
