//! The laptop's NATS server, with its rendered configuration, on ports and in a folder of this machine's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jackpot_core::broker::find_or_install;
use tokio::runtime::Builder;

use crate::support::pipeline::until;

use super::jobs::free_port;
use super::probes::status;

/// A server that runs, unless it was killed; killed when it is dropped.
pub struct Nats {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    monitor: u16,
    child: Child,
}

impl Nats {
    /// Starts one with this configuration, and waits until it is ready.
    pub fn start(folder: &Path, config: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let program = runtime.block_on(find_or_install(None)).unwrap();
        // As a mounted volume would, its data lie elsewhere.
        let data = format!("store_dir: \"{}\"", folder.join("data").display());
        assert_eq!(config.matches("store_dir: /data").count(), 1, "{config}");
        std::fs::write(folder.join("nats.conf"), config.replace("store_dir: /data", &data)).unwrap();
        let (port, monitor) = (free_port(), free_port());
        let child = spawn(&program, folder, port, monitor);
        let mut nats = Self { program, folder: folder.to_owned(), port, monitor, child };
        nats.wait_ready();
        nats
    }

    /// What stands for its Service here.
    pub fn place(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where a client finds it.
    pub fn url(&self) -> String {
        format!("nats://{}", self.place())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it over what it stored.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.program, &self.folder, self.port, self.monitor);
        self.wait_ready();
    }

    fn wait_ready(&mut self) {
        until("the server is healthy", || {
            let log = self.folder.join("nats.log");
            let ended = self.child.try_wait().unwrap();
            assert_eq!(ended, None, "{}", std::fs::read_to_string(log).unwrap_or_default());
            status(self.monitor, "/healthz", Duration::from_secs(1)) == Some(200)
        });
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The ports of the command line come before those of the configuration; all else is as it is rendered.
fn spawn(program: &Path, folder: &Path, port: u16, monitor: u16) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("nats.log")).unwrap();
    let mut command = Command::new(program);
    command.arg("--config").arg(folder.join("nats.conf")).args(["--addr", "127.0.0.1"]);
    command.args(["--port", &port.to_string(), "--http_port", &monitor.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}
