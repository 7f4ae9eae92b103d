//! `sluice.toml`, and settings by name (`--set`).
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::config::Config;
use sluice::config::settings::EngineSettings;
use sluice::inspection::InspectionOptions;
use sluice_fuzz::Input;

fn settings(text: &str) {
    let mut settings = EngineSettings::stock();
    for line in text.lines() {
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let before = settings.clone();
        if settings.set(name, value).is_err() {
            assert_eq!(
                settings, before,
                "a setting that is refused changes nothing"
            );
        }
    }
    settings.validate().expect("what was set is right");
    for ips in [false, true] {
        let _ = InspectionOptions::of_replay(&settings, ips);
    }
}

fn file(text: &str) {
    let config = match Config::parse(text, "sluice.toml") {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    // Workers are given it as JSON.
    let sent = serde_json::to_vec(&config).expect("what was read can be sent");
    let received: Config = serde_json::from_slice(&sent).expect("what was sent can be read");
    assert_eq!(received, config);
    if config.validate().is_err() {
        return;
    }
    let _ = (config.flow_limits(), config.treatments(), config.settle());
    let _ = (
        config.worker_count(),
        config.overload_bounds(),
        config.stale(),
    );
    let _ = (config.event_log(), config.control_socket());
    let options = InspectionOptions::of_worker(&config);
    if let Ok(options) = options {
        assert!(options.ips);
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let kind = input.u8();
    let Ok(text) = std::str::from_utf8(input.rest()) else {
        return;
    };
    match kind & 1 {
        0 => file(text),
        _ => settings(text),
    }
});
