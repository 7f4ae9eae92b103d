//! Exception policies: what becomes of a packet, and of its flow, when it cannot be inspected as
//! it should be. The names and their meaning are Suricata's (user guide, "Exception Policies",
//! configuration/exception-policies).
//!
//! A new cause is one line of [`causes!`] below, one key of `[exceptions]`, and the call of
//! [`crate::verdict::except`] where it happens. Those of the stream engine have their keys in
//! `[engine.stream]` instead, where Suricata has them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::settings::{EngineSettings, PolicyOf};
use crate::netfilter::Fail;
use crate::source::Disposition;

/// What is to be done, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExceptionPolicy {
    /// As `fail` says, for the packet or for the flow, whichever suits the cause.
    Auto,
    /// The packet is dropped.
    DropPacket,
    /// The packet and the rest of its flow are dropped.
    DropFlow,
    /// As `drop-flow`, and the sender of the packet is told (a reset or an unreachable).
    Reject,
    /// The flow is released from inspection for good, as early as possible.
    Bypass,
    /// The packet passes without inspection.
    PassPacket,
    /// The packet and the rest of its flow pass without inspection.
    PassFlow,
    /// Nothing: inspection goes on as far as it can.
    Ignore,
}

/// What is done: a policy with [`ExceptionPolicy::Auto`] resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Treatment {
    /// See [`ExceptionPolicy::DropPacket`].
    DropPacket,
    /// See [`ExceptionPolicy::DropFlow`].
    DropFlow,
    /// See [`ExceptionPolicy::Reject`].
    Reject,
    /// See [`ExceptionPolicy::Bypass`].
    Bypass,
    /// See [`ExceptionPolicy::PassPacket`].
    PassPacket,
    /// See [`ExceptionPolicy::PassFlow`].
    PassFlow,
    /// See [`ExceptionPolicy::Ignore`].
    #[default]
    Ignore,
}

impl Treatment {
    /// What happens to the packet; `None` when its inspection goes on.
    pub const fn disposition(self) -> Option<Disposition> {
        match self {
            Self::DropPacket | Self::DropFlow | Self::Reject => Some(Disposition::Drop),
            Self::Bypass | Self::PassPacket | Self::PassFlow => Some(Disposition::Accept),
            Self::Ignore => None,
        }
    }

    /// Whether it holds for the rest of the flow.
    pub const fn covers_flow(self) -> bool {
        matches!(
            self,
            Self::DropFlow | Self::Reject | Self::Bypass | Self::PassFlow
        )
    }

    /// The same for the packet alone.
    pub const fn of_packet(self) -> Self {
        match self {
            Self::DropFlow | Self::Reject => Self::DropPacket,
            Self::Bypass | Self::PassFlow => Self::PassPacket,
            Self::DropPacket | Self::PassPacket | Self::Ignore => self,
        }
    }

    /// The policy's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DropPacket => "drop-packet",
            Self::DropFlow => "drop-flow",
            Self::Reject => "reject",
            Self::Bypass => "bypass",
            Self::PassPacket => "pass-packet",
            Self::PassFlow => "pass-flow",
            Self::Ignore => "ignore",
        }
    }
}

impl fmt::Display for Treatment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for ExceptionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No cause has another meaning for the names; `auto` is none.
        match self.fixed() {
            Some(treatment) => treatment.fmt(f),
            None => f.write_str("auto"),
        }
    }
}

impl ExceptionPolicy {
    const fn fixed(self) -> Option<Treatment> {
        Some(match self {
            Self::Auto => return None,
            Self::DropPacket => Treatment::DropPacket,
            Self::DropFlow => Treatment::DropFlow,
            Self::Reject => Treatment::Reject,
            Self::Bypass => Treatment::Bypass,
            Self::PassPacket => Treatment::PassPacket,
            Self::PassFlow => Treatment::PassFlow,
            Self::Ignore => Treatment::Ignore,
        })
    }

    /// The treatment of `cause`, under the fail policy.
    pub const fn resolve(self, cause: Cause, fail: Fail) -> Treatment {
        match (self.fixed(), fail, cause.concerns_flow()) {
            (Some(treatment), _, _) => treatment,
            (None, Fail::Open, false) => Treatment::PassPacket,
            (None, Fail::Open, true) => Treatment::PassFlow,
            (None, Fail::Closed, false) => Treatment::DropPacket,
            (None, Fail::Closed, true) => Treatment::DropFlow,
        }
    }

    /// Whether `cause` can be treated so; else what would be right, and why this is not.
    ///
    /// # Errors
    /// The sentence for whoever wrote the configuration.
    pub fn check(self, cause: Cause) -> Result<(), String> {
        let (allowed, why_no_other) = cause.allows();
        if self == Self::Auto || allowed.contains(&self) {
            return Ok(());
        }
        let names: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        Err(format!(
            "{self} is not possible: {why_no_other}; use auto, {}",
            names.join(", ")
        ))
    }
}

macro_rules! causes {
    ($($(#[$doc:meta])* $cause:ident = $name:literal, $key:literal, $record:literal,)*) => {
        /// Why a packet is not inspected as it should be. Their order is part of the format in
        /// which flows are handed over: new ones come last.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Cause { $($(#[$doc])* $cause,)* }

        impl Cause {
            /// Every cause.
            pub const ALL: &[Self] = &[$(Self::$cause,)*];

            /// Its number.
            pub const fn code(self) -> u32 {
                self as u32
            }

            /// The cause with this number.
            pub fn of_code(code: u32) -> Option<Self> {
                Self::ALL.get(code as usize).copied()
            }

            /// Its name in records; its key in `[exceptions]`, when it has one there.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$cause => $name,)* }
            }

            /// Its dotted key.
            pub const fn key(self) -> &'static str {
                match self { $(Self::$cause => $key,)* }
            }

            /// The reason in `drop` records; Suricata's word where it has one.
            pub const fn drop_reason(self) -> &'static str {
                match self { $(Self::$cause => $record,)* }
            }
        }
    };
}

causes! {
    /// Its worker died with the packet in hand.
    WorkerDeath = "worker_death", "exceptions.worker_death", "worker death",
    /// It cannot be decoded.
    Undecodable = "undecodable", "exceptions.undecodable", "decode error",
    /// Packets of its flow have killed workers.
    Quarantine = "quarantine", "exceptions.quarantine", "quarantine",
    /// Its worker has more to do than it can.
    Overload = "overload", "exceptions.overload", "overload",
    /// The flow table has no room for its flow.
    FlowMemory = "flow_memory", "exceptions.flow_memory", "flow memcap",
    /// There is no room to put the fragments of its datagram together.
    DefragMemory = "defrag_memory", "exceptions.defrag_memory", "defrag memcap",
    /// It is a fragment whose datagram did not begin here.
    FragmentOrder = "fragment_order", "exceptions.fragment_order", "defrag error",
    /// It belongs to a connection whose beginning was not seen.
    Midstream = "stream_midstream", "engine.stream.midstream-policy", "stream midstream",
    /// There is no memory to track its connection.
    StreamMemory = "stream_memory", "engine.stream.memcap-policy", "stream memcap",
    /// There is no memory to put its connection's data together.
    ReassemblyMemory = "reassembly_memory", "engine.stream.reassembly.memcap-policy",
        "stream reassembly",
    /// Rules have given up on it, or were not asked: they would have taken too long.
    InspectionLimit = "inspection_limit", "exceptions.inspection_limit", "inspection limit",
    /// What its application says cannot be read.
    AppLayerError = "app_layer_error", "engine.app-layer.error-policy", "applayer error",
}

impl Cause {
    /// Whether `auto` means the flow: one whose beginning was not inspected cannot be inspected
    /// later either.
    const fn concerns_flow(self) -> bool {
        matches!(
            self,
            Self::Quarantine
                | Self::Midstream
                | Self::StreamMemory
                | Self::ReassemblyMemory
                | Self::AppLayerError
        )
    }

    /// Whether each packet that is dropped gets a record. The others come in floods, or just
    /// when there is too much to do.
    pub const fn records_drops(self) -> bool {
        matches!(
            self,
            Self::Undecodable | Self::Midstream | Self::InspectionLimit | Self::AppLayerError
        )
    }

    /// What can be done, and why nothing else can.
    const fn allows(self) -> (&'static [ExceptionPolicy], &'static str) {
        use ExceptionPolicy::{Bypass, DropFlow, DropPacket, Ignore, PassFlow, PassPacket, Reject};
        match self {
            Self::WorkerDeath => (
                &[DropPacket, PassPacket],
                "only the number of such a packet is known",
            ),
            Self::Undecodable => (
                &[DropPacket, PassPacket, Ignore],
                "such a packet says nothing reliable about its flow",
            ),
            Self::Quarantine => (
                &[DropPacket, DropFlow, Reject, Bypass, PassPacket, PassFlow],
                "inspecting the flow would kill the next worker",
            ),
            Self::Overload => (
                &[DropPacket, DropFlow, Bypass, PassPacket, PassFlow, Ignore],
                "telling the senders is more work than inspecting",
            ),
            Self::FlowMemory => (
                &[DropPacket, Reject, PassPacket, Ignore],
                "there is no room to remember the flow",
            ),
            Self::DefragMemory => (
                &[DropPacket, PassPacket, Ignore],
                "a fragment alone says nothing reliable about its flow",
            ),
            Self::FragmentOrder => (
                &[DropPacket, Ignore],
                "what is let through belongs to a datagram that is inspected, or to none",
            ),
            Self::Midstream => (
                &[DropFlow, Reject, Bypass, PassFlow, Ignore],
                "every packet of the connection is one",
            ),
            Self::StreamMemory
            | Self::ReassemblyMemory
            | Self::InspectionLimit
            | Self::AppLayerError => (
                &[
                    DropPacket, DropFlow, Reject, Bypass, PassPacket, PassFlow, Ignore,
                ],
                "",
            ),
        }
    }
}

/// What is done for each cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Treatments([Treatment; Cause::ALL.len()]);

impl Treatments {
    /// Every cause with its policy.
    pub fn new(policy: impl Fn(Cause) -> Treatment) -> Self {
        let mut treatments = Self::default();
        for &cause in Cause::ALL {
            treatments.0[cause as usize] = policy(cause);
        }
        treatments
    }

    /// What the engine's settings say, in a run that can (`ips`) or cannot drop packets. What is
    /// not in them is ignored.
    pub fn of_engine(settings: &EngineSettings, ips: bool) -> Self {
        let treatment = |policy| settings.treatment(policy, ips);
        Self::new(|cause| match cause {
            Cause::FlowMemory => treatment(PolicyOf::FlowMemory),
            Cause::DefragMemory => treatment(PolicyOf::DefragMemory),
            Cause::Midstream => treatment(PolicyOf::Midstream),
            Cause::StreamMemory => treatment(PolicyOf::StreamMemory),
            Cause::ReassemblyMemory => treatment(PolicyOf::ReassemblyMemory),
            Cause::AppLayerError => treatment(PolicyOf::AppLayerError),
            Cause::WorkerDeath
            | Cause::Undecodable
            | Cause::Quarantine
            | Cause::Overload
            | Cause::FragmentOrder
            | Cause::InspectionLimit => Treatment::Ignore,
        })
    }

    /// The treatment of a cause.
    pub const fn of(&self, cause: Cause) -> Treatment {
        self.0[cause as usize]
    }

    /// The same with another treatment of one cause.
    pub const fn with(mut self, cause: Cause, treatment: Treatment) -> Self {
        self.0[cause as usize] = treatment;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_follows_the_fail_policy_at_the_scope_that_suits_the_cause() {
        for (cause, open, closed) in [
            (
                Cause::WorkerDeath,
                Treatment::PassPacket,
                Treatment::DropPacket,
            ),
            (
                Cause::Undecodable,
                Treatment::PassPacket,
                Treatment::DropPacket,
            ),
            (
                Cause::Overload,
                Treatment::PassPacket,
                Treatment::DropPacket,
            ),
            (
                Cause::FlowMemory,
                Treatment::PassPacket,
                Treatment::DropPacket,
            ),
            (Cause::Quarantine, Treatment::PassFlow, Treatment::DropFlow),
        ] {
            let auto = |fail| ExceptionPolicy::Auto.resolve(cause, fail);
            assert_eq!(
                (auto(Fail::Open), auto(Fail::Closed)),
                (open, closed),
                "{cause:?}"
            );
            for treatment in [open, closed] {
                let named = [
                    ExceptionPolicy::PassPacket,
                    ExceptionPolicy::PassFlow,
                    ExceptionPolicy::DropPacket,
                    ExceptionPolicy::DropFlow,
                ];
                let named = named.into_iter().find(|it| it.fixed() == Some(treatment));
                assert_eq!(named.unwrap().check(cause), Ok(()), "{cause:?} {treatment}");
            }
        }
    }

    #[test]
    fn a_named_policy_is_what_it_says_whatever_fail_says() {
        for fail in [Fail::Open, Fail::Closed] {
            let treatment = ExceptionPolicy::Reject.resolve(Cause::Quarantine, fail);
            assert_eq!(treatment, Treatment::Reject);
            assert_eq!(treatment.disposition(), Some(Disposition::Drop));
            assert!(treatment.covers_flow());
        }
        assert_eq!(Treatment::Ignore.disposition(), None);
        assert!(!Treatment::PassPacket.covers_flow());
    }

    #[test]
    fn causes_are_kept_apart() {
        for (position, &cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(position, cause as usize);
            assert_eq!(Cause::of_code(cause.code()), Some(cause));
            let same = |other: &&Cause| other.key() == cause.key() || other.name() == cause.name();
            assert_eq!(Cause::ALL.iter().filter(same).count(), 1, "{cause:?}");
            let treatments = Treatments::default().with(cause, Treatment::Bypass);
            let changed = |it: &&Cause| treatments.of(**it) == Treatment::Bypass;
            assert_eq!(Cause::ALL.iter().filter(changed).count(), 1);
        }
        assert_eq!(Cause::of_code(Cause::ALL.len() as u32), None);
    }
}
