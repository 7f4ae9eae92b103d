//! What can be changed while an instance runs.

use toml::{Table, Value};

use super::{Config, Transport};

/// Keys, and sections with all their keys, that a reload changes. All others are fixed from start
/// to stop: what they say has been done by then.
const CHANGEABLE: [&str; 16] = [
    "rules",
    "exceptions",
    "overload",
    "flow",
    "conviction",
    "engine",
    "steering.stale_ms",
    "steering.recover_ms",
    "steering.fragment_seconds",
    "steering.placement_idle_seconds",
    "queue.length",
    "log.stats_seconds",
    "workers.start_ms",
    "workers.restart_pause_max_ms",
    "workers.hang_ms",
    "workers.hang_max_ms",
];

/// What differs between two configurations and cannot be changed while an instance runs: a line
/// for each key, with what to do instead.
pub fn fixed_differences(old: &Config, new: &Config) -> Vec<String> {
    // Both have been read from TOML or could have been.
    let table = |config| Table::try_from(config).unwrap_or_default();
    let mut keys = Vec::new();
    differences("", &table(old), &table(new), &mut keys);
    let fixed = keys.into_iter().filter_map(|key| {
        let hint = match key.as_str() {
            "workers.count" => "use `sluice scale`",
            "queue.length" if old.queue.transport == Transport::Nfq => {
                "with the nfq transport it needs a restart"
            }
            _ if is_changeable(&key) => return None,
            _ => "it needs a restart",
        };
        Some(format!("{key} cannot be changed by a reload: {hint}"))
    });
    fixed.collect()
}

fn is_changeable(key: &str) -> bool {
    // What is open stays open.
    key != "engine.outputs"
        && CHANGEABLE.iter().any(|changeable| {
            key.strip_prefix(changeable)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
}

/// Dotted names of the values that are not the same.
fn differences(prefix: &str, old: &Table, new: &Table, found: &mut Vec<String>) {
    let mut names: Vec<_> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let key = format!("{prefix}{name}");
        match (old.get(name), new.get(name)) {
            (Some(Value::Table(old)), Some(Value::Table(new))) => {
                differences(&format!("{key}."), old, new, found);
            }
            (old, new) if old != new => found.push(key),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl Fn(&mut Config), expect: &[&str]) {
        let old = Config::default();
        let mut new = Config::default();
        change(&mut new);
        assert_eq!(fixed_differences(&old, &new), expect);
    }

    #[test]
    fn what_can_change_is_not_named_and_what_cannot_is_with_what_to_do() {
        check(|_| {}, &[]);
        check(
            |config| {
                config.rules.files.push("x.rules".into());
                config
                    .rules
                    .variables
                    .insert("HOME_NET".into(), "any".into());
                config.flow.max = 7;
                config.steering.stale_ms = 300;
                config.queue.length = 99;
            },
            &[],
        );
        check(
            |config| {
                config.name = "other".into();
                config.workers.count = 3;
                config.steering.mark_mask = 0xff;
                config.interfaces.push("eth0".into());
                config.flow.max = 7;
            },
            &[
                "interfaces cannot be changed by a reload: it needs a restart",
                "name cannot be changed by a reload: it needs a restart",
                "steering.mark_mask cannot be changed by a reload: it needs a restart",
                "workers.count cannot be changed by a reload: use `sluice scale`",
            ],
        );
        let mut old = Config::default();
        old.queue.transport = Transport::Nfq;
        let mut new = old.clone();
        new.queue.length = 99;
        assert_eq!(fixed_differences(&old, &new).len(), 1);
    }
}
