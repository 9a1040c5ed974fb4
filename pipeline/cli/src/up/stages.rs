//! The stage binaries: where they are, whether they are of this version, how they are started, on which ports.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use jackpot_core::refusal::StageName;
use tokio::process::Command;
use tokio::time::timeout;

use super::Args;
use crate::exit::Unusable;

/// How long a program may take to say its version.
const VERSION_MAX: Duration = Duration::from_secs(20);
/// Where free metrics ports are looked for.
const PORTS: std::ops::RangeInclusive<u16> = 18_000..=29_995;

/// The metrics ports of the five stages, in the order of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    base: u16,
}

impl Ports {
    /// From `base` on, or any five in a row that are free when it is 0.
    pub fn choose(base: u16) -> anyhow::Result<Self> {
        let all_free = |ports: Self| {
            StageName::ALL.iter().try_for_each(|&name| super::free(ports.of(name), name.as_str()))
        };
        if base != 0 {
            let ports = Self { base };
            return all_free(ports).map(|()| ports);
        }
        // Where to begin differs from one process to the next, so that two at once do not meet.
        let spread = u16::try_from(std::process::id() % 2_000).unwrap_or(0) * 5;
        let bases = (PORTS.start() + spread..=*PORTS.end()).chain(*PORTS.start()..PORTS.start() + spread);
        bases
            .step_by(5)
            .map(|base| Self { base })
            .find(|&ports| all_free(ports).is_ok())
            .context("no five ports in a row are free; give --metrics-port")
    }

    /// A stage's port.
    pub fn of(self, name: StageName) -> u16 {
        self.base + u16::from(name.code() - StageName::Validate.code())
    }
}

/// Finds the five programs beside this one, all of this version.
pub async fn find() -> anyhow::Result<Vec<(StageName, PathBuf)>> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let folder = own.parent().context("this program is in no folder")?;
    let mut found = Vec::new();
    for &name in StageName::ALL {
        let program = folder.join(name.as_str());
        check_version(name, &program).await?;
        found.push((name, program));
    }
    Ok(found)
}

async fn check_version(name: StageName, program: &Path) -> anyhow::Result<()> {
    let wanted = format!("{name} {}", env!("CARGO_PKG_VERSION"));
    let asked = Command::new(program).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let why = match timeout(VERSION_MAX, asked).await {
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if said == wanted {
                return Ok(());
            }
            format!("says `{said}`, and must say `{wanted}`")
        }
        Ok(Err(error)) => format!("cannot be run ({error})"),
        Err(_) => "does not say its version".to_owned(),
    };
    let advice = "build all of one version with `cargo build --workspace`";
    Err(Unusable::new(format!("{} {why}; {advice}", program.display())).into())
}

/// How a stage is started.
pub fn command(program: &Path, name: StageName, url: &str, args: &Args, ports: &Ports) -> Command {
    let mut command = Command::new(program);
    command.args(["--nats", url, "--metrics-port", &ports.of(name).to_string()]);
    for (flag, file) in args.credentials.files() {
        command.arg(flag).arg(file);
    }
    if name == StageName::Validate
        && let Some(keys) = &args.keys.file
    {
        command.arg("--keys").arg(keys);
    }
    command
        .stdin(Stdio::null())
        // Standard output is ours alone: programs wait for `ready` on it.
        .stdout(Stdio::from(std::io::stderr()))
        // A terminal's Ctrl-C goes to a whole group of processes; stages are told by us, so that they drain in order.
        .process_group(0)
        .kill_on_drop(true);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_the_pipeline() {
        let ports = Ports { base: 9_600 };
        assert_eq!(
            StageName::ALL.iter().map(|&name| ports.of(name)).collect::<Vec<_>>(),
            [9_600, 9_601, 9_602, 9_603, 9_604]
        );
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = listener.local_addr().expect("an address").port().min(65_531);
        assert!(Ports::choose(taken).is_err(), "a port in use is noticed before anything is started");
        assert!(Ports::choose(0).is_ok());
    }
}
