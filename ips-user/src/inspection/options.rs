//! How packets are inspected, and what of a configuration says so.

use std::collections::BTreeMap;

use crate::app::AppOptions;
use crate::config::Config;
use crate::config::settings::{ChecksumChecks, EngineSettings, Records};
use crate::decode::{ChecksumMode, DecodeOptions};
use crate::detect::TableLimits;
use crate::exception::{Cause, Treatment, Treatments};
use crate::flow::FlowLimits;
use crate::reassembly::defrag::DefragOptions;
use crate::reassembly::tcp::StreamOptions;
use crate::source::Disposition;
use crate::verdict::DropScope;

/// How packets are inspected.
#[derive(Clone, Debug)]
pub struct InspectionOptions {
    /// How frames are decoded.
    pub decode: DecodeOptions,
    /// How fragments are put together.
    pub defrag: DefragOptions,
    /// How TCP connections are tracked and put together.
    pub stream: StreamOptions,
    /// How applications are listened to.
    pub app: AppOptions,
    /// What happens to packets that cannot be inspected as they should be.
    pub exceptions: Treatments,
    /// Under a first level of overload, flows are shed of which so many bytes were inspected and
    /// no rule has matched.
    pub shed_first_bytes: u64,
    /// How far a drop reaches.
    pub drop_scope: DropScope,
    /// Bounds of the flow table.
    pub flows: FlowLimits,
    /// Bounds of what rules remember beyond flows.
    pub tables: TableLimits,
    /// Whether packets can be dropped. Otherwise rules that would only report.
    pub ips: bool,
    /// Packets come from a capture: what is dropped of them has reached its receiver all the same,
    /// and the packets after it show that.
    pub delivered: bool,
    /// Secret of the flow table and of the flow ids: random, different for each worker.
    pub seed: [u64; 2],
    /// Whether dropped TCP flows are convicted.
    pub convict: bool,
    /// Which records are made, and what is in them.
    pub records: Records,
    /// Whether the alert of a rule that is not about transactions shows the only one that there is.
    pub guess_transaction: bool,
    /// The capture that packets come from, if from one: their ids are their numbers in it.
    pub capture: Option<String>,
    /// Interface names by index, for records.
    pub interfaces: BTreeMap<u32, String>,
    /// Offset of local time from UTC in seconds, for records.
    pub utc_offset_s: i32,
}

impl Default for InspectionOptions {
    fn default() -> Self {
        Self {
            decode: DecodeOptions::default(),
            defrag: DefragOptions::default(),
            stream: StreamOptions {
                inline: true,
                midstream: true,
                ..StreamOptions::default()
            },
            app: AppOptions::default(),
            exceptions: Treatments::default(),
            shed_first_bytes: 0,
            drop_scope: DropScope::default(),
            flows: FlowLimits::default(),
            tables: TableLimits::default(),
            ips: true,
            delivered: false,
            seed: [0; 2],
            convict: true,
            records: Records::default(),
            guess_transaction: false,
            capture: None,
            interfaces: BTreeMap::new(),
            utc_offset_s: 0,
        }
    }
}

impl InspectionOptions {
    /// Those of a worker, but for what it finds out at its start: seed, interfaces, time zone.
    ///
    /// # Errors
    /// When a setting of the decoder is no such thing: a sentence that names it.
    pub fn of_worker(config: &Config) -> Result<Self, String> {
        let settings = config.engine_settings();
        let order = config.treatments().of(Cause::FragmentOrder);
        Ok(Self {
            // The kernel says itself which checksums mean anything.
            decode: DecodeOptions::new(&settings, ChecksumMode::Verify)?,
            defrag: DefragOptions {
                // A worker sees its part of the traffic only.
                ordered: order.disposition() == Some(Disposition::Drop),
                ..DefragOptions::new(&settings, true)
            },
            stream: StreamOptions::configured(&settings, true),
            app: AppOptions::configured(&settings, true),
            exceptions: config.treatments(),
            shed_first_bytes: config.overload.shed_first_bytes,
            flows: config.flow_limits(),
            tables: TableLimits::configured(&settings),
            convict: config.conviction.enabled,
            records: settings.records(),
            guess_transaction: settings.detect.guess_applayer_tx,
            ..Self::default()
        })
    }

    /// Those of a replay, which can (`ips`) or cannot drop packets.
    ///
    /// # Errors
    /// As [`Self::of_worker`].
    pub fn of_replay(settings: &EngineSettings, ips: bool) -> Result<Self, String> {
        let checksums = match settings.pcap_file.checksum_checks {
            ChecksumChecks::No => ChecksumMode::Ignore,
            ChecksumChecks::Auto => ChecksumMode::Auto,
            ChecksumChecks::Yes => ChecksumMode::Verify,
        };
        let exceptions = Treatments::of_engine(settings, ips);
        let spares = exceptions.of(Cause::FlowMemory) != Treatment::Ignore;
        Ok(Self {
            decode: DecodeOptions::new(settings, checksums)?,
            defrag: DefragOptions::new(settings, ips),
            stream: StreamOptions::configured(settings, ips),
            app: AppOptions::configured(settings, ips),
            // What cannot be decoded has its events, and rules for them.
            exceptions,
            flows: FlowLimits::configured(settings, spares),
            tables: TableLimits::configured(settings),
            ips,
            delivered: true,
            convict: false,
            records: settings.records(),
            guess_transaction: settings.detect.guess_applayer_tx,
            ..Self::default()
        })
    }
}
