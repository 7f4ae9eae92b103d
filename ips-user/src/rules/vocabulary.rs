//! The words of a rule's header.

use super::ast::{Action, RejectTarget, RuleProtocol};

/// What the first word of a rule says.
#[derive(Clone, Copy, Debug)]
pub(super) enum RuleAction {
    /// It does this.
    Acts(Action),
    /// `config`: it changes what is recorded, and reports nothing.
    Config,
}

pub(super) const ACTIONS: [(&str, RuleAction); 8] = [
    ("alert", RuleAction::Acts(Action::Alert)),
    ("pass", RuleAction::Acts(Action::Pass)),
    ("drop", RuleAction::Acts(Action::Drop)),
    (
        "reject",
        RuleAction::Acts(Action::Reject(RejectTarget::Source)),
    ),
    (
        "rejectsrc",
        RuleAction::Acts(Action::Reject(RejectTarget::Source)),
    ),
    (
        "rejectdst",
        RuleAction::Acts(Action::Reject(RejectTarget::Destination)),
    ),
    (
        "rejectboth",
        RuleAction::Acts(Action::Reject(RejectTarget::Both)),
    ),
    ("config", RuleAction::Config),
];

/// Actions that are known but cannot be used, and why.
pub(super) const ACTIONS_OF_OTHERS: [(&str, &str); 7] = [
    ("accept", "the firewall mode is not supported yet"),
    ("log", "only Snort has this action"),
    ("sdrop", "only Snort has this action"),
    ("block", "only Snort has this action"),
    ("rewrite", "only Snort has this action"),
    ("activate", "only Snort has this action"),
    ("dynamic", "only Snort has this action"),
];

pub(super) const PROTOCOLS: [(&str, RuleProtocol); 17] = [
    ("tcp", RuleProtocol::Tcp),
    ("udp", RuleProtocol::Udp),
    ("icmp", RuleProtocol::Icmp),
    ("ip", RuleProtocol::Ip),
    ("tcp-pkt", RuleProtocol::TcpPacket),
    ("tcp-stream", RuleProtocol::TcpStream),
    ("sctp", RuleProtocol::Sctp),
    ("icmpv4", RuleProtocol::Icmpv4),
    ("icmpv6", RuleProtocol::Icmpv6),
    ("igmp", RuleProtocol::Igmp),
    ("ipv4", RuleProtocol::Ipv4),
    ("ip4", RuleProtocol::Ipv4),
    ("ipv6", RuleProtocol::Ipv6),
    ("ip6", RuleProtocol::Ipv6),
    ("pkthdr", RuleProtocol::PacketHeader),
    ("ether", RuleProtocol::Ethernet),
    ("arp", RuleProtocol::Arp),
];

/// Application protocols as rules name them, and the name that stands for all of the same.
pub(super) const APP_PROTOCOLS: [(&str, &str); 42] = [
    ("http", "http"),
    ("tls", "tls"),
    ("dns", "dns"),
    ("smb", "smb"),
    ("ssh", "ssh"),
    ("smtp", "smtp"),
    ("ftp", "ftp"),
    ("ssl", "tls"),
    ("http1", "http1"),
    ("http2", "http2"),
    ("doh2", "doh2"),
    ("ftp-data", "ftp-data"),
    ("bittorrent-dht", "bittorrent-dht"),
    ("dcerpc", "dcerpc"),
    ("dhcp", "dhcp"),
    ("dnp3", "dnp3"),
    ("enip", "enip"),
    ("ike", "ike"),
    ("ikev2", "ike"),
    ("imap", "imap"),
    ("irc", "irc"),
    ("jabber", "jabber"),
    ("krb5", "krb5"),
    ("ldap", "ldap"),
    ("mdns", "mdns"),
    ("modbus", "modbus"),
    ("mqtt", "mqtt"),
    ("msn", "msn"),
    ("nfs", "nfs"),
    ("ntp", "ntp"),
    ("pgsql", "pgsql"),
    ("pop3", "pop3"),
    ("quic", "quic"),
    ("rdp", "rdp"),
    ("rfb", "rfb"),
    ("rfs", "rfs"),
    ("sip", "sip"),
    ("snmp", "snmp"),
    ("telnet", "telnet"),
    ("template", "template"),
    ("tftp", "tftp"),
    ("websocket", "websocket"),
];
