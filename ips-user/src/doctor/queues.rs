//! Whether the configured queue numbers belong to Sluice alone.

use super::foreign::Foreign;
use super::marks::list;
use super::{Check, Context, Status};

/// Number, owner's port id and packets waiting of each bound queue: the first three columns
/// of `nfnetlink_queue`.
fn bound(text: &str) -> Vec<(u16, u32, u32)> {
    text.lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            Some((
                columns.next()?.parse().ok()?,
                columns.next()?.parse().ok()?,
                columns.next()?.parse().ok()?,
            ))
        })
        .collect()
}

pub(super) fn examine(context: &Context, foreign: &Foreign) -> Check {
    let first = u32::from(context.first_queue);
    let last = first.saturating_add(context.workers); // workers, then the backup
    let check = Check::new(
        "queues in use",
        "a queue has one owner: a number that somebody else has bound cannot be bound again, and whose rules feed it would be inspected here",
    );
    if last > u32::from(u16::MAX) {
        return check
            .is(
                Status::Fail,
                format!("{first} to {last}: queue numbers end at 65535"),
            )
            .advise("configure a smaller first queue");
    }
    let text = match std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue") {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return check.is(Status::Info, format!("not readable: {error}")),
    };
    let ours = |number: u32| (first..=last).contains(&number);
    let mut taken: Vec<_> = bound(&text)
        .into_iter()
        .filter(|&(number, ..)| ours(u32::from(number)))
        .map(|(number, port, waiting)| {
            format!("{number} is bound by port id {port}, {waiting} packets wait")
        })
        .collect();
    let running = foreign.ours && !taken.is_empty();
    let fed: Vec<_> = foreign
        .queues
        .iter()
        .filter(|each| (u32::from(each.first)..=u32::from(each.last)).any(ours))
        .map(|each| format!("{} to {} are fed by {}", each.first, each.last, each.place))
        .collect();
    if fed.is_empty() && running {
        return check.is(
            Status::Info,
            format!("{}: by a Sluice that is running, it seems", list(&taken)),
        );
    }
    taken.extend(fed);
    if taken.is_empty() {
        check.is(Status::Ok, format!("{first} to {last} are free"))
    } else {
        check
            .is(Status::Warn, list(&taken))
            .advise("configure another first queue, or stop the other program")
    }
}

#[cfg(test)]
mod tests {
    use super::super::foreign::QueueUse;
    use super::super::tests::context;
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        assert_eq!(
            bound("  100   4242     3 2 65531     0     0       17  1\nodd line\n"),
            [(100, 4242, 3)]
        );
    }

    #[test]
    fn somebody_elses_rule_that_feeds_our_queues_is_named() {
        let foreign = |first, last| Foreign {
            queues: vec![QueueUse {
                first,
                last,
                place: "there".to_owned(),
            }],
            ..Foreign::default()
        };
        let queues = Context {
            first_queue: 40_100,
            ..context()
        };
        assert_eq!(examine(&queues, &foreign(3, 40_099)).status, Status::Ok);
        assert_eq!(
            examine(&queues, &foreign(40_102, 40_102)).status,
            Status::Warn
        );
        assert_eq!(
            examine(&queues, &foreign(40_103, 40_110)).status,
            Status::Ok
        );
    }

    #[test]
    fn numbers_beyond_the_last_queue_are_a_failure() {
        let queues = Context {
            first_queue: u16::MAX,
            ..context()
        };
        let check = examine(&queues, &Foreign::default());
        assert_eq!(check.status, Status::Fail);
    }
}
