//! For the fuzz targets: what `iptables-save` and `nft` have said.

use super::{nft_table, saved};

/// The output of `iptables-save`.
pub fn iptables_saved(text: &str) {
    let present = saved::Present::parse(text, "a");
    let _ = (present.describe(), present.listing(), present.mask());
    let _ = (present.gate("a"), present.has_queues(), present.is_empty());
}

/// The output of `nft -j list table`.
pub fn nft_listing(listing: &serde_json::Value) {
    let present = nft_table::Present::parse(listing);
    let _ = (present.listing(), present.queue_packets());
    let _ = (present.gate(), present.has_queues());
}
