//! Where the NATS server is and how to be let in: the flags that all commands share, and the connection.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use jackpot_core::log::jetstream::{ConnectError, ConnectSettings, JetStream};

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
#[derive(Debug, Clone, clap::Args)]
pub struct Server {
    /// The NATS server (several, separated by commas).
    #[arg(long, env = "NATS_URL", value_name = "URL")]
    pub nats: String,
    /// How to be let in.
    #[command(flatten)]
    pub credentials: Credentials,
}

/// How to be let in.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Credentials {
    /// A NATS credentials file.
    #[arg(long, env = "NATS_CREDS", value_name = "FILE")]
    pub creds: Option<PathBuf>,
    /// Root certificates (PEM); the connection must be encrypted then.
    #[arg(long, env = "NATS_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// The client's certificate (PEM).
    #[arg(long, env = "NATS_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The client's key (PEM).
    #[arg(long, env = "NATS_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

impl Server {
    /// Connects, and tries for as long as `patience`.
    pub async fn connect(&self, patience: Duration) -> anyhow::Result<JetStream> {
        connect(&self.nats, &self.credentials, patience).await
    }
}

/// Connects to a server, and tries for as long as `patience`.
pub async fn connect(url: &str, credentials: &Credentials, patience: Duration) -> anyhow::Result<JetStream> {
    let settings = ConnectSettings {
        creds: credentials.creds.clone(),
        tls_ca: credentials.tls_ca.clone(),
        tls_cert: credentials.tls_cert.clone(),
        tls_key: credentials.tls_key.clone(),
        give_up_after: Some(patience),
        acknowledged_within: ACKNOWLEDGED_WITHIN,
        ..ConnectSettings::default()
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

impl Credentials {
    /// The files that are named, each with its flag.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let flags = [
            ("--creds", &self.creds),
            ("--tls-ca", &self.tls_ca),
            ("--tls-cert", &self.tls_cert),
            ("--tls-key", &self.tls_key),
        ];
        flags.into_iter().filter_map(|(flag, file)| Some((flag, file.as_deref()?)))
    }
}

/// Checks that a file that a flag names can be opened.
pub fn readable(flag: &str, file: &Path) -> anyhow::Result<()> {
    std::fs::File::open(file).map(drop).with_context(|| {
        Unusable::new(format!("{flag} {} cannot be read; name a file that can", file.display()))
    })
}
