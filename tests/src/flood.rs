//! Floods, each of which fills one of the engine's tables far beyond its cap: as captures, and what
//! `sluice replay` makes of them.
//!
//! A replay is the product's whole inspection, alone in a process: so what the process takes more
//! than for the same capture without the flood is what the tables take.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::frame::internet_checksum;

/// Which table is flooded, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flood {
    /// Flows that nobody answers.
    Flow,
    /// Flows that are answered.
    AnsweredFlow,
    /// Connections of which there is a SYN only.
    HalfOpen,
    /// Connections whose handshake is complete.
    Connection,
    /// Data behind a hole that is never filled.
    Hole,
    /// First fragments without the others.
    Fragment,
    /// Addresses that rules note something about.
    Host,
    /// Pairs of addresses.
    Pair,
    /// Addresses whose matches are counted.
    Threshold,
}

impl Flood {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Flow,
        Self::AnsweredFlow,
        Self::HalfOpen,
        Self::Connection,
        Self::Hole,
        Self::Fragment,
        Self::Host,
        Self::Pair,
        Self::Threshold,
    ];

    /// The key of its cap.
    pub const fn cap(self) -> &'static str {
        match self {
            Self::Flow | Self::AnsweredFlow => "flow.memcap",
            Self::HalfOpen | Self::Connection => "stream.memcap",
            Self::Hole => "stream.reassembly.memcap",
            Self::Fragment => "defrag.memcap",
            Self::Host => "host.memcap",
            Self::Pair => "ippair.memcap",
            Self::Threshold => "detect.thresholds.memcap",
        }
    }

    /// The key of the policy at the cap, where there is one.
    pub const fn policy(self) -> Option<&'static str> {
        match self {
            Self::Flow | Self::AnsweredFlow => Some("flow.memcap-policy"),
            Self::HalfOpen | Self::Connection => Some("stream.memcap-policy"),
            Self::Hole => Some("stream.reassembly.memcap-policy"),
            Self::Fragment => Some("defrag.memcap-policy"),
            Self::Host | Self::Pair | Self::Threshold => None,
        }
    }

    /// Where `stats` says the most bytes that its table has taken.
    pub const fn peak(self) -> &'static str {
        match self {
            Self::Flow | Self::AnsweredFlow => "flow.memuse",
            Self::HalfOpen | Self::Connection => "tcp.memuse_max",
            Self::Hole => "tcp.reassembly_memuse_max",
            Self::Fragment => "defrag.memuse_max",
            Self::Host => "host.memuse_max",
            Self::Pair => "ippair.memuse_max",
            Self::Threshold => "detect.thresholds.memuse_max",
        }
    }

    /// Where it says how often something made room.
    pub const fn pruned(self) -> Option<&'static str> {
        match self {
            Self::Flow | Self::AnsweredFlow => Some("flow.get_used"),
            Self::HalfOpen | Self::Connection | Self::Hole => Some("tcp.ssn_relieved"),
            Self::Fragment | Self::Host | Self::Pair | Self::Threshold => None,
        }
    }

    /// Where it says how often there was no room.
    pub const fn refused(self) -> &'static str {
        match self {
            Self::Flow | Self::AnsweredFlow => "flow.memcap",
            Self::HalfOpen | Self::Connection => "tcp.ssn_memcap_drop",
            Self::Hole => "tcp.segment_memcap_drop",
            Self::Fragment => "defrag.memcap_reached",
            Self::Host => "host.memcap",
            Self::Pair => "ippair.memcap",
            Self::Threshold => "detect.thresholds.memcap",
        }
    }

    /// Bytes that one element takes, about; and packets that make it.
    const fn element(self) -> (u64, u64) {
        match self {
            Self::Flow => (512, 1),
            Self::AnsweredFlow => (512, 2),
            Self::HalfOpen => (736, 1),
            Self::Connection => (736, 3),
            Self::Hole => (1500, 4),
            Self::Fragment => (1600, 1),
            Self::Host | Self::Pair | Self::Threshold => (100, 1),
        }
    }
}

/// Every place where `stats` says what a table takes at most.
const PEAKS: [&str; 7] = [
    "flow.memuse",
    "tcp.memuse_max",
    "tcp.reassembly_memuse_max",
    "defrag.memuse_max",
    "host.memuse_max",
    "ippair.memuse_max",
    "detect.thresholds.memuse_max",
];

/// What a trial is made of.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// The table and what fills it.
    pub flood: Flood,
    /// Its cap in bytes.
    pub cap: u64,
    /// The exception policy at the cap.
    pub policy: &'static str,
    /// How many times as much as the cap holds is offered.
    pub times: u64,
}

/// What a trial has shown.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Shown {
    /// Packets of the flood.
    pub offered: u64,
    /// Most bytes that the table has taken, by its own account.
    pub accounted: u64,
    /// The same of all tables.
    pub accounted_all: u64,
    /// Kilobytes that the process has taken, beyond those without the flood.
    pub resident_kb: u64,
    /// Elements that made room.
    pub pruned: u64,
    /// Elements without room.
    pub refused: u64,
    /// Packets that went by the exception policy, and those of them that were dropped.
    pub by_policy: (u64, u64),
    /// How often rules have dropped the attacks: in a connection from before the flood, in a new
    /// flow at its end, in a connection when its time is over, in fragments then.
    pub attacks: [u64; 4],
    /// Packets a second, inspected.
    pub rate: f64,
}

/// Kilobytes beyond what tables account for: the last chunk of each slab, of which not all is in use
/// (up to 100 KiB, in at most three tables), what the allocator keeps in reserve (128 KiB at the top
/// of its heap, and holes of buffers that were made for one packet), and buffers that are made when
/// they are needed first.
const SLACK_KB: u64 = 1024;

/// Packets without a flood.
const CALM: u32 = 2000;

/// Rules for the attacks, and those that note something.
const RULES: &str = r#"
drop tcp any any -> any 80 (msg:"known connection"; content:"EVIL-ONE"; sid:1;)
drop udp any any -> any any (msg:"new flow"; content:"EVIL-TWO"; sid:2;)
drop tcp any any -> any 80 (msg:"later connection"; flow:established; content:"EVIL-THREE"; sid:3;)
drop udp any any -> any any (msg:"later fragments"; content:"EVIL-FOUR"; sid:4;)
alert udp any any -> any 7001 (xbits:set,flood,track ip_src,expire 3600; noalert; sid:11;)
alert udp any any -> any 7002 (xbits:set,flood,track ip_pair,expire 3600; noalert; sid:12;)
alert udp any any -> any 7003 (threshold:type threshold,track by_src,count 99,seconds 3600; sid:13;)
"#;

impl Trial {
    /// Has `sluice` replay it in a directory, which is left empty.
    ///
    /// # Errors
    /// When the program fails, or does not say what it has counted.
    pub fn run(&self, sluice: &Path, directory: &Path) -> Result<Shown> {
        let rules = directory.join("flood.rules");
        fs::write(&rules, RULES).with_context(|| rules.display().to_string())?;
        let calm = self.replay(sluice, directory, 0)?;
        let mut shown = self.replay(sluice, directory, self.times)?;
        shown.resident_kb = shown.resident_kb.saturating_sub(calm.resident_kb);
        Ok(shown)
    }

    /// The same flood under a cap that it does not reach: how fast it is inspected then.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn rate_below_cap(&self, sluice: &Path, directory: &Path) -> Result<f64> {
        let ample = Self {
            cap: self.cap * self.times * 4,
            times: 1,
            ..self.clone()
        };
        let rules = directory.join("flood.rules");
        fs::write(&rules, RULES).with_context(|| rules.display().to_string())?;
        let elements = self.times * self.cap / self.flood.element().0;
        Ok(ample.replay_elements(sluice, directory, elements)?.rate)
    }

    /// What of it is not as it shall be.
    pub fn complaints(&self, shown: &Shown) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut check = |holds: bool, what: String| {
            if !holds {
                complaints.push(what);
            }
        };
        let Shown { accounted, .. } = *shown;
        check(
            accounted <= self.cap,
            format!("{accounted} bytes by its own account"),
        );
        let reached = accounted * 10 >= self.cap * 7;
        check(
            reached,
            format!("the flood is none: {accounted} bytes of {}", self.cap),
        );
        // The cap, and what the others take of theirs: the flood goes through them as well.
        let most = (shown.accounted_all / 1024) * 105 / 100 + SLACK_KB;
        let resident = shown.resident_kb;
        check(
            resident <= most,
            format!("{resident} KiB more in memory, not {most}"),
        );
        let [known, new, later, fragments] = shown.attacks;
        let silent = self.is_by_policy() && !matches!(self.policy, "ignore");
        // A flow that wants no more memory is not concerned, whatever the policy is.
        check(
            known == 1,
            format!("{known} alerts in the connection from before"),
        );
        let udp_is_concerned = self.flood == Flood::AnsweredFlow && silent;
        let expected = u64::from(!udp_is_concerned);
        check(
            new == expected,
            format!("{new} alerts in the new flow, not {expected}"),
        );
        check(
            later == 1,
            format!("{later} alerts in the later connection"),
        );
        check(
            fragments == 1,
            format!("{fragments} alerts in the later fragments"),
        );
        let (applied, dropped) = shown.by_policy;
        if !self.is_by_policy() {
            let counted = shown.pruned + shown.refused > 0;
            check(
                counted,
                "nothing made room, and nothing was refused".to_owned(),
            );
            return complaints;
        }
        // What is ignored has made room instead, or is inspected without.
        let applies = self.policy != "ignore";
        check(
            (applied > 0) == applies,
            format!("{applied} packets by policy"),
        );
        let drops = matches!(self.policy, "auto" | "drop-packet" | "drop-flow" | "reject");
        let expected = if drops { applied } else { 0 };
        check(
            dropped == expected,
            format!("{dropped} dropped of {applied} by policy"),
        );
        complaints
    }

    /// Whether pruning alone does not make room.
    const fn is_by_policy(&self) -> bool {
        matches!(
            self.flood,
            Flood::AnsweredFlow | Flood::Connection | Flood::Hole | Flood::Fragment
        )
    }

    fn replay(&self, sluice: &Path, directory: &Path, times: u64) -> Result<Shown> {
        let elements = times * self.cap / self.flood.element().0;
        self.replay_elements(sluice, directory, elements)
    }

    fn replay_elements(&self, sluice: &Path, directory: &Path, elements: u64) -> Result<Shown> {
        let pcap = directory.join("flood.pcap");
        let offered = self.capture(&pcap, elements)?;
        let log = directory.join("log");
        let mut command = Command::new(sluice);
        command.args(["replay", "--ips", "-k", "none", "--pcap"]);
        command.arg(&pcap).arg("--log-dir").arg(&log);
        command.arg("--rules").arg(directory.join("flood.rules"));
        for setting in self.settings() {
            command.args(["--set", &setting]);
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let began = Instant::now();
        let mut child = command.spawn().context("start sluice replay")?;
        let mut resident_kb = 0;
        while child.try_wait()?.is_none() {
            // A table that has grown stays so for the rest of its flood: no look misses it.
            resident_kb = anonymous_kb(child.id()).unwrap_or(0).max(resident_kb);
            sleep(Duration::from_millis(2));
        }
        let seconds = began.elapsed().as_secs_f64();
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "sluice replay: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let eve = fs::read_to_string(log.join("eve.json")).context("eve.json")?;
        fs::remove_dir_all(&log)?;
        fs::remove_file(&pcap)?;
        let mut shown = Shown {
            offered,
            resident_kb,
            rate: offered as f64 / seconds,
            ..Shown::default()
        };
        let mut stats = Value::Null;
        for line in eve.lines() {
            let record: Value = serde_json::from_str(line).context("a line of eve.json")?;
            if record["event_type"] == "stats" {
                stats = record["stats"].clone();
            }
            let alert = &record["alert"];
            let place = alert["signature_id"]
                .as_u64()
                .and_then(|id| id.checked_sub(1));
            if let Some(place) = place
                && alert["action"] == "blocked"
                && let Some(attack) = shown.attacks.get_mut(place as usize)
            {
                *attack += 1;
            }
        }
        let stat = |name: &str| number(&stats, name);
        let cause = match self.flood {
            Flood::Flow | Flood::AnsweredFlow => "flow_memory",
            Flood::HalfOpen | Flood::Connection => "stream_memory",
            Flood::Hole => "reassembly_memory",
            _ => "defrag_memory",
        };
        shown.accounted = stat(self.flood.peak())?;
        shown.accounted_all = PEAKS.iter().map(|name| stat(name)).sum::<Result<u64>>()?;
        shown.pruned = self.flood.pruned().map_or(Ok(0), &stat)?;
        shown.refused = stat(self.flood.refused())?;
        shown.by_policy = (
            stat(&format!("exception_policy.{cause}"))?,
            stat(&format!("ips.exception_drops.{cause}"))?,
        );
        Ok(shown)
    }

    fn settings(&self) -> Vec<String> {
        // No table but the one in question shall be the narrow one, and none shall hide it: the
        // flood goes through those before it with all of its elements, however many these are.
        let all = self.cap * (self.times + 1);
        let ample = |flood: Flood| match (self.flood, flood) {
            (Flood::HalfOpen | Flood::Connection | Flood::Hole, Flood::Flow) => all,
            (Flood::Hole, Flood::Connection) => all,
            _ => 4 << 20,
        };
        let mut settings = vec![
            format!("flow.memcap={}", ample(Flood::Flow)),
            format!("stream.memcap={}", ample(Flood::Connection)),
            format!("{}={}", self.flood.cap(), self.cap),
            "stats.enabled=true".to_owned(),
            r#"outputs=[{"eve-log":{"enabled":true,"filetype":"regular","filename":"eve.json","types":["alert","stats"]}}]"#
                .to_owned(),
        ];
        if let Some(policy) = self.flood.policy() {
            settings.push(format!("{policy}={}", self.policy));
        }
        settings
    }

    /// Writes the capture; how many packets of the flood are in it.
    fn capture(&self, path: &Path, elements: u64) -> Result<u64> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        let mut pcap = Pcap::new(BufWriter::new(file))?;
        let victim = Talk::new(Ipv4Addr::new(192, 0, 2, 10), 4000);
        let mut sent = pcap.handshake(victim)?;
        // Often enough that it is not among those that nobody uses, however small the table is.
        let every = (self.cap / self.flood.element().0 / 4).clamp(1, 1 << 12);
        for number in 0..elements as u32 {
            self.element(&mut pcap, number)?;
            if u64::from(number) % every == 0 {
                sent = pcap.exchange(victim, sent, b"how are you")?;
            }
        }
        let [new, later] = [20, 21].map(|host| Ipv4Addr::new(192, 0, 2, host));
        pcap.udp((new, 5000), (SERVER, 9), b"EVIL-TWO")?;
        pcap.exchange(victim, sent, b"EVIL-ONE")?;
        // So that there is time to look, also at a process that has no flood.
        for _ in 0..CALM {
            sent = pcap.exchange(victim, sent, b"")?;
        }
        // Longer than any flow or fragment is remembered.
        pcap.wait(Duration::from_secs(3700));
        // Flows are forgotten some at a time, with every packet.
        for _ in 0..elements / 64 + 1 {
            pcap.udp((new, 5001), (SERVER, 9), b"")?;
        }
        let talk = Talk::new(later, 4001);
        let sent = pcap.handshake(talk)?;
        pcap.exchange(talk, sent, b"EVIL-THREE")?;
        let datagram = udp_datagram(5002, 9, b"EVIL-FOUR");
        let (first, rest) = datagram.split_at(16);
        pcap.fragment(later, 1, 0, true, first)?;
        pcap.fragment(later, 1, 16, false, rest)?;
        pcap.output.flush()?;
        Ok(elements * self.flood.element().1)
    }

    fn element(&self, pcap: &mut Pcap, number: u32) -> Result<()> {
        // Addresses and ports change together: neither alone shall tell elements apart.
        let from = Ipv4Addr::from(0x0a00_0000 + number);
        let port = 1024 + (number % 60_000) as u16;
        let talk = Talk::new(from, port);
        match self.flood {
            Flood::Flow => pcap.udp((from, port), (SERVER, 53), b"x"),
            Flood::AnsweredFlow => {
                pcap.udp((from, port), (SERVER, 53), b"x")?;
                pcap.udp((SERVER, 53), (from, port), b"x")
            }
            Flood::HalfOpen => pcap.tcp(talk, true, "S", (0, 0), b""),
            Flood::Connection => pcap.handshake(talk).map(drop),
            Flood::Hole => {
                pcap.handshake(talk)?;
                pcap.tcp(talk, true, "A", (101, 1), &[b'.'; 1300])
            }
            Flood::Fragment => pcap.fragment(from, number, 0, true, &[b'.'; 1400]),
            Flood::Host => pcap.udp((from, port), (SERVER, 7001), b"x"),
            Flood::Pair => pcap.udp((from, port), (SERVER, 7002), b"x"),
            Flood::Threshold => pcap.udp((from, port), (SERVER, 7003), b"x"),
        }
    }
}

const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 5);

/// A connection to port 80 of the server.
#[derive(Clone, Copy)]
struct Talk {
    client: Ipv4Addr,
    port: u16,
}

impl Talk {
    const fn new(client: Ipv4Addr, port: u16) -> Self {
        Self { client, port }
    }
}

/// A capture of packets from the IP header on.
struct Pcap {
    output: BufWriter<File>,
    now_us: u64,
}

/// Initial sequence numbers of client and server.
const ISN: [u32; 2] = [1000, 2000];

impl Pcap {
    fn new(mut output: BufWriter<File>) -> Result<Self> {
        // draft-ietf-opsawg-pcap: magic, version, two zeros, longest packet, LINKTYPE_RAW.
        for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 101_u32] {
            output.write_all(&word.to_le_bytes())?;
        }
        Ok(Self {
            output,
            now_us: 1_700_000_000_000_000,
        })
    }

    fn wait(&mut self, time: Duration) {
        self.now_us += time.as_micros() as u64;
    }

    fn packet(&mut self, bytes: &[u8]) -> Result<()> {
        // Far faster than anything is forgotten.
        self.now_us += 1;
        let (seconds, micros) = (self.now_us / 1_000_000, self.now_us % 1_000_000);
        let len = u32::try_from(bytes.len())?;
        for word in [u32::try_from(seconds)?, micros as u32, len, len] {
            self.output.write_all(&word.to_le_bytes())?;
        }
        Ok(self.output.write_all(bytes)?)
    }

    fn ip(
        &mut self,
        (from, to): (Ipv4Addr, Ipv4Addr),
        protocol: u8,
        (id, fragment): (u16, u16),
        payload: &[u8],
    ) -> Result<()> {
        let mut bytes = vec![0; 20];
        bytes[0] = 0x45;
        bytes[2..4].copy_from_slice(&u16::try_from(20 + payload.len())?.to_be_bytes());
        bytes[4..6].copy_from_slice(&id.to_be_bytes());
        bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
        (bytes[8], bytes[9]) = (64, protocol);
        bytes[12..16].copy_from_slice(&from.octets());
        bytes[16..20].copy_from_slice(&to.octets());
        let checksum = internet_checksum(&[&bytes]);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend_from_slice(payload);
        self.packet(&bytes)
    }

    fn udp(&mut self, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Result<()> {
        let datagram = udp_datagram(from.1, to.1, payload);
        self.ip((from.0, to.0), 17, (0, 0), &datagram)
    }

    fn fragment(
        &mut self,
        from: Ipv4Addr,
        id: u32,
        offset: u16,
        more: bool,
        data: &[u8],
    ) -> Result<()> {
        let field = (u16::from(more) << 13) | (offset / 8);
        self.ip((from, SERVER), 17, (id as u16, field), data)
    }

    /// A segment; numbers are relative, `flags` out of `SA`.
    fn tcp(
        &mut self,
        talk: Talk,
        to_server: bool,
        flags: &str,
        (seq, ack): (u32, u32),
        payload: &[u8],
    ) -> Result<()> {
        let own = usize::from(!to_server);
        let bit = |flag, bit| if flags.contains(flag) { bit } else { 0 };
        let ends = match to_server {
            true => ((talk.client, talk.port), (SERVER, 80)),
            false => ((SERVER, 80), (talk.client, talk.port)),
        };
        let acked = if flags.contains('A') {
            ISN[1 - own] + ack
        } else {
            0
        };
        let mut segment = Vec::with_capacity(20 + payload.len());
        segment.extend_from_slice(&ends.0.1.to_be_bytes());
        segment.extend_from_slice(&ends.1.1.to_be_bytes());
        segment.extend_from_slice(&(ISN[own] + seq).to_be_bytes());
        segment.extend_from_slice(&acked.to_be_bytes());
        segment.extend_from_slice(&[0x50, bit('S', 2) | bit('A', 16), 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend_from_slice(payload);
        self.ip((ends.0.0, ends.1.0), 6, (0, 0), &segment)
    }

    /// Opens a connection; the client's next number.
    fn handshake(&mut self, talk: Talk) -> Result<u32> {
        self.tcp(talk, true, "S", (0, 0), b"")?;
        self.tcp(talk, false, "SA", (0, 1), b"")?;
        self.tcp(talk, true, "A", (1, 1), b"")?;
        Ok(1)
    }

    /// Data of the client, acknowledged; its next number.
    fn exchange(&mut self, talk: Talk, seq: u32, data: &[u8]) -> Result<u32> {
        let next = seq + u32::try_from(data.len())?;
        self.tcp(talk, true, "A", (seq, 1), data)?;
        self.tcp(talk, false, "A", (1, next), b"")?;
        Ok(next)
    }
}

/// Without a checksum.
fn udp_datagram(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len() as u16;
    let mut datagram: Vec<u8> = [from, to, len, 0]
        .iter()
        .flat_map(|it| it.to_be_bytes())
        .collect();
    datagram.extend_from_slice(payload);
    datagram
}

/// A number of a `stats` record by its dotted name.
fn number(stats: &Value, name: &str) -> Result<u64> {
    let value = name.split('.').fold(stats, |tree, part| &tree[part]);
    value
        .as_u64()
        .with_context(|| format!("no {name} in {stats}"))
}

/// Kilobytes that a process has in memory of its own; how much of the program is there depends on
/// what the system likes to keep.
fn anonymous_kb(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_whitespace().next()?.parse().ok()
}
