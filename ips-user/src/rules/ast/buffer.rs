//! The buffers that rules look into, and what can be done with their bytes first.

/// A buffer: which bytes a section of a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Buffer {
    /// What the transport carries, of the packet or of the stream: no sticky buffer, `pkt_data`.
    Payload,
    /// `ipv4.hdr`
    Ipv4Header,
    /// `ipv6.hdr`
    Ipv6Header,
    /// `tcp.hdr`
    TcpHeader,
    /// `udp.hdr`
    UdpHeader,
    /// `icmpv4.hdr`
    Icmpv4Header,
    /// `icmpv6.hdr`
    Icmpv6Header,
    /// `igmp.hdr`
    IgmpHeader,
    /// `ip.src`: the address as bytes in network order, 4 or 16; for `dataset`.
    IpSource,
    /// `ip.dst`
    IpDestination,
    /// `base64_data`: what `base64_decode` has decoded.
    Base64Data,
    /// A buffer of an application protocol.
    App(AppBuffer),
}

macro_rules! app_buffers {
    ($($variant:ident $name:literal $protocol:literal,)*) => {
        /// The buffers of application protocols, as the rules chapter of Suricata's user guide
        /// lists them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum AppBuffer {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl AppBuffer {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its keyword.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The protocol that has it; `any` for those that several have.
            pub const fn protocol(self) -> &'static str {
                match self { $(Self::$variant => $protocol,)* }
            }
        }
    };
}

app_buffers! {
    FileData "file.data" "any",
    FileName "file.name" "any",
    FileMagic "file.magic" "any",
    HttpUri "http.uri" "http",
    HttpUriRaw "http.uri.raw" "http",
    HttpMethod "http.method" "http",
    HttpRequestLine "http.request_line" "http",
    HttpRequestBody "http.request_body" "http",
    HttpHeader "http.header" "http",
    HttpHeaderRaw "http.header.raw" "http",
    HttpHeaderNames "http.header_names" "http",
    HttpRequestHeader "http.request_header" "http",
    HttpResponseHeader "http.response_header" "http",
    HttpCookie "http.cookie" "http",
    HttpUserAgent "http.user_agent" "http",
    HttpAccept "http.accept" "http",
    HttpAcceptEnc "http.accept_enc" "http",
    HttpAcceptLang "http.accept_lang" "http",
    HttpReferer "http.referer" "http",
    HttpHost "http.host" "http",
    HttpHostRaw "http.host.raw" "http",
    HttpConnection "http.connection" "http",
    HttpContentLen "http.content_len" "http",
    HttpContentType "http.content_type" "http",
    HttpLocation "http.location" "http",
    HttpServer "http.server" "http",
    HttpStart "http.start" "http",
    HttpProtocol "http.protocol" "http",
    HttpStatCode "http.stat_code" "http",
    HttpStatMsg "http.stat_msg" "http",
    HttpResponseLine "http.response_line" "http",
    HttpResponseBody "http.response_body" "http",
    Http2HeaderName "http2.header_name" "http2",
    Http2Header "http2.header" "http2",
    TlsSni "tls.sni" "tls",
    TlsAlpn "tls.alpn" "tls",
    TlsCertSubject "tls.cert_subject" "tls",
    TlsCertIssuer "tls.cert_issuer" "tls",
    TlsCertSerial "tls.cert_serial" "tls",
    TlsCertFingerprint "tls.cert_fingerprint" "tls",
    TlsCerts "tls.certs" "tls",
    TlsSubjectAltName "tls.subjectaltname" "tls",
    TlsRandom "tls.random" "tls",
    TlsRandomTime "tls.random_time" "tls",
    TlsRandomBytes "tls.random_bytes" "tls",
    Ja3Hash "ja3.hash" "any",
    Ja3String "ja3.string" "any",
    Ja3sHash "ja3s.hash" "any",
    Ja3sString "ja3s.string" "any",
    Ja4Hash "ja4.hash" "any",
    DnsQuery "dns.query" "dns",
    DnsQueryName "dns.query.name" "dns",
    DnsQueriesRrname "dns.queries.rrname" "dns",
    DnsAnswerName "dns.answer.name" "dns",
    DnsAnswersRrname "dns.answers.rrname" "dns",
    DnsAuthoritiesRrname "dns.authorities.rrname" "dns",
    DnsAdditionalsRrname "dns.additionals.rrname" "dns",
    DnsResponseRrname "dns.response.rrname" "dns",
    MdnsQueriesRrname "mdns.queries.rrname" "mdns",
    MdnsAnswersRrname "mdns.answers.rrname" "mdns",
    MdnsAuthoritiesRrname "mdns.authorities.rrname" "mdns",
    MdnsAdditionalsRrname "mdns.additionals.rrname" "mdns",
    MdnsResponseRrname "mdns.response.rrname" "mdns",
    SshProto "ssh.proto" "ssh",
    SshSoftware "ssh.software" "ssh",
    SshHassh "ssh.hassh" "ssh",
    SshHasshString "ssh.hassh.string" "ssh",
    SshHasshServer "ssh.hassh.server" "ssh",
    SshHasshServerString "ssh.hassh.server.string" "ssh",
    SmtpHelo "smtp.helo" "smtp",
    SmtpMailFrom "smtp.mail_from" "smtp",
    SmtpRcptTo "smtp.rcpt_to" "smtp",
    EmailFrom "email.from" "smtp",
    EmailTo "email.to" "smtp",
    EmailCc "email.cc" "smtp",
    EmailSubject "email.subject" "smtp",
    EmailDate "email.date" "smtp",
    EmailMessageId "email.message_id" "smtp",
    EmailXMailer "email.x_mailer" "smtp",
    EmailUrl "email.url" "smtp",
    EmailReceived "email.received" "smtp",
    EmailBodyMd5 "email.body_md5" "smtp",
    FtpCommand "ftp.command" "ftp",
    FtpCommandData "ftp.command_data" "ftp",
    FtpReply "ftp.reply" "ftp",
    FtpCompletionCode "ftp.completion_code" "ftp",
    KrbCname "krb5.cname" "krb5",
    KrbSname "krb5.sname" "krb5",
    SmbNamedPipe "smb.named_pipe" "smb",
    SmbShare "smb.share" "smb",
    SmbNtlmsspUser "smb.ntlmssp_user" "smb",
    SmbNtlmsspDomain "smb.ntlmssp_domain" "smb",
    DceStubData "dcerpc.stub_data" "dcerpc",
    SipMethod "sip.method" "sip",
    SipUri "sip.uri" "sip",
    SipRequestLine "sip.request_line" "sip",
    SipResponseLine "sip.response_line" "sip",
    SipProtocol "sip.protocol" "sip",
    SipStatCode "sip.stat_code" "sip",
    SipStatMsg "sip.stat_msg" "sip",
    SipFrom "sip.from" "sip",
    SipTo "sip.to" "sip",
    SipVia "sip.via" "sip",
    SipUserAgent "sip.user_agent" "sip",
    SipContentType "sip.content_type" "sip",
    SipContentLength "sip.content_length" "sip",
    SdpOrigin "sdp.origin" "sdp",
    SdpSessionName "sdp.session_name" "sdp",
    SdpSessionInfo "sdp.session_info" "sdp",
    SdpUri "sdp.uri" "sdp",
    SdpEmail "sdp.email" "sdp",
    SdpPhoneNumber "sdp.phone_number" "sdp",
    SdpConnectionData "sdp.connection_data" "sdp",
    SdpBandwidth "sdp.bandwidth" "sdp",
    SdpTime "sdp.time" "sdp",
    SdpRepeatTime "sdp.repeat_time" "sdp",
    SdpTimezone "sdp.timezone" "sdp",
    SdpEncryptionKey "sdp.encryption_key" "sdp",
    SdpAttribute "sdp.attribute" "sdp",
    SdpMediaMedia "sdp.media.media" "sdp",
    SdpMediaSessionInfo "sdp.media.media_info" "sdp",
    SdpMediaConnectionData "sdp.media.connection_data" "sdp",
    SdpMediaEncryptionKey "sdp.media.encryption_key" "sdp",
    RfbName "rfb.name" "rfb",
    MqttConnectClientId "mqtt.connect.clientid" "mqtt",
    MqttConnectUsername "mqtt.connect.username" "mqtt",
    MqttConnectPassword "mqtt.connect.password" "mqtt",
    MqttConnectProtocolString "mqtt.connect.protocol_string" "mqtt",
    MqttConnectWillTopic "mqtt.connect.willtopic" "mqtt",
    MqttConnectWillMessage "mqtt.connect.willmessage" "mqtt",
    MqttPublishTopic "mqtt.publish.topic" "mqtt",
    MqttPublishMessage "mqtt.publish.message" "mqtt",
    MqttSubscribeTopic "mqtt.subscribe.topic" "mqtt",
    MqttUnsubscribeTopic "mqtt.unsubscribe.topic" "mqtt",
    QuicSni "quic.sni" "quic",
    QuicUa "quic.ua" "quic",
    QuicVersion "quic.version" "quic",
    QuicCyuHash "quic.cyu.hash" "quic",
    QuicCyuString "quic.cyu.string" "quic",
    IkeInitSpi "ike.init_spi" "ike",
    IkeRespSpi "ike.resp_spi" "ike",
    IkeNoncePayload "ike.nonce_payload" "ike",
    IkeVendor "ike.vendor" "ike",
    IkeKeyExchangePayload "ike.key_exchange_payload" "ike",
    SnmpCommunity "snmp.community" "snmp",
    SnmpUsm "snmp.usm" "snmp",
    EnipProductName "enip.product_name" "enip",
    EnipServiceName "enip.service_name" "enip",
    Dnp3Data "dnp3.data" "dnp3",
    LdapRequestDn "ldap.request.dn" "ldap",
    LdapResponsesDn "ldap.responses.dn" "ldap",
    LdapResponsesMessage "ldap.responses.message" "ldap",
    LdapRequestAttributeType "ldap.request.attribute_type" "ldap",
    LdapResponsesAttributeType "ldap.responses.attribute_type" "ldap",
    NtpReferenceId "ntp.reference_id" "ntp",
    WebsocketPayload "websocket.payload" "websocket",
    PgsqlQuery "pgsql.query" "pgsql",
}

impl AppBuffer {
    /// Whether only one direction has it: to the server (true), to the client (false).
    pub const fn to_server(self) -> Option<bool> {
        use AppBuffer as B;
        match self {
            B::HttpUri
            | B::HttpUriRaw
            | B::HttpMethod
            | B::HttpRequestLine
            | B::HttpRequestBody
            | B::HttpRequestHeader
            | B::HttpUserAgent
            | B::HttpAccept
            | B::HttpAcceptEnc
            | B::HttpAcceptLang
            | B::HttpReferer
            | B::HttpHost
            | B::HttpHostRaw
            | B::TlsSni
            | B::Ja3Hash
            | B::Ja3String
            | B::Ja4Hash
            | B::DnsQuery
            | B::SshHassh
            | B::SshHasshString
            | B::SmtpHelo
            | B::SmtpMailFrom
            | B::SmtpRcptTo
            | B::EmailFrom
            | B::EmailTo
            | B::EmailCc
            | B::EmailSubject
            | B::EmailDate
            | B::EmailMessageId
            | B::EmailXMailer
            | B::EmailUrl
            | B::EmailReceived
            | B::EmailBodyMd5
            | B::FtpCommand
            | B::FtpCommandData
            | B::SmbNamedPipe
            | B::SmbShare
            | B::SipMethod
            | B::SipUri
            | B::SipRequestLine
            | B::MqttConnectClientId
            | B::MqttConnectUsername
            | B::MqttConnectPassword
            | B::MqttConnectProtocolString
            | B::MqttConnectWillTopic
            | B::MqttConnectWillMessage
            | B::LdapRequestDn
            | B::LdapRequestAttributeType
            | B::PgsqlQuery => Some(true),
            B::HttpResponseHeader
            | B::HttpResponseBody
            | B::HttpResponseLine
            | B::HttpStatCode
            | B::HttpStatMsg
            | B::HttpLocation
            | B::HttpServer
            | B::Ja3sHash
            | B::Ja3sString
            | B::DnsResponseRrname
            | B::SshHasshServer
            | B::SshHasshServerString
            | B::FtpReply
            | B::FtpCompletionCode
            | B::SipResponseLine
            | B::SipStatCode
            | B::SipStatMsg
            | B::RfbName
            | B::LdapResponsesDn
            | B::LdapResponsesMessage
            | B::LdapResponsesAttributeType => Some(false),
            _ => None,
        }
    }

    /// Whether one transaction can have several of it. Then each mention in a rule may be
    /// another of them ("Multiple Buffer Matching" in the rules chapter).
    pub const fn is_multiple(self) -> bool {
        use AppBuffer as B;
        matches!(
            self,
            B::DnsQuery
                | B::DnsQueryName
                | B::DnsQueriesRrname
                | B::DnsAnswerName
                | B::DnsAnswersRrname
                | B::DnsAuthoritiesRrname
                | B::DnsAdditionalsRrname
                | B::DnsResponseRrname
                | B::MdnsQueriesRrname
                | B::MdnsAnswersRrname
                | B::MdnsAuthoritiesRrname
                | B::MdnsAdditionalsRrname
                | B::MdnsResponseRrname
                | B::FileData
                | B::FileMagic
                | B::FileName
                | B::HttpRequestHeader
                | B::HttpResponseHeader
                | B::Http2Header
                | B::Http2HeaderName
                | B::IkeVendor
                | B::KrbCname
                | B::KrbSname
                | B::LdapRequestAttributeType
                | B::LdapResponsesAttributeType
                | B::LdapResponsesDn
                | B::LdapResponsesMessage
                | B::MqttSubscribeTopic
                | B::MqttUnsubscribeTopic
                | B::QuicCyuHash
                | B::QuicCyuString
                | B::SipContentLength
                | B::SipContentType
                | B::SipFrom
                | B::SipTo
                | B::SipUserAgent
                | B::SipVia
                | B::SmtpRcptTo
                | B::EmailReceived
                | B::EmailUrl
                | B::FtpReply
                | B::TlsAlpn
                | B::TlsCertSubject
                | B::TlsCerts
                | B::TlsSubjectAltName
                | B::SdpBandwidth
                | B::SdpTime
                | B::SdpRepeatTime
                | B::SdpAttribute
                | B::SdpMediaMedia
                | B::SdpMediaSessionInfo
                | B::SdpMediaConnectionData
                | B::SdpMediaEncryptionKey
        )
    }
}

/// What is done with the bytes of a buffer before they are looked at, in the order written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transform {
    /// `compress_whitespace`
    CompressWhitespace,
    /// `strip_whitespace`
    StripWhitespace,
    /// `dotprefix`
    DotPrefix,
    /// `domain`
    Domain,
    /// `tld`
    TopLevelDomain,
    /// `to_md5`
    Md5,
    /// `to_sha1`
    Sha1,
    /// `to_sha256`
    Sha256,
    /// `to_lowercase`
    Lowercase,
    /// `to_uppercase`
    Uppercase,
    /// `header_lowercase`
    HeaderLowercase,
    /// `strip_pseudo_headers`
    StripPseudoHeaders,
    /// `url_decode`
    UrlDecode,
    /// `from_base64`
    FromBase64 {
        /// Most bytes to decode; all if zero.
        bytes: u32,
        /// Where to begin.
        offset: u32,
        /// `rfc4648`, `rfc2045` or `strict`.
        mode: Base64Mode,
    },
    /// `xor`
    Xor(Vec<u8>),
    /// `pcrexform`: what the first group matches.
    PcreCapture(String),
    /// `gunzip`
    Gunzip {
        /// Most bytes that may come out.
        max_size: u32,
    },
    /// `zlib_deflate`
    Inflate {
        /// Most bytes that may come out.
        max_size: u32,
    },
    /// `subslice`
    Subslice {
        /// First byte; negative from the end.
        offset: i32,
        /// Bytes; to the end if absent, and negative from the end.
        length: Option<i32>,
    },
}

/// How strictly base64 is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Base64Mode {
    /// Ends at what is not in the alphabet.
    Rfc4648,
    /// Looks past what is not in the alphabet.
    Rfc2045,
    /// Fails at what is not in the alphabet.
    Strict,
}
