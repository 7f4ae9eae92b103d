//! What packets were made of and what was strange about them: counters of `stats` records under
//! Suricata's names (user guide, "Statistics").

use serde_json::{Map, Value};

use crate::app;
use crate::config::settings;
use crate::decode::{DecodeEvent, Decoded, LinkType, PacketSource, Transport, protocol};

macro_rules! layers {
    ($($layer:ident = $name:literal,)*) => {
        /// What a packet may be made of.
        #[derive(Clone, Copy)]
        #[repr(usize)]
        enum Layer { $($layer,)* }

        const LAYERS: &[&str] = &[$($name,)*];
    };
}

layers! {
    Ethernet = "ethernet",
    Raw = "raw",
    Null = "null",
    Ppp = "ppp",
    Chdlc = "chdlc",
    Sll = "sll",
    Sll2 = "sll2",
    Vlan = "vlan",
    VlanQinq = "vlan_qinq",
    VlanQinqinq = "vlan_qinqinq",
    Ipv4 = "ipv4",
    Ipv6 = "ipv6",
    Tcp = "tcp",
    Udp = "udp",
    Icmpv4 = "icmpv4",
    Icmpv6 = "icmpv6",
    Igmp = "igmp",
    Sctp = "sctp",
    Esp = "esp",
    Gre = "gre",
    Vxlan = "vxlan",
    Geneve = "geneve",
    Teredo = "teredo",
    Ipv4Tunnel = "ip_in_ipv4",
    Ipv6Tunnel = "ip_in_ipv6",
}

/// How many counters there are.
pub const FIGURES: usize = LAYERS.len() + DecodeEvent::ALL.len() + app::figures::FIGURES;

/// Counters of one inspection.
#[derive(Clone, Debug)]
pub struct Figures {
    counts: Box<[u64; FIGURES]>,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            counts: Box::new([0; FIGURES]),
        }
    }
}

impl Figures {
    /// Counts a packet; to be called for those in tunnels and reassembled ones, too.
    pub fn packet(&mut self, packet: &Decoded<'_>) {
        if packet.source == PacketSource::Wire {
            self.frame(packet);
        }
        match packet.source {
            PacketSource::Wire | PacketSource::Defrag | PacketSource::FlowTimeout => {}
            PacketSource::Ipv4Tunnel => self.count(Layer::Ipv4Tunnel),
            PacketSource::Ipv6Tunnel => self.count(Layer::Ipv6Tunnel),
            PacketSource::Gre => self.count(Layer::Gre),
            PacketSource::Teredo => self.count(Layer::Teredo),
            PacketSource::Vxlan => self.count(Layer::Vxlan),
            PacketSource::Geneve => self.count(Layer::Geneve),
        }
        if packet.network.is_some() {
            self.count(match packet.is_ipv4() {
                true => Layer::Ipv4,
                false => Layer::Ipv6,
            });
        }
        match (&packet.transport, packet.protocol()) {
            (Transport::Tcp(_), _) => self.count(Layer::Tcp),
            (Transport::Udp { .. }, _) => self.count(Layer::Udp),
            (Transport::Icmp { .. }, protocol::ICMP) => self.count(Layer::Icmpv4),
            (Transport::Icmp { .. }, _) => self.count(Layer::Icmpv6),
            (Transport::Sctp { .. }, _) => self.count(Layer::Sctp),
            (Transport::Esp { .. }, _) => self.count(Layer::Esp),
            (_, protocol::IGMP) => self.count(Layer::Igmp),
            _ => {}
        }
        if !packet.events.is_empty() {
            for event in packet.events.iter() {
                self.counts[LAYERS.len() + event as usize] += 1;
            }
        }
    }

    fn frame(&mut self, packet: &Decoded<'_>) {
        self.count(match packet.link_type {
            LinkType::Ethernet => Layer::Ethernet,
            LinkType::Null | LinkType::Loop => Layer::Null,
            LinkType::Ppp | LinkType::PppSerial => Layer::Ppp,
            LinkType::Chdlc => Layer::Chdlc,
            LinkType::LinuxSll => Layer::Sll,
            LinkType::LinuxSll2 => Layer::Sll2,
            LinkType::Raw | LinkType::Ipv4 | LinkType::Ipv6 => Layer::Raw,
        });
        match packet.link.vlans.as_slice().len() {
            0 => {}
            1 => self.count(Layer::Vlan),
            2 => self.count(Layer::VlanQinq),
            _ => self.count(Layer::VlanQinqinq),
        }
    }

    fn count(&mut self, layer: Layer) {
        self.counts[layer as usize] += 1;
    }

    /// Adds to a counter of [`app::figures`].
    pub(crate) fn application(&mut self, number: usize, more: u64) {
        let first = LAYERS.len() + DecodeEvent::ALL.len();
        if let Some(count) = self.counts.get_mut(first + number) {
            *count += more;
        }
    }

    /// All of them, in an order that [`tree`] knows.
    pub fn counts(&self) -> &[u64] {
        &*self.counts
    }
}

/// Adds counters to the tree of a `stats` record: layers under `decoder`, events where the
/// settings want them.
pub fn tree(counts: &[u64], settings: &settings::Stats, stats: &mut Map<String, Value>) {
    let (layers, events) = counts.split_at(counts.len().min(LAYERS.len()));
    for (name, count) in LAYERS.iter().zip(layers) {
        put(stats, &format!("decoder.{name}"), *count);
    }
    let (events, applications) = events.split_at(events.len().min(DecodeEvent::ALL.len()));
    for (name, count) in app::figures::names().zip(applications) {
        put(stats, &name, *count);
    }
    if !settings.decoder_events {
        return;
    }
    for (event, count) in DecodeEvent::ALL.iter().zip(events) {
        let name = format!("{}.{}", settings.decoder_events_prefix, event.name());
        put(stats, &name, *count);
    }
}

/// How often there was no memory for what a protocol says.
pub(crate) fn memory_refused(counts: &[u64], protocol: app::AppProtocol) -> u64 {
    let first = LAYERS.len() + DecodeEvent::ALL.len();
    let numbers = protocol.transports().iter().filter_map(|transport| {
        app::figures::number(protocol, *transport, app::figures::Counted::Memory)
    });
    let counts = numbers.filter_map(|number| counts.get(first + number));
    counts.sum()
}

/// Sets what has a dotted name. A name that goes on where a number stands already is left out:
/// both cannot be in one record.
pub fn put(tree: &mut Map<String, Value>, name: &str, count: u64) {
    match name.split_once('.') {
        None => {
            tree.insert(name.to_owned(), count.into());
        }
        Some((first, rest)) => {
            let inner = tree.entry(first).or_insert_with(|| Map::new().into());
            if let Some(inner) = inner.as_object_mut() {
                put(inner, rest, count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use serde_json::json;

    use super::*;
    use crate::config::settings::EngineSettings;

    #[test]
    fn counters_stand_under_the_names_of_suricata() {
        let mut figures = Figures::default();
        let mut bytes = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 9)
            .udp(1, 2)
            .write(&mut bytes, b"x")
            .unwrap();
        let mut packet = Decoded::parse(&bytes).unwrap();
        packet.events.insert(DecodeEvent::ArpTooSmall);
        figures.packet(&packet);
        figures.packet(&packet);
        packet.source = PacketSource::Vxlan;
        figures.packet(&packet);
        let mut settings = EngineSettings::default().stats;
        let mut stats = Map::new();
        stats.insert("decoder".into(), json!({"pkts": 3}));
        tree(figures.counts(), &settings, &mut stats);
        let decoder = &stats["decoder"];
        for (name, count) in [
            ("pkts", 3),
            ("ipv6", 3),
            ("udp", 3),
            ("raw", 2),
            ("vxlan", 1),
            ("tcp", 0),
        ] {
            assert_eq!(decoder[name], count, "{name}");
        }
        assert_eq!(decoder["event"]["arp"]["pkt_too_small"], 3);
        settings.decoder_events = false;
        let mut stats = Map::new();
        tree(figures.counts(), &settings, &mut stats);
        assert_eq!(stats["decoder"].get("event"), None);
    }

    #[test]
    fn every_counter_has_a_place_of_its_own() {
        let counts: Vec<u64> = (1..=FIGURES as u64).collect();
        let mut stats = Map::new();
        tree(&counts, &EngineSettings::default().stats, &mut stats);
        fn numbers(value: &Value, found: &mut Vec<u64>) {
            match value {
                Value::Object(inner) => inner.values().for_each(|value| numbers(value, found)),
                value => found.extend(value.as_u64()),
            }
        }
        let mut found = Vec::new();
        numbers(&Value::Object(stats), &mut found);
        found.sort_unstable();
        assert_eq!(found, counts);
    }
}
