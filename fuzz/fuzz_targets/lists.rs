//! Everything that is read beside rules: `threshold.config`, `classification.config`,
//! `reference.config`, values of sets, reputations.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::fuzzing::detect;
use sluice::rules::{Classification, References, RuleSource, Thresholds, Variables};
use sluice_fuzz::Input;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let kind = input.u8() % 5;
    let bytes = input.rest();
    let text = String::from_utf8_lossy(bytes);
    match kind {
        0 => {
            let source = RuleSource::new("threshold.config", bytes.to_vec());
            let read = Thresholds::parse(&source, &Variables::default());
            for diagnostic in &read.diagnostics {
                assert!(diagnostic.line >= 1 && diagnostic.column >= 1);
                assert!(diagnostic.render().contains("threshold.config"));
            }
        }
        1 => {
            let mut classes = Classification::default();
            let lines = text.lines().count();
            assert!(
                classes
                    .add(&text)
                    .into_iter()
                    .all(|it| it >= 1 && it <= lines)
            );
            let names: Vec<String> = classes.names().map(str::to_owned).collect();
            assert!(names.iter().all(|name| classes.get(name).is_some()));
        }
        2 => {
            let mut references = References::default();
            let lines = text.lines().count();
            let wrong = references.add(&text);
            assert!(wrong.into_iter().all(|it| it >= 1 && it <= lines));
            let _ = references.prefix(&text);
        }
        3 => {
            for line in text.lines() {
                detect::dataset_value(line);
            }
        }
        _ => {
            let (categories, list) = text.split_once("\n\n").unwrap_or(("1,a,b", &text));
            for address in [
                "0.0.0.0",
                "10.1.2.3",
                "255.255.255.255",
                "::",
                "2001:db8::1",
            ] {
                detect::reputation(categories, list, address.parse().expect("an address"));
            }
        }
    }
});
