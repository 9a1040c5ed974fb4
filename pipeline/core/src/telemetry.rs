//! Logs: for people, or one JSON object a line. Levels come from `RUST_LOG`, `info` otherwise.
//! `error` means that a person is needed; what happens per frame is `trace`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What is logged where `RUST_LOG` says nothing: the client's own account of its connection only where it warns.
const LEVELS: &str = "info,async_nats=warn";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The one with this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "human" => Some(Self::Human),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Starts logging to stderr, once per process.
///
/// # Panics
/// When the process logs already.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LEVELS));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
