//! The `stats` record at the end of a replay.

use serde_json::{Map, Value, json};

use crate::config::settings::Stats;
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
    put(
        "detect",
        json!({
            "alert": counters.alerts,
            "alerts_suppressed": counters.alerts_suppressed,
            "searches_given_up": counters.searches_given_up,
            "out_of_time": counters.out_of_time,
        }),
    );
    for (name, count) in counters.stream.iter() {
        figures::put(&mut tree, name, count);
    }
    figures::tree(counts, settings, &mut tree);
    Value::Object(tree)
}
