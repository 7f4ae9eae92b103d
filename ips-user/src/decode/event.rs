//! Decoder events: what is remarkable or wrong about a packet, under the names that
//! `decode-event` rules use (Suricata user guide, "Decoder events", and its rule set
//! `decoder-events.rules`).

use std::fmt;

macro_rules! events {
    ($($event:ident = $name:literal,)*) => {
        /// One decoder event. What each stands for is in its name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "the names are the documentation: see `name`")]
        pub enum DecodeEvent { $($event,)* }

        impl DecodeEvent {
            /// Every event.
            pub const ALL: &'static [Self] = &[$(Self::$event,)*];

            /// The name in rules, without `decode-event:`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$event => $name,)* }
            }
        }
    };
}

events! {
    AfpacketTruncated = "afpacket.trunc_pkt",
    ArpTooSmall = "arp.pkt_too_small",
    ArpUnsupportedHardware = "arp.unsupported_hardware",
    ArpUnsupportedProtocol = "arp.unsupported_protocol",
    ArpInvalid = "arp.invalid_pkt",
    ArpInvalidHardwareSize = "arp.invalid_hardware_size",
    ArpInvalidProtocolSize = "arp.invalid_protocol_size",
    ArpUnsupportedOpcode = "arp.unsupported_opcode",
    ChdlcTooSmall = "chdlc.pkt_too_small",
    DceTooSmall = "dce.pkt_too_small",
    ErspanHeaderTooSmall = "erspan.header_too_small",
    ErspanUnsupportedVersion = "erspan.unsupported_version",
    ErspanTooManyVlans = "erspan.too_many_vlan_layers",
    EspTooSmall = "esp.pkt_too_small",
    EtagHeaderTooSmall = "etag.header_too_small",
    EtagUnknownType = "etag.unknown_type",
    EthernetTooSmall = "ethernet.pkt_too_small",
    EthernetUnknownType = "ethernet.unknown_ethertype",
    GeneveUnknownPayload = "geneve.unknown_payload_type",
    GreTooSmall = "gre.pkt_too_small",
    GreWrongVersion = "gre.wrong_version",
    Gre0Recursion = "gre.version0_recur",
    Gre0Flags = "gre.version0_flags",
    Gre0HeaderTooBig = "gre.version0_hdr_too_big",
    Gre0MalformedRoute = "gre.version0_malformed_sre_hdr",
    Gre1Checksum = "gre.version1_chksum",
    Gre1Route = "gre.version1_route",
    Gre1StrictRoute = "gre.version1_ssr",
    Gre1Recursion = "gre.version1_recur",
    Gre1Flags = "gre.version1_flags",
    Gre1NoKey = "gre.version1_no_key",
    Gre1WrongProtocol = "gre.version1_wrong_protocol",
    Gre1MalformedRoute = "gre.version1_malformed_sre_hdr",
    Gre1HeaderTooBig = "gre.version1_hdr_too_big",
    Icmpv4TooSmall = "icmpv4.pkt_too_small",
    Icmpv4UnknownType = "icmpv4.unknown_type",
    Icmpv4UnknownCode = "icmpv4.unknown_code",
    Icmpv4QuoteTruncated = "icmpv4.ipv4_trunc_pkt",
    Icmpv4QuoteVersion = "icmpv4.ipv4_unknown_ver",
    Icmpv6TooSmall = "icmpv6.pkt_too_small",
    Icmpv6UnknownType = "icmpv6.unknown_type",
    Icmpv6UnknownCode = "icmpv6.unknown_code",
    Icmpv6QuoteTruncated = "icmpv6.ipv6_trunc_pkt",
    Icmpv6QuoteVersion = "icmpv6.ipv6_unknown_version",
    Icmpv6MldHopLimit = "icmpv6.mld_message_with_invalid_hl",
    Icmpv6UnassignedType = "icmpv6.unassigned_type",
    Icmpv6ExperimentationType = "icmpv6.experimentation_type",
    Ieee8021ahTooSmall = "ieee8021ah.header_too_small",
    IgmpTooSmall = "igmp.pkt_too_small",
    Igmp3TooSmall = "igmp.v3_pkt_too_small",
    IgmpMalformed = "igmp.malformed",
    RawInvalidVersion = "ipraw.invalid_ip_version",
    Ipv4TooSmall = "ipv4.pkt_too_small",
    Ipv4HeaderTooSmall = "ipv4.hlen_too_small",
    Ipv4LengthBelowHeader = "ipv4.iplen_smaller_than_hlen",
    Ipv4Truncated = "ipv4.trunc_pkt",
    Ipv4OptionInvalid = "ipv4.opt_invalid",
    Ipv4OptionInvalidLength = "ipv4.opt_invalid_len",
    Ipv4OptionMalformed = "ipv4.opt_malformed",
    Ipv4OptionPadRequired = "ipv4.opt_pad_required",
    Ipv4OptionEndRequired = "ipv4.opt_eol_required",
    Ipv4OptionDuplicate = "ipv4.opt_duplicate",
    Ipv4OptionUnknown = "ipv4.opt_unknown",
    Ipv4WrongVersion = "ipv4.wrong_ip_version",
    Ipv4WithIcmpv6 = "ipv4.icmpv6",
    Ipv4UnknownProtocol = "ipv4.unknown_protocol",
    Ipv4FragTooLarge = "ipv4.frag_pkt_too_large",
    Ipv4FragOverlap = "ipv4.frag_overlap",
    Ipv4FragIgnored = "ipv4.frag_ignored",
    Ipv6TooSmall = "ipv6.pkt_too_small",
    Ipv6Truncated = "ipv6.trunc_pkt",
    Ipv6TruncatedExtension = "ipv6.trunc_exthdr",
    Ipv6DuplicateFragment = "ipv6.exthdr_dupl_fh",
    Ipv6UselessFragment = "ipv6.exthdr_useless_fh",
    Ipv6DuplicateRouting = "ipv6.exthdr_dupl_rh",
    Ipv6DuplicateHopByHop = "ipv6.exthdr_dupl_hh",
    Ipv6DuplicateDestination = "ipv6.exthdr_dupl_dh",
    Ipv6DuplicateAuthentication = "ipv6.exthdr_dupl_ah",
    Ipv6DuplicateEsp = "ipv6.exthdr_dupl_eh",
    Ipv6InvalidOptionLength = "ipv6.exthdr_invalid_optlen",
    Ipv6WrongVersion = "ipv6.wrong_ip_version",
    Ipv6AuthenticationReserved = "ipv6.exthdr_ah_res_not_null",
    Ipv6HopByHopUnknownOption = "ipv6.hopopts_unknown_opt",
    Ipv6HopByHopOnlyPadding = "ipv6.hopopts_only_padding",
    Ipv6DestinationUnknownOption = "ipv6.dstopts_unknown_opt",
    Ipv6DestinationOnlyPadding = "ipv6.dstopts_only_padding",
    Ipv6RoutingType0 = "ipv6.rh_type_0",
    Ipv6ZeroLengthPad = "ipv6.zero_len_padn",
    Ipv6FragmentReserved = "ipv6.fh_non_zero_reserved_field",
    Ipv6DataAfterNone = "ipv6.data_after_none_header",
    Ipv6UnknownNextHeader = "ipv6.unknown_next_header",
    Ipv6WithIcmpv4 = "ipv6.icmpv4",
    Ipv6FragTooLarge = "ipv6.frag_pkt_too_large",
    Ipv6FragOverlap = "ipv6.frag_overlap",
    Ipv6FragInvalidLength = "ipv6.frag_invalid_length",
    Ipv6FragIgnored = "ipv6.frag_ignored",
    Ipv4InIpv6TooSmall = "ipv6.ipv4_in_ipv6_too_small",
    Ipv4InIpv6WrongVersion = "ipv6.ipv4_in_ipv6_wrong_version",
    Ipv6InIpv6TooSmall = "ipv6.ipv6_in_ipv6_too_small",
    Ipv6InIpv6WrongVersion = "ipv6.ipv6_in_ipv6_wrong_version",
    NullTooSmall = "ltnull.pkt_too_small",
    NullUnsupportedType = "ltnull.unsupported_type",
    MplsHeaderTooSmall = "mpls.header_too_small",
    MplsTooSmall = "mpls.pkt_too_small",
    MplsRouterAlert = "mpls.bad_label_router_alert",
    MplsImplicitNull = "mpls.bad_label_implicit_null",
    MplsReserved = "mpls.bad_label_reserved",
    MplsUnknownPayload = "mpls.unknown_payload_type",
    NshHeaderTooSmall = "nsh.header_too_small",
    NshUnsupportedVersion = "nsh.unsupported_version",
    NshBadHeaderLength = "nsh.bad_header_length",
    NshReservedType = "nsh.reserved_type",
    NshUnsupportedType = "nsh.unsupported_type",
    NshUnknownPayload = "nsh.unknown_payload",
    PppTooSmall = "ppp.pkt_too_small",
    PppVjuTooSmall = "ppp.vju_pkt_too_small",
    PppIpv4TooSmall = "ppp.ip4_pkt_too_small",
    PppIpv6TooSmall = "ppp.ip6_pkt_too_small",
    PppWrongType = "ppp.wrong_type",
    PppUnsupported = "ppp.unsup_proto",
    PppoeTooSmall = "pppoe.pkt_too_small",
    PppoeWrongCode = "pppoe.wrong_code",
    PppoeMalformedTags = "pppoe.malformed_tags",
    SctpTooSmall = "sctp.pkt_too_small",
    SctpChunkTooSmall = "sctp.chunk_too_small",
    SctpChunkLength = "sctp.chunk_len_invalid",
    SctpInitBundled = "sctp.init_chunk_bundled",
    SctpInitTag = "sctp.init_with_non_zero_vtag",
    SctpDataTag = "sctp.data_with_zero_vtag",
    SctpTooManyChunks = "sctp.too_many_chunks",
    SctpTooManyDataChunks = "sctp.too_many_data_chunks",
    SllTooSmall = "sll.pkt_too_small",
    Sll2TooSmall = "sll2.pkt_too_small",
    TcpTooSmall = "tcp.pkt_too_small",
    TcpHeaderTooSmall = "tcp.hlen_too_small",
    TcpInvalidOptionLength = "tcp.invalid_optlen",
    TcpOptionInvalidLength = "tcp.opt_invalid_len",
    TcpOptionDuplicate = "tcp.opt_duplicate",
    UdpTooSmall = "udp.pkt_too_small",
    UdpHeaderTooSmall = "udp.hlen_too_small",
    UdpHeaderLength = "udp.hlen_invalid",
    UdpLength = "udp.len_invalid",
    VlanHeaderTooSmall = "vlan.header_too_small",
    VlanUnknownType = "vlan.unknown_type",
    VlanTooManyLayers = "vlan.too_many_layers",
    VntagHeaderTooSmall = "vntag.header_too_small",
    VntagUnknownType = "vntag.unknown_type",
    VxlanUnknownPayload = "vxlan.unknown_payload_type",
    TooManyLayers = "too_many_layers",
}

const WORDS: usize = DecodeEvent::ALL.len().div_ceil(64);

impl DecodeEvent {
    /// The event with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|event| event.name() == name)
    }
}

impl fmt::Display for DecodeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The events of one packet.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct EventSet([u64; WORDS]);

impl EventSet {
    /// None.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// Adds one.
    pub const fn insert(&mut self, event: DecodeEvent) {
        self.0[event as usize / 64] |= 1 << (event as usize % 64);
    }

    /// Whether it is among them.
    pub const fn contains(&self, event: DecodeEvent) -> bool {
        self.0[event as usize / 64] & (1 << (event as usize % 64)) != 0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// Each of them, in the order of [`DecodeEvent::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = DecodeEvent> + '_ {
        DecodeEvent::ALL
            .iter()
            .copied()
            .filter(|&event| self.contains(event))
    }
}

impl FromIterator<DecodeEvent> for EventSet {
    fn from_iter<I: IntoIterator<Item = DecodeEvent>>(events: I) -> Self {
        let mut set = Self::EMPTY;
        for event in events {
            set.insert(event);
        }
        set
    }
}

impl fmt::Debug for EventSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.iter().map(DecodeEvent::name))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_found_by_its_name_and_kept_apart() {
        for (position, &event) in DecodeEvent::ALL.iter().enumerate() {
            assert_eq!(event as usize, position);
            assert_eq!(DecodeEvent::from_name(event.name()), Some(event));
            let set: EventSet = [event].into_iter().collect();
            assert!(set.contains(event) && !set.is_empty());
            assert_eq!(set.iter().collect::<Vec<_>>(), [event]);
        }
        assert_eq!(DecodeEvent::from_name("ipv4.nothing"), None);
        assert!(EventSet::EMPTY.is_empty());
    }
}
