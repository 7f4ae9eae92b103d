//! The engine's settings as this stage uses them.

use super::options::{ReassemblyOptions, StreamOptions, UrgentPolicy};
use crate::config::settings::{self, EngineSettings, PolicyOf, UrgentLimitPolicy};
use crate::reassembly::host_policy::HostPolicyTable;

impl StreamOptions {
    /// What the settings say, in a run that can (`ips`) or cannot drop packets.
    pub fn configured(settings: &EngineSettings, ips: bool) -> Self {
        let stream = &settings.stream;
        let reassembly = &stream.reassembly;
        let size = |bytes: u64| bytes.clamp(1, u64::from(u32::MAX)) as u32;
        Self {
            inline: stream.is_inline(ips),
            midstream: stream.follows_midstream(),
            midstream_policy: settings.treatment(PolicyOf::Midstream, ips),
            async_oneside: stream.async_oneside,
            drop_invalid: stream.drop_invalid,
            bypass: stream.bypass,
            max_syn_queued: stream.max_syn_queued,
            max_synack_queued: stream.max_synack_queued,
            memcap: stream.memcap.0,
            memcap_policy: settings.treatment(PolicyOf::StreamMemory, ips),
            checksum_validation: stream.checksum_validation,
            liberal_timestamps: stream.liberal_timestamps,
            reassembly: ReassemblyOptions {
                memcap: reassembly.memcap.0,
                memcap_policy: settings.treatment(PolicyOf::ReassemblyMemory, ips),
                depth: reassembly.depth.0,
                toserver_chunk_size: size(reassembly.toserver_chunk_size.0),
                toclient_chunk_size: size(reassembly.toclient_chunk_size.0),
                randomize_chunk_size: reassembly.randomize_chunk_size,
                randomize_chunk_range: reassembly.randomize_chunk_range,
                raw: reassembly.raw,
                urgent: match reassembly.urgent.policy {
                    settings::UrgentPolicy::OutOfBand => UrgentPolicy::Oob,
                    settings::UrgentPolicy::Inline => UrgentPolicy::Inline,
                    settings::UrgentPolicy::Drop => UrgentPolicy::Drop,
                    settings::UrgentPolicy::Gap => UrgentPolicy::Gap,
                },
                urgent_oob_limit: match reassembly.urgent.oob_limit_policy {
                    UrgentLimitPolicy::Inline => UrgentPolicy::Inline,
                    UrgentLimitPolicy::Drop => UrgentPolicy::Drop,
                    UrgentLimitPolicy::Gap => UrgentPolicy::Gap,
                },
                max_regions: reassembly.max_regions.min(u32::from(u16::MAX)) as u16,
                check_overlap_different_data: reassembly.check_overlap_different_data,
                ..ReassemblyOptions::default()
            },
            hosts: HostPolicyTable::new(&settings.host_os_policy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exception::Treatment;

    #[test]
    fn stock_settings_are_the_defaults() {
        let settings = EngineSettings::default();
        let mut expect = StreamOptions::default();
        assert_eq!(StreamOptions::configured(&settings, false), expect);
        expect.inline = true;
        expect.midstream_policy = Treatment::DropFlow;
        expect.memcap_policy = Treatment::DropFlow;
        expect.reassembly.memcap_policy = Treatment::DropFlow;
        assert_eq!(StreamOptions::configured(&settings, true), expect);
    }
}
