//! Terms in the log (design, section 3): documents by digest, revisions claimed by the first to write them,
//! activation markers in the ingress of every partition. Everything here is idempotent.
//!
//! The stream `terms` holds `terms.document.<digest>.<part>` and `terms.revision.<n>`. A claim is an append that
//! expects its subject to be empty, so that a number belongs to one document for ever.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::log::{Append, AppendError, Appender, Entry, Expect, Log, LogError};
use crate::rules::{self, Newer};
use crate::terms::Terms;
use crate::topology;

/// A document is kept in parts of this size, so that each fits a message.
const PART_BYTES: usize = 512 * 1024;

/// The claim of a revision's number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The number.
    pub revision: u64,
    /// The document.
    pub digest: Digest,
    /// In how many parts it is kept.
    pub parts: usize,
}

/// The activation marker in a partition's ingress: from here on, this revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The number.
    pub revision: u64,
    /// The document.
    pub digest: Digest,
}

/// What is read of a document first: the version of the rules that the rest of it is written for.
#[derive(Deserialize)]
struct Rules {
    rules: Option<u16>,
}

/// Why terms could not be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The log did not answer; try again.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Whether something was stored is unknown, or somebody else was faster; try again.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The number belongs to another document.
    #[error("revision {0} is applied already, with other content; give the new terms the next number")]
    Taken(u64),
    /// Nobody claimed the number.
    #[error(
        "revision {0} of the terms is not in the log: it was never applied here, or the stream `terms` lost it; apply it \
         again with `jackpot terms apply`, or restore the stream from a backup"
    )]
    Missing(u64),
    /// The revision is by rules that this build does not know.
    #[error(
        "revision {revision} of the terms is {newer}; deploy a newer build, which takes over here by itself"
    )]
    Newer {
        /// The number.
        revision: u64,
        /// Which rules.
        #[source]
        newer: Newer,
    },
    /// What is stored is not what its digest says.
    #[error("revision {revision} of the terms is damaged: {what}; restore the stream `terms` from a backup")]
    Damaged {
        /// The number.
        revision: u64,
        /// What is wrong.
        what: String,
    },
}

/// The claim of a revision, if there is one.
pub async fn claim<L: Log>(log: &L, revision: u64) -> Result<Option<Claim>, StoreError> {
    let entry = log.last(topology::TERMS, &topology::terms_revision(revision)).await?;
    entry.map(|entry| read_claim(revision, &entry)).transpose()
}

/// The revision in force: the one whose marker came last. A partition gets its marker in one atomic batch with all
/// others, so the first one tells. A claim without markers is not in force.
pub async fn in_force<L: Log>(log: &L) -> Result<Option<Marker>, StoreError> {
    let entry = log.last(topology::WAGERS, &topology::terms_marker(0)).await?;
    entry.as_ref().map(read_marker).transpose()
}

/// The claim made last.
pub async fn latest<L: Log>(log: &L) -> Result<Option<Claim>, StoreError> {
    let entry = log.last(topology::TERMS, "terms.revision.*").await?;
    entry.map(|entry| read_claim(0, &entry)).transpose()
}

fn read_claim(revision: u64, entry: &Entry) -> Result<Claim, StoreError> {
    serde_json::from_slice(&entry.payload)
        .map_err(|error| StoreError::Damaged { revision, what: error.to_string() })
}

/// The terms of a revision, checked against the digest of its claim.
pub async fn load<L: Log>(log: &L, revision: u64) -> Result<Terms, StoreError> {
    let claim = claim(log, revision).await?.ok_or(StoreError::Missing(revision))?;
    let mut document = Vec::new();
    for part in 0..claim.parts {
        let subject = topology::terms_document(&claim.digest, part);
        let entry = log.last(topology::TERMS, &subject).await?;
        document.extend_from_slice(&entry.ok_or(StoreError::Missing(revision))?.payload);
    }
    let damaged = |what: String| StoreError::Damaged { revision, what };
    if Digest::of(&document) != claim.digest {
        return Err(damaged("its content does not have its digest".into()));
    }
    // What else stands in a document of later rules, this build need not know.
    let named: Rules = serde_json::from_slice(&document).map_err(|error| damaged(error.to_string()))?;
    rules::check(named.rules.unwrap_or(rules::FIRST))
        .map_err(|newer| StoreError::Newer { revision, newer })?;
    let terms = Terms::read_checked(&document).map_err(|fault| damaged(fault.to_string()))?;
    if terms.revision != revision {
        return Err(damaged(format!("the document says that it is revision {}", terms.revision)));
    }
    Ok(terms)
}

/// Stores a document and claims its number. The same again changes nothing.
pub async fn store<L: Log>(log: &L, terms: &Terms) -> Result<Claim, StoreError> {
    let document = Bytes::from(terms.document());
    let digest = Digest::of(&document);
    let wanted = Claim { revision: terms.revision, digest, parts: document.len().div_ceil(PART_BYTES) };
    if let Some(claimed) = claim(log, terms.revision).await? {
        return if claimed == wanted { Ok(claimed) } else { Err(StoreError::Taken(terms.revision)) };
    }
    let mut appender = log.appender().await?;
    for part in 0..wanted.parts {
        let end = document.len().min((part + 1) * PART_BYTES);
        let payload = document.slice(part * PART_BYTES..end);
        let subject = topology::terms_document(&digest, part);
        send(&mut appender, subject, payload, Expect::Any).await?;
    }
    let payload = serde_json::to_vec(&wanted).expect("a claim is plain data").into();
    let subject = topology::terms_revision(terms.revision);
    match send(&mut appender, subject, payload, Expect::LastOfSubject(0)).await {
        Ok(()) => Ok(wanted),
        Err(error) => match claim(log, terms.revision).await? {
            Some(claimed) if claimed == wanted => Ok(claimed),
            Some(_) => Err(StoreError::Taken(terms.revision)),
            None => Err(error),
        },
    }
}

async fn send<A: Appender>(
    appender: &mut A,
    subject: String,
    payload: Bytes,
    expect: Expect,
) -> Result<(), StoreError> {
    appender.send(Append { subject, headers: Vec::new(), payload, expect }).await?;
    appender.acknowledged().await?;
    Ok(())
}

/// Appends the activation marker to every partition, in one atomic batch, where it is not there yet.
///
/// Each marker is fenced by the last one of its partition, so that of two at once one learns of the other.
pub async fn activate<L: Log>(log: &L, partitions: u16, claim: &Claim) -> Result<(), StoreError> {
    let marker = Marker { revision: claim.revision, digest: claim.digest };
    let payload = Bytes::from(serde_json::to_vec(&marker).expect("a marker is plain data"));
    let mut appends = Vec::new();
    for partition in 0..partitions {
        let subject = topology::terms_marker(partition);
        let last = log.last(topology::WAGERS, &subject).await?;
        let active = last.as_ref().map(read_marker).transpose()?;
        if active.is_some_and(|active| active.revision >= claim.revision) {
            continue;
        }
        let expect = Expect::LastOfSubject(last.map_or(0, |entry| entry.sequence));
        appends.push(Append { subject, headers: Vec::new(), payload: payload.clone(), expect });
    }
    if !appends.is_empty() {
        log.append_atomic(appends).await?;
    }
    Ok(())
}

/// Reads an activation marker.
pub fn read_marker(entry: &Entry) -> Result<Marker, StoreError> {
    serde_json::from_slice(&entry.payload)
        .map_err(|error| StoreError::Damaged { revision: 0, what: format!("marker: {error}") })
}
