//! The `stats` record at the end of a replay.

use serde_json::{Map, Value, json};

use crate::app::AppProtocol;
use crate::config::settings::Stats;
use crate::detect::TableUse;
use crate::exception::Cause;
use crate::inspection::InspectionCounters;
use crate::metrics::figures;

/// The tree under `stats`, with Suricata's names (user guide, "Statistics").
pub(super) fn stats(counters: &InspectionCounters, counts: &[u64], settings: &Stats) -> Value {
    let mut tree = Map::new();
    let mut put = |name: &str, value: Value| tree.insert(name.to_owned(), value);
    put(
        "decoder",
        json!({
            "pkts": counters.packets,
            "bytes": counters.bytes,
            "invalid": counters.invalid.total(),
        }),
    );
    put(
        "flow",
        json!({
            "total": counters.flows.created,
            "active": counters.flows.current,
            "tcp_reuse": counters.flows.reused,
            "midstream": counters.flows.midstream,
            "memuse": counters.flows.memuse,
            "memcap": counters.flows.refused,
            "get_used": counters.flows.evicted,
            "emerg_mode_entered": counters.flows.emergencies,
            "emerg_mode_over": counters.flows.recoveries,
            "values_not_kept": counters.flows.unnoted,
        }),
    );
    put(
        "ips",
        json!({
            "accepted": counters.accepted,
            "blocked": counters.dropped,
            "rejected": counters.rejected,
            "replaced": counters.replaced,
            "drop_reason": {
                "rules": counters.rule_dropped,
                "flow_drop": counters.flow_dropped,
                "defrag_error": counters.fragments_refused,
                "stream_error": counters.stream_dropped,
            },
        }),
    );
    let defrag = &counters.defrag;
    put(
        "defrag",
        json!({
            "memuse": defrag.memory,
            "memuse_max": defrag.memory_max,
            "memcap_reached": defrag.memcap_reached,
            "max_trackers_reached": defrag.max_trackers_reached,
            "max_frags_reached": defrag.max_fragments_reached,
        }),
    );
    let table = |of: TableUse| json!({ "memuse": of.memuse, "memuse_max": of.memuse_max, "memcap": of.refused });
    put("host", table(counters.tables.hosts));
    put("ippair", table(counters.tables.pairs));
    put(
        "detect",
        json!({
            "thresholds": table(counters.tables.thresholds),
            "alert": counters.alerts,
            "alerts_suppressed": counters.alerts_suppressed,
            "searches_given_up": counters.searches_given_up,
            "out_of_time": counters.out_of_time,
        }),
    );
    for (name, count) in counters.stream.iter() {
        figures::put(&mut tree, name, count);
    }
    for cause in Cause::ALL {
        let exceptions = &counters.exceptions;
        for (group, count) in [
            ("exception_policy", exceptions.applied(*cause)),
            ("ips.exception_drops", exceptions.dropped(*cause)),
        ] {
            figures::put(&mut tree, &format!("{group}.{}", cause.name()), count);
        }
    }
    figures::tree(counts, settings, &mut tree);
    let applications = &counters.applications;
    for (protocol, bytes) in AppProtocol::ALL.iter().zip(applications.of) {
        let name = protocol.name();
        figures::put(&mut tree, &format!("{name}.memuse"), bytes);
        let refused = figures::memory_refused(counts, *protocol);
        figures::put(&mut tree, &format!("{name}.memcap"), refused);
    }
    figures::put(&mut tree, "app_layer.memuse", applications.memuse);
    figures::put(&mut tree, "app_layer.memuse_max", applications.memuse_max);
    Value::Object(tree)
}
