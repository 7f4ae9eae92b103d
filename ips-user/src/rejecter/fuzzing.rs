//! For the fuzz targets: what the rejecter is asked to send.

use std::net::IpAddr;

/// Whether these bytes are a rejection, and to whom.
pub fn check(packet: &[u8]) -> Option<IpAddr> {
    super::request::check(packet).ok()
}
