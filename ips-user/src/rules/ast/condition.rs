//! What a rule asks of a packet and its flow besides what is in buffers, and what it does there
//! when all of it holds.

use super::AddressSet;
use super::compare::Compare;
use super::matching::CaptureScope;

/// One thing that must hold. Evaluated in the order written, before the buffers are searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `flow`
    Flow(FlowCondition),
    /// `flowbits:isset` (any of them) and `isnotset` (none of them).
    FlowBits {
        /// `isset` or `isnotset`.
        set: bool,
        /// Names, joined by `|` in the rule.
        any_of: Vec<String>,
    },
    /// `flowint` that asks.
    FlowInt {
        /// The variable.
        name: String,
        /// What is asked.
        asked: FlowIntAsked,
    },
    /// `xbits` and `hostbits` that ask.
    HostBits {
        /// `isset` or `isnotset`.
        set: bool,
        /// Name.
        name: String,
        /// Whose.
        track: Track,
    },
    /// `stream_size`
    StreamSize {
        /// Of which end.
        side: StreamSide,
        /// Bytes.
        compare: Compare<u32>,
    },
    /// `flags`, `tcp.flags`
    TcpFlags(TcpFlags),
    /// `seq`
    Seq(u32),
    /// `ack`
    Ack(u32),
    /// `window`
    Window {
        /// `!`
        negated: bool,
        /// The field's value.
        value: u16,
    },
    /// `ttl`: also the hop limit.
    Ttl(Compare<u8>),
    /// `tos`
    Tos(Compare<u8>),
    /// `id`
    IpId(u16),
    /// `ipopts`
    IpOption(IpOption),
    /// `fragbits`
    FragBits {
        /// How they are compared.
        modifier: BitModifier,
        /// M 0x2000, D 0x4000, R 0x8000.
        bits: u16,
    },
    /// `fragoffset`, in units of eight bytes as in the header.
    FragOffset(Compare<u16>),
    /// `ip_proto`
    IpProtocol(Compare<u8>),
    /// `sameip`
    SameIp,
    /// `geoip`
    GeoIp {
        /// Which end.
        side: GeoSide,
        /// Two letters each.
        countries: Vec<String>,
        /// `!`
        negated: bool,
    },
    /// `iprep`
    Reputation {
        /// Whose.
        side: ReputationSide,
        /// Category by its short name.
        category: String,
        /// Score; `isset` and `isnotset` are a score above and not above zero.
        compare: Compare<u8>,
    },
    /// `itype`
    IcmpType(Compare<u8>),
    /// `icode`
    IcmpCode(Compare<u8>),
    /// `icmp_id`
    IcmpId(u16),
    /// `icmp_seq`
    IcmpSeq(u16),
    /// `icmpv6.mtu`
    Icmpv6Mtu(Compare<u32>),
    /// `igmp.type`
    IgmpType(Compare<u8>),
    /// `tcp.mss`
    TcpMss(Compare<u16>),
    /// `tcp.wscale`
    TcpWscale(Compare<u8>),
    /// `dsize`: bytes that the packet carries.
    PayloadSize(Compare<u16>),
    /// `flow.age`, seconds
    FlowAge(Compare<u32>),
    /// `flow.pkts_toserver` and the like
    FlowPackets {
        /// Which direction.
        side: StreamSide,
        /// Packets.
        compare: Compare<u32>,
    },
    /// `flow.bytes_toserver` and the like
    FlowBytes {
        /// Which direction.
        side: StreamSide,
        /// Bytes.
        compare: Compare<u64>,
    },
    /// `vlan.id`
    VlanId {
        /// Which tag, from the outermost, or negative from the innermost; any if absent.
        layer: Option<VlanLayer>,
        /// The id.
        compare: Compare<u16>,
    },
    /// `vlan.layers`
    VlanLayers(Compare<u8>),
    /// `app-layer-protocol`
    AppProtocol {
        /// `!`
        negated: bool,
        /// Name, or `failed`, `unknown`.
        name: String,
        /// Which direction's finding counts.
        mode: AppProtocolMode,
    },
    /// `decode-event`, `stream-event`, `app-layer-event`, `engine-event`: name as written, with
    /// its keyword in front: `decode-event:ipv4.pkt_too_small`.
    Event {
        /// Which of the keywords.
        kind: EventKind,
        /// What stands behind it.
        name: String,
    },
    /// `tcpv4-csum` and the like
    Checksum {
        /// Of what.
        of: ChecksumOf,
        /// `valid` or `invalid`.
        valid: bool,
    },
    /// `tunnel`: not Suricata's stock keyword list, but documented: the packet came out of one.
    Tunnel,
    /// `l3_proto`: 4 or 6.
    IpVersion(u8),
    /// `rpc`: the call of a Sun RPC message (RFC 5531 §9); any where absent.
    Rpc {
        /// Program.
        program: u32,
        /// Its version.
        version: Option<u32>,
        /// Procedure.
        procedure: Option<u32>,
    },
    /// `flowvar`, `pktvar`: a variable that a `pcre` has captured contains this.
    Variable {
        /// Whose.
        scope: CaptureScope,
        /// Its name.
        name: String,
        /// `!`
        negated: bool,
        /// The bytes looked for.
        value: Vec<u8>,
    },
    /// Numeric keyword of an application protocol, for example `dns.opcode`, `http2.errorcode`,
    /// `tls.version`: name and value as written, checked where the protocol is.
    App {
        /// The keyword.
        keyword: String,
        /// Its value.
        value: String,
    },
}

/// `flow`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCondition {
    /// `to_server`/`from_client` (true), `to_client`/`from_server` (false).
    pub to_server: Option<bool>,
    /// `established` (true), `not_established` (false).
    pub established: Option<bool>,
    /// `stateless`
    pub stateless: bool,
    /// `only_stream` (true), `no_stream` (false).
    pub stream: Option<bool>,
    /// `only_frag` (true), `no_frag` (false).
    pub fragment: Option<bool>,
}

/// What `flowint` asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowIntAsked {
    /// `isset`
    IsSet,
    /// `notset`, `isnotset`
    IsNotSet,
    /// A comparison; false while the variable is not set.
    Compare {
        /// `==`, `!=`, `<`, `<=`, `>`, `>=`.
        operator: FlowIntOperator,
        /// With what.
        with: FlowIntValue,
    },
}

/// How `flowint` compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowIntOperator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

/// A number, or another `flowint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowIntValue {
    /// As written.
    Literal(u32),
    /// Another variable of the flow.
    Variable(String),
}

/// Whose bits, or whose packets are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Track {
    /// `ip_src`, `by_src`
    Source,
    /// `ip_dst`, `by_dst`
    Destination,
    /// `ip_pair`
    Pair,
    /// `both` (of `by_both`: addresses in this order).
    Both,
    /// `by_rule`
    Rule,
    /// `by_flow`
    Flow,
    /// `tx`
    Transaction,
}

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamSide {
    /// What the client sent.
    Client,
    /// What the server sent.
    Server,
    /// Both of them.
    Both,
    /// Either of them.
    Either,
}

/// `flags`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags {
    /// How they are compared.
    pub modifier: BitModifier,
    /// FIN 1, SYN 2, RST 4, PSH 8, ACK 0x10, URG 0x20, ECE (`E` or `2`) 0x40, CWR (`C` or `1`)
    /// 0x80.
    pub flags: u8,
    /// Flags that do not count.
    pub ignored: u8,
}

/// How bits are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitModifier {
    /// These and no others.
    Exactly,
    /// `+`: these, and perhaps others.
    All,
    /// `*`: any of them.
    Any,
    /// `!`: none of them.
    Not,
}

/// `ipopts`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpOption {
    /// `any`
    Any,
    /// An option by its number (RFC 791 §3.1 and IANA).
    Number(u8),
}

/// Which end `geoip` looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeoSide {
    /// `src`
    Source,
    /// `dst`
    Destination,
    /// `any`
    Any,
    /// `both`
    Both,
}

/// Whose reputation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReputationSide {
    /// `src`
    Source,
    /// `dst`
    Destination,
    /// `any`
    Any,
    /// `both`
    Both,
}

/// Which VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VlanLayer {
    /// By its place, from 0 the outermost, -1 the innermost.
    At(i8),
    /// `any`
    Any,
    /// `all`
    All,
}

/// Which direction's protocol counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppProtocolMode {
    /// That of the packet's direction.
    #[default]
    Direction,
    /// `final`
    Final,
    /// `original`
    Original,
    /// `either`
    Either,
    /// `to_server`
    ToServer,
    /// `to_client`
    ToClient,
}

/// Which keyword names an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// `decode-event`
    Decode,
    /// `stream-event`
    Stream,
    /// `app-layer-event`
    App,
    /// `engine-event`: either of the first two.
    Engine,
}

/// Whose checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumOf {
    /// `ipv4-csum`
    Ipv4,
    /// `tcpv4-csum`
    Tcpv4,
    /// `tcpv6-csum`
    Tcpv6,
    /// `udpv4-csum`
    Udpv4,
    /// `udpv6-csum`
    Udpv6,
    /// `icmpv4-csum`
    Icmpv4,
    /// `icmpv6-csum`
    Icmpv6,
    /// `igmp-csum`
    Igmp,
}

/// What happens when a rule has matched, besides its action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `flowbits:set`, `unset`, `toggle`
    FlowBits {
        /// What is done.
        change: BitChange,
        /// Names.
        names: Vec<String>,
    },
    /// `flowint` that changes: `=`, `+`, `-`
    FlowInt {
        /// The variable.
        name: String,
        /// What is done.
        change: FlowIntChange,
        /// With what.
        value: FlowIntValue,
    },
    /// `xbits` and `hostbits` that change.
    HostBits {
        /// What is done.
        change: BitChange,
        /// Name.
        name: String,
        /// Whose.
        track: Track,
        /// Seconds until it is unset by itself.
        expire: Option<u32>,
    },
    /// `tag`
    Tag(Tag),
    /// `bypass`: the rest of the flow is not inspected.
    Bypass,
    /// `filestore`
    FileStore {
        /// Options as written.
        options: String,
    },
    /// `nfq_set_mark`: these bits of the packet's mark become `value`.
    SetMark {
        /// The bits.
        value: u32,
        /// Which bits.
        mask: u32,
    },
    /// `tls_store`: the certificates are kept.
    TlsStore,
    /// `config`
    Config {
        /// Options as written.
        options: String,
    },
}

/// What happens to a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitChange {
    /// `set`
    Set,
    /// `unset`
    Unset,
    /// `toggle`
    Toggle,
}

/// What happens to a `flowint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowIntChange {
    /// `=`
    Set,
    /// `+`
    Add,
    /// `-`
    Subtract,
}

/// `tag`: packets after the match that are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Whose packets.
    pub of: TagOf,
    /// How many, or how long.
    pub amount: u32,
    /// Of what.
    pub unit: TagUnit,
}

/// Whose packets are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagOf {
    /// `session`
    Session,
    /// `host,…,src`
    SourceHost,
    /// `host,…,dst`
    DestinationHost,
}

/// How long packets are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagUnit {
    /// `packets`
    Packets,
    /// `seconds`
    Seconds,
    /// `bytes`
    Bytes,
}

/// `threshold`, `detection_filter`, and those of `threshold.config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// What it does.
    pub kind: ThresholdKind,
    /// Whose matches are counted.
    pub track: Track,
    /// Matches.
    pub count: u32,
    /// In how many seconds.
    pub seconds: u32,
}

/// What a threshold does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ThresholdKind {
    /// `type limit`: at most `count` alerts in that time.
    Limit,
    /// `type threshold`: an alert every `count` matches within that time.
    Threshold,
    /// `type both`: one alert, from `count` matches on.
    Both,
    /// `type backoff`: alerts at 1, `multiplier`, `multiplier²`, … matches after `count`.
    Backoff {
        /// By how much the next one is further away.
        multiplier: u32,
    },
    /// `detection_filter`: the rule matches only beyond `count` matches in that time.
    DetectionFilter,
    /// `rate_filter`: beyond that rate the action is another for `timeout` seconds.
    Rate {
        /// The other action.
        new_action: super::Action,
        /// How long.
        timeout: u32,
    },
    /// `suppress`: no alert for these addresses; for all, if absent.
    Suppress {
        /// Addresses.
        addresses: Option<AddressSet>,
    },
}
