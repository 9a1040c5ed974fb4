//! What processes tell about themselves when they are asked over the broker: `jackpot status` collects it.
//! A question on [`SUBJECT`] is answered by every process; nothing is stored, and nothing decides by it.

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::health::{Condition, Health};
use crate::log::jetstream::JetStream;
use crate::refusal::StageName;
use crate::rules;

/// Where processes are asked.
pub const SUBJECT: &str = "status";

/// What one process answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which stage it runs.
    pub stage: StageName,
    /// Which process it is: `<host>/<process id>`.
    pub process: String,
    /// Its version.
    pub version: String,
    /// The highest version of the [rules] that it knows.
    #[serde(default = "rules::first")]
    pub rules: u16,
    /// Its parts: partitions, the ledger, views.
    pub parts: Vec<PartReport>,
}

/// What a part of a process does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartReport {
    /// Its name: `partition 3`, `ledger commits`, `view hits`.
    pub part: String,
    /// `starting`, `running`, `standing_by`, `trying` or `stopped`.
    pub condition: String,
    /// What is in the way, where something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Report {
    /// What this process would answer now.
    pub fn now(stage: StageName, health: &Health) -> Self {
        let parts = health.parts().into_iter().map(|(part, condition)| {
            let (condition, why) = match condition {
                Condition::Starting => ("starting", None),
                Condition::Running => ("running", None),
                Condition::StandingBy => ("standing_by", None),
                Condition::Trying(why) => ("trying", Some(why)),
                Condition::Stopped(why) => ("stopped", Some(why)),
            };
            PartReport { part, condition: condition.into(), why }
        });
        Self {
            stage,
            process: format!("{}/{}", host(), std::process::id()),
            version: env!("CARGO_PKG_VERSION").into(),
            rules: rules::KNOWN,
            parts: parts.collect(),
        }
    }
}

/// What this machine is called.
pub fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host.trim().to_owned()
}

/// Answers questions for as long as the connection lives.
pub async fn answer(log: JetStream, stage: StageName, health: Health) {
    let mut questions = match log.client().subscribe(SUBJECT).await {
        Ok(questions) => questions,
        Err(error) => {
            warn!("`jackpot status` will not see this process: {error}");
            return;
        }
    };
    while let Some(question) = questions.next().await {
        let Some(reply) = question.reply else { continue };
        let report = serde_json::to_vec(&Report::now(stage, &health)).expect("a report is plain data");
        if let Err(error) = log.client().publish(reply, report.into()).await {
            warn!("a question about this process's status stays unanswered: {error}");
        }
    }
}
