//! Where the NATS server is and how to be let in: the flags that all commands share, and the connection.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use jackpot_core::log::jetstream::{ConnectError, ConnectSettings, JetStream};
use jackpot_core::settings::BrokerArgs;
pub use jackpot_core::settings::Credentials;
use tokio::time::sleep;

use crate::duration;
use crate::exit::Unusable;

/// How long a command that answers at once looks for its server.
pub const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How long an acknowledgement may take: a server that writes through to its disk answers thousands of batches in
/// flight one by one. A lost connection is noticed at once.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);
/// When it is said that the server is not there yet.
const PATIENT_AFTER: Duration = Duration::from_secs(1);

/// The server to work on.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Server {
    /// Where it is and how to be let in: the flags of the stages.
    #[command(flatten)]
    pub broker: BrokerArgs,
}

impl Server {
    /// Connects, and tries for as long as `patience`.
    pub async fn connect(&self, patience: Duration) -> anyhow::Result<JetStream> {
        connect(&self.broker.nats, &self.broker.credentials, patience).await
    }
}

/// Connects to a server, and tries for as long as `patience`.
pub async fn connect(url: &str, credentials: &Credentials, patience: Duration) -> anyhow::Result<JetStream> {
    let settings = ConnectSettings {
        give_up_after: Some(patience),
        acknowledged_within: ACKNOWLEDGED_WITHIN,
        ..credentials.connect_settings()
    };
    for (flag, file) in credentials.files() {
        readable(flag, file)?;
    }
    let connecting = JetStream::connect(url, "jackpot", &settings);
    let waiting = async {
        sleep(PATIENT_AFTER).await;
        eprintln!("jackpot: no server at {url} yet; trying for {}", duration::show(patience));
        std::future::pending().await
    };
    let connected = tokio::select! {
        connected = connecting => connected,
        never = waiting => never,
    };
    connected.map_err(|error| match &error {
        ConnectError::Settings { .. } => anyhow::Error::new(Unusable::new(error.to_string())),
        ConnectError::Unreachable { .. } => error.into(),
    })
}

/// Checks that a file that a flag names can be opened.
pub fn readable(flag: &str, file: &Path) -> anyhow::Result<()> {
    std::fs::File::open(file).map(drop).with_context(|| {
        Unusable::new(format!("{flag} {} cannot be read; name a file that can", file.display()))
    })
}
