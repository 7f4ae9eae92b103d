//! What an exception policy makes of a packet and its flow.

use super::Outcome;
use super::decision::says_nothing_about_its_flow;
use crate::decode::Decoded;
use crate::exception::{Cause, Treatment};
use crate::flow::{Flow, FlowAction};
use crate::rules::RejectTarget;

/// Applies `treatment` to a packet and, where the treatment covers it and the packet is the
/// flow's own, to its flow. `None` when the inspection of the packet goes on.
///
/// A rejection goes to the sender of the packet, as that of a `reject` rule does.
pub fn except(
    cause: Cause,
    treatment: Treatment,
    packet: &Decoded<'_>,
    flow: Option<&mut Flow>,
) -> Option<Outcome> {
    let outcome = match treatment {
        Treatment::Ignore => return None,
        Treatment::DropPacket | Treatment::DropFlow => Outcome::Drop,
        Treatment::Reject => Outcome::Reject(RejectTarget::Source),
        Treatment::Bypass | Treatment::PassPacket | Treatment::PassFlow => Outcome::Accept,
    };
    if treatment.covers_flow()
        && !says_nothing_about_its_flow(packet)
        && let Some(flow) = flow
    {
        if treatment == Treatment::Bypass {
            flow.bypass();
        } else if outcome.accepts() {
            flow.action = FlowAction::Pass;
        } else {
            flow.action = FlowAction::Refuse { cause };
        }
        if matches!(outcome, Outcome::Reject(_)) {
            flow.ends_told();
        }
    }
    Some(outcome)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::flow::{FlowLimits, FlowTable, TcpState, Timestamp};

    const REFUSED: FlowAction = FlowAction::Refuse {
        cause: Cause::Quarantine,
    };

    fn segment() -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 64)
            .tcp(1, 2, 3, 4)
            .write(&mut bytes, b"x")
            .unwrap();
        bytes
    }

    fn check(treatment: Treatment, outcome: Option<Outcome>, action: FlowAction, state: TcpState) {
        let bytes = segment();
        let packet = Decoded::parse(&bytes).unwrap();
        let mut table = FlowTable::new(FlowLimits::default(), [1, 2]);
        let (flow, _) = table
            .packet(&packet, Timestamp::default())
            .unwrap()
            .unwrap();
        let got = except(Cause::Quarantine, treatment, &packet, Some(flow));
        assert_eq!(
            (got, flow.action, flow.tcp),
            (outcome, action, state),
            "{treatment}"
        );
        assert_eq!(except(Cause::Quarantine, treatment, &packet, None), outcome);
    }

    #[test]
    fn each_policy_does_what_its_name_says_to_packet_and_flow() {
        let (drop, accept) = (Some(Outcome::Drop), Some(Outcome::Accept));
        let reject = Some(Outcome::Reject(RejectTarget::Source));
        let (inspect, pass) = (FlowAction::Inspect, FlowAction::Pass);
        let open = TcpState::Established;
        check(Treatment::DropPacket, drop, inspect, open);
        check(Treatment::DropFlow, drop, REFUSED, open);
        // Whoever was told may open a new connection on the same ports.
        check(Treatment::Reject, reject, REFUSED, TcpState::Closed);
        check(Treatment::Bypass, accept, pass, open);
        check(Treatment::PassPacket, accept, inspect, open);
        check(Treatment::PassFlow, accept, pass, open);
        check(Treatment::Ignore, None, inspect, open);
    }

    #[test]
    fn an_icmp_error_decides_nothing_about_the_flow_that_it_quotes() {
        let quoted = segment();
        let mut error = Vec::new();
        PacketBuilder::ipv4([2, 2, 2, 2], [1, 1, 1, 1], 64)
            .icmpv4_raw(3, 1, [0; 4])
            .write(&mut error, &quoted)
            .unwrap();
        let mut table = FlowTable::new(FlowLimits::default(), [1, 2]);
        let now = Timestamp::default();
        table
            .packet(&Decoded::parse(&quoted).unwrap(), now)
            .unwrap();
        let packet = Decoded::parse(&error).unwrap();
        for treatment in [Treatment::DropFlow, Treatment::PassFlow, Treatment::Reject] {
            let (flow, _) = table.packet(&packet, now).unwrap().unwrap();
            assert!(except(Cause::Overload, treatment, &packet, Some(flow)).is_some());
            assert_eq!(flow.action, FlowAction::Inspect, "{treatment}");
        }
    }
}
