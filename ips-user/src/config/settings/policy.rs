//! Which exception policy holds where: Suricata's user guide, "Exception Policies".

use serde::Deserialize;
use serde_json::Value;

use super::EngineSettings;
use super::node::{Fault, Leaf};
use crate::exception::{ExceptionPolicy, Treatment};

impl Leaf for ExceptionPolicy {
    fn parse(value: &Value) -> Result<Self, Fault> {
        Self::deserialize(value).map_err(|error| Fault::Wrong(error.to_string()))
    }
}

/// What an exception policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyOf {
    /// `stream.memcap-policy`
    StreamMemory,
    /// `stream.reassembly.memcap-policy`
    ReassemblyMemory,
    /// `stream.midstream-policy`
    Midstream,
    /// `flow.memcap-policy`
    FlowMemory,
    /// `defrag.memcap-policy`
    DefragMemory,
    /// `app-layer.error-policy`
    AppLayerError,
}

impl PolicyOf {
    /// Whether there is a flow that it can be applied to.
    const fn has_flow(self) -> bool {
        !matches!(self, Self::FlowMemory | Self::DefragMemory)
    }
}

impl EngineSettings {
    /// What is done. `auto` of a setting is what `exception-policy` says; `auto` of that one
    /// drops in a run that can (`ips`), and does nothing otherwise, nor to a connection that is
    /// picked up midstream because `stream.midstream` says so.
    pub fn treatment(&self, of: PolicyOf, ips: bool) -> Treatment {
        let own = match of {
            PolicyOf::StreamMemory => self.stream.memcap_policy,
            PolicyOf::ReassemblyMemory => self.stream.reassembly.memcap_policy,
            PolicyOf::Midstream => self.stream.midstream_policy,
            PolicyOf::FlowMemory => self.flow.memcap_policy,
            PolicyOf::DefragMemory => self.defrag.memcap_policy,
            PolicyOf::AppLayerError => self.app_layer.error_policy,
        };
        let accepted = of == PolicyOf::Midstream && self.stream.follows_midstream();
        let policy = match own {
            ExceptionPolicy::Auto => match self.exception_policy {
                ExceptionPolicy::Auto if accepted => ExceptionPolicy::Ignore,
                // Not packet by packet: every packet of the connection is one.
                ExceptionPolicy::DropPacket | ExceptionPolicy::PassPacket if accepted => {
                    ExceptionPolicy::Ignore
                }
                ExceptionPolicy::Auto if ips => ExceptionPolicy::DropFlow,
                ExceptionPolicy::Auto => ExceptionPolicy::Ignore,
                policy => policy,
            },
            policy => policy,
        };
        match policy {
            ExceptionPolicy::DropFlow if !of.has_flow() => Treatment::DropPacket,
            ExceptionPolicy::PassFlow if !of.has_flow() => Treatment::PassPacket,
            ExceptionPolicy::Bypass if !of.has_flow() => Treatment::PassPacket,
            ExceptionPolicy::DropPacket => Treatment::DropPacket,
            ExceptionPolicy::DropFlow => Treatment::DropFlow,
            ExceptionPolicy::Reject => Treatment::Reject,
            ExceptionPolicy::Bypass => Treatment::Bypass,
            ExceptionPolicy::PassPacket => Treatment::PassPacket,
            ExceptionPolicy::PassFlow => Treatment::PassFlow,
            ExceptionPolicy::Ignore | ExceptionPolicy::Auto => Treatment::Ignore,
        }
    }

    pub(super) fn check_policies(&self) -> Result<(), String> {
        use ExceptionPolicy::{DropPacket, PassPacket};
        match self.stream.midstream_policy {
            policy @ (DropPacket | PassPacket) => Err(format!(
                "stream.midstream-policy: {policy} is not possible: every packet of the connection \
                 is one; use auto, drop-flow, reject, bypass, pass-flow, ignore"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(settings: &[(&str, &str)], of: PolicyOf, passive: Treatment, inline: Treatment) {
        let mut engine = EngineSettings::default();
        for (name, value) in settings {
            engine.set(name, value).unwrap();
        }
        let treatments = [false, true].map(|ips| engine.treatment(of, ips));
        assert_eq!(treatments, [passive, inline], "{settings:?} {of:?}");
    }

    #[test]
    fn auto_drops_where_it_can_and_as_much_as_it_can() {
        use Treatment::{DropFlow, DropPacket, Ignore};
        for of in [
            PolicyOf::StreamMemory,
            PolicyOf::ReassemblyMemory,
            PolicyOf::AppLayerError,
        ] {
            check(&[], of, Ignore, DropFlow);
        }
        for of in [PolicyOf::FlowMemory, PolicyOf::DefragMemory] {
            check(&[], of, Ignore, DropPacket);
        }
        check(&[], PolicyOf::Midstream, Ignore, DropFlow);
        check(
            &[("stream.midstream", "true")],
            PolicyOf::Midstream,
            Ignore,
            Ignore,
        );
    }

    #[test]
    fn the_master_switch_gives_way_to_what_is_said_about_one_thing() {
        use Treatment::{Bypass, DropFlow, Ignore, PassFlow, PassPacket};
        let master = ("exception-policy", "ignore");
        check(&[master], PolicyOf::AppLayerError, Ignore, Ignore);
        let own = ("app-layer.error-policy", "drop-flow");
        check(&[master, own], PolicyOf::AppLayerError, DropFlow, DropFlow);
        check(
            &[("exception-policy", "pass-flow")],
            PolicyOf::FlowMemory,
            PassPacket,
            PassPacket,
        );
        let midstream = [
            ("stream.midstream", "true"),
            ("stream.midstream-policy", "pass-flow"),
        ];
        check(&midstream, PolicyOf::Midstream, PassFlow, PassFlow);
        let midstream = [("stream.midstream", "true"), ("exception-policy", "bypass")];
        check(&midstream, PolicyOf::Midstream, Bypass, Bypass);
        let midstream = [
            ("stream.midstream", "true"),
            ("exception-policy", "drop-packet"),
        ];
        check(&midstream, PolicyOf::Midstream, Ignore, Ignore);
    }

    #[test]
    fn a_connection_cannot_be_refused_packet_by_packet() {
        let mut engine = EngineSettings::default();
        let error = engine
            .set("stream.midstream-policy", "drop-packet")
            .unwrap_err();
        assert!(
            error.to_string().contains("drop-packet is not possible"),
            "{error}"
        );
        assert_eq!(engine, EngineSettings::default());
    }
}
