//! Whether the configured bits of the mark belong to Sluice alone.

use super::foreign::Foreign;
use super::{Check, Context, Status};

/// Most places named in a finding.
const NAMED: usize = 4;

/// A run of as many bits as `mask` has that nobody in `used` needs, highest first.
fn free_mask(mask: u32, used: u32) -> Option<u32> {
    let width = mask.count_ones();
    if width == 0 || width >= 32 {
        return None;
    }
    let run = (1u32 << width) - 1;
    (0..=32 - width)
        .rev()
        .map(|shift| run << shift)
        .find(|candidate| candidate & used == 0)
}

/// A list of places, cut.
pub(super) fn list(places: &[String]) -> String {
    let mut text = places
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    if places.len() > NAMED {
        text.push_str(&format!("; and {} more", places.len() - NAMED));
    }
    text
}

pub(super) fn examine(context: &Context, foreign: &Foreign) -> Check {
    let mask = context.mark_mask;
    let check = Check::new(
        "marks in use",
        "the steering decision travels in these bits of the packet's mark: who overwrites them misleads packets, who compares them is misled",
    );
    let clashes: Vec<_> = foreign
        .marks
        .iter()
        .filter(|each| each.bits & mask != 0)
        .map(|each| {
            let does = if each.writes { "sets" } else { "compares" };
            format!("{} {does} {:#010x}", each.place, each.bits)
        })
        .collect();
    let unseen = if foreign.unseen.is_empty() {
        String::new()
    } else {
        format!(" (not looked at: {})", list(&foreign.unseen))
    };
    if clashes.is_empty() {
        let status = if unseen.is_empty() {
            Status::Ok
        } else {
            Status::Info
        };
        return check.is(
            status,
            format!(
                "mask {mask:#010x} is free of the {} other uses{unseen}",
                foreign.marks.len()
            ),
        );
    }
    let used = foreign
        .marks
        .iter()
        .filter(|each| each.bits != u32::MAX)
        .fold(0, |used, each| used | each.bits);
    let whole = foreign.marks.iter().any(|each| each.bits == u32::MAX);
    let mut advice = match free_mask(mask, used) {
        Some(free) => format!("configure the mark mask {free:#010x}"),
        None => "make room in the mark: no run of bits is free".to_owned(),
    };
    if whole {
        advice.push_str("; give the rules that use the whole mark a mask of their own");
    }
    check
        .is(
            Status::Warn,
            format!("mask {mask:#010x} overlaps: {}{unseen}", list(&clashes)),
        )
        .advise(advice)
}

#[cfg(test)]
mod tests {
    use super::super::foreign::MarkUse;
    use super::super::tests::context;
    use super::*;

    #[test]
    fn a_free_run_of_the_same_width_is_found_or_there_is_none() {
        assert_eq!(free_mask(0x00ff_0000, 0x00ff_0000), Some(0xff00_0000));
        assert_eq!(free_mask(0x00ff_0000, 0xff0f_00ff), Some(0x0000_ff00));
        assert_eq!(free_mask(0x00ff_0000, 0x1111_1111), None);
        assert_eq!(free_mask(u32::MAX, 0), None);
        assert_eq!(free_mask(0, 0), None);
    }

    #[test]
    fn an_overlap_is_named_and_a_neighbour_is_not() {
        let mark = |bits, writes| MarkUse {
            bits,
            writes,
            place: "there".to_owned(),
        };
        let mut foreign = Foreign {
            marks: vec![mark(0xff, true)],
            ..Foreign::default()
        };
        assert_eq!(examine(&context(), &foreign).status, Status::Ok);
        foreign.marks.push(mark(u32::MAX, false));
        let check = examine(&context(), &foreign);
        assert_eq!(check.status, Status::Warn);
        assert!(
            check.found.contains("there compares 0xffffffff"),
            "{check:?}"
        );
    }
}
