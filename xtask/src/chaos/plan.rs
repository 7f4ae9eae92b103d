//! What is done to the instance, and when: drawn from a seed before anything runs.

use std::fmt;
use std::time::Duration;

use super::dice::Dice;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Kind {
    /// SIGKILL of a worker
    Kill,
    /// SIGKILL of the backup
    KillBackup,
    /// SIGSTOP of a worker that is never continued
    Stop,
    /// SIGSTOP of a worker for a moment
    Pause,
    /// A worker gets no more memory for a moment
    Pressure,
    /// SIGKILL of the launcher
    KillLauncher,
    /// SIGKILL of the helper that sends rejections
    KillRejecter,
    /// Other rules by `sluice reload`
    Reload,
    /// `sluice reload` with rules that are wrong, which has to be refused
    BadReload,
    /// Another number of workers by `sluice scale`
    Scale,
    /// `sluice drain` of a worker, and `sluice resume` later
    Drain,
    /// `sluice upgrade` to the same program
    Upgrade,
    /// SIGKILL of the supervisor, then another `sluice run`
    Takeover,
    /// SIGHUP: the event log is opened anew
    Hangup,
    /// Nonsense at the control socket
    Nonsense,
}

impl Kind {
    /// How often each kind is drawn for each time that every kind has been.
    const SHARES: [(Self, usize); 15] = [
        (Self::Kill, 6),
        (Self::KillBackup, 2),
        (Self::Stop, 2),
        (Self::Pause, 3),
        (Self::Pressure, 2),
        (Self::KillLauncher, 1),
        (Self::KillRejecter, 1),
        (Self::Reload, 3),
        (Self::BadReload, 1),
        (Self::Scale, 2),
        (Self::Drain, 2),
        (Self::Upgrade, 1),
        (Self::Takeover, 1),
        (Self::Hangup, 1),
        (Self::Nonsense, 1),
    ];

    /// As it is written on the command line.
    pub(super) fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self)
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

/// A fault with everything that is left to chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// What.
    pub(super) kind: Kind,
    /// Which worker, modulo as many as there are; how many workers for [`Kind::Scale`]; which
    /// rules for the reloads; which bytes for [`Kind::Nonsense`].
    pub(super) choice: u64,
    /// How long it lasts; for [`Kind::Takeover`] how long nobody supervises.
    pub(super) lasting: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            choice,
            lasting,
        } = self;
        let lasting = lasting.as_millis();
        let name = kind.name();
        match kind {
            Kind::Kill | Kind::Stop => write!(f, "{name} worker {choice}"),
            Kind::Pause | Kind::Pressure | Kind::Drain => {
                write!(f, "{name} worker {choice} for {lasting} ms")
            }
            Kind::Reload | Kind::BadReload => write!(f, "{name} rules {choice}"),
            Kind::Scale => write!(f, "{name} to {choice}"),
            Kind::Takeover => write!(f, "{name} after {lasting} ms"),
            _ => f.write_str(&name),
        }
    }
}

/// A fault at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// From the load's start.
    pub(super) at: Duration,
    /// What happens.
    pub(super) fault: Fault,
}

/// Undisturbed before the first fault, and after the last.
const MARGIN: Duration = Duration::from_secs(1);
/// Between two faults, milliseconds.
const GAP_MS: std::ops::RangeInclusive<u64> = 150..=1050;

/// The plan of a seed: faults of these kinds for so long.
///
/// Each kind comes in its share: kinds are drawn from a bag that is filled anew when it is
/// empty. All figures are drawn for every fault, so that no kind shifts those of another.
pub(super) fn draw(seed: u64, length: Duration, kinds: &[Kind]) -> Vec<Event> {
    let mut dice = Dice::new(seed);
    let mut plan = Vec::new();
    let mut bag = Vec::new();
    let mut at = MARGIN;
    let wanted = Kind::SHARES.iter().filter(|(kind, _)| kinds.contains(kind));
    let filled: Vec<Kind> = wanted
        .flat_map(|(kind, share)| std::iter::repeat_n(*kind, *share))
        .collect();
    while at + MARGIN <= length && !filled.is_empty() {
        if bag.is_empty() {
            bag.clone_from(&filled);
            dice.shuffle(&mut bag);
        }
        let Some(kind) = bag.pop() else { break };
        let choice = match kind {
            Kind::Scale => dice.within(2..=4),
            Kind::Nonsense => dice.next(),
            _ => dice.within(0..=11),
        };
        let lasting = match kind {
            Kind::Pause => dice.millis(20..=400),
            Kind::Takeover => dice.millis(0..=500),
            _ => dice.millis(200..=1500),
        };
        plan.push(Event {
            at,
            fault: Fault {
                kind,
                choice,
                lasting,
            },
        });
        at += dice.millis(GAP_MS);
    }
    plan
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(120);

    #[test]
    fn the_same_seed_draws_the_same_plan_and_another_one_another() {
        let plan = draw(1, LENGTH, Kind::value_variants());
        assert_eq!(plan, draw(1, LENGTH, Kind::value_variants()));
        assert_ne!(plan, draw(2, LENGTH, Kind::value_variants()));
    }

    #[test]
    fn a_plan_holds_every_kind_and_leaves_its_margins_in_peace() {
        for seed in 0..20 {
            let plan = draw(seed, LENGTH, Kind::value_variants());
            for kind in Kind::value_variants() {
                assert!(plan.iter().any(|event| event.fault.kind == *kind));
            }
            assert!(plan.windows(2).all(|pair| pair[0].at < pair[1].at));
            assert!(plan.iter().all(|event| event.at >= MARGIN));
            assert!(plan.iter().all(|event| event.at + MARGIN <= LENGTH));
        }
    }

    #[test]
    fn only_the_kinds_asked_for_are_drawn() {
        let plan = draw(3, LENGTH, &[Kind::Kill, Kind::Scale]);
        assert!(plan.len() > 100);
        for event in &plan {
            assert!([Kind::Kill, Kind::Scale].contains(&event.fault.kind));
        }
        assert!(draw(3, LENGTH, &[]).is_empty());
        assert!(draw(3, Duration::from_secs(1), &[Kind::Kill]).is_empty());
    }
}
