//! `outputs`: which records are written, with what in them, and where to.
//!
//! Only `eve-log` is honoured. Several may be given: each takes the types that it names, and a
//! record has whatever any of them asks for in it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::file_store::FileStore;
use super::node::{Fault, Leaf, Node, settings};
use super::value::{ByteSize, choice};

/// `outputs`
#[derive(Clone, Debug, PartialEq)]
pub struct EveOutputs {
    /// The ones that are enabled.
    pub logs: Vec<EveLog>,
    /// Files that are kept.
    pub file_store: FileStore,
    /// What was given and means nothing here.
    pub ignored: Vec<String>,
    source: Value,
}

impl Default for EveOutputs {
    /// Suricata's stock records and, because packets are dropped here, which and why.
    fn default() -> Self {
        Self::of(&json!([{"eve-log": {"types": [
            {"alert": {"tagged-packets": true, "verdict": true}},
            {"anomaly": {"types": {"decode": false, "stream": false, "applayer": true}}},
            {"drop": {"alerts": true, "flows": "start", "verdict": true}},
            {"http": {"extended": true}}, "dns", "tls", "files", "smtp", "ssh", "stats", "flow",
        ]}}]))
    }
}

impl EveOutputs {
    /// Suricata's stock configuration.
    pub fn stock() -> Self {
        Self::of(&json!([{"eve-log": {"types": [
            {"alert": {"tagged-packets": true}},
            {"anomaly": {"types": {"decode": false, "stream": false, "applayer": true}}},
            {"http": {"extended": true}}, "dns", "tls", "files", "smtp", "ssh", "stats", "flow",
        ]}}]))
    }

    fn of(value: &Value) -> Self {
        // Both callers' values are read by the tests of this file.
        Self::parse(value).unwrap_or_else(|_| Self {
            logs: Vec::new(),
            file_store: FileStore::default(),
            ignored: Vec::new(),
            source: json!([]),
        })
    }

    /// What is to be in records so that every log has what it asks for.
    pub fn records(&self) -> EveTypes {
        let mut all = EveTypes::default();
        for log in &self.logs {
            all.add(&log.types);
        }
        all
    }
}

impl super::EngineSettings {
    /// What records have, for whoever makes them.
    pub fn records(&self) -> Records {
        let logs = &self.outputs.logs;
        Records {
            types: self.outputs.records(),
            community_id: logs.iter().find_map(|log| log.community_id),
            capture: logs.iter().any(|log| log.pcap_file),
            ethernet: logs.iter().any(|log| log.ethernet),
            dns_version: dns_version(logs),
            http_extended: logs.iter().any(|log| {
                let http = log
                    .types
                    .application
                    .iter()
                    .find(|(name, _)| name == "http");
                http.and_then(|(_, options)| is_on(options.get("extended")?)) == Some(true)
            }),
        }
    }
}

/// YAML's yes.
fn is_on(value: &Value) -> Option<bool> {
    bool::parse(value).ok()
}

/// As configured, else as the environment says, as Suricata 8 reads it; else the newest.
fn dns_version(logs: &[EveLog]) -> u8 {
    let of = |types: &EveTypes| {
        let dns = types.application.iter().find(|(name, _)| name == "dns")?;
        dns.1.get("version")?.as_u64()
    };
    let configured = logs.iter().find_map(|log| of(&log.types));
    let environment = || std::env::var("SURICATA_EVE_DNS_VERSION").ok()?.parse().ok();
    match configured.or_else(environment) {
        Some(2) => 2,
        _ => 3,
    }
}

impl Default for Records {
    /// Those of the default outputs.
    fn default() -> Self {
        super::EngineSettings::default().records()
    }
}

/// What records have.
#[derive(Clone, Debug, PartialEq)]
pub struct Records {
    /// Which there are, and what is in each kind.
    pub types: EveTypes,
    /// Seed of `community_id`, if they have one.
    pub community_id: Option<u16>,
    /// `pcap_filename`
    pub capture: bool,
    /// MAC addresses.
    pub ethernet: bool,
    /// Of the format of `dns` records: 2 or 3.
    pub dns_version: u8,
    /// Whether `http` records have more than host, path, client and type.
    pub http_extended: bool,
}

impl Serialize for EveOutputs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.source.serialize(serializer)
    }
}

impl Leaf for EveOutputs {
    fn parse(value: &Value) -> Result<Self, Fault> {
        let outputs = value
            .as_array()
            .ok_or_else(|| Fault::expected("a list of outputs", value))?;
        let mut parsed = Self {
            logs: Vec::new(),
            file_store: FileStore::default(),
            ignored: Vec::new(),
            source: without_null(value),
        };
        for output in outputs {
            for (name, options) in named(output)? {
                if name == "eve-log" {
                    let log = EveLog::parse(options, &mut parsed.ignored)?;
                    parsed.logs.extend(log);
                } else if name == "file-store" {
                    parsed.file_store = FileStore::parse(options, &mut parsed.ignored)?;
                } else {
                    parsed.ignored.push(format!("outputs.{name}"));
                }
            }
        }
        Ok(parsed)
    }
}

/// TOML has no null; an empty mapping of YAML is one without entries.
fn without_null(value: &Value) -> Value {
    match value {
        Value::Null => Value::Object(Map::new()),
        Value::Array(values) => values.iter().map(without_null).collect(),
        Value::Object(values) => {
            let values = values.iter();
            values
                .map(|(name, value)| (name.clone(), without_null(value)))
                .collect()
        }
        other => other.clone(),
    }
}

/// An entry of a list: a name alone, or with options.
fn named(entry: &Value) -> Result<Vec<(&str, &Value)>, Fault> {
    match entry {
        Value::String(name) => Ok(vec![(name, &Value::Null)]),
        Value::Object(entries) => Ok(entries
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .collect()),
        other => Err(Fault::expected("a name, or a name with options", other)),
    }
}

/// One `eve-log`.
#[derive(Clone, Debug, PartialEq)]
pub struct EveLog {
    /// Where lines go.
    pub to: To,
    /// What each line begins with.
    pub prefix: String,
    /// Seed of `community_id`, if records have one.
    pub community_id: Option<u16>,
    /// Whether records name the capture.
    pub pcap_file: bool,
    /// Whether records have MAC addresses.
    pub ethernet: bool,
    /// Which records.
    pub types: EveTypes,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq)]
pub enum To {
    /// A file, relative to the log directory.
    File {
        /// Its name.
        name: PathBuf,
        /// When another one is begun.
        rotation: Rotation,
    },
    /// A Unix socket that somebody listens at, relative to the log directory.
    UnixStream(PathBuf),
    /// The same with datagrams: one a line.
    UnixDatagram(PathBuf),
    /// The system's log.
    Syslog(Syslog),
}

/// When a file is put aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// At this age; the time is in multiples of it, so that every hour begins a file.
    pub every: Option<Duration>,
    /// At this size.
    pub bytes: Option<u64>,
    /// How many old ones are kept; `None` for all.
    pub keep: Option<u32>,
}

/// How lines stand in the system's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// Whose they are.
    pub identity: String,
    /// RFC 5424 facility.
    pub facility: SyslogFacility,
    /// RFC 5424 severity.
    pub level: SyslogLevel,
}

choice! {
    /// RFC 5424 §6.2.1
    pub SyslogFacility {
        /// 1
        User = "user",
        /// 3
        Daemon = "daemon",
        /// 4
        Auth = "auth",
        /// 10
        Authpriv = "authpriv",
        /// 16
        Local0 = "local0",
        /// 17
        Local1 = "local1",
        /// 18
        Local2 = "local2",
        /// 19
        Local3 = "local3",
        /// 20
        Local4 = "local4",
        /// 21
        Local5 = "local5",
        /// 22
        Local6 = "local6",
        /// 23
        Local7 = "local7",
    }
}

choice! {
    /// RFC 5424 §6.2.1
    pub SyslogLevel {
        /// 0
        Emergency = "emergency",
        /// 1
        Alert = "alert",
        /// 2
        Critical = "critical",
        /// 3
        Error = "error",
        /// 4
        Warning = "warning",
        /// 5
        Notice = "notice",
        /// 6
        Info = "info",
        /// 7
        Debug = "debug",
    }
}

choice! {
    /// `filetype`
    FileType {
        /// A file.
        Regular = "regular" | "file",
        /// A stream socket.
        UnixStream = "unix_stream",
        /// A datagram socket.
        UnixDatagram = "unix_dgram",
        /// The system's log.
        Syslog = "syslog",
    }
}

settings! {
    /// The options of an `eve-log` as they are written.
    LogOptions {
        enabled("enabled"): bool = true,
        filetype("filetype"): FileType = FileType::Regular,
        filename("filename"): PathBuf = "eve.json".into(),
        prefix("prefix"): String = String::new(),
        rotate_interval("rotate-interval"): String = String::new(),
        rotate_size("rotate-size"): ByteSize = ByteSize(0),
        rotate_keep("rotate-keep"): u32 = 0,
        identity("identity"): String = "sluice".into(),
        facility("facility"): SyslogFacility = SyslogFacility::Local5,
        level("level"): SyslogLevel = SyslogLevel::Info,
        community_id("community-id"): bool = false,
        community_id_seed("community-id-seed"): u16 = 0,
        pcap_file("pcap-file"): bool = false,
        ethernet("ethernet"): bool = false,
        xff("xff"): Forwarded = Forwarded::default(),
    }
}

impl EveLog {
    /// `None` when it is off.
    fn parse(options: &Value, ignored: &mut Vec<String>) -> Result<Option<Self>, Fault> {
        let mut own = LogOptions::default();
        let mut types = EveTypes::default();
        for (name, value) in named(options).or_else(|fault| match options {
            Value::Null => Ok(Vec::new()),
            _ => Err(fault),
        })? {
            match (name, value) {
                ("types", value) => types = EveTypes::parse(value, ignored)?,
                (name, value) => take(&mut own, "eve-log", name, value, ignored)?,
            }
        }
        if !own.enabled {
            return Ok(None);
        }
        if let Some(alert) = types.alert.as_mut().filter(|it| !it.xff.enabled) {
            alert.xff = own.xff;
        }
        let to = match own.filetype {
            FileType::Regular => To::File {
                name: own.filename,
                rotation: Rotation {
                    every: interval(&own.rotate_interval)?,
                    bytes: (own.rotate_size.0 > 0).then_some(own.rotate_size.0),
                    keep: (own.rotate_keep > 0).then_some(own.rotate_keep),
                },
            },
            FileType::UnixStream => To::UnixStream(own.filename),
            FileType::UnixDatagram => To::UnixDatagram(own.filename),
            FileType::Syslog => To::Syslog(Syslog {
                identity: own.identity,
                facility: own.facility,
                level: own.level,
            }),
        };
        Ok(Some(Self {
            to,
            prefix: own.prefix,
            community_id: own.community_id.then_some(own.community_id_seed),
            pcap_file: own.pcap_file,
            ethernet: own.ethernet,
            types,
        }))
    }
}

/// Sets an option; one that is unknown is noted.
pub(super) fn take(
    options: &mut impl Node,
    of: &str,
    name: &str,
    value: &Value,
    ignored: &mut Vec<String>,
) -> Result<(), Fault> {
    if value.is_null() {
        return Ok(());
    }
    match options.set(&[name], value) {
        Ok(()) => Ok(()),
        Err(Fault::Unknown) => {
            ignored.push(format!("{of}.{name}"));
            Ok(())
        }
        Err(Fault::Wrong(message)) => Err(Fault::Wrong(format!("{of}.{name}: {message}"))),
    }
}

/// `minute`, `hour`, `day`, or a number with `s`, `m`, `h`, `d`, `w`.
fn interval(text: &str) -> Result<Option<Duration>, Fault> {
    let wrong = || {
        Fault::Wrong(format!(
            "eve-log.rotate-interval: expected minute, hour, day or for example 30s, 12h, 1w, not \
             {text:?}"
        ))
    };
    let (number, unit) = match text {
        "" => return Ok(None),
        "minute" => ("1", 'm'),
        "hour" => ("1", 'h'),
        "day" => ("1", 'd'),
        text => {
            let unit = text.chars().next_back().ok_or_else(wrong)?;
            (text.strip_suffix(unit).unwrap_or_default(), unit)
        }
    };
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    match number {
        0 => Err(wrong()),
        number => Ok(Some(Duration::from_secs(u64::from(number) * seconds))),
    }
}

/// Which records are written; `None` for those that are not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EveTypes {
    /// `alert`
    pub alert: Option<AlertRecords>,
    /// `drop`
    pub drop: Option<DropRecords>,
    /// `flow`
    pub flow: Option<FlowRecords>,
    /// `netflow`
    pub netflow: Option<FlowRecords>,
    /// `anomaly`
    pub anomaly: Option<AnomalyRecords>,
    /// `stats`
    pub stats: Option<StatsRecords>,
    /// Records of application protocols, with their options.
    pub application: Vec<(String, Value)>,
}

impl EveTypes {
    fn parse(types: &Value, ignored: &mut Vec<String>) -> Result<Self, Fault> {
        let list = match types {
            Value::Null => &[],
            Value::Array(list) => list.as_slice(),
            other => return Err(Fault::expected("a list of record types", other)),
        };
        let mut parsed = Self::default();
        for (name, options) in list
            .iter()
            .map(named)
            .collect::<Result<Vec<_>, _>>()?
            .concat()
        {
            let ignored = &mut *ignored;
            match name {
                "alert" => parsed.alert = record(name, options, ignored)?,
                "drop" => parsed.drop = record(name, options, ignored)?,
                "flow" => parsed.flow = record(name, options, ignored)?,
                "netflow" => parsed.netflow = record(name, options, ignored)?,
                "anomaly" => parsed.anomaly = record(name, options, ignored)?,
                "stats" => parsed.stats = record(name, options, ignored)?,
                name => parsed.application.push((name.to_owned(), options.clone())),
            }
        }
        Ok(parsed)
    }

    /// Whether records of this type are wanted; those about Sluice itself always are.
    pub fn wants(&self, event_type: &str) -> bool {
        match event_type {
            "alert" => self.alert.is_some(),
            "packet" => self.alert.as_ref().is_some_and(|it| it.tagged_packets),
            "drop" => self.drop.is_some(),
            "flow" => self.flow.is_some(),
            "netflow" => self.netflow.is_some(),
            "anomaly" => self.anomaly.is_some(),
            "stats" => self.stats.is_some(),
            "sluice" | "exception" | "overload" => true,
            "fileinfo" => self.wants("files"),
            other => self.application.iter().any(|(name, _)| name == other),
        }
    }

    fn add(&mut self, other: &Self) {
        merge(&mut self.alert, other.alert.as_ref(), AlertRecords::add);
        merge(&mut self.drop, other.drop.as_ref(), DropRecords::add);
        merge(&mut self.flow, other.flow.as_ref(), FlowRecords::add);
        merge(&mut self.netflow, other.netflow.as_ref(), FlowRecords::add);
        merge(
            &mut self.anomaly,
            other.anomaly.as_ref(),
            AnomalyRecords::add,
        );
        merge(&mut self.stats, other.stats.as_ref(), |_, _| {});
        self.application.extend(other.application.iter().cloned());
    }
}

fn merge<T: Clone>(all: &mut Option<T>, other: Option<&T>, add: impl Fn(&mut T, &T)) {
    match (all.as_mut(), other) {
        (Some(all), Some(other)) => add(all, other),
        (None, Some(other)) => *all = Some(other.clone()),
        (_, None) => {}
    }
}

settings! {
    /// Whether a type is written.
    Enabled {
        enabled("enabled"): bool = true,
    }
}

fn record<T: Node + Default>(
    of: &str,
    options: &Value,
    ignored: &mut Vec<String>,
) -> Result<Option<T>, Fault> {
    let mut enabled = Enabled::default();
    let mut record = T::default();
    let options = match options {
        // `alert: yes`
        Value::Bool(on) => return Ok(on.then_some(record)),
        Value::Null => return Ok(Some(record)),
        Value::Object(options) => options,
        other => return Err(Fault::expected("options", other)),
    };
    for (name, value) in options {
        if name == "enabled" {
            enabled.set(&[name], value)?;
        } else {
            take(&mut record, of, name, value, ignored)?;
        }
    }
    Ok(enabled.enabled.then_some(record))
}

settings! {
    /// `xff`: the client that a proxy names in a header.
    pub Forwarded {
        /// Whether records have it.
        enabled("enabled"): bool = false,
        /// Where.
        mode("mode"): ForwardedMode = ForwardedMode::ExtraData,
        /// On whose side the proxy is.
        deployment("deployment"): Deployment = Deployment::Reverse,
        /// The header.
        header("header"): String = "X-Forwarded-For".into(),
    }
}

choice! {
    /// `xff`, `mode`
    pub ForwardedMode {
        /// As `xff`.
        ExtraData = "extra-data",
        /// In place of the proxy's address.
        Overwrite = "overwrite",
    }
}

choice! {
    /// `xff`, `deployment`
    pub Deployment {
        /// The server's: the last address counts.
        Reverse = "reverse",
        /// The client's: the first one counts.
        Forward = "forward",
    }
}

settings! {
    /// `alert`: what is in them.
    pub AlertRecords {
        /// What was inspected, in Base64.
        payload("payload"): bool = false,
        /// Most bytes of it.
        payload_buffer_size("payload-buffer-size"): ByteSize = ByteSize::kib(4),
        /// The same with dots for what is not printable.
        payload_printable("payload-printable"): bool = false,
        /// Its length.
        payload_length("payload-length"): bool = false,
        /// The packet, in Base64.
        packet("packet"): bool = false,
        /// Records of packets that were tagged.
        tagged_packets("tagged-packets"): bool = true,
        /// What finally became of the packet.
        verdict("verdict"): bool = false,
        /// Context.
        metadata("metadata"): AlertMetadata = AlertMetadata::default(),
        /// Who the client of a proxy is.
        xff("xff"): Forwarded = Forwarded::default(),
    }
}

impl AlertRecords {
    fn add(&mut self, other: &Self) {
        self.payload |= other.payload;
        self.payload_buffer_size = self.payload_buffer_size.max(other.payload_buffer_size);
        self.payload_printable |= other.payload_printable;
        self.payload_length |= other.payload_length;
        self.packet |= other.packet;
        self.tagged_packets |= other.tagged_packets;
        self.verdict |= other.verdict;
        if other.xff.enabled {
            self.xff = other.xff.clone();
        }
        self.metadata.app_layer |= other.metadata.app_layer;
        self.metadata.flow |= other.metadata.flow;
        self.metadata.rule_metadata |= other.metadata.rule_metadata;
        self.metadata.rule_raw |= other.metadata.rule_raw;
        self.metadata.rule_reference |= other.metadata.rule_reference;
    }
}

/// `alert.metadata`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AlertMetadata {
    /// The transaction.
    pub app_layer: bool,
    /// The flow.
    pub flow: bool,
    /// `metadata` of the rule.
    pub rule_metadata: bool,
    /// The rule's text.
    pub rule_raw: bool,
    /// `reference` of the rule.
    pub rule_reference: bool,
}

impl Default for AlertMetadata {
    fn default() -> Self {
        Self {
            app_layer: true,
            flow: true,
            rule_metadata: true,
            rule_raw: false,
            rule_reference: false,
        }
    }
}

/// A switch for all, or one for each.
impl Leaf for AlertMetadata {
    fn parse(value: &Value) -> Result<Self, Fault> {
        let mut metadata = Self::default();
        let Value::Object(switches) = value else {
            if !bool::parse(value)? {
                metadata = Self {
                    app_layer: false,
                    flow: false,
                    rule_metadata: false,
                    ..metadata
                };
            }
            return Ok(metadata);
        };
        for (name, value) in switches {
            match (name.as_str(), value) {
                ("app-layer", value) => metadata.app_layer = bool::parse(value)?,
                ("flow", value) => metadata.flow = bool::parse(value)?,
                ("rule", Value::Object(rule)) => {
                    for (name, value) in rule {
                        let switch = match name.as_str() {
                            "metadata" => &mut metadata.rule_metadata,
                            "raw" => &mut metadata.rule_raw,
                            "reference" => &mut metadata.rule_reference,
                            _ => continue,
                        };
                        *switch = bool::parse(value)?;
                    }
                }
                ("rule", value) if !value.is_null() => {
                    metadata.rule_metadata = bool::parse(value)?;
                }
                _ => {}
            }
        }
        Ok(metadata)
    }
}

settings! {
    /// `drop`: what is in them.
    pub DropRecords {
        /// The alert that dropped.
        alerts("alerts"): bool = false,
        /// How many of a dropped flow.
        flows("flows"): DropFlows = DropFlows::Start,
        /// What finally became of the packet.
        verdict("verdict"): bool = false,
    }
}

impl DropRecords {
    fn add(&mut self, other: &Self) {
        self.alerts |= other.alerts;
        self.verdict |= other.verdict;
        if other.flows == DropFlows::All {
            self.flows = DropFlows::All;
        }
    }
}

choice! {
    /// `drop.flows`
    pub DropFlows {
        /// One for each direction of a flow.
        Start = "start",
        /// Every packet.
        All = "all",
    }
}

settings! {
    /// `flow`: what is in them.
    pub FlowRecords {
        /// Which exception policies were applied.
        exception_policy("exception-policy"): bool = false,
    }
}

impl FlowRecords {
    fn add(&mut self, other: &Self) {
        self.exception_policy |= other.exception_policy;
    }
}

settings! {
    /// `anomaly`: which of them.
    pub AnomalyRecords {
        /// By kind.
        types("types"): AnomalyTypes = AnomalyTypes::default(),
        /// The beginning of the packet, in Base64.
        packethdr("packethdr"): bool = false,
    }
}

impl AnomalyRecords {
    fn add(&mut self, other: &Self) {
        self.types.decode |= other.types.decode;
        self.types.stream |= other.types.stream;
        self.types.applayer |= other.types.applayer;
        self.packethdr |= other.packethdr;
    }
}

settings! {
    /// `anomaly.types`
    pub AnomalyTypes {
        /// Decoder events.
        decode("decode"): bool = false,
        /// Stream events.
        stream("stream"): bool = false,
        /// Events of application protocols.
        applayer("applayer"): bool = true,
    }
}

settings! {
    /// `stats`: what is in them.
    pub StatsRecords {
        /// All workers together.
        totals("totals"): bool = true,
        /// Each worker.
        threads("threads"): bool = false,
        /// Changes since the last record.
        deltas("deltas"): bool = false,
        /// Counters that are zero.
        null_values("null-values"): bool = true,
    }
}
