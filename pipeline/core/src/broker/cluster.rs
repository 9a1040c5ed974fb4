//! Several servers of this machine's own that hold the same streams, each in a folder of one directory.
//! Used by `jackpot up --servers` and by tests of what a cluster does; with one server it is that server alone.
//! The directory remembers how many there are, since a cluster that lacks its majority serves nothing.

use std::io;
use std::path::Path;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::{
    Broker, BrokerError, BrokerSettings, PORT_ATTEMPTS_MAX, Seat, drawn_name, find_or_install, free_port,
    is_taken,
};

/// Where a directory says what cluster is in it.
const CHARTER: &str = "cluster.json";

/// What a directory remembers of its cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Charter {
    servers: u16,
    name: String,
}

/// Running servers that hold the same streams; killed when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    brokers: Vec<Broker>,
}

impl Cluster {
    /// Starts so many servers, and waits until each takes connections. They still have to find each other.
    ///
    /// The settings are those of each, with its folder `server-N` for the directory, and the ports from the one
    /// given on; one server alone uses the directory itself.
    pub async fn start(settings: BrokerSettings, servers: u16) -> Result<Self, BrokerError> {
        if let Some(has) = servers_of(&settings.dir)?
            && has != servers
        {
            return Err(BrokerError::Servers { dir: settings.dir, has, asked: servers });
        }
        if servers == 1 {
            return Ok(Self { brokers: vec![Broker::start(settings).await?] });
        }
        let binary = find_or_install(settings.cache.as_deref()).await?;
        let charter = charter(&settings.dir, servers)?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let ports = ports(&settings, servers);
            let started = seats(&charter.name, servers).zip(&ports).map(|(seat, &port)| {
                Broker::start_as(in_folder(&settings, &seat, port), binary.clone(), Some(seat))
            });
            match join_all(started).await.into_iter().collect::<Result<Vec<_>, _>>() {
                Ok(brokers) => return Ok(Self { brokers }),
                Err(BrokerError::Ended { said, .. })
                    if settings.port == 0 && attempts < PORT_ATTEMPTS_MAX && is_taken(&said) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where clients connect: all of them, separated by commas.
    pub fn url(&self) -> String {
        self.brokers.iter().map(Broker::url).collect::<Vec<_>>().join(",")
    }

    /// The servers, in the order of their folders.
    pub fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    /// The same, for whoever keeps each alive by itself.
    pub fn into_brokers(self) -> Vec<Broker> {
        self.brokers
    }
}

/// Of how many servers a directory holds the data; `None` where there is none.
pub fn servers_of(dir: &Path) -> Result<Option<u16>, BrokerError> {
    if let Some(charter) = read(dir)? {
        return Ok(Some(charter.servers));
    }
    Ok(dir.join("jetstream").is_dir().then_some(1))
}

fn read(dir: &Path) -> Result<Option<Charter>, BrokerError> {
    let path = dir.join(CHARTER);
    let read = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other)),
    };
    read.map(Some).map_err(|cause| BrokerError::Dir { path, cause })
}

/// What the directory says of its cluster; written when there is nothing yet.
fn charter(dir: &Path, servers: u16) -> Result<Charter, BrokerError> {
    if let Some(charter) = read(dir)? {
        return Ok(charter);
    }
    let charter = Charter { servers, name: format!("jackpot-{}", drawn_name()) };
    let text = serde_json::to_string(&charter).expect("a number and a name can be written");
    let (path, beside) = (dir.join(CHARTER), dir.join(format!("{CHARTER}.new")));
    let written = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&beside, text))
        .and_then(|()| std::fs::rename(&beside, &path));
    written.map_err(|cause| BrokerError::Dir { path, cause })?;
    Ok(charter)
}

/// The ports for clients: those from the given one on, or any that are free.
fn ports(settings: &BrokerSettings, servers: u16) -> Vec<u16> {
    match settings.port {
        0 => free_ports(servers),
        first => (first..=u16::MAX).take(usize::from(servers)).collect(),
    }
}

fn free_ports(count: u16) -> Vec<u16> {
    let mut ports = Vec::new();
    while ports.len() < usize::from(count) {
        let port = free_port();
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

/// The places of a cluster, each with a port where it waits for the others.
fn seats(cluster: &str, servers: u16) -> impl Iterator<Item = Seat> {
    let routes = free_ports(servers);
    (1..=servers).zip(routes.clone()).map(move |(number, route_port)| Seat {
        cluster: cluster.to_owned(),
        server: format!("{cluster}-{number}"),
        route_port,
        routes: routes.clone(),
    })
}

fn in_folder(settings: &BrokerSettings, seat: &Seat, port: u16) -> BrokerSettings {
    let number = seat.server.rsplit('-').next().expect("splitting gives at least one word");
    BrokerSettings { dir: settings.dir.join(format!("server-{number}")), port, ..settings.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Sync;

    #[test]
    fn a_directory_remembers_its_servers() {
        let dir = tempfile::tempdir().expect("a directory");
        let has = || servers_of(dir.path()).expect("it can be read");
        assert_eq!(has(), None);
        std::fs::create_dir(dir.path().join("jetstream")).expect("a folder");
        assert_eq!(has(), Some(1));
        let first = charter(dir.path(), 3).expect("it can be written");
        let again = charter(dir.path(), 3).expect("it can be read");
        assert_eq!((has(), &first.name), (Some(3), &again.name));
        std::fs::write(dir.path().join(CHARTER), "{").expect("a file");
        assert!(matches!(servers_of(dir.path()), Err(BrokerError::Dir { .. })));
    }

    #[tokio::test]
    async fn another_number_of_servers_is_refused_before_anything_is_started() {
        let dir = tempfile::tempdir().expect("a directory");
        charter(dir.path(), 3).expect("it can be written");
        for asked in [1, 5] {
            let settings = BrokerSettings::new(dir.path(), Sync::Relaxed);
            let error = Cluster::start(settings, asked).await.expect_err("it is for three");
            assert!(matches!(error, BrokerError::Servers { has: 3, .. }), "{error}");
        }
    }

    #[test]
    fn no_two_ports_are_the_same() {
        let mut ports = free_ports(50);
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 50);
        let settings = BrokerSettings { port: 4_222, ..BrokerSettings::new("x", Sync::Always) };
        assert_eq!(super::ports(&settings, 3), [4_222, 4_223, 4_224]);
    }
}
