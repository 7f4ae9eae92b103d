//! `captures RULES CAPTURE...`: each capture through the inspection, inline and watching. Says
//! which one it begins and ends, so that whoever started it knows which one it died of.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use sluice::config::settings::EngineSettings;
use sluice::replay::Replay;

fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let Some(rules) = arguments.next() else {
        eprintln!("usage: captures RULES CAPTURE...");
        std::process::exit(2);
    };
    let directory = std::env::temp_dir().join(format!("sluice-captures-{}", std::process::id()));
    for capture in arguments {
        for ips in [true, false] {
            println!("begin {}", capture.display());
            let begun = Instant::now();
            let replay = Replay {
                capture: capture.clone(),
                rules: vec![rules.clone()],
                ips,
                settings: EngineSettings::stock(),
                log_directory: directory.clone(),
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| replay.run(|_| {})));
            let milliseconds = begun.elapsed().as_millis();
            match outcome {
                Ok(Ok(replayed)) => println!("end {} {milliseconds}", replayed.packets),
                Ok(Err(error)) => println!("refused {milliseconds} {error:#}"),
                Err(_) => println!("panic {milliseconds}"),
            }
        }
    }
    // What it has written is nothing to anybody.
    let _ = std::fs::remove_dir_all(&directory);
}
