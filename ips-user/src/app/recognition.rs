//! Which protocol it is, by the first bytes of either direction.

use super::options::AppOptions;
use super::protocol::AppProtocol;
use super::{dns, http1, smtp, ssh, tls};
use crate::flow::PacketDirection;
use crate::rules::PortSet;

/// The ports of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Of the client.
    pub client: u16,
    /// Of the server.
    pub server: u16,
}

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Is(AppProtocol),
    /// More may tell.
    Unclear,
    /// None of those that are known.
    None,
}

/// IANA's: NetBIOS names, multicast DNS, LLMNR. Their messages look like those of DNS.
const LIKE_DNS: [u16; 3] = [137, 5353, 5355];

impl Ports {
    fn are_any_of(self, ports: &PortSet) -> bool {
        ports.contains(self.client) || ports.contains(self.server)
    }
}

/// A flow's first datagram of a direction.
pub(super) fn datagram(
    direction: PacketDirection,
    payload: &[u8],
    ports: Ports,
    options: &AppOptions,
) -> Answer {
    let on_its_port = ports.are_any_of(&options.dns.udp);
    let other = LIKE_DNS
        .iter()
        .any(|it| [ports.client, ports.server].contains(it));
    let dns = match other && !on_its_port {
        true => Some(false),
        false => dns::begins(direction, payload, !on_its_port),
    };
    match choose(&[(dns, AppProtocol::Dns)], options) {
        // Nothing is added to a datagram.
        Answer::Unclear => Answer::None,
        answer => answer,
    }
}

/// What there is of a direction of a stream.
pub(super) fn stream(
    direction: PacketDirection,
    data: &[u8],
    ports: Ports,
    options: &AppOptions,
) -> Answer {
    let found = [
        (http1::begins(direction, data), AppProtocol::Http1),
        (tls::begins(direction, data), AppProtocol::Tls),
        (ssh::begins(data), AppProtocol::Ssh),
        (smtp::begins(direction, data, ports), AppProtocol::Smtp),
        (
            dns::begins_stream(direction, data, !ports.are_any_of(&options.dns.tcp)),
            AppProtocol::Dns,
        ),
    ];
    choose(&found, options)
}

/// The first that it is, of those that are looked for.
fn choose(found: &[(Option<bool>, AppProtocol)], options: &AppOptions) -> Answer {
    let mut wanted = found.iter().filter(|(_, it)| options.looks_for(*it));
    if let Some((_, protocol)) = wanted.clone().find(|(begins, _)| *begins == Some(true)) {
        return Answer::Is(*protocol);
    }
    match wanted.any(|(begins, _)| begins.is_none()) {
        true => Answer::Unclear,
        false => Answer::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::EngineSettings;

    /// A question for a name.
    const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";

    fn check(server: u16, settings: &[(&str, &str)], expected: Answer) {
        let mut engine = EngineSettings::default();
        for (name, value) in settings {
            engine.set(name, value).unwrap();
        }
        let options = AppOptions::configured(&engine, true);
        let ports = Ports {
            client: 40_000,
            server,
        };
        let answer = datagram(PacketDirection::ToServer, QUESTION, ports, &options);
        assert_eq!(answer, expected, "{server} {settings:?}");
    }

    #[test]
    fn what_looks_like_dns_is_not_when_its_port_is_of_something_else() {
        let dns = Answer::Is(AppProtocol::Dns);
        check(53, &[], dns);
        check(4000, &[], dns);
        for port in LIKE_DNS {
            check(port, &[], Answer::None);
            let port_list = format!("53, {port}");
            let own = (
                "app-layer.protocols.dns.udp.detection-ports.dp",
                &*port_list,
            );
            check(port, &[own], dns);
        }
    }
}
