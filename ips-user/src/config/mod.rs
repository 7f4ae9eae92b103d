//! The configuration file: TOML, every key documented in `defaults.toml`.
//!
//! Parsed into [`Config`] (unknown keys and wrong types are errors with line and column), then
//! checked as a whole by [`Config::validate`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs, io};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::exception::{Cause, ExceptionPolicy, Treatment, Treatments};
use crate::flow::{FlowLimits, Timeouts};
use crate::health::overload::Bounds;
use crate::loader::XdpPolicy;
use crate::log::output::Outputs;
use crate::netfilter::{DEFAULT_PRIORITY, Fail, Hook};
use crate::source::{Disposition, QueueOptions};
use crate::supervisor::seat::Seat;

mod change;
pub mod settings;
mod validate;

pub use change::fixed_differences;
use settings::{EngineSettings, To};

/// The documented defaults, as `sluice config --defaults` prints them.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// With less a worker could not even begin.
const MEMORY_LEAST: u64 = 32 << 20;

/// Which implementation of [`crate::source::PacketQueue`] the workers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// [`crate::source::nfqueue`]: its socket is opened by the supervisor and handed over.
    Batched,
    /// [`crate::source::crate_nfq`]: opens its own socket, no hand-over.
    Nfq,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Batched => "batched",
            Self::Nfq => "nfq",
        })
    }
}

/// Netfilter front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// What the kernel has.
    Auto,
    /// nftables' queue expression.
    Nft,
    /// NFQUEUE targets through iptables-nft.
    Iptables,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section! {
    /// The whole file. What each key means is written in `defaults.toml`.
    Config {
        /// Instance.
        name: String = "sluice".into(),
        /// Steered interfaces.
        interfaces: Vec<String> = Vec::new(),
        /// Fail policy.
        fail: Fail = Fail::Open,
        /// `[workers]`
        workers: Workers = Workers::default(),
        /// `[sandbox]`
        sandbox: Confinement = Confinement::default(),
        /// `[queue]`
        queue: Queue = Queue::default(),
        /// `[steering]`
        steering: Steering = Steering::default(),
        /// `[scaling]`
        scaling: Scaling = Scaling::default(),
        /// `[netfilter]`
        netfilter: Netfilter = Netfilter::default(),
        /// `[rules]`
        rules: Rules = Rules::default(),
        /// `[conviction]`
        conviction: ConvictionPolicy = ConvictionPolicy::default(),
        /// `[failover]`
        failover: Failover = Failover::default(),
        /// `[exceptions]`
        exceptions: Exceptions = Exceptions::default(),
        /// `[overload]`
        overload: Overload = Overload::default(),
        /// `[flow]`
        flow: Flow = Flow::default(),
        /// `[log]`
        log: Log = Log::default(),
        /// `[control]`
        control: Control = Control::default(),
        /// `[engine]`
        engine: EngineSettings = EngineSettings::default(),
    }
}

section! {
    /// `[workers]`
    Workers {
        /// Number, 0 = by CPUs.
        count: u32 = 0,
        /// CPU of each.
        cpus: Vec<u32> = Vec::new(),
        /// CPU of the backup, -1 = any.
        backup_cpu: i32 = -1,
        /// Bind to CPUs.
        pin: bool = true,
        /// Scheduling priority; the supervisor's is up to 5 less.
        nice: i32 = -10,
        /// Bytes beyond those at the start, 0 = no bound.
        memory_max: u64 = 4 << 30,
        /// Wait for the first heartbeat.
        start_ms: u64 = 5000,
        /// Longest pause before a restart.
        restart_pause_max_ms: u64 = 1000,
        /// CPU time without a heartbeat that is a loop.
        hang_ms: u64 = 300,
        /// Longest wait of a packet for its worker.
        hang_max_ms: u64 = 5000,
    }
}

section! {
    /// `[sandbox]`
    Confinement {
        /// Whom workers and rejecter become.
        user: String = "nobody".into(),
        /// Filter of system calls.
        seccomp: bool = true,
        /// No file system, no TCP.
        landlock: bool = true,
    }
}

section! {
    /// `[queue]`
    Queue {
        /// First queue number.
        first: u16 = 100,
        /// Packets that may wait.
        length: u32 = 8192,
        /// Bytes.
        receive_buffer: usize = 32 << 20,
        /// Bytes of each packet.
        copy_range: u16 = u16::MAX,
        /// Implementation.
        transport: Transport = Transport::Batched,
        /// Packets per call.
        batch: usize = 64,
        /// Aggregates whole.
        gso: bool = true,
    }
}

section! {
    /// `[steering]`
    Steering {
        /// Our bits.
        mark_mask: u32 = 0x00ff_0000,
        /// Heartbeat limit.
        stale_ms: u64 = 200,
        /// Steadiness asked for.
        recover_ms: u64 = 1000,
        /// First fragments.
        fragment_seconds: u64 = 30,
        /// Placed flows.
        placement_idle_seconds: u64 = 900,
        /// XDP policy.
        xdp: XdpPolicy = XdpPolicy::Auto,
        /// Map entries.
        max_placed: u32 = 262_144,
        /// Map entries.
        max_convicted: u32 = 65_536,
        /// Map entries.
        max_fragments: u32 = 16_384,
        /// aya-log.
        log: bool = false,
        /// bpffs directory.
        pin_directory: PathBuf = "/sys/fs/bpf".into(),
    }
}

section! {
    /// `[scaling]`
    Scaling {
        /// Seconds.
        drain_seconds: u64 = 300,
    }
}

section! {
    /// `[netfilter]`
    Netfilter {
        /// Hook.
        hook: Hook = Hook::Forward,
        /// Base chain priority.
        priority: i32 = DEFAULT_PRIORITY,
        /// Front end.
        backend: Backend = Backend::Auto,
    }
}

section! {
    /// `[rules]`
    Rules {
        /// Files.
        files: Vec<PathBuf> = Vec::new(),
        /// classification.config, empty = built in.
        classification: PathBuf = PathBuf::new(),
        /// Where sets are saved.
        data_directory: PathBuf = "/var/lib/sluice".into(),
        /// Longest time to compile them.
        compile_seconds: u64 = 600,
        /// Variables.
        variables: BTreeMap<String, String> = BTreeMap::new(),
    }
}

section! {
    /// `[conviction]`
    ConvictionPolicy {
        /// On or off.
        enabled: bool = true,
        /// Length of the sentence.
        seconds: u64 = 60,
    }
}

section! {
    /// `[failover]`
    Failover {
        /// Memory of one death.
        suspect_seconds: u64 = 600,
        /// Memory of several.
        quarantine_seconds: u64 = 3600,
        /// Packets in hand at a death.
        save_packets: bool = false,
        /// Where to, empty = where the event log is.
        packet_directory: PathBuf = PathBuf::new(),
        /// Bytes of each.
        packet_limit_bytes: u32 = 65_535,
        /// Files kept.
        packet_files: usize = 32,
    }
}

section! {
    /// `[exceptions]`
    Exceptions {
        /// Policy.
        worker_death: ExceptionPolicy = ExceptionPolicy::Auto,
        /// Policy.
        undecodable: ExceptionPolicy = ExceptionPolicy::DropPacket,
        /// Policy.
        quarantine: ExceptionPolicy = ExceptionPolicy::Auto,
        /// Policy.
        overload: ExceptionPolicy = ExceptionPolicy::Auto,
        /// Policy.
        flow_memory: ExceptionPolicy = ExceptionPolicy::Ignore,
        /// Policy.
        defrag_memory: ExceptionPolicy = ExceptionPolicy::Auto,
        /// Policy.
        fragment_order: ExceptionPolicy = ExceptionPolicy::DropPacket,
        /// Policy.
        inspection_limit: ExceptionPolicy = ExceptionPolicy::Ignore,
    }
}

impl Exceptions {
    /// The policy for a cause; those of the engine are in its settings.
    pub fn of(&self, cause: Cause) -> Option<ExceptionPolicy> {
        Some(match cause {
            Cause::WorkerDeath => self.worker_death,
            Cause::Undecodable => self.undecodable,
            Cause::Quarantine => self.quarantine,
            Cause::Overload => self.overload,
            Cause::FlowMemory => self.flow_memory,
            Cause::DefragMemory => self.defrag_memory,
            Cause::FragmentOrder => self.fragment_order,
            Cause::InspectionLimit => self.inspection_limit,
            Cause::Midstream
            | Cause::StreamMemory
            | Cause::ReassemblyMemory
            | Cause::AppLayerError => return None,
        })
    }
}

section! {
    /// `[overload]`
    Overload {
        /// Longest time from queueing to verdict.
        latency_ms: u64 = 250,
        /// Fullest queue.
        queue_percent: u32 = 80,
        /// Where the level ends.
        recover_percent: u32 = 50,
        /// Where the overload ends.
        recover_ms: u64 = 1000,
        /// Bytes, 0 = no first level.
        shed_first_bytes: u64 = 1 << 20,
    }
}

section! {
    /// `[flow]`
    Flow {
        /// Flows per worker.
        max: u32 = 262_144,
        /// Seconds.
        emergency_seconds: u64 = 10,
        /// Seconds.
        tcp_new_seconds: u64 = 60,
        /// Seconds.
        tcp_established_seconds: u64 = 600,
        /// Seconds.
        tcp_closed_seconds: u64 = 60,
        /// Seconds.
        new_seconds: u64 = 30,
        /// Seconds.
        established_seconds: u64 = 300,
    }
}

section! {
    /// `[log]`
    Log {
        /// Directory.
        directory: PathBuf = "/var/log/sluice".into(),
        /// Seconds, 0 = never.
        stats_seconds: u64 = 10,
        /// Bytes.
        buffer: usize = 4 << 20,
    }
}

section! {
    /// `[control]`
    Control {
        /// Directory.
        directory: PathBuf = "/run/sluice".into(),
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{origin}:{line}:{column}: {message}")]
    Parse {
        /// File name, or where else the text came from.
        origin: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong and what would be right.
        message: String,
    },
    /// Values that cannot be, alone or together.
    #[error("{key}: {message}")]
    Invalid {
        /// Dotted key.
        key: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
}

impl Config {
    /// Reads and parses a file. Call [`Self::validate`] after applying the command line.
    ///
    /// # Errors
    /// [`ConfigError::Read`] and [`ConfigError::Parse`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.into(),
            source,
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Parses `text`; `origin` names it in errors.
    ///
    /// # Errors
    /// [`ConfigError::Parse`].
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let before = text.get(..start).unwrap_or(text);
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            ConfigError::Parse {
                origin: origin.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
                message: error.message().replace('\n', " "),
            }
        })
    }

    /// Workers without the backup: as configured, or one per usable CPU.
    pub fn worker_count(&self) -> u32 {
        if self.workers.count > 0 {
            return self.workers.count;
        }
        std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32)
    }

    /// Queue number of a seat: the backup has `queue.first`, the workers those behind it.
    pub fn queue_number(&self, seat: Seat) -> u16 {
        self.queue.first.saturating_add(seat.queue_offset() as u16)
    }

    /// Options of one queue.
    pub fn queue_options(&self, number: u16) -> QueueOptions {
        QueueOptions {
            number,
            max_length: self.queue.length,
            receive_buffer: self.queue.receive_buffer,
            copy_range: self.queue.copy_range,
            fail_open: self.fail == Fail::Open,
            gso: self.queue.gso,
            batch: self.queue.batch,
        }
    }

    /// The engine's settings, as a gateway uses them.
    pub fn engine_settings(&self) -> EngineSettings {
        self.engine.clone().live()
    }

    /// Bounds of one worker's flow table. `[flow]` says them, but where `[engine.flow]` and
    /// `[engine.flow-timeouts]` say something else than Suricata's stock configuration.
    pub fn flow_limits(&self) -> FlowLimits {
        let flow = &self.flow;
        let engine = FlowLimits::configured(&self.engine, false);
        let stock = FlowLimits::configured(&EngineSettings::default(), false);
        let (ours, theirs) = (engine.timeouts, stock.timeouts);
        let either = |engine: Duration, stock: Duration, seconds: u64| match engine == stock {
            true => Duration::from_secs(seconds),
            false => engine,
        };
        FlowLimits {
            max_flows: match engine.max_flows == stock.max_flows {
                true => flow.max,
                false => engine.max_flows,
            },
            spared: match self.treatments().of(Cause::FlowMemory) {
                Treatment::Ignore => Duration::ZERO,
                _ => Duration::from_secs(flow.emergency_seconds),
            },
            timeouts: Timeouts {
                tcp_new: either(ours.tcp_new, theirs.tcp_new, flow.tcp_new_seconds),
                tcp_established: either(
                    ours.tcp_established,
                    theirs.tcp_established,
                    flow.tcp_established_seconds,
                ),
                tcp_closed: either(ours.tcp_closed, theirs.tcp_closed, flow.tcp_closed_seconds),
                new: either(ours.new, theirs.new, flow.new_seconds),
                established: either(
                    ours.established,
                    theirs.established,
                    flow.established_seconds,
                ),
            },
            ..engine
        }
    }

    /// What becomes of packets that a dead worker had in hand.
    pub fn settle(&self) -> Disposition {
        let treatment = self.treatments().of(Cause::WorkerDeath);
        // Nothing can be ignored here (`validate`), and what cannot be done must not let pass.
        treatment.disposition().unwrap_or(Disposition::Drop)
    }

    /// What is done with packets that cannot be inspected as they should be.
    pub fn treatments(&self) -> Treatments {
        let settings = self.engine_settings();
        let of_engine = Treatments::of_engine(&settings, true);
        Treatments::new(|cause| {
            // Said under both names: the engine's, once it says something.
            let own = match cause {
                Cause::FlowMemory => settings.flow.memcap_policy,
                Cause::DefragMemory => settings.defrag.memcap_policy,
                _ => ExceptionPolicy::Auto,
            };
            match self.exceptions.of(cause) {
                Some(policy) if own == ExceptionPolicy::Auto => policy.resolve(cause, self.fail),
                _ => of_engine.of(cause),
            }
        })
    }

    /// What becomes of packets that are not inspected because workers died of their flows.
    pub fn quarantine(&self) -> Disposition {
        let treatment = self.treatments().of(Cause::Quarantine);
        treatment.disposition().unwrap_or(Disposition::Drop)
    }

    /// When a worker is overloaded.
    pub fn overload_bounds(&self) -> Bounds {
        let overload = &self.overload;
        Bounds {
            latency: Duration::from_millis(overload.latency_ms),
            fill: overload.queue_percent,
            relief: overload.recover_percent,
            recover: Duration::from_millis(overload.recover_ms),
            first_level: overload.shed_first_bytes > 0,
        }
    }

    /// How long reading and compiling the rules may take.
    pub fn compile_within(&self) -> Duration {
        Duration::from_secs(self.rules.compile_seconds)
    }

    /// Age at which a heartbeat is stale.
    pub fn stale(&self) -> Duration {
        Duration::from_millis(self.steering.stale_ms)
    }

    /// Where packets are saved that workers had in hand when they died.
    pub fn packet_directory(&self) -> &Path {
        let directory = &self.failover.packet_directory;
        if directory.as_os_str().is_empty() {
            &self.log.directory
        } else {
            directory
        }
    }

    /// Path of the first event log that is a file.
    pub fn event_log(&self) -> Option<PathBuf> {
        self.engine
            .outputs
            .logs
            .iter()
            .find_map(|log| match &log.to {
                To::File { name, .. } => Some(self.log.directory.join(name)),
                _ => None,
            })
    }

    /// Opens the event logs.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn event_logs(&self, utc_offset_s: i32) -> io::Result<Outputs> {
        Outputs::append(&self.engine.outputs, &self.log.directory, utc_offset_s)
    }

    /// Path of the control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.control.directory.join(format!("{}.sock", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        assert_eq!(
            Config::parse(DEFAULTS, "defaults.toml").unwrap(),
            Config::default()
        );
        Config::default().validate().unwrap();
    }

    #[test]
    fn what_the_engine_says_otherwise_than_suricata_wins_over_the_gateway() {
        let limits = |text: &str| Config::parse(text, "t").unwrap().flow_limits();
        assert_eq!(limits("").max_flows, 262_144);
        let both = limits(
            "[flow]\nmax = 9\nnew_seconds = 7\ntcp_new_seconds = 8\n[engine.flow]\nmemcap = '1 MiB'\n[engine.flow-timeouts.tcp]\nnew = 5",
        );
        assert_eq!(both.max_flows, 2048);
        assert_eq!(both.timeouts.tcp_new, Duration::from_secs(5));
        assert_eq!(both.timeouts.new, Duration::from_secs(7));
        let treatment =
            |text: &str, cause| Config::parse(text, "t").unwrap().treatments().of(cause);
        let open = "fail = 'open'\n";
        assert_eq!(treatment(open, Cause::DefragMemory), Treatment::PassPacket);
        let engine = "fail = 'open'\n[engine.defrag]\nmemcap-policy = 'drop-packet'";
        assert_eq!(
            treatment(engine, Cause::DefragMemory),
            Treatment::DropPacket
        );
        // The connections of a gateway may be older than its workers.
        assert_eq!(treatment(open, Cause::Midstream), Treatment::Ignore);
        assert_eq!(treatment(open, Cause::StreamMemory), Treatment::DropFlow);
    }

    #[test]
    fn every_key_is_documented() {
        fn keys(prefix: &str, table: &toml::Table, found: &mut Vec<String>) {
            for (key, value) in table {
                let name = format!("{prefix}{key}");
                if let toml::Value::Table(inner) = value {
                    keys(&format!("{name}."), inner, found);
                }
                found.push(name);
            }
        }
        let mut in_code = Vec::new();
        let mut in_file = Vec::new();
        let default = toml::Table::try_from(Config::default()).unwrap();
        keys("", &default, &mut in_code);
        keys("", &DEFAULTS.parse().unwrap(), &mut in_file);
        in_code.sort();
        in_file.sort();
        assert_eq!(in_code, in_file);
    }

    fn check(text: &str, expected: &str) {
        let error = Config::parse(text, "t.toml").and_then(|config| {
            config.validate()?;
            Ok(config)
        });
        let message = error.expect_err(text).to_string();
        assert!(message.contains(expected), "{text:?}: {message}");
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        check("nmae = 'x'", "t.toml:1:1: unknown field `nmae`");
        check(
            "\n[queue]\n  lenght = 1",
            "t.toml:3:3: unknown field `lenght`",
        );
        check(
            "fail = 'ajar'",
            "t.toml:1:8: unknown variant `ajar`, expected `open` or `closed`",
        );
        check("[queue]\nfirst = 'a'", "t.toml:2:9: invalid type");
        check("[queue]\nfirst = 70000", "t.toml:2:9");
        check("name = ", "t.toml:1:8");
        check("name = 'a/b'", "name: \"a/b\" must be");
        check("interfaces = ['a', 'a']", "listed twice");
        check(
            "steering.mark_mask = 5",
            "steering.mark_mask: mark mask 0x00000005",
        );
        check(
            "steering.mark_mask = 15\nworkers.count = 14",
            "room for 13 workers",
        );
        check("queue.first = 65535\nworkers.count = 1", "queue.first");
        check("queue.batch = 0", "queue.batch");
        check(
            "sandbox.user = 'sluice-has-no-such-user'",
            "sandbox.user: there is no user \"sluice-has-no-such-user\"",
        );
        check("sandbox.user = 'root'", "sandbox.user: \"root\" is root");
        check("steering.stale_ms = 5", "steering.stale_ms");
        check("workers.hang_ms = 5", "workers.hang_ms: 20 to");
        check(
            "workers.hang_max_ms = 100",
            "workers.hang_max_ms: 200 to 3600000, not 100",
        );
        check("flow.max = 0", "flow.max");
        check("flow.new_seconds = 0", "flow.new_seconds: 1 to");
        check("conviction.seconds = 99999999999", "conviction.seconds");
        check(
            "flow.established_seconds = 900",
            "steering.placement_idle_seconds: at least 962",
        );
        check(
            "steering.stale_ms = 9000000000000000000",
            "steering.stale_ms",
        );
        check("queue.receive_buffer = 0", "queue.receive_buffer: 65536 to");
        check(
            "queue.receive_buffer = 99999999999999",
            "queue.receive_buffer",
        );
        check("log.buffer = 5", "log.buffer");
        check("workers.backup_cpu = -7", "workers.backup_cpu");
        check("log.directory = ''", "log.directory");
        check(
            "exceptions.worker_death = 'drop'",
            "t.toml:1:27: unknown variant `drop`, expected one of `auto`, `drop-packet`",
        );
        check(
            "exceptions.worker_death = 'reject'",
            "exceptions.worker_death: reject is not possible: only the number of such a packet \
             is known; use auto, drop-packet, pass-packet",
        );
        check(
            "exceptions.undecodable = 'drop-flow'",
            "exceptions.undecodable: drop-flow is not possible",
        );
        check("exceptions.quarantine = 'ignore'", "exceptions.quarantine");
        check("exceptions.overload = 'reject'", "exceptions.overload");
        check("overload.latency_ms = 5", "overload.latency_ms: 20 to");
        check("overload.queue_percent = 101", "overload.queue_percent");
        check("overload.recover_percent = 100", "overload.recover_percent");
        check("exceptions.flow_memory = 'bypass'", "no room to remember");
        check(
            "[engine.stream]\n  midstraem = true",
            "t.toml:2:3: unknown field `midstraem`",
        );
        check(
            "engine.stream.memcap = 'plenty'",
            "t.toml:1:24: expected a number of bytes",
        );
        check(
            "engine.stream.midstream-policy = 'drop-packet'",
            "engine: stream.midstream-policy: drop-packet is not possible",
        );
    }
}
