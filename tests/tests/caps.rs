//! Every table keeps to its cap under a flood, and the inspection goes on. The same with millions
//! of packets: `cargo xtask bench caps`.

use std::path::{Path, PathBuf};

use sluice_tests::flood::{Flood, Trial};

/// The `sluice` that cargo puts beside the test programs.
fn program() -> PathBuf {
    let path = std::env::var_os("SLUICE_BIN").map_or_else(
        || {
            let test = std::env::current_exe().expect("the path of this test program");
            let target = test.parent().and_then(Path::parent);
            target.expect("target/debug/deps/test").join("sluice")
        },
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "{} does not exist: `cargo xtask build` builds it",
        path.display()
    );
    path
}

/// What is not as it shall be.
fn run(flood: Flood, policy: &'static str) -> Option<String> {
    let directory = tempfile::tempdir().expect("a directory");
    let trial = Trial {
        flood,
        cap: 4 << 20,
        policy,
        times: 3,
    };
    let shown = trial.run(&program(), directory.path());
    let shown = shown.expect("a replay");
    println!("{trial:?}: {shown:?}");
    let complaints = trial.complaints(&shown);
    (!complaints.is_empty()).then(|| format!("{flood:?}, {policy}: {}", complaints.join("; ")))
}

#[test]
fn a_flood_for_each_table_stays_under_its_cap_and_what_comes_then_is_inspected() {
    let complaints: Vec<_> = Flood::ALL
        .into_iter()
        .filter_map(|flood| run(flood, "auto"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn at_the_cap_what_cannot_make_room_goes_by_the_policy_that_is_configured() {
    let mut complaints = Vec::new();
    for (flood, policies) in [
        (Flood::AnsweredFlow, ["pass-packet", "ignore"]),
        (Flood::Connection, ["pass-flow", "drop-packet"]),
        (Flood::Hole, ["bypass", "pass-packet"]),
        (Flood::Fragment, ["pass-packet", "ignore"]),
    ] {
        complaints.extend(policies.into_iter().filter_map(|policy| run(flood, policy)));
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}
