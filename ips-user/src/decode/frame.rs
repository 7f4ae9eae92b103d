//! One frame, and every packet in it: tunnels are entered, fragments put together.

use super::checksum::{Validity, Verify};
use super::event::DecodeEvent as Event;
use super::link::{Link, LinkType};
use super::network::{Bounds, Network, Part};
use super::packet::{Decoded, FragmentFate};
use super::transport::{self, Transport};
use super::tunnel::{self, Broken, Inner, PacketSource, Tunnel};
use super::walk::{Carried, Header, Walk};
use super::{EventSet, Invalid, arp};
use crate::config::settings::{EngineSettings, PortDecoder};
use crate::flow::Timestamp;
use crate::reassembly::defrag::{Defragmenter, Fragment, Insertion, Refusal};
use crate::rules::{PortSet, Variables, ports_of_setting};
use crate::source::{Checksum, Disposition};

/// How a frame begins and how far whoever delivers it vouches for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A frame from a capture.
    Link(LinkType),
    /// From the IP header on, as the kernel hands it over. It may be cut to the copy range, which
    /// is then no error of the packet.
    Ip(Checksum),
}

/// Whether checksums are looked at (`-k`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumMode {
    /// When somebody asks for one.
    #[default]
    Verify,
    /// Every one counts as unchecked.
    Ignore,
    /// As [`Self::Verify`] until [`ChecksumSample`] has decided.
    ///
    /// [`ChecksumSample`]: super::ChecksumSample
    Auto,
}

/// The UDP ports of a tunnel; none when it is not entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPorts(PortSet);

impl TunnelPorts {
    /// One port.
    pub fn one(port: u16) -> Self {
        Self(PortSet::of(vec![(port, port)]))
    }

    fn new(setting: &PortDecoder, variables: &Variables) -> Result<Self, String> {
        Ok(Self(match setting.enabled {
            true => ports_of_setting(&setting.ports, variables)?,
            false => PortSet::of(Vec::new()),
        }))
    }

    /// Whether a datagram between these ports belongs to the tunnel.
    pub fn match_either(&self, (source, destination): (u16, u16)) -> bool {
        self.0.contains(source) || self.0.contains(destination)
    }
}

/// How frames are decoded: `decoder.*` and `vlan.*` of Suricata's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Most headers in each other, `decoder.max-layers`.
    pub max_layers: u8,
    /// `decoder.teredo`.
    pub teredo: TunnelPorts,
    /// `decoder.vxlan`.
    pub vxlan: TunnelPorts,
    /// `decoder.geneve`.
    pub geneve: TunnelPorts,
    /// `decoder.erspan.typeI.enabled`.
    pub erspan_type1: bool,
    /// Whether flows and datagrams on different VLANs are different ones,
    /// `vlan.use-for-tracking`.
    pub vlan_tracking: bool,
    /// Whether the same addresses in and out of a tunnel are different flows,
    /// `decoder.recursion-level.use-for-tracking`.
    pub depth_tracking: bool,
    /// `-k`.
    pub checksums: ChecksumMode,
}

impl DecodeOptions {
    /// As configured.
    ///
    /// # Errors
    /// When the ports of a tunnel are no ports: a sentence that names the setting.
    pub fn new(settings: &EngineSettings, checksums: ChecksumMode) -> Result<Self, String> {
        let mut variables = Variables::default();
        for (name, value) in &settings.vars.port_groups {
            variables.set_ports(name, value);
        }
        let decoder = &settings.decoder;
        let ports = |name, setting| {
            TunnelPorts::new(setting, &variables)
                .map_err(|wrong| format!("decoder.{name}.ports: {wrong}"))
        };
        Ok(Self {
            max_layers: decoder.max_layers,
            teredo: ports("teredo", &decoder.teredo)?,
            vxlan: ports("vxlan", &decoder.vxlan)?,
            geneve: ports("geneve", &decoder.geneve)?,
            erspan_type1: decoder.erspan.type1.enabled,
            vlan_tracking: settings.vlan.use_for_tracking,
            depth_tracking: decoder.recursion_level.use_for_tracking,
            checksums,
        })
    }
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            max_layers: 16,
            teredo: TunnelPorts::one(3544),
            vxlan: TunnelPorts::one(4789),
            geneve: TunnelPorts::one(6081),
            erspan_type1: false,
            vlan_tracking: true,
            depth_tracking: true,
            checksums: ChecksumMode::Verify,
        }
    }
}

/// Decodes a frame and calls `each` for every packet in it: what a tunnel carries before the
/// packet that carries it, a reassembled datagram before the fragment that completed it.
///
/// The frame is dropped when any of them is, or when defragmentation refuses a fragment inline.
pub fn frame(
    bytes: &[u8],
    start: Start,
    options: &DecodeOptions,
    defragmenter: &mut Defragmenter,
    now: Timestamp,
    each: &mut impl FnMut(&Decoded<'_>) -> Disposition,
) -> Disposition {
    let (header, link_type, verify, may_be_cut) = match start {
        Start::Link(link) => (Header::Link(link), link, Verify::All, false),
        Start::Ip(Checksum::Unverified) => (Header::Ip, LinkType::Raw, Verify::All, true),
        Start::Ip(_) => (Header::Ip, LinkType::Raw, Verify::Header, true),
    };
    let inner_verify = match start {
        // The inner checksum is what the hardware was to compute.
        Start::Ip(Checksum::NotReady) => Verify::Header,
        _ => Verify::All,
    };
    let of_mode = |verify| match options.checksums {
        ChecksumMode::Verify | ChecksumMode::Auto => verify,
        ChecksumMode::Ignore => Verify::Nothing,
    };
    let entry = Entry {
        bytes,
        skip: 0,
        header,
        link_type,
        source: PacketSource::Wire,
        tunnel: None,
        layers: 0,
        verify: of_mode(verify),
        inner_verify: of_mode(inner_verify),
        may_be_cut,
        reassembled: false,
        vlan: None,
    };
    let mut run = Run {
        options,
        defragmenter,
        now,
        each,
    };
    let dissected = entry.dissect(options);
    let disposition = run.deliver(&entry, dissected);
    defragmenter.end_frame(disposition, now);
    disposition
}

/// Where a packet begins, and what is known of it from outside.
#[derive(Clone, Copy)]
struct Entry<'a> {
    bytes: &'a [u8],
    /// Bytes at the front that are no part of the packet.
    skip: usize,
    header: Header,
    link_type: LinkType,
    source: PacketSource,
    tunnel: Option<Tunnel>,
    /// Headers walked so far.
    layers: u8,
    verify: Verify,
    /// For packets in this one.
    inner_verify: Verify,
    may_be_cut: bool,
    reassembled: bool,
    vlan: Option<u16>,
}

struct Dissected<'a> {
    decoded: Decoded<'a>,
    inner: Option<Inner<'a>>,
    layers: u8,
}

impl<'a> Entry<'a> {
    fn depth(&self) -> u8 {
        self.tunnel.map_or(0, |tunnel| tunnel.depth)
    }

    fn dissect(&self, options: &DecodeOptions) -> Dissected<'a> {
        let mut decoded = Decoded::without_network(self.bytes, self.link_type);
        decoded.source = self.source;
        decoded.tunnel = self.tunnel;
        decoded.verify = self.verify;
        let mut events = EventSet::EMPTY;
        let mut link = Link::default();
        let mut layers = self.layers;
        if let Some(vlan) = self.vlan
            && !link.vlans.push(vlan)
        {
            events.insert(Event::ErspanTooManyVlans);
        }
        let carried = Walk {
            events: &mut events,
            link: &mut link,
            layers: &mut layers,
            max_layers: options.max_layers,
            reassembled: self.reassembled,
        }
        .run(self.header, self.bytes.get(self.skip..).unwrap_or_default());
        let bounds = match self.may_be_cut {
            true => Bounds::LengthField,
            false => Bounds::Frame,
        };
        let network = match carried {
            Carried::Ipv4(ip) => Network::parse_v4(ip, bounds, &mut events).map(Some),
            Carried::Ipv6(ip) => Network::parse_v6(ip, bounds, &mut events).map(Some),
            Carried::Arp(message) => {
                arp::check(message, &mut events);
                decoded.payload = message;
                Ok(None)
            }
            Carried::Nothing(bytes) => {
                decoded.payload = bytes;
                Ok(None)
            }
            Carried::Failed(reason) => Err(reason),
        };
        decoded.link = link;
        let mut inner = None;
        match network {
            Ok(None) => {}
            Err(reason) => decoded.transport = Transport::Invalid(reason),
            Ok(Some(network)) => {
                decoded.set_network(network);
                decoded.key.zone = self.zone(&link, options);
                inner = self.transport(&mut decoded, &network, options, &mut events);
            }
        }
        decoded.events = events;
        Dissected {
            decoded,
            inner,
            layers,
        }
    }

    /// What is above IP; fragments wait for that.
    fn transport(
        &self,
        decoded: &mut Decoded<'a>,
        network: &Network<'a>,
        options: &DecodeOptions,
        events: &mut EventSet,
    ) -> Option<Inner<'a>> {
        if network.cut && !self.may_be_cut {
            events.insert(match decoded.is_ipv4() {
                true => Event::Ipv4Truncated,
                false => Event::Ipv6Truncated,
            });
            decoded.transport = Transport::Invalid(Invalid::Truncated);
            return None;
        }
        if network.part.is_some() {
            decoded.transport = Transport::Fragment;
            return None;
        }
        let parts = transport::read(network, events);
        (decoded.transport, decoded.payload, decoded.ports) = parts;
        let found = tunnel::find(
            network,
            &decoded.transport,
            decoded.payload,
            decoded.ports,
            options,
            events,
        );
        match found {
            Ok(inner) => inner,
            Err(Broken) => {
                decoded.transport = Transport::Invalid(Invalid::Tunnel);
                None
            }
        }
    }

    /// Tells flows apart that have the same addresses and ports; zero on the wire without VLANs.
    fn zone(&self, link: &Link, options: &DecodeOptions) -> u16 {
        let vlan = match options.vlan_tracking {
            true => link.vlans.folded(),
            false => 0,
        };
        let depth = match options.depth_tracking {
            true => u16::from(self.depth().min(7)),
            false => 0,
        };
        depth << 13 | vlan
    }

    /// The packet within.
    fn enter(&self, outer: &Dissected<'a>, inner: &Inner<'a>) -> Entry<'a> {
        let decoded = &outer.decoded;
        let tunnel = match self.tunnel {
            Some(tunnel) => Tunnel {
                depth: tunnel.depth.saturating_add(1),
                ..tunnel
            },
            None => Tunnel {
                source: decoded.source(),
                destination: decoded.destination(),
                ports: decoded.ports,
                protocol: decoded.protocol(),
                depth: 1,
            },
        };
        Entry {
            bytes: inner.bytes,
            skip: inner.skip,
            header: inner.header,
            link_type: LinkType::Raw,
            source: inner.source,
            tunnel: Some(tunnel),
            layers: outer.layers,
            verify: self.inner_verify,
            inner_verify: self.inner_verify,
            may_be_cut: decoded.network.is_some_and(|network| network.cut),
            reassembled: false,
            vlan: inner.vlan,
        }
    }
}

struct Run<'r> {
    options: &'r DecodeOptions,
    defragmenter: &'r mut Defragmenter,
    now: Timestamp,
    each: &'r mut dyn FnMut(&Decoded<'_>) -> Disposition,
}

impl Run<'_> {
    fn deliver<'a>(&mut self, entry: &Entry<'a>, mut dissected: Dissected<'a>) -> Disposition {
        let mut dropped = false;
        if let Some(inner) = dissected.inner.take() {
            dropped = self.enter(entry, &mut dissected, &inner);
        }
        let decoded = &mut dissected.decoded;
        if decoded.is_fragment()
            && let Some(network) = decoded.network
            && let Some(part) = network.part
        {
            dropped |= self.fragment(entry, decoded, &network, part);
        }
        let own = (self.each)(decoded);
        match dropped {
            true => Disposition::Drop,
            false => own,
        }
    }

    /// Shows what `outer` carries; whether that was dropped.
    fn enter<'a>(
        &mut self,
        entry: &Entry<'a>,
        outer: &mut Dissected<'a>,
        inner: &Inner<'a>,
    ) -> bool {
        if outer.layers.saturating_add(1) >= self.options.max_layers {
            outer.decoded.events.insert(Event::TooManyLayers);
            return false;
        }
        let within = entry.enter(outer, inner);
        let dissected = within.dissect(self.options);
        if inner.guessed && dissected.decoded.invalid().is_some() {
            return false;
        }
        if !matches!(outer.decoded.transport, Transport::Udp { .. }) {
            // It is the inner packet's; a datagram is looked at itself, too.
            outer.decoded.payload = &[];
        }
        let dropped = self.deliver(&within, dissected) == Disposition::Drop;
        outer.decoded.inner_dropped = dropped;
        dropped
    }

    /// Hands a fragment to the defragmenter, and shows the datagram that it completes. Whether
    /// the fragment is to be dropped for it.
    fn fragment<'a>(
        &mut self,
        entry: &Entry<'a>,
        decoded: &mut Decoded<'a>,
        network: &Network<'a>,
        part: Part<'a>,
    ) -> bool {
        let at = (network.packet.as_ptr() as usize).wrapping_sub(entry.bytes.as_ptr() as usize);
        let fragment = Fragment {
            network,
            part,
            before: entry.bytes.get(..at).unwrap_or_default(),
            vlans: decoded.link.vlans,
            depth: entry.depth(),
        };
        let insertion = if decoded.ip_checksum() == Validity::Invalid {
            // No receiver uses it, so it may say anything.
            self.defragmenter.refuse(&fragment, Refusal::Checksum)
        } else if network.cut {
            self.defragmenter.refuse(&fragment, Refusal::Truncated)
        } else {
            let events = &mut decoded.events;
            self.defragmenter.insert(&fragment, self.now, events)
        };
        let (fate, dropped) = match insertion {
            Insertion::Disabled | Insertion::NoRoom => {
                // What can be seen of it without the others.
                let parts = transport::read(network, &mut decoded.events);
                (decoded.transport, decoded.payload, decoded.ports) = parts;
                match insertion {
                    Insertion::NoRoom => (FragmentFate::NoRoom, false),
                    _ => (FragmentFate::NoFragment, false),
                }
            }
            Insertion::Kept => (FragmentFate::Kept, false),
            Insertion::Refused(reason) => (
                FragmentFate::Refused(reason),
                self.defragmenter.drops_refused(),
            ),
            Insertion::Complete(datagram) => {
                let whole = Entry {
                    bytes: datagram.bytes(),
                    source: PacketSource::Defrag,
                    layers: entry.layers.saturating_add(1),
                    verify: match entry.verify {
                        Verify::Nothing => Verify::Nothing,
                        // Nobody but the receiver of them all can have verified the rest.
                        Verify::Header | Verify::All => Verify::All,
                    },
                    may_be_cut: false,
                    reassembled: true,
                    ..*entry
                };
                let dissected = whole.dissect(self.options);
                let disposition = self.deliver(&whole, dissected);
                self.defragmenter.settle(datagram, disposition);
                let dropped = disposition == Disposition::Drop;
                (FragmentFate::Completed { dropped }, dropped)
            }
        };
        decoded.fragment_fate = fate;
        dropped
    }
}

#[cfg(test)]
mod tests;
