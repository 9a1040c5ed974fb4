//! Whether an acknowledgement of a server is a promise: one that does not sync to disk before it acknowledges loses
//! what it acknowledged in a power cut, where no other server keeps it too.
//!
//! A plain client cannot see this. What can: the server's monitoring port, which tells its configuration, and the
//! server's tags, which every client is told. Called by `jackpot init` before it creates streams with one replica.

use std::net::IpAddr;
use std::time::Duration;

use jackpot_core::broker::SYNC_TAG;
use jackpot_core::log::jetstream::{JetStream, hosts};
use serde::Deserialize;
use tokio::time::timeout;

use crate::exit::Unusable;
use crate::up::probe;

/// Where a server's monitoring listens by custom.
const MONITOR_PORT: u16 = 8222;
/// How long the server may take to say who it is.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Where a server's monitoring listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    host: String,
    port: u16,
}

/// Reads `http://host:port`.
pub fn monitor(text: &str) -> Result<Monitor, String> {
    let (host, port) = text
        .strip_prefix("http://")
        .and_then(|rest| rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':'))
        .filter(|(host, _)| !host.is_empty() && !host.contains('/'))
        .ok_or("give the server's monitoring port, such as http://nats:8222")?;
    let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
    Ok(Monitor { host: host.trim_matches(['[', ']']).to_owned(), port })
}

/// What is known of a server's acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// They come after an fsync.
    Synced,
    /// They do not.
    Relaxed,
    /// Nothing shows it.
    Nothing,
}

/// Refuses a server whose acknowledgements are shown to be no promise; where nothing shows what they are, refuses it
/// too, unless it serves this machine alone: then whoever runs this runs the server, and is told.
pub async fn check(log: &JetStream, monitor: Option<&Monitor>) -> anyhow::Result<()> {
    let local = hosts(log.url()).iter().all(|host| is_loopback(host));
    match (find_out(log, monitor).await?, local) {
        (Known::Synced, _) => Ok(()),
        (Known::Relaxed, _) => Err(Unusable::new(
            "the server acknowledges before it syncs to disk, and with --replicas 1 a power cut loses what was \
             acknowledged; set `sync_interval: always` in its jetstream block, use --replicas 3 on a cluster, or \
             accept the loss with --accept-relaxed-sync",
        )
        .into()),
        (Known::Nothing, true) => {
            eprintln!(
                "jackpot: nothing shows that this machine's server syncs to disk before it acknowledges; for more than \
                 trials, set `sync_interval: always` in its jetstream block"
            );
            Ok(())
        }
        (Known::Nothing, false) => Err(Unusable::new(format!(
            "nothing shows that the server syncs to disk before it acknowledges, and with --replicas 1 a power cut \
             would lose what was acknowledged; give its monitoring port with --monitor http://HOST:{MONITOR_PORT}, or \
             write `server_tags: [\"{SYNC_TAG}\"]` beside its `sync_interval: always`, use --replicas 3 on a cluster, \
             or accept the loss with --accept-relaxed-sync"
        ))
        .into()),
    }
}

async fn find_out(log: &JetStream, monitor: Option<&Monitor>) -> anyhow::Result<Known> {
    let server = log.client().server_info().server_id;
    if let Some(Monitor { host, port }) = monitor {
        return match ask_monitor(host, *port).await {
            Some(jsz) if jsz.server_id == server => Ok(jsz.known()),
            Some(_) => Err(Unusable::new(format!(
                "--monitor http://{host}:{port} is that of another server than {}; name the same one in both",
                log.url()
            ))
            .into()),
            None => anyhow::bail!(
                "the server's monitoring does not answer at http://{host}:{port}; see that `http: {port}` is in its \
                 configuration"
            ),
        };
    }
    if is_tagged(log).await {
        return Ok(Known::Synced);
    }
    for host in hosts(log.url()) {
        if let Some(jsz) = ask_monitor(&host, MONITOR_PORT).await.filter(|jsz| jsz.server_id == server) {
            return Ok(jsz.known());
        }
    }
    Ok(Known::Nothing)
}

/// The part of a monitoring's `/jsz` that is asked for.
#[derive(Debug, Deserialize)]
struct Jsz {
    server_id: String,
    config: JszConfig,
}

#[derive(Debug, Deserialize)]
struct JszConfig {
    #[serde(default)]
    sync_always: bool,
}

impl Jsz {
    fn known(&self) -> Known {
        if self.config.sync_always { Known::Synced } else { Known::Relaxed }
    }
}

async fn ask_monitor(host: &str, port: u16) -> Option<Jsz> {
    let answer = probe::get_from(host, port, "/jsz").await.ok()?;
    serde_json::from_str(&answer.body).ok()
}

/// What a server tells any user of himself, and of itself.
#[derive(Debug, Deserialize)]
struct UserInfo {
    server: ServerInfo,
}

#[derive(Debug, Deserialize)]
struct ServerInfo {
    #[serde(default)]
    tags: Vec<String>,
}

/// Whether the server says of itself that it syncs.
async fn is_tagged(log: &JetStream) -> bool {
    let asked = log.client().request("$SYS.REQ.USER.INFO", "".into());
    let Ok(Ok(answer)) = timeout(ANSWER_MAX, asked).await else { return false };
    serde_json::from_slice::<UserInfo>(&answer.payload)
        .is_ok_and(|info| info.server.tags.iter().any(|tag| tag == SYNC_TAG))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_is_a_host_and_a_port() {
        let check = |text: &str, host: &str, port| {
            assert_eq!(monitor(text), Ok(Monitor { host: host.into(), port }), "{text}");
        };
        check("http://nats:8222", "nats", 8222);
        check("http://127.0.0.1:80/", "127.0.0.1", 80);
        check("http://[::1]:8222", "::1", 8222);
        for bad in [
            "",
            "nats:8222",
            "http://nats",
            "https://nats:8222",
            "http://:8222",
            "http://nats:x",
            "http://a/b:1",
        ] {
            assert!(monitor(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn loopback() {
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["nats", "10.0.0.1", "localhost.example", "::"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn what_monitoring_tells_is_read() {
        let known = |text: &str| serde_json::from_str::<Jsz>(text).map(|jsz| jsz.known()).ok();
        let always =
            r#"{"server_id":"N","config":{"sync_interval":120000000000,"sync_always":true},"streams":0}"#;
        assert_eq!(known(always), Some(Known::Synced));
        let relaxed = r#"{"server_id":"N","config":{"sync_interval":120000000000,"strict":true}}"#;
        assert_eq!(known(relaxed), Some(Known::Relaxed));
        assert_eq!(known(r#"{"server_id":"N","disabled":true}"#), None);
    }
}
