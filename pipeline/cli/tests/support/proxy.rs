//! A network between processes and their broker that can die by halves: what comes over a connection from one side is
//! read and thrown away, while the other direction goes on. Connections that are made afterwards work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the processes to the broker.
    ToBroker,
    /// From the broker to the processes.
    FromBroker,
}

/// The network. It ends with the test's runtime.
pub struct Proxy {
    /// Where the broker is found through it.
    pub url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// How many connections there were.
    made: AtomicUsize,
    /// Connections up to this one are dead from the processes to the broker,
    dead_to: AtomicUsize,
    /// and up to this one from the broker to the processes.
    dead_from: AtomicUsize,
}

impl Proxy {
    /// A network to the broker at this URL.
    pub async fn start(broker: &str) -> Self {
        let broker = broker.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let shared = Arc::<Shared>::default();
        let known = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&broker).await else { continue };
                let number = known.made.fetch_add(1, Ordering::Relaxed) + 1;
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(carry(known.clone(), Way::ToBroker, number, from_client, to_server));
                tokio::spawn(carry(known.clone(), Way::FromBroker, number, from_server, to_client));
            }
        });
        Self { url, shared }
    }

    /// From now on nothing comes through this way on the connections that there are.
    pub fn swallow(&self, way: Way) {
        let made = self.shared.made.load(Ordering::Relaxed);
        self.shared.dead(way).store(made, Ordering::Relaxed);
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.shared.made.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn dead(&self, way: Way) -> &AtomicUsize {
        match way {
            Way::ToBroker => &self.dead_to,
            Way::FromBroker => &self.dead_from,
        }
    }
}

/// Carries one direction of a connection to its end.
async fn carry(
    shared: Arc<Shared>,
    way: Way,
    number: usize,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let dead = number <= shared.dead(way).load(Ordering::Relaxed);
        if !dead && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
