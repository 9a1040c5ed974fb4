//! The stage binaries: where they are, whether they are of this version, how they are started, on which ports.

use std::collections::BTreeMap;
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

/// How many processes of a stage there are at most: as many as partitions can be.
const PROCESSES_MAX: u16 = jackpot_core::limits::PARTITIONS_MAX;

/// A process of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which stage.
    pub stage: StageName,
    /// Which of its processes, from 1.
    pub number: u16,
    /// Its metrics port.
    pub port: u16,
}

/// All processes of the stages, and their metrics ports in a row: the first of each stage in the order of the pipeline,
/// then the others in the same order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    counts: [u16; 5],
    base: u16,
}

impl Places {
    /// So many processes of each stage (one, where nothing is said of it), their ports from `base` on, or any in a row
    /// that are free when it is 0.
    pub fn choose(base: u16, processes: &[(StageName, u16)]) -> anyhow::Result<Self> {
        let count = |stage: &StageName| {
            processes.iter().rev().find(|(named, _)| named == stage).map_or(1, |&(_, count)| count)
        };
        let mut counts = [1; 5];
        counts.iter_mut().zip(StageName::ALL).for_each(|(slot, stage)| *slot = count(stage));
        let width: u16 = counts.iter().sum();
        let all_free =
            |places: &Self| places.all().try_for_each(|place| super::free(place.port, place.stage.as_str()));
        if base != 0 {
            if base.checked_add(width - 1).is_none() {
                let last = u16::MAX - (width - 1);
                let why =
                    format!("--metrics-port {base} leaves no room for {width} ports; give one up to {last}");
                return Err(Unusable::new(why).into());
            }
            let places = Self { counts, base };
            return all_free(&places).map(|()| places);
        }
        // Where to begin differs from one process to the next, so that two at once do not meet.
        let blocks = (PORTS.end() - PORTS.start()) / width;
        let spread = u16::try_from(std::process::id() % u32::from(blocks)).unwrap_or(0);
        (0..blocks)
            .map(|block| PORTS.start() + (block + spread) % blocks * width)
            .map(|base| Self { counts, base })
            .find(|places| all_free(places).is_ok())
            .with_context(|| format!("no {width} ports in a row are free; give --metrics-port"))
    }

    /// All of them, in the order of their ports.
    pub fn all(&self) -> impl Iterator<Item = Place> {
        let stages = || self.counts.iter().zip(StageName::ALL);
        let firsts = stages().map(|(_, &stage)| (stage, 1));
        let others = stages().flat_map(|(&count, &stage)| (2..=count).map(move |number| (stage, number)));
        let ports = self.base..=u16::MAX;
        firsts.chain(others).zip(ports).map(|((stage, number), port)| Place { stage, number, port })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.number {
            1 => self.stage.fmt(f),
            number => write!(f, "{} {number}", self.stage),
        }
    }
}

/// Reads how many processes of a stage there are to be: `validate=2`.
pub fn processes(text: &str) -> Result<(StageName, u16), String> {
    let form = || format!("give a stage and a number from 1 to {PROCESSES_MAX}, such as validate=2");
    let (stage, count) = text.split_once('=').ok_or_else(form)?;
    let stage = StageName::from_name(stage).ok_or_else(|| {
        let all: Vec<_> = StageName::ALL.iter().map(|stage| stage.as_str()).collect();
        format!("there is no stage `{stage}`, only {}", all.join(", "))
    })?;
    let count = count.parse().ok().filter(|count| (1..=PROCESSES_MAX).contains(count)).ok_or_else(form)?;
    Ok((stage, count))
}

/// Finds the five programs beside this one, all of this version.
pub async fn find() -> anyhow::Result<BTreeMap<StageName, PathBuf>> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let folder = own.parent().context("this program is in no folder")?;
    let mut found = BTreeMap::new();
    for &name in StageName::ALL {
        let program = folder.join(name.as_str());
        check_version(name, &program).await?;
        found.insert(name, program);
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

/// How a process of a stage is started.
pub fn command(program: &Path, place: Place, url: &str, args: &Args) -> Command {
    let mut command = Command::new(program);
    command.args(["--nats", url, "--metrics-port", &place.port.to_string()]);
    for (flag, file) in args.credentials.files() {
        command.arg(flag).arg(file);
    }
    if place.stage == StageName::Validate
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
        let ports = |counts| -> Vec<_> {
            Places { counts, base: 9_600 }.all().map(|place| (place.to_string(), place.port)).collect()
        };
        let expect = |names: &[&str]| -> Vec<_> {
            names.iter().zip(9_600..).map(|(name, port)| ((*name).to_owned(), port)).collect()
        };
        let five = ["validate", "geofence", "allocate", "aggregate", "audit"];
        assert_eq!(ports([1; 5]), expect(&five));
        let more = [&five[..], &["validate 2", "allocate 2", "allocate 3"]].concat();
        assert_eq!(ports([2, 1, 3, 1, 1]), expect(&more));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = listener.local_addr().expect("an address").port().min(65_531);
        assert!(Places::choose(taken, &[]).is_err(), "a port in use is noticed before anything is started");
        assert!(Places::choose(65_531, &[(StageName::Audit, 2)]).is_err(), "there are ports up to 65535");
        let chosen = Places::choose(0, &[(StageName::Audit, 2), (StageName::Audit, 3)]).expect("free ports");
        assert_eq!(chosen.all().count(), 7, "what is said last counts");
    }

    #[test]
    fn numbers_of_processes() {
        assert_eq!(processes("validate=2"), Ok((StageName::Validate, 2)));
        for bad in ["", "validate", "validate=", "validate=0", "validate=65", "nobody=2", "validate=-1"] {
            assert!(processes(bad).is_err(), "{bad}");
        }
    }
}
