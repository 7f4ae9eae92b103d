//! The report for people.

use std::fmt::Write as _;

use super::{Report, Status};

const fn sign(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok  ",
        Status::Warn => "WARN",
        Status::Fail => "FAIL",
        Status::Info => "info",
    }
}

/// One line a check; what is not as it should be is explained below its line.
pub fn render(report: &Report) -> String {
    let mut text = format!("kernel {}\n", report.kernel);
    for applied in &report.applied {
        let _ = match &applied.error {
            None => writeln!(
                text,
                "mended {}: `{}`: {} -> {}",
                applied.check, applied.what, applied.old, applied.new
            ),
            Some(error) => writeln!(
                text,
                "NOT mended {}: `{}`: {error} (still {})",
                applied.check, applied.what, applied.new
            ),
        };
    }
    let width = report
        .checks
        .iter()
        .map(|check| check.name.chars().count())
        .max()
        .unwrap_or_default();
    for check in &report.checks {
        let _ = writeln!(
            text,
            "{}  {:width$}  {}",
            sign(check.status),
            check.name,
            check.found
        );
        if check.status == Status::Ok {
            continue;
        }
        let _ = writeln!(text, "      why: {}", check.matters);
        if let Some(mend) = &check.mend {
            let how = if check.fixable { " (or --fix)" } else { "" };
            let _ = writeln!(text, "      mend{how}: {mend}");
        }
    }
    let fails = report.count(Status::Fail);
    let warns = report.count(Status::Warn);
    let _ = if fails > 0 {
        writeln!(
            text,
            "{fails} missing, {warns} to look at: Sluice cannot work here yet"
        )
    } else if warns > 0 {
        writeln!(text, "nothing is missing, {warns} to look at")
    } else {
        writeln!(text, "all is well")
    };
    text
}

#[cfg(test)]
mod tests {
    use super::super::{Applied, Check};
    use super::*;

    #[test]
    fn what_is_wrong_is_explained_and_what_was_mended_is_shown() {
        let report = Report {
            kernel: "6.18".to_owned(),
            checks: vec![
                Check::new("a", "why a").is(Status::Ok, "fine"),
                Check::new("long name", "why b")
                    .is(Status::Fail, "broken")
                    .advise("do this"),
            ],
            applied: vec![Applied {
                check: "c".to_owned(),
                what: "sysctl -w x=1".to_owned(),
                old: "0".to_owned(),
                new: "1".to_owned(),
                error: None,
            }],
            processes: Vec::new(),
        };
        assert_eq!(
            render(&report),
            "kernel 6.18\n\
             mended c: `sysctl -w x=1`: 0 -> 1\n\
             ok    a          fine\n\
             FAIL  long name  broken\n      \
                   why: why b\n      \
                   mend: do this\n\
             1 missing, 0 to look at: Sluice cannot work here yet\n"
        );
        assert!(!report.healthy());
    }
}
