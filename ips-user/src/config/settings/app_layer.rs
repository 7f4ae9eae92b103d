//! `app-layer`: application protocols.

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::node::{Fault, Leaf, settings};
use super::smtp::Smtp;
use super::value::{ByteSize, choice};
use crate::exception::ExceptionPolicy;

settings! {
    /// `app-layer`
    pub AppLayer {
        /// What happens when a parser cannot go on.
        error_policy("error-policy"): ExceptionPolicy = ExceptionPolicy::Auto,
        /// Bytes that all that is known of conversations may take.
        memcap("memcap"): ByteSize = ByteSize::mib(128),
        /// Each protocol.
        protocols("protocols"): Protocols = Protocols::default(),
    }
}

settings! {
    /// `app-layer.protocols`
    pub Protocols {
        /// HTTP/1.
        http("http"): Http = Http::default(),
        /// Domain names.
        dns("dns"): Dns = Dns::default(),
        /// Mail.
        smtp("smtp"): Smtp = Smtp::default(),
        /// SSH.
        ssh("ssh"): Ssh = Ssh::default(),
        /// TLS.
        tls("tls"): Listened = Listened::default(),
    }
}

settings! {
    /// `app-layer.protocols.dns`
    pub Dns {
        /// Whether it is looked for.
        enabled("enabled"): Enabled = Enabled::Yes,
        /// Bytes that its conversations may take; zero for no limit of their own.
        memcap("memcap"): ByteSize = ByteSize(0),
        /// Ports that say so, besides those of either transport.
        detection_ports("detection-ports"): FurtherPorts = FurtherPorts::default(),
        /// Over TCP.
        tcp("tcp"): DnsTransport = DnsTransport::default(),
        /// Over UDP.
        udp("udp"): DnsTransport = DnsTransport::default(),
    }
}

settings! {
    /// `app-layer.protocols.dns.udp`
    pub DnsTransport {
        /// Ports that say that it is DNS.
        detection_ports("detection-ports"): DetectionPorts = DetectionPorts::default(),
    }
}

settings! {
    /// `detection-ports`
    pub DetectionPorts {
        /// Of servers.
        dp("dp"): PortList = PortList(vec![(53, 53)]),
    }
}

settings! {
    /// `app-layer.protocols.dns.detection-ports`
    pub FurtherPorts {
        /// Of servers.
        dp("dp"): PortList = PortList(Vec::new()),
    }
}

/// Ports and ranges of them, first and last: `53, 5350-5353`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortList(pub Vec<(u16, u16)>);

impl Leaf for PortList {
    fn parse(value: &Value) -> Result<Self, Fault> {
        let wrong = || Fault::expected("ports, as in 53, 5350-5353", value);
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Err(wrong()),
        };
        let text = text.trim().trim_start_matches('[').trim_end_matches(']');
        let range = |part: &str| {
            let (first, last) = part.split_once(['-', ':']).unwrap_or((part, part));
            let port = |text: &str| text.trim().parse::<u16>().ok();
            port(first)
                .zip(port(last))
                .filter(|(first, last)| first <= last)
        };
        let parts = text.split(',').filter(|_| !text.is_empty());
        let ranges = parts.map(range).collect::<Option<_>>();
        ranges.map(Self).ok_or_else(wrong)
    }
}

impl Serialize for PortList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ranges = self.0.iter().map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        ranges.collect::<Vec<_>>().join(", ").serialize(serializer)
    }
}

settings! {
    /// A protocol without settings of its own.
    pub Listened {
        /// Whether it is looked for.
        enabled("enabled"): Enabled = Enabled::Yes,
        /// Bytes that its conversations may take; zero for no limit of their own.
        memcap("memcap"): ByteSize = ByteSize(0),
    }
}

settings! {
    /// `app-layer.protocols.ssh`
    pub Ssh {
        /// Whether it is looked for.
        enabled("enabled"): Enabled = Enabled::Yes,
        /// Bytes that its conversations may take; zero for no limit of their own.
        memcap("memcap"): ByteSize = ByteSize(0),
        /// Whether the fingerprints of both ends are made.
        hassh("hassh"): Hassh = Hassh::Auto,
    }
}

settings! {
    /// `app-layer.protocols.http`
    pub Http {
        /// Whether it is looked for.
        enabled("enabled"): Enabled = Enabled::Yes,
        /// Bytes that its conversations may take; zero for no limit of their own.
        memcap("memcap"): ByteSize = ByteSize(0),
        /// How it is read.
        libhtp("libhtp"): Libhtp = Libhtp::default(),
    }
}

settings! {
    /// `app-layer.protocols.http.libhtp`
    pub Libhtp {
        /// Of all servers.
        default_config("default-config"): HttpServer = HttpServer::default(),
    }
}

settings! {
    /// `app-layer.protocols.http.libhtp.default-config`
    pub HttpServer {
        /// Whose way of reading requests is taken.
        personality("personality"): Personality = Personality::Ids,
        /// Bytes of a request's body that are inspected.
        request_body_limit("request-body-limit"): ByteSize = ByteSize(100 << 10),
        /// The same of a response.
        response_body_limit("response-body-limit"): ByteSize = ByteSize(100 << 10),
        /// Watching: bytes of a request's body that are waited for.
        request_body_minimal("request-body-minimal-inspect-size"): ByteSize = ByteSize(32 << 10),
        /// The same of a response.
        response_body_minimal("response-body-minimal-inspect-size"): ByteSize = ByteSize(40 << 10),
        /// Encodings one in another that are undone.
        decompress_layers("response-body-decompress-layer-limit"): u8 = 2,
        /// Whether bodies are inspected as they come.
        body_inline("http-body-inline"): BodyInline = BodyInline::Auto,
        /// Whether LZMA is undone.
        lzma("lzma-enabled"): bool = false,
        /// Memory for that.
        lzma_memlimit("lzma-memlimit"): ByteSize = ByteSize(1 << 20),
        /// Bytes that a compressed body may become.
        bomb_limit("compression-bomb-limit"): ByteSize = ByteSize(1 << 20),
        /// Microseconds that decompression of a body may take.
        decompression_time_limit("decompression-time-limit"): u32 = 100_000,
        /// Whether `%` is undone twice in paths.
        double_decode_path("double-decode-path"): bool = false,
        /// The same in queries.
        double_decode_query("double-decode-query"): bool = false,
        /// Bytes of a line or a header.
        meta_field_limit("meta-field-limit"): ByteSize = ByteSize(18432),
        /// Exchanges of a connection at a time.
        max_tx("max-tx"): u32 = 512,
        /// Headers of a message.
        headers_limit("headers-limit"): u32 = 1024,
    }
}

choice! {
    /// `enabled`
    pub Enabled {
        /// It is recognised and taken apart.
        Yes = "yes" | "true" | "on",
        /// It is not looked for.
        No = "no" | "false" | "off",
        /// It is recognised.
        DetectionOnly = "detection-only",
    }
}

choice! {
    /// `hassh`
    pub Hassh {
        /// When rules ask for them.
        Auto = "auto",
        /// Always.
        Yes = "yes" | "true" | "on",
        /// Never, and rules that ask for them match nothing.
        No = "no" | "false" | "off",
    }
}

choice! {
    /// `http-body-inline`
    pub BodyInline {
        /// When packets can be dropped.
        Auto = "auto",
        /// Always.
        Yes = "yes" | "true",
        /// Never.
        No = "no" | "false",
    }
}

choice! {
    /// `personality`
    pub Personality {
        /// As little as possible is undone.
        Minimal = "Minimal" | "minimal",
        /// Whatever some server undoes.
        Generic = "Generic" | "generic",
        /// The same, for inspection.
        Ids = "IDS" | "ids",
        /// IIS 4.0
        Iis40 = "IIS_4_0",
        /// IIS 5.0
        Iis50 = "IIS_5_0",
        /// IIS 5.1
        Iis51 = "IIS_5_1",
        /// IIS 6.0
        Iis60 = "IIS_6_0",
        /// IIS 7.0
        Iis70 = "IIS_7_0",
        /// IIS 7.5
        Iis75 = "IIS_7_5",
        /// Apache 2
        Apache2 = "Apache_2" | "Apache",
    }
}
