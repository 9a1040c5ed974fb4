//! A few seeds, each run twice: the auditor finds nothing, and both runs are the same, byte for byte and step for step.
//! CI runs many more, with the command.

use sim::scenario;

fn check(seeds: std::ops::Range<u64>) {
    let mut allocated = 0;
    for seed in seeds {
        let (once, twice) = (scenario::run(seed, false), scenario::run(seed, false));
        assert_eq!(
            once, twice,
            "seed {seed} is one run; replay with: cargo run -p sim -- --seed {seed} --trace"
        );
        allocated += once.counted.allocated;
    }
    assert!(allocated > 500, "wagers are played: {allocated}");
}

#[test]
fn seeds_0_to_3_are_green_and_each_is_one_run() {
    check(0..4);
}

#[test]
fn seeds_4_to_7_are_green_and_each_is_one_run() {
    check(4..8);
}
