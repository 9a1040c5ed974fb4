//! The benchmark as programs read it: one array of runs, those with batches of 200 first, all of them exact.
//! How fast anything is, is no matter here.

use std::process::Command;

use serde_json::Value;

/// It starts five pipelines of its own, one after the other.
#[test]
fn nats_the_benchmark_is_one_array_of_exact_runs() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jackpot"));
    let output = command.args(["bench", "--json", "--seconds", "1"]).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(said.contains("debug build"), cfg!(debug_assertions), "{said}");
    let runs: Vec<Value> = serde_json::from_slice(&output.stdout).expect("one array and nothing else");
    let of = |field: &str| runs.iter().map(|run| run[field].clone()).collect::<Vec<_>>();
    assert_eq!(of("batch"), [200, 20, 1, 10, 10]);
    assert_eq!(of("rate"), [Value::Null, Value::Null, Value::Null, 1_000.into(), 10_000.into()]);
    assert_eq!(of("wagers"), [100_000, 60_000, 20_000, 1_000, 10_000]);
    for run in &runs {
        assert_eq!(run["exact"], true);
        let positive = |value: &Value| value.as_f64().is_some_and(|number| number > 0.0);
        for field in ["seconds", "wagers_per_second", "cpu_us_per_wager", "bytes_per_wager"] {
            assert!(positive(&run[field]), "{field} of {run}");
        }
        assert_eq!(run["cpu_us_by_process"].as_object().map(|processes| processes.len()), Some(6));
        assert!(run["machine"]["cores"].as_u64().is_some_and(|cores| cores > 0), "{run}");
        for field in ["latency_ms", "totals_latency_ms"].into_iter().filter(|_| run.get("rate").is_some()) {
            let ranks = ["p50", "p90", "p99", "max"].map(|rank| run[field][rank].as_f64().unwrap_or(-1.0));
            assert!(ranks[0] > 0.0 && ranks.is_sorted(), "{field} of {run}");
        }
    }
}
