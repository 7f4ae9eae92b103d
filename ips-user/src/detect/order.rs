//! In which order rules are evaluated.
//!
//! By action, as configured; then rules that set flow bits before those that ask for them, and
//! the same for the other things that rules leave behind; then by priority; then in the order of
//! the files. Reference: "Action-order" in the configuration chapter of Suricata's user guide.

use crate::rules::Rule;
use crate::rules::ast::{Action, Condition, Effect, Match};

/// An action as orders name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActionKind {
    /// `pass`
    Pass,
    /// `drop`
    Drop,
    /// `reject` and its kin.
    Reject,
    /// `alert`
    Alert,
}

impl From<Action> for ActionKind {
    fn from(action: Action) -> Self {
        match action {
            Action::Pass => Self::Pass,
            Action::Drop => Self::Drop,
            Action::Reject(_) => Self::Reject,
            Action::Alert => Self::Alert,
        }
    }
}

/// Which actions go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionOrder(pub [ActionKind; 4]);

impl Default for ActionOrder {
    fn default() -> Self {
        Self([
            ActionKind::Pass,
            ActionKind::Drop,
            ActionKind::Reject,
            ActionKind::Alert,
        ])
    }
}

impl ActionOrder {
    /// Of these in this order; those that are missing follow.
    pub fn of(actions: impl IntoIterator<Item = ActionKind>) -> Self {
        let mut order: Vec<ActionKind> = Vec::with_capacity(4);
        for action in actions.into_iter().chain(Self::default().0) {
            if !order.contains(&action) {
                order.push(action);
            }
        }
        let mut array = Self::default().0;
        array.copy_from_slice(&order);
        Self(array)
    }

    fn rank(self, action: Action) -> usize {
        let kind = ActionKind::from(action);
        self.0.iter().position(|it| *it == kind).unwrap_or(4)
    }
}

/// What a rule does with something that rules leave behind.
fn use_of(sets: bool, asks: bool) -> u8 {
    match (sets, asks) {
        (true, false) => 0,
        (true, true) => 1,
        (false, true) => 2,
        (false, false) => 3,
    }
}

/// Rules sorted by this are in the order of evaluation, if those that are equal stay in the
/// order of their files.
pub(super) fn key(rule: &Rule, order: ActionOrder) -> (usize, [u8; 4], u8) {
    let options = &rule.options;
    let (mut bits, mut ints, mut hosts) = ((false, false), (false, false), (false, false));
    let mut texts = (false, false);
    let matches = options.sections.iter().flat_map(|section| &section.matches);
    texts.0 = matches
        .into_iter()
        .any(|found| matches!(found, Match::Pcre(pcre) if !pcre.captures.is_empty()));
    for effect in &options.effects {
        match effect {
            Effect::FlowBits { .. } => bits.0 = true,
            Effect::FlowInt { .. } => ints.0 = true,
            Effect::HostBits { .. } => hosts.0 = true,
            _ => {}
        }
    }
    for condition in &options.conditions {
        match condition {
            Condition::FlowBits { .. } => bits.1 = true,
            Condition::FlowInt { .. } => ints.1 = true,
            Condition::HostBits { .. } => hosts.1 = true,
            Condition::Variable { .. } => texts.1 = true,
            _ => {}
        }
    }
    (
        order.rank(rule.action),
        [bits, ints, texts, hosts].map(|(sets, asks)| use_of(sets, asks)),
        options.priority,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_order_does_not_name_follows() {
        use ActionKind::{Alert, Drop, Pass, Reject};
        assert_eq!(ActionOrder::of([]).0, [Pass, Drop, Reject, Alert]);
        assert_eq!(
            ActionOrder::of([Drop, Alert]).0,
            [Drop, Alert, Pass, Reject]
        );
        assert_eq!(
            ActionOrder::of([Alert, Alert, Reject]).0,
            [Alert, Reject, Pass, Drop]
        );
    }
}
