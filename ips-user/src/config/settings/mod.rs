//! What the inspection engine can be told: settings under the names that Suricata's
//! configuration has for them, with the values of its stock configuration as defaults.
//!
//! In `sluice.toml` they stand under `[engine]`; [`EngineSettings::set`] takes dotted names, as
//! `--set` does. Reference: <https://docs.suricata.io/en/suricata-8.0.4/configuration/>.

use std::path::PathBuf;

use serde_json::Value;
use thiserror::Error;

mod app_layer;
mod file_store;
mod memory;
mod node;
mod outputs;
mod packets;
mod policy;
mod smtp;
mod stream;
mod value;
mod variables;

use node::{Fault, Node, settings};
use value::choice;

pub use app_layer::{
    AppLayer, BodyInline, DetectionPorts, Dns, DnsTransport, Enabled, FurtherPorts, Hassh, Http,
    HttpServer, Libhtp, Listened, Personality, Protocols, Ssh,
};
pub use file_store::{FileStore, Storing};
pub use memory::{Defrag, Flow, FlowTimeouts, FlowTimes, Table};
pub use outputs::{
    AlertMetadata, AlertRecords, AnomalyRecords, Deployment, DropFlows, DropRecords, EveLog,
    EveOutputs, EveTypes, FlowRecords, Forwarded, ForwardedMode, Records, Rotation, StatsRecords,
    Syslog, SyslogFacility, SyslogLevel, To,
};
pub use packets::{
    ChecksumChecks, Decoder, HostPolicies, Network, OsPolicy, PcapFile, PortDecoder, Tracking,
};
pub use policy::PolicyOf;
pub use smtp::{BodyMd5, Smtp, SmtpMime, SmtpTracker};
pub use stream::{Inline, Midstream, Reassembly, Stream, Urgent, UrgentLimitPolicy, UrgentPolicy};
pub use value::{ByteSize, Seconds};
pub use variables::Variables;

use crate::exception::ExceptionPolicy;

settings! {
    /// Everything about the engine.
    pub EngineSettings {
        /// Address and port groups of rules.
        vars("vars"): Variables = Variables::default(),
        /// TCP streams.
        stream("stream"): Stream = Stream::default(),
        /// Fragments.
        defrag("defrag"): Defrag = Defrag::default(),
        /// Flows.
        flow("flow"): Flow = Flow::default(),
        /// How long flows are kept.
        flow_timeouts("flow-timeouts"): FlowTimeouts = FlowTimeouts::default(),
        /// What is known about hosts.
        host("host"): Table = Table::default(),
        /// What is known about pairs of hosts.
        ippair("ippair"): Table = Table::default(),
        /// Whose stack decides how overlaps are read.
        host_os_policy("host-os-policy"): HostPolicies = HostPolicies::default(),
        /// Protocols below TCP and UDP.
        decoder("decoder"): Decoder = Decoder::default(),
        /// VLAN tags.
        vlan("vlan"): Tracking = Tracking::default(),
        /// Captures.
        pcap_file("pcap-file"): PcapFile = PcapFile::default(),
        /// What happens when something cannot be inspected, where nothing more specific is set.
        exception_policy("exception-policy"): ExceptionPolicy = ExceptionPolicy::Auto,
        /// Application protocols.
        app_layer("app-layer"): AppLayer = AppLayer::default(),
        /// Which actions go first.
        action_order("action-order"): Vec<ActionName> =
            vec![ActionName::Pass, ActionName::Drop, ActionName::Reject, ActionName::Alert],
        /// Thresholds and suppressions beside the rules; empty for none.
        threshold_file("threshold-file"): PathBuf = PathBuf::new(),
        /// Classes of rules; empty for the built-in ones.
        classification_file("classification-file"): PathBuf = PathBuf::new(),
        /// Systems that references point to; empty for the built-in ones.
        reference_config_file("reference-config-file"): PathBuf = PathBuf::new(),
        /// Names of the categories of reputation files.
        reputation_categories_file("reputation-categories-file"): PathBuf = PathBuf::new(),
        /// Where reputation files are.
        default_reputation_path("default-reputation-path"): PathBuf = PathBuf::new(),
        /// Reputations of addresses.
        reputation_files("reputation-files"): Vec<PathBuf> = Vec::new(),
        /// GeoIP2 database of the `geoip` keyword.
        geoip_database("geoip-database"): PathBuf = PathBuf::new(),
        /// Most alerts of one packet.
        packet_alert_max("packet-alert-max"): u16 = 15,
        /// Detection.
        detect("detect"): Detect = Detect::default(),
        /// Bounds of regular expressions.
        pcre("pcre"): Pcre = Pcre::default(),
        /// Counters.
        stats("stats"): Stats = Stats::default(),
        /// Records and where they go.
        outputs("outputs"): EveOutputs = EveOutputs::default(),
    }
}

settings! {
    /// `detect`
    pub Detect {
        /// Rules that are chosen by more than their contents.
        prefilter("prefilter"): Prefilter = Prefilter::default(),
        /// Steps in one rule's contents before it is given up.
        inspection_recursion_limit("inspection-recursion-limit"): u32 = 100_000,
        /// Whether compiled patterns are kept on disk from start to start.
        sgh_mpm_caching("sgh-mpm-caching"): bool = true,
        /// Where; made when it is not there.
        sgh_mpm_caching_path("sgh-mpm-caching-path"): PathBuf = PathBuf::from("/var/cache/sluice"),
        /// Whether an alert without a transaction gets the only one that there is.
        guess_applayer_tx("guess-applayer-tx"): bool = false,
        /// Matches that are counted by address.
        thresholds("thresholds"): Thresholds = Thresholds::default(),
    }
}

settings! {
    /// `detect.thresholds`
    pub Thresholds {
        /// Most memory.
        memcap("memcap"): ByteSize = ByteSize::mib(16),
    }
}

settings! {
    /// `detect.prefilter`
    pub Prefilter {
        /// By what rules are chosen.
        default("default"): PrefilterDefault = PrefilterDefault::Mpm,
    }
}

choice! {
    /// `detect.prefilter.default`
    pub PrefilterDefault {
        /// Contents only.
        Mpm = "mpm",
        /// Whatever a rule has.
        Auto = "auto",
    }
}

choice! {
    /// An action in `action-order`.
    pub ActionName {
        /// `pass`
        Pass = "pass",
        /// `drop`
        Drop = "drop",
        /// `reject` and its kin.
        Reject = "reject",
        /// `alert`
        Alert = "alert",
    }
}

settings! {
    /// `pcre`
    pub Pcre {
        /// Steps of one match.
        match_limit("match-limit"): u32 = 3500,
        /// Depth of one match.
        match_limit_recursion("match-limit-recursion"): u32 = 1500,
    }
}

settings! {
    /// `stats`
    pub Stats {
        /// Whether counters are written.
        enabled("enabled"): bool = true,
        /// Whether each decoder event is counted.
        decoder_events("decoder-events"): bool = true,
        /// Under which name.
        decoder_events_prefix("decoder-events-prefix"): String = "decoder.event".into(),
        /// Whether each stream event is counted.
        stream_events("stream-events"): bool = false,
    }
}

/// Why a setting was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingError {
    /// Nothing here has this name. Suricata may know it.
    #[error("{name}: no such setting")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The value cannot be.
    #[error("{name}: {message}")]
    Wrong {
        /// The setting.
        name: String,
        /// What is expected, and what was given.
        message: String,
    },
}

/// Settings of Suricata about which there is nothing to decide here: tables grow as they are
/// needed, rules are grouped in one way, tunnels of IP in IP are always looked into, and
/// `log.stats_seconds` says how often there are figures.
const WITHOUT_EFFECT: &[&str] = &[
    "capture",
    "decoder.ipv4.ipip",
    "decoder.ipv6.ipip-ipv4",
    "decoder.ipv6.ipip-ipv6",
    "defrag.hash-size",
    "defrag.prealloc",
    "detect.custom-values",
    "detect.grouping",
    "detect.profile",
    "detect.profiling",
    "detect.sgh-mpm-context",
    "flow.hash-size",
    "flow.managers",
    "flow.prealloc",
    "flow.recyclers",
    "host-mode",
    "host.hash-size",
    "host.prealloc",
    "ippair.hash-size",
    "ippair.prealloc",
    "legacy.uricontent",
    "mpm-algo",
    "spm-algo",
    "stats.interval",
    "stream.prealloc-sessions",
    "stream.reassembly.segment-prealloc",
];

/// Whether Suricata has a setting of this name that means nothing here.
pub fn is_without_effect(name: &str) -> bool {
    WITHOUT_EFFECT.iter().any(|known| {
        name.strip_prefix(known)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

impl EngineSettings {
    /// Suricata's stock configuration in everything, records included.
    pub fn stock() -> Self {
        Self {
            outputs: EveOutputs::stock(),
            ..Self::default()
        }
    }

    /// The same as a gateway uses them: what is `auto` because it depends on that is decided.
    pub fn live(mut self) -> Self {
        if self.stream.midstream == Midstream::Auto {
            self.stream.midstream = Midstream::Yes;
        }
        self
    }

    /// Sets what has the dotted `name`. Lists and tables are JSON; scalars may be.
    ///
    /// # Errors
    /// See [`SettingError`]; nothing is changed then.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), SettingError> {
        // What only looks like JSON, such as `[10.0.0.0/8]`, is text.
        let value = match text.trim_start().starts_with(['[', '{', '"']) {
            true => serde_json::from_str(text).ok(),
            false => None,
        };
        self.set_value(
            name,
            &value.unwrap_or_else(|| Value::String(text.to_owned())),
        )
    }

    /// The same with a value that is typed already.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn set_value(&mut self, name: &str, value: &Value) -> Result<(), SettingError> {
        let path: Vec<&str> = name.split('.').collect();
        let mut changed = self.clone();
        match changed.node(&path, value) {
            Ok(()) => {
                *self = changed;
                Ok(())
            }
            Err(Fault::Unknown) => Err(SettingError::Unknown { name: name.into() }),
            Err(Fault::Wrong(message)) => Err(SettingError::Wrong {
                name: name.into(),
                message,
            }),
        }
    }

    fn node(&mut self, path: &[&str], value: &Value) -> Result<(), Fault> {
        Node::set(self, path, value)?;
        self.validate().map_err(Fault::Wrong)
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// What is wrong, with the setting's name.
    pub fn validate(&self) -> Result<(), String> {
        let mut seen = Vec::new();
        for action in &self.action_order {
            if seen.contains(action) {
                return Err(format!("action-order: {action:?} stands there twice"));
            }
            seen.push(*action);
        }
        if seen.len() != 4 {
            return Err("action-order: expected all of pass, drop, reject and alert".into());
        }
        self.check_policies()
    }
}

#[cfg(test)]
mod tests;
