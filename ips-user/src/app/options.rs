//! How applications are listened to, and what of the settings says so.

use std::sync::Arc;

use serde_json::Value;

use crate::config::settings::{
    BodyInline, Dns, DnsTransport, Enabled, EngineSettings, Hassh, Personality, PolicyOf,
};
use crate::exception::Treatment;
use crate::rules::PortSet;

use super::file::{HashKind, WantedHashes};
use super::memory::Caps;
use super::protocol::AppProtocol;
use super::smtp::SmtpOptions;

/// How applications are listened to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppOptions {
    /// Protocols that are not looked for.
    off: Vec<AppProtocol>,
    /// Protocols that are only recognised.
    only_recognised: Vec<AppProtocol>,
    /// Hashes that rules or records need of files.
    pub hashes: WantedHashes,
    /// How files are stored.
    pub store: StoreOptions,
    pub(super) dns: DnsPorts,
    /// Whether the fingerprints of SSH are made; when rules ask for them, if `None`.
    pub hassh: Option<bool>,
    /// What becomes of what cannot be read.
    pub error: Treatment,
    /// How much what is said may take.
    pub(super) caps: Caps,
    pub(super) http: HttpOptions,
    pub(super) smtp: Arc<SmtpOptions>,
}

/// Ports that say that it is DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DnsPorts {
    pub(super) tcp: PortSet,
    pub(super) udp: PortSet,
}

impl Default for DnsPorts {
    fn default() -> Self {
        Self::of(&Dns::default())
    }
}

impl DnsPorts {
    fn of(dns: &Dns) -> Self {
        let of = |transport: &DnsTransport| {
            let own = &transport.detection_ports.dp.0;
            PortSet::of([&own[..], &dns.detection_ports.dp.0].concat())
        };
        Self {
            tcp: of(&dns.tcp),
            udp: of(&dns.udp),
        }
    }
}

/// How files are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreOptions {
    /// Whether any can be; when rules say so, if `None`.
    pub on: Option<bool>,
    /// All are.
    pub all: bool,
    /// The record of a file is put beside it.
    pub with_record: bool,
    /// Bytes of each.
    depth: usize,
}

impl StoreOptions {
    fn configured(settings: &EngineSettings) -> Self {
        let store = &settings.outputs.file_store;
        let depth = match store.stream_depth.bytes() {
            0 => settings.stream.reassembly.depth.bytes(),
            depth => depth,
        };
        Self {
            on: store.is_on(),
            all: store.force,
            with_record: store.write_fileinfo,
            depth: all_if_zero(depth),
        }
    }
}

/// How HTTP is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpOptions {
    pub(super) personality: Personality,
    pub(super) request_limit: usize,
    pub(super) response_limit: usize,
    /// Bytes that are waited for.
    pub(super) least_request: usize,
    pub(super) least_response: usize,
    pub(super) layers: u8,
    /// Memory for LZMA; zero if it is off.
    pub(super) lzma: usize,
    pub(super) bomb_limit: usize,
    pub(super) time_limit_us: u32,
    pub(super) double_decode_path: bool,
    pub(super) double_decode_query: bool,
    pub(super) field_limit: usize,
    pub(super) max_transactions: u32,
    pub(super) headers: u32,
}

impl Default for HttpOptions {
    fn default() -> Self {
        AppOptions::configured(&EngineSettings::default(), true).http
    }
}

impl AppOptions {
    /// As configured, where packets can (`inline`) or cannot be dropped.
    pub fn configured(settings: &EngineSettings, inline: bool) -> Self {
        let protocols = &settings.app_layer.protocols;
        let enabled = |protocol: AppProtocol| match protocol {
            AppProtocol::Dns => protocols.dns.enabled,
            AppProtocol::Http1 => protocols.http.enabled,
            AppProtocol::Tls => protocols.tls.enabled,
            AppProtocol::Ssh => protocols.ssh.enabled,
            AppProtocol::Smtp => protocols.smtp.enabled,
        };
        let mut caps = Caps {
            total: settings.app_layer.memcap.0,
            ..Caps::default()
        };
        for protocol in AppProtocol::ALL {
            caps.of[*protocol as usize] = match protocol {
                AppProtocol::Dns => protocols.dns.memcap,
                AppProtocol::Http1 => protocols.http.memcap,
                AppProtocol::Tls => protocols.tls.memcap,
                AppProtocol::Ssh => protocols.ssh.memcap,
                AppProtocol::Smtp => protocols.smtp.memcap,
            }
            .0;
        }
        let those = |wanted: Enabled| {
            let all = AppProtocol::ALL.iter().copied();
            all.filter(|it| enabled(*it) == wanted).collect()
        };
        let server = &protocols.http.libhtp.default_config;
        let at_once = match server.body_inline {
            BodyInline::Auto => inline,
            BodyInline::Yes => true,
            BodyInline::No => false,
        };
        let least = |bytes: usize| if at_once { 0 } else { bytes };
        let lzma = server.lzma_memlimit.bytes();
        Self {
            off: those(Enabled::No),
            only_recognised: those(Enabled::DetectionOnly),
            hashes: of_records(settings),
            store: StoreOptions::configured(settings),
            dns: DnsPorts::of(&protocols.dns),
            hassh: match protocols.ssh.hassh {
                Hassh::Auto => None,
                Hassh::Yes => Some(true),
                Hassh::No => Some(false),
            },
            error: settings.treatment(PolicyOf::AppLayerError, inline),
            caps,
            http: HttpOptions {
                personality: server.personality,
                request_limit: all_if_zero(server.request_body_limit.bytes()),
                response_limit: all_if_zero(server.response_body_limit.bytes()),
                least_request: least(server.request_body_minimal.bytes()),
                least_response: least(server.response_body_minimal.bytes()),
                layers: server.decompress_layers,
                lzma: if server.lzma { lzma } else { 0 },
                bomb_limit: server.bomb_limit.bytes(),
                time_limit_us: server.decompression_time_limit,
                double_decode_path: server.double_decode_path,
                double_decode_query: server.double_decode_query,
                field_limit: server.meta_field_limit.bytes(),
                max_transactions: server.max_tx,
                headers: server.headers_limit,
            },
            smtp: Arc::new(SmtpOptions::configured(settings, inline)),
        }
    }

    /// Adds what rules ask for.
    pub fn add_asked(&mut self, hashes: WantedHashes, stores_files: bool, hassh: bool) {
        self.hashes = self.hashes.with(hashes);
        self.store.on = self.store.on.or(stores_files.then_some(true));
        self.hassh = self.hassh.or(hassh.then_some(true));
    }

    /// Bytes that are kept of a file because it may have to be stored.
    pub(super) fn stored_bytes(&self) -> usize {
        match self.store.on {
            Some(true) => self.store.depth,
            _ => 0,
        }
    }

    /// Whether a protocol is looked for.
    pub(super) fn looks_for(&self, protocol: AppProtocol) -> bool {
        !self.off.contains(&protocol)
    }

    /// Whether it is taken apart.
    pub(super) fn takes_apart(&self, protocol: AppProtocol) -> bool {
        !self.only_recognised.contains(&protocol)
    }
}

/// Those that `fileinfo` records are to have (`force-hash`).
fn of_records(settings: &EngineSettings) -> WantedHashes {
    let mut wanted = WantedHashes::default();
    let logs = settings.outputs.logs.iter();
    let store = &settings.outputs.file_store;
    let kinds = HashKind::ALL.into_iter();
    kinds
        .filter(|kind| store.force_hash.iter().any(|name| name == kind.name()))
        .for_each(|it| wanted.want(it));
    if store.is_on() == Some(true) {
        // Files are stored under it.
        wanted.want(HashKind::Sha256);
    }
    let options = logs.flat_map(|log| &log.types.application);
    for (_, options) in options.filter(|(name, _)| name == "files") {
        let names = options.get("force-hash").and_then(Value::as_array);
        for name in names.into_iter().flatten().filter_map(Value::as_str) {
            let kinds = HashKind::ALL.into_iter();
            kinds
                .filter(|it| it.name() == name)
                .for_each(|it| wanted.want(it));
        }
    }
    wanted
}

/// No limit.
fn all_if_zero(bytes: usize) -> usize {
    if bytes == 0 { usize::MAX } else { bytes }
}
