//! The keyword that each part of a rule was written with: for messages and counts.

use super::{
    Buffer, CaptureScope, ChecksumOf, Condition, DatasetCommand, Effect, EventKind, Match,
    StreamSide, Threshold, ThresholdKind, Transform,
};

impl Buffer {
    /// Its keyword.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Payload => "pkt_data",
            Self::Ipv4Header => "ipv4.hdr",
            Self::Ipv6Header => "ipv6.hdr",
            Self::TcpHeader => "tcp.hdr",
            Self::UdpHeader => "udp.hdr",
            Self::Icmpv4Header => "icmpv4.hdr",
            Self::Icmpv6Header => "icmpv6.hdr",
            Self::IgmpHeader => "igmp.hdr",
            Self::IpSource => "ip.src",
            Self::IpDestination => "ip.dst",
            Self::Base64Data => "base64_data",
            Self::App(buffer) => buffer.name(),
        }
    }
}

impl Transform {
    /// Its keyword.
    pub const fn keyword(&self) -> &'static str {
        match self {
            Self::CompressWhitespace => "compress_whitespace",
            Self::StripWhitespace => "strip_whitespace",
            Self::DotPrefix => "dotprefix",
            Self::Domain => "domain",
            Self::TopLevelDomain => "tld",
            Self::Md5 => "to_md5",
            Self::Sha1 => "to_sha1",
            Self::Sha256 => "to_sha256",
            Self::Lowercase => "to_lowercase",
            Self::Uppercase => "to_uppercase",
            Self::HeaderLowercase => "header_lowercase",
            Self::StripPseudoHeaders => "strip_pseudo_headers",
            Self::UrlDecode => "url_decode",
            Self::FromBase64 { .. } => "from_base64",
            Self::Xor(_) => "xor",
            Self::PcreCapture(_) => "pcrexform",
            Self::Gunzip { .. } => "gunzip",
            Self::Inflate { .. } => "zlib_deflate",
            Self::Subslice { .. } => "subslice",
        }
    }
}

impl Match {
    /// Its keyword.
    pub const fn keyword(&self) -> &'static str {
        match self {
            Self::Content(_) => "content",
            Self::Pcre(_) => "pcre",
            Self::IsDataAt(_) => "isdataat",
            Self::ByteTest(_) => "byte_test",
            Self::ByteJump(_) => "byte_jump",
            Self::ByteExtract(_) => "byte_extract",
            Self::ByteMath(_) => "byte_math",
            Self::Size(_) => "bsize",
            Self::Absent { .. } => "absent",
            Self::Base64Decode { .. } => "base64_decode",
            Self::Dataset(dataset) => match dataset.command {
                DatasetCommand::Reputation(_) => "datarep",
                _ => "dataset",
            },
            Self::Entropy { .. } => "entropy",
            Self::Asn1(_) => "asn1",
        }
    }
}

impl Condition {
    /// Its keyword.
    pub fn keyword(&self) -> &str {
        match self {
            Self::Flow(_) => "flow",
            Self::FlowBits { .. } => "flowbits",
            Self::FlowInt { .. } => "flowint",
            Self::HostBits { .. } => "xbits",
            Self::StreamSize { .. } => "stream_size",
            Self::TcpFlags(_) => "tcp.flags",
            Self::Seq(_) => "tcp.seq",
            Self::Ack(_) => "tcp.ack",
            Self::Window { .. } => "tcp.window",
            Self::Ttl(_) => "ttl",
            Self::Tos(_) => "tos",
            Self::IpId(_) => "id",
            Self::IpOption(_) => "ipopts",
            Self::FragBits { .. } => "fragbits",
            Self::FragOffset(_) => "fragoffset",
            Self::IpProtocol(_) => "ip_proto",
            Self::SameIp => "sameip",
            Self::GeoIp { .. } => "geoip",
            Self::Reputation { .. } => "iprep",
            Self::IcmpType(_) => "itype",
            Self::IcmpCode(_) => "icode",
            Self::IcmpId(_) => "icmp_id",
            Self::IcmpSeq(_) => "icmp_seq",
            Self::Icmpv6Mtu(_) => "icmpv6.mtu",
            Self::IgmpType(_) => "igmp.type",
            Self::TcpMss(_) => "tcp.mss",
            Self::TcpWscale(_) => "tcp.wscale",
            Self::PayloadSize(_) => "dsize",
            Self::FlowAge(_) => "flow.age",
            Self::FlowPackets { side, .. } => match side {
                StreamSide::Client => "flow.pkts_toserver",
                StreamSide::Server => "flow.pkts_toclient",
                StreamSide::Both | StreamSide::Either => "flow.pkts",
            },
            Self::FlowBytes { side, .. } => match side {
                StreamSide::Client => "flow.bytes_toserver",
                StreamSide::Server => "flow.bytes_toclient",
                StreamSide::Both | StreamSide::Either => "flow.bytes",
            },
            Self::VlanId { .. } => "vlan.id",
            Self::VlanLayers(_) => "vlan.layers",
            Self::AppProtocol { .. } => "app-layer-protocol",
            Self::Event { kind, .. } => kind.keyword(),
            Self::Checksum { of, .. } => of.keyword(),
            Self::Tunnel => "tunnel",
            Self::IpVersion(_) => "l3_proto",
            Self::Rpc { .. } => "rpc",
            Self::Variable { scope, .. } => match scope {
                CaptureScope::Packet => "pktvar",
                CaptureScope::Flow | CaptureScope::Alert => "flowvar",
            },
            Self::App { keyword, .. } => keyword,
        }
    }
}

impl EventKind {
    /// Its keyword.
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Decode => "decode-event",
            Self::Stream => "stream-event",
            Self::App => "app-layer-event",
            Self::Engine => "engine-event",
        }
    }
}

impl ChecksumOf {
    /// Its keyword.
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4-csum",
            Self::Tcpv4 => "tcpv4-csum",
            Self::Tcpv6 => "tcpv6-csum",
            Self::Udpv4 => "udpv4-csum",
            Self::Udpv6 => "udpv6-csum",
            Self::Icmpv4 => "icmpv4-csum",
            Self::Icmpv6 => "icmpv6-csum",
            Self::Igmp => "igmp-csum",
        }
    }
}

impl Effect {
    /// Its keyword.
    pub const fn keyword(&self) -> &'static str {
        match self {
            Self::FlowBits { .. } => "flowbits",
            Self::FlowInt { .. } => "flowint",
            Self::HostBits { .. } => "xbits",
            Self::Tag(_) => "tag",
            Self::Bypass => "bypass",
            Self::FileStore { .. } => "filestore",
            Self::Config { .. } => "config",
            Self::SetMark { .. } => "nfq_set_mark",
            Self::TlsStore => "tls_store",
        }
    }
}

impl Threshold {
    /// Its keyword.
    pub const fn keyword(&self) -> &'static str {
        match self.kind {
            ThresholdKind::DetectionFilter => "detection_filter",
            ThresholdKind::Rate { .. } => "rate_filter",
            ThresholdKind::Suppress { .. } => "suppress",
            _ => "threshold",
        }
    }
}
