//! Settings, from flags or the environment, parsed once. All mistakes are reported together, and lead to exit
//! code 78: no restart will mend them. Nothing that names a place has a default.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::limits;
use crate::log::jetstream::{self, ConnectSettings};
use crate::telemetry::LogFormat;

/// The exit code for a command line that is not of the command's form, as clap has it.
pub const EXIT_USAGE: u8 = 2;
/// The exit code for settings that no restart will mend (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;
/// The exit code after a drain on SIGTERM: a Kubernetes Job counts 0 as complete (operations, trap 1).
pub const EXIT_DRAINED: u8 = 143;

/// How to reach the broker; shared by stages and the command.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct BrokerArgs {
    /// The NATS server, such as nats://127.0.0.1:4222; several are separated by commas
    #[arg(long, env = "NATS_URL", value_name = "URL")]
    pub nats: String,
    /// How to be let in
    #[command(flatten)]
    pub credentials: Credentials,
}

/// How to be let in by the broker.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Credentials {
    /// A credentials file (JWT and seed)
    #[arg(long, env = "NATS_CREDS", value_name = "FILE", value_parser = file_name())]
    pub creds: Option<PathBuf>,
    /// The certificate authority that signed the server's certificate (PEM); the connection must be encrypted then
    #[arg(long, env = "NATS_TLS_CA", value_name = "FILE", value_parser = file_name())]
    pub tls_ca: Option<PathBuf>,
    /// The client's certificate (PEM), with --tls-key
    #[arg(long, env = "NATS_TLS_CERT", value_name = "FILE", value_parser = file_name(), requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The client's key (PEM), with --tls-cert
    #[arg(long, env = "NATS_TLS_KEY", value_name = "FILE", value_parser = file_name(), requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

impl BrokerArgs {
    /// Checks where the broker is, and that the files that are named can be read.
    fn check(&self, mistakes: &mut Mistakes) {
        let url = jetstream::is_url(&self.nats).then_some(());
        mistakes.check("--nats", &self.nats, url, "give URLs such as nats://host:4222, separated by commas");
        let Credentials { creds, tls_ca, tls_cert, tls_key } = &self.credentials;
        for (flag, file) in
            [("--creds", creds), ("--tls-ca", tls_ca), ("--tls-cert", tls_cert), ("--tls-key", tls_key)]
        {
            if let Some(file) = file {
                mistakes.file(flag, file);
            }
        }
    }
}

impl Credentials {
    /// How to connect with them; for ever, where the caller says nothing else.
    pub fn connect_settings(&self) -> ConnectSettings {
        ConnectSettings {
            creds: self.creds.clone(),
            tls_ca: self.tls_ca.clone(),
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
            ..ConnectSettings::default()
        }
    }

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

/// What all stages take.
#[derive(Debug, Clone, clap::Args)]
pub struct StageArgs {
    /// How to reach the broker
    #[command(flatten)]
    pub broker: BrokerArgs,
    /// The port of /metrics, /livez and /readyz; 0 takes any that is free
    #[arg(long, env = "JACKPOT_METRICS_PORT", value_name = "PORT", default_value = "9464")]
    pub metrics_port: String,
    /// Run these partitions, such as 0,2, whatever others run; otherwise all processes of the stage share them
    #[arg(long, env = "JACKPOT_ONLY", value_name = "PARTITIONS")]
    pub only: Option<String>,
    /// How long another process must be silent before one with --only, or another aggregate, takes over
    #[arg(long, env = "JACKPOT_STAND_BY", value_name = "DURATION", default_value = "2s")]
    pub stand_by: String,
    /// A snapshot is due when the log has grown by so many bytes since the last one, or by its size where that is more
    #[arg(long, env = "JACKPOT_SNAPSHOT_BYTES", value_name = "BYTES", default_value = "8388608")]
    pub snapshot_bytes: String,
    /// End with exit code 0 when there was nothing to do for so long
    #[arg(long, env = "JACKPOT_UNTIL_IDLE", value_name = "DURATION")]
    pub until_idle: Option<String>,
    /// How log lines look: human or json
    #[arg(long, env = "JACKPOT_LOG", value_name = "FORMAT", default_value = "human")]
    pub log: String,
}

/// [`StageArgs`], checked.
#[derive(Debug, Clone)]
pub struct StageSettings {
    /// The port of the admin server.
    pub metrics_port: u16,
    /// The partitions to run; `None`: those that fall to this process.
    pub only: Option<Vec<u16>>,
    /// See [`StageArgs::stand_by`].
    pub stand_by: Duration,
    /// See [`StageArgs::snapshot_bytes`].
    pub snapshot_bytes: u64,
    /// See [`StageArgs::until_idle`].
    pub until_idle: Option<Duration>,
    /// See [`StageArgs::log`].
    pub log: LogFormat,
}

/// Collects mistakes, so that one run shows them all.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<String>);

impl Mistakes {
    /// Takes a checked value, or notes the mistake and goes on.
    pub fn check<T>(&mut self, flag: &str, value: &str, parsed: Option<T>, form: &str) -> Option<T> {
        if parsed.is_none() {
            self.0.push(format!("{flag} `{value}` cannot be used: {form}"));
        }
        parsed
    }

    /// Checks a duration such as `30s`, `500ms`, `5m`.
    pub fn duration(&mut self, flag: &str, value: &str) -> Option<Duration> {
        self.check(flag, value, parse_duration(value), "give a duration such as 500ms, 30s or 5m")
    }

    /// Checks that a file can be opened.
    pub fn file(&mut self, flag: &str, file: &Path) -> Option<()> {
        let opened = File::open(file).map(drop);
        let why = opened.as_ref().err().map(|error| format!("name a file that can be read ({error})"));
        self.check(flag, &file.display().to_string(), opened.ok(), &why.unwrap_or_default())
    }

    /// All mistakes, when there are any.
    pub fn finish(self) -> Result<(), Vec<String>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

impl StageArgs {
    /// Checks everything that flags of all stages say.
    pub fn check(&self, mistakes: &mut Mistakes) -> Option<StageSettings> {
        self.broker.check(mistakes);
        let port = self.metrics_port.parse().ok();
        let port = mistakes.check("--metrics-port", &self.metrics_port, port, "give a port from 0 to 65535");
        let stand_by = mistakes.duration("--stand-by", &self.stand_by);
        let bytes = self.snapshot_bytes.parse().ok().filter(|bytes| *bytes > 0);
        let snapshot_bytes =
            mistakes.check("--snapshot-bytes", &self.snapshot_bytes, bytes, "give a number of bytes above 0");
        let until_idle = self.until_idle.as_deref().map(|value| mistakes.duration("--until-idle", value));
        let log = mistakes.check("--log", &self.log, LogFormat::parse(&self.log), "give human or json");
        let only = self.only.as_deref().map(|value| {
            let form = "give partitions from 0 to 63, such as 0,2";
            mistakes.check("--only", value, parse_partitions(value), form)
        });
        Some(StageSettings {
            metrics_port: port?,
            only: only.map_or(Some(None), |only| only.map(Some))?,
            stand_by: stand_by?,
            snapshot_bytes: snapshot_bytes?,
            until_idle: until_idle.map_or(Some(None), |idle| idle.map(Some))?,
            log: log?,
        })
    }
}

/// Takes the name of a file as it is, the empty one too: that a file cannot be read is said with all other mistakes.
pub fn file_name() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Reads a whole number and a unit: `ms`, `s`, `m` or `h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

fn parse_partitions(text: &str) -> Option<Vec<u16>> {
    let mut partitions: Vec<u16> =
        text.split(',').map(|word| word.trim().parse().ok()).collect::<Option<_>>()?;
    partitions.sort_unstable();
    partitions.dedup();
    partitions.iter().all(|&partition| partition < limits::PARTITIONS_MAX).then_some(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text, expect: Option<u64>| {
            assert_eq!(parse_duration(text), expect.map(Duration::from_millis), "{text}")
        };
        check("500ms", Some(500));
        check("30s", Some(30_000));
        check("5m", Some(300_000));
        check("0s", Some(0));
        for bad in ["", "s", "30", "-1s", "1.5s", "1d", "99999999999999999h"] {
            check(bad, None);
        }
    }

    #[test]
    fn partitions() {
        assert_eq!(parse_partitions("2,0, 2"), Some(vec![0, 2]));
        assert_eq!(parse_partitions("64"), None);
        assert_eq!(parse_partitions(""), None);
    }
}
