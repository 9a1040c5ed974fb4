//! `jackpot init` on servers that do and do not sync to disk before they acknowledge, shown by their monitoring, by
//! their tags, or by nothing.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use jackpot_core::broker::{Broker, BrokerSettings, Sync, find_or_install};
use tokio::time::{Duration, Instant};

/// A server with a configuration of the test's own; killed when it is dropped.
struct Server {
    child: Child,
    port: u16,
    monitor: String,
}

impl Server {
    async fn start(dir: &Path, jetstream: &str) -> Self {
        let program = find_or_install(None).await.unwrap();
        let [port, http] = [0; 2].map(|_: u8| free_port());
        let store = dir.display();
        let config = format!(
            "listen: \"0.0.0.0:{port}\"\nhttp: \"127.0.0.1:{http}\"\njetstream {{\n store_dir: \"{store}\"\n {jetstream}\n}}\n"
        );
        let file = dir.join("nats.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        for port in [port, http] {
            while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
                assert!(Instant::now() < deadline, "the server listens on {port}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Self { child, port, monitor: format!("http://127.0.0.1:{http}") }
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Below the ports of outgoing connections: who knocks at one of those may connect to itself.
fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let spread = u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = 18_000 + spread + TRIED.fetch_add(1, Ordering::Relaxed);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Runs `jackpot init`, which ends with this code; gives what it says on standard error.
fn init(url: &str, args: &[&str], code: i32) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jackpot"));
    command.args(["init", "--partitions", "1", "--nats", url]).args(args).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "init {args:?}: {said}");
    said
}

#[tokio::test]
async fn nats_a_server_that_does_not_sync_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let relaxed = Server::start(dir.path(), "").await;
    let url = relaxed.url();
    let said = init(&url, &["--monitor", &relaxed.monitor], 78);
    assert!(
        said.contains("acknowledges before it syncs") && said.contains("--accept-relaxed-sync"),
        "{said}"
    );
    let nobody = format!("http://127.0.0.1:{}", free_port());
    assert!(init(&url, &["--monitor", &nobody], 1).contains("does not answer"));
    assert!(init(&url, &["--monitor", "nats:8222"], 78).contains("--monitor"));

    // Not by a name of this machine alone: a server of a deployment, of which nothing is known.
    let elsewhere = format!("nats://0.0.0.0:{}", relaxed.port);
    let said = init(&elsewhere, &[], 78);
    assert!(said.contains("nothing shows that the server syncs") && said.contains("--monitor"), "{said}");
    assert_eq!(init(&elsewhere, &["--accept-relaxed-sync"], 0), "");
    // What was accepted once is not asked for again.
    assert_eq!(init(&elsewhere, &[], 0), "");
}

#[tokio::test]
async fn nats_a_server_that_syncs_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let synced = Server::start(dir.path(), "sync_interval: always").await;
    let elsewhere = format!("nats://0.0.0.0:{}", synced.port);
    let other_dir = tempfile::tempdir().unwrap();
    let other = Server::start(other_dir.path(), "sync_interval: always").await;
    assert!(init(&elsewhere, &["--monitor", &other.monitor], 78).contains("another server"));
    assert_eq!(init(&elsewhere, &["--monitor", &synced.monitor], 0), "");

    // On this machine it is said that nothing is known.
    assert!(init(&other.url(), &[], 0).contains("nothing shows that this machine's server syncs"));
}

#[tokio::test]
async fn nats_a_server_says_by_its_tags_that_it_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(BrokerSettings::new(dir.path(), Sync::Always)).await.unwrap();
    assert_eq!(init(&broker.url(), &[], 0), "");
}
