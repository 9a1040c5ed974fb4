//! Logs, to standard error: for people, or one JSON object a line. A stage's levels come from `RUST_LOG`, `info`
//! otherwise; the command says which it wants. `error` means that a person is needed; what happens per frame is `trace`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What is logged where `RUST_LOG` says nothing: the client's own account of its connection only where it warns.
pub const LEVELS: &str = "info,async_nats=warn";

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
    start_with(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LEVELS)), format);
}

/// Starts logging to stderr at these levels, which [`check_levels`] has found to be some, once per process.
///
/// # Panics
/// When the process logs already.
pub fn start_at(levels: &str) {
    start_with(EnvFilter::new(levels), LogFormat::Human);
}

/// Says why levels, such as `warn` or `info,async_nats=debug`, cannot be used.
pub fn check_levels(levels: &str) -> Result<String, String> {
    match EnvFilter::try_new(levels) {
        Ok(_) => Ok(levels.to_owned()),
        Err(error) => Err(format!("give levels such as warn or info,async_nats=debug ({error})")),
    }
}

fn start_with(filter: EnvFilter, format: LogFormat) {
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
