//! stub
pub use crate::flow::Timestamp;
use crate::source::{Packet, Verdict};
use ips_common::FlowKey;
pub trait EventSink {
    fn emit(&mut self, line: &[u8]);
}
pub trait RejectSender {
    fn send(&mut self, packet: &[u8], to: std::net::IpAddr);
}
pub trait Feedback {
    fn convict(&mut self, key: &FlowKey, signature_id: u32);
}
pub struct Inspection<S, R, F> {
    pub s: S,
    pub r: R,
    pub f: F,
}
impl<S: EventSink, R: RejectSender, F: Feedback> Inspection<S, R, F> {
    pub fn inspect(&mut self, _p: Packet<'_>, _now: Timestamp) -> Verdict {
        Verdict::ACCEPT
    }
}
