//! What a case is: steps that a crafted sender takes, and what they are about.

use std::time::Duration;

use crate::segment::{Segment, ack, syn};
use crate::wire::Connection;

/// The string that no application may get whole.
pub(crate) const ATTACK: &[u8; LEN] = b"EVIL-attack:0123456789!?";
/// Its benign twin: as long, and with no two bytes in the same place.
pub(crate) const BENIGN: &[u8; LEN] = b"kind_BENIGN.abcdefghij#+";
/// Their length.
pub(crate) const LEN: usize = 24;

/// How the application listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    /// As most do.
    Plain,
    /// It takes data with the SYN (RFC 7413).
    FastOpen,
    /// It reads urgent data in line (SO_OOBINLINE).
    UrgentInline,
    /// Its buffer is small, and it does not read before it is told to.
    Slow,
    /// It does not listen but connects to us, from this port.
    Connecting,
    /// UDP.
    Datagrams,
}

impl Listener {
    pub(crate) const ALL: [Self; 6] = [
        Self::Plain,
        Self::FastOpen,
        Self::UrgentInline,
        Self::Slow,
        Self::Connecting,
        Self::Datagrams,
    ];

    /// Its port: the second one has a rule with `flow:established,to_server`.
    pub(crate) const fn port(self, by_flow: bool) -> u16 {
        let ports = match self {
            Self::Plain => 7000,
            Self::FastOpen => 7010,
            Self::UrgentInline => 7020,
            Self::Slow => 7030,
            Self::Connecting => 7040,
            Self::Datagrams => 7050,
        };
        ports + by_flow as u16
    }
}

/// Makes packets of what is known of the connection by then.
pub(crate) type Maker = Box<dyn Fn(&Connection) -> Vec<Vec<u8>> + Send>;

/// The steps of a case with this text.
pub(crate) type Script = Box<dyn Fn(&[u8; LEN]) -> Vec<Step> + Send + Sync>;

/// One thing that the sender does.
pub(crate) enum Step {
    /// Sends packets.
    Send(Maker),
    /// Waits.
    Pause(Duration),
    /// Waits for the server's SYN or SYN-ACK.
    AwaitAnswer,
    /// Waits for the server's FIN, or a while.
    AwaitEnd,
    /// Waits until the server has acknowledged up to here, or a while.
    AwaitAck(i64),
    /// Sends these again and again until the server has acknowledged up to here, or for a while:
    /// as hosts do.
    Persist(Vec<Segment>, i64),
    /// The application connects to us.
    Connect,
    /// The application of [`Listener::Slow`] begins to read.
    Read,
    /// Here the gateway begins to inspect: what came before has not been seen.
    Begin,
}

/// One attack and its benign twin.
pub(crate) struct Case {
    pub(crate) family: &'static str,
    pub(crate) name: String,
    /// Whether ordinary hosts produce such traffic, so that the twin must arrive.
    pub(crate) ordinary: bool,
    pub(crate) listener: Listener,
    pub(crate) ipv6: bool,
    /// The rule says `flow:established,to_server`.
    pub(crate) by_flow: bool,
    pub(crate) isn: u32,
    pub(crate) timestamps: bool,
    /// Its fragments come in an order in which a gateway does not know whose they are, unless its
    /// kernel puts them together: `exceptions.fragment_order`.
    pub(crate) unordered_fragments: bool,
    /// The steps, with the attack or its twin as the text.
    pub(crate) steps: Script,
}

impl Case {
    /// What a case is unless it says otherwise.
    pub(crate) fn new(
        family: &'static str,
        name: impl Into<String>,
        steps: impl Fn(&[u8; LEN]) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        Self {
            family,
            name: name.into(),
            ordinary: true,
            listener: Listener::Plain,
            ipv6: false,
            by_flow: false,
            isn: 0x1234_5678,
            timestamps: false,
            unordered_fragments: false,
            steps: Box::new(steps),
        }
    }

    /// A TCP connection with these segments after its handshake.
    pub(crate) fn connected(
        family: &'static str,
        name: impl Into<String>,
        segments: impl Fn(&[u8; LEN]) -> Vec<Segment> + Send + Sync + 'static,
    ) -> Self {
        Self::new(family, name, move |text| {
            let mut steps = opened();
            for segment in segments(text) {
                steps.push(send(segment));
                steps.push(Step::Pause(BETWEEN));
            }
            steps
        })
    }

    pub(crate) fn hostile(mut self) -> Self {
        self.ordinary = false;
        self
    }

    pub(crate) fn ordinary(mut self, ordinary: bool) -> Self {
        self.ordinary = ordinary;
        self
    }

    pub(crate) fn to(mut self, listener: Listener) -> Self {
        self.listener = listener;
        self
    }

    pub(crate) fn ipv6(mut self, ipv6: bool) -> Self {
        self.ipv6 = ipv6;
        self
    }

    pub(crate) fn by_flow(mut self, by_flow: bool) -> Self {
        self.by_flow = by_flow;
        self
    }

    pub(crate) fn isn(mut self, isn: u32) -> Self {
        self.isn = isn;
        self
    }

    pub(crate) fn with_timestamps(mut self) -> Self {
        self.timestamps = true;
        self
    }

    /// How the report calls it.
    pub(crate) fn title(&self) -> String {
        format!(
            "{}: {} ({}{})",
            self.family,
            self.name,
            if self.ipv6 { "IPv6" } else { "IPv4" },
            if self.by_flow { ", by flow" } else { "" },
        )
    }
}

/// Between two packets of a case, so that the receiver's end sees them one by one.
pub(crate) const BETWEEN: Duration = Duration::from_millis(2);

pub(crate) fn send(segment: Segment) -> Step {
    Step::Send(Box::new(move |connection| vec![segment.packet(connection)]))
}

pub(crate) fn pause_ms(ms: u64) -> Step {
    Step::Pause(Duration::from_millis(ms))
}

/// A handshake.
pub(crate) fn opened() -> Vec<Step> {
    vec![
        send(syn()),
        Step::AwaitAnswer,
        send(ack()),
        Step::Pause(BETWEEN),
    ]
}

/// Every order of the first `count` numbers.
pub(crate) fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in orders(count - 1) {
        for at in 0..=shorter.len() {
            let mut order = shorter.clone();
            order.insert(at, count - 1);
            all.push(order);
        }
    }
    all.sort();
    all
}

/// An order as it is shown.
pub(crate) fn shown(order: &[usize]) -> String {
    order
        .iter()
        .map(|number| (b'a' + *number as u8) as char)
        .collect()
}
