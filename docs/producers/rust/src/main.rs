//! Publishes newline-delimited wager batches with async-nats: what a game server in Rust does, without an SDK.
//!
//!     jackpot-producer --url nats://127.0.0.1:4222 [--secret whsec_…] FILE     (FILE may be -, standard input)
//!
//! Each line goes, its bytes unchanged, to `wagers.<operator>.<source>`, one after the other. For each acknowledgement
//! there is one line of JSON on standard output: `{"stream": …, "seq": …, "sequence": …}`. What is not acknowledged is
//! published again, the very same bytes, since that is always safe. Exit 1 when a batch was not acknowledged after
//! all; those after it are not published, so that the order of a source is kept. Running it again is safe.
//! With `--secret`, batches are signed as Standard Webhooks say.

use std::error::Error;
use std::io::Read;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::HeaderMap;
use async_nats::jetstream::context::{Context, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// What of a batch its publication needs.
#[derive(serde::Deserialize)]
struct Batch {
    operator: String,
    source: String,
    sequence: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let (mut url, mut secret, mut file) = (None, None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--url" => url = arguments.next(),
            "--secret" => secret = arguments.next(),
            _ => file = Some(argument),
        }
    }
    let (Some(url), Some(file)) = (url, file) else {
        eprintln!("publish: give --url URL and one file of batches, or - for standard input");
        return ExitCode::from(2);
    };
    match publish(&url, secret.as_deref(), &file).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("publish: not acknowledged: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn publish(url: &str, secret: Option<&str>, file: &str) -> Result<(), Box<dyn Error>> {
    let mut text = String::new();
    if file == "-" {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(file)?;
    }
    let key = secret.map(|secret| BASE64_STANDARD.decode(secret.trim_start_matches("whsec_"))).transpose()?;
    let servers: Vec<&str> = url.split(',').collect();
    let client =
        async_nats::ConnectOptions::new().connection_timeout(Duration::from_secs(5)).connect(servers).await?;
    let mut stream = async_nats::jetstream::new(client);
    stream.set_timeout(ACKNOWLEDGED_WITHIN);
    for line in text.split('\n').filter(|line| !line.trim().is_empty()) {
        let batch: Batch = serde_json::from_str(line)?;
        let ack = acknowledged(&stream, &batch, line, key.as_deref()).await?;
        let answer =
            serde_json::json!({"stream": ack.stream, "seq": ack.sequence, "sequence": batch.sequence});
        println!("{answer}");
    }
    Ok(())
}

/// The headers that sign a batch: HMAC-SHA256 over id.timestamp.body.
fn signature(key: &[u8], batch: &Batch, line: &str) -> Result<HeaderMap, Box<dyn Error>> {
    let id = format!("{}/{}", batch.source, batch.sequence);
    let timestamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(key)?;
    mac.update(format!("{id}.{timestamp}.{line}").as_bytes());
    let signature = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", id);
    headers.insert("webhook-timestamp", timestamp);
    headers.insert("webhook-signature", signature);
    Ok(headers)
}

/// Publishes a batch until it is acknowledged: only then is it known to be stored.
async fn acknowledged(
    stream: &Context,
    batch: &Batch,
    line: &str,
    key: Option<&[u8]>,
) -> Result<PublishAck, Box<dyn Error>> {
    let subject = format!("wagers.{}.{}", batch.operator, batch.source);
    let headers = key.map(|key| signature(key, batch, line)).transpose()?.unwrap_or_default();
    for attempt in 1.. {
        let sent =
            stream.publish_with_headers(subject.clone(), headers.clone(), line.to_owned().into()).await;
        let answer = match sent {
            Ok(sent) => sent.await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(ack) => return Ok(ack),
            // A batch that is too large will be so again.
            Err(error) if attempt == ATTEMPTS || error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                return Err(error.into());
            }
            // No answer, or the stream is full, or the broker is away: it will pass.
            Err(error) => {
                eprintln!("publish: again in {} s: {error}", PAUSE.as_secs());
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    unreachable!("the last attempt returns")
}
