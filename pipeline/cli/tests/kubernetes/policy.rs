//! What a Job makes of the end of one of its pods, by its policy on failures, and how long an index then waits.
//! After Kubernetes' own rules; the lint and the job runner share it.

use std::time::Duration;

use serde_json::Value;

use super::manifests::{items, text};

/// How long an index waits after its first end, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// What becomes of an index whose pod has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is complete, and is never started again.
    Complete,
    /// The whole Job has failed.
    FailJob,
    /// This index has failed, and is never started again.
    FailIndex,
    /// It is started again, and this does not count against its limit.
    Ignore,
    /// It is started again, and this counts.
    Count,
}

/// What a Job makes of an exit code of a container, where the pod was to leave its node, or not. The first rule that
/// fits decides; no rule is asked about exit 0.
pub fn verdict(job: &Value, container: &str, code: i64, disrupted: bool) -> Verdict {
    if code == 0 {
        return Verdict::Complete;
    }
    let fitting =
        items(job, "spec/podFailurePolicy/rules").find(|rule| fits(rule, container, code, disrupted));
    match fitting.map(|rule| text(rule, "action")) {
        Some("FailJob") => Verdict::FailJob,
        Some("FailIndex") => Verdict::FailIndex,
        Some("Ignore") => Verdict::Ignore,
        Some("Count") | None => Verdict::Count,
        Some(other) => panic!("there is no action {other:?}"),
    }
}

fn fits(rule: &Value, container: &str, code: i64, disrupted: bool) -> bool {
    let codes = &rule["onExitCodes"];
    if codes.is_null() {
        return items(rule, "onPodConditions").any(|condition| {
            disrupted && text(condition, "type") == "DisruptionTarget" && text(condition, "status") == "True"
        });
    }
    let named = codes["containerName"].as_str().is_none_or(|name| name == container);
    let listed = items(codes, "values").any(|value| value.as_i64() == Some(code));
    named
        && match text(codes, "operator") {
            "In" => listed,
            "NotIn" => !listed,
            other => panic!("there is no operator {other:?}"),
        }
}

/// How long an index waits that has ended so often: each end doubles it, one that a rule ignores too, and nothing but
/// a new Job makes it short again.
pub fn backoff(ends: u32) -> Duration {
    let doubled = 2_u32.checked_pow(ends.saturating_sub(1)).and_then(|times| BACKOFF.0.checked_mul(times));
    doubled.map_or(BACKOFF.1, |wait| wait.min(BACKOFF.1))
}
