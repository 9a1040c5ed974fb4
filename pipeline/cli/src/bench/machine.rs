//! What a measurement was made on: figures mean nothing without it. Read from `/proc`; what cannot be read is said to
//! be unknown.

use std::fs::read_to_string;

use serde::Serialize;

/// The machine, and the build that ran on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Machine {
    /// Processor cores that this process may use.
    cores: usize,
    /// What the processor calls itself.
    cpu: String,
    /// Memory, in whole MiB.
    memory_mib: u64,
    /// The kernel's version.
    kernel: String,
    /// `release` or `debug`.
    build: &'static str,
}

impl Machine {
    /// This machine and this build; the stages beside the command were built with it.
    pub(crate) fn this() -> Self {
        let unknown = || "unknown".to_owned();
        let cpu = read_to_string("/proc/cpuinfo").ok().and_then(|text| field(&text, "model name"));
        let memory = read_to_string("/proc/meminfo").ok().and_then(|text| field(&text, "MemTotal"));
        let kib = memory.as_deref().and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let kernel = read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned());
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: cpu.unwrap_or_else(unknown),
            memory_mib: kib.unwrap_or(0) / 1_024,
            kernel: kernel.unwrap_or_else(|_| unknown()),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }

    /// Whether figures say something of what is deployed.
    pub(super) fn is_debug_build(&self) -> bool {
        self.build == "debug"
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cores, cpu, memory_mib, kernel, build } = self;
        write!(f, "{cores} cores of {cpu}, {memory_mib} MiB of memory, Linux {kernel}, {build} build")
    }
}

/// The first value of a name in lines of `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        assert_eq!(field("a : 1\nMemTotal:   16 kB\n", "MemTotal").as_deref(), Some("16 kB"));
        assert_eq!(
            field("model name\t: Some CPU @ 2 GHz\n", "model name").as_deref(),
            Some("Some CPU @ 2 GHz")
        );
        assert_eq!(field("", "model name"), None);
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.memory_mib > 0 && machine.kernel != "unknown", "{machine}");
        assert_eq!(machine.is_debug_build(), cfg!(debug_assertions));
    }
}
