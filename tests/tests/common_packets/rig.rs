//! The programs, loaded but attached to nothing.

use std::cell::RefCell;

use aya::maps::{Array, MapData};
use aya::programs::{Program, ProgramError, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use ips_common::{
    BACKUP, Counter, FlowKey, HashSeed, MarkLayout, Probe, SteerConfig, WorkerState, flow_hash,
    slot_of,
};
use sluice::maps::{CounterTotals, SteeringMaps, worker_table};

/// Bytes of a frame that fit into a test run: a page less the headroom and the shared info
/// that the kernel puts beside it.
pub const MAX_FRAME: usize = 3_400;

pub const TC_ACT_UNSPEC: i32 = -1;
pub const TC_ACT_SHOT: i32 = 2;
pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;

/// Offset and size of things in `struct __sk_buff`.
const SKB_MARK: usize = 8;
const SKB_LEN: usize = 192;

/// How the rig configures the programs.
pub const MASK: u32 = 0x00ff_0000;
pub const SHIFT: u32 = 16;
pub const SEED: HashSeed = HashSeed {
    key: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
};
pub const SECOND: u64 = 1_000_000_000;

pub struct Rig {
    ebpf: RefCell<Ebpf>,
    probe: Array<MapData, Probe>,
    pub maps: SteeringMaps,
    pub config: SteerConfig,
}

/// What TC did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcResult {
    pub action: i32,
    pub mark: u32,
}

impl Rig {
    /// Four workers and the backup, all alive for the next minute.
    pub fn new() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("needs root (loads eBPF programs)".to_owned());
        }
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("PLACED", 1024)
            .map_max_entries("CONVICTED", 1024)
            .map_max_entries("FRAGMENTS", 1024)
            .load(sluice::loader::OBJECT)
            .expect("the object loads");
        let probe = ebpf.take_map("PROBE").expect("the object has a probe");
        let mut rig = Self {
            maps: SteeringMaps::take(&mut ebpf).expect("the object has the maps"),
            probe: probe.try_into().expect("the probe is an array"),
            ebpf: RefCell::new(ebpf),
            config: SteerConfig {
                seed: SEED,
                stale_ns: 60 * SECOND,
                fragment_ns: 30 * SECOND,
                placement_idle_ns: 60 * SECOND,
                mark_mask: MASK,
                mark_shift: SHIFT,
                workers: 4,
                flags: 0,
            },
        };
        rig.configure(|_| {});
        rig.maps.table.write(&worker_table(&[0, 1, 2, 3])).unwrap();
        for index in [0, 1, 2, 3, BACKUP] {
            rig.revive(index);
        }
        Ok(rig)
    }

    pub fn configure(&mut self, change: impl FnOnce(&mut SteerConfig)) {
        change(&mut self.config);
        self.maps.write_config(&self.config).unwrap();
    }

    pub fn revive(&self, index: u32) {
        self.maps.workers.stamp(index, now());
        self.maps.workers.set_state(index, WorkerState::Up);
    }

    /// Makes the heartbeat one that is too old by now.
    pub fn hang(&self, index: u32) {
        let long_ago = now() - self.config.stale_ns;
        self.maps.workers.stamp(index, long_ago);
    }

    pub fn layout(&self) -> MarkLayout {
        self.config.mark()
    }

    /// The worker that the table has for a flow.
    pub fn worker_of(&self, key: &FlowKey) -> u32 {
        self.maps.table.slots()[slot_of(flow_hash(self.config.seed, key)) as usize]
    }

    pub fn counters(&self) -> CounterTotals {
        self.maps.counters.read().unwrap()
    }

    pub fn count(&self, counter: Counter) -> u64 {
        self.counters().get(counter)
    }

    pub fn tc(&self, frame: &[u8]) -> TcResult {
        self.tc_with_mark(frame, 0)
    }

    /// Runs the TC program on an skb with this mark.
    pub fn tc_with_mark(&self, frame: &[u8], mark: u32) -> TcResult {
        let mut context = [0; SKB_LEN];
        context[SKB_MARK..SKB_MARK + 4].copy_from_slice(&mark.to_ne_bytes());
        let mut context_out = [0; SKB_LEN];
        let action = self
            .classify("sluice_tc", frame, Some((&context, &mut context_out)), 1)
            .unwrap_or_else(|error| panic!("TC on {} bytes: {error:?}", frame.len()));
        let mark = context_out[SKB_MARK..SKB_MARK + 4].try_into().unwrap();
        TcResult {
            action: action.0,
            mark: u32::from_ne_bytes(mark),
        }
    }

    /// Nanoseconds that the TC program takes for a frame.
    pub fn tc_cost(&self, frame: &[u8], repeat: u32) -> u128 {
        self.classify("sluice_tc", frame, None, repeat).unwrap().1
    }

    pub fn probe(&self, frame: &[u8]) -> Probe {
        self.try_probe(frame)
            .unwrap_or_else(|error| panic!("probe of {} bytes: {error:?}", frame.len()))
    }

    /// `None` when the kernel does not run programs on such a frame: it insists on an Ethernet
    /// header, and newer ones on a complete IP header where the EtherType says so.
    pub fn probe_if_run(&self, frame: &[u8]) -> Option<Probe> {
        match self.try_probe(frame) {
            Ok(probe) => Some(probe),
            Err(ProgramError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::EINVAL) =>
            {
                None
            }
            Err(error) => panic!("probe of {} bytes: {error:?}", frame.len()),
        }
    }

    fn try_probe(&self, frame: &[u8]) -> Result<Probe, ProgramError> {
        self.classify("sluice_probe", frame, None, 1)?;
        Ok(self.probe.get(&0, 0).unwrap())
    }

    fn classify(
        &self,
        name: &str,
        frame: &[u8],
        context: Option<(&[u8], &mut [u8])>,
        repeat: u32,
    ) -> Result<(i32, u128), ProgramError> {
        let mut ebpf = self.ebpf.borrow_mut();
        let program: &mut SchedClassifier = loaded(&mut ebpf, name).try_into().unwrap();
        let (ctx_in, ctx_out) = context.unzip();
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in,
            ctx_out,
            repeat,
            ..TestRunOptions::default()
        };
        let result = program.test_run(options)?;
        Ok((result.return_value as i32, result.duration.as_nanos()))
    }

    pub fn xdp(&self, frame: &[u8]) -> u32 {
        self.xdp_repeatedly(frame, 1).0
    }

    pub fn xdp_repeatedly(&self, frame: &[u8], repeat: u32) -> (u32, u128) {
        let mut ebpf = self.ebpf.borrow_mut();
        let program: &mut Xdp = loaded(&mut ebpf, "sluice_xdp").try_into().unwrap();
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::default()
        };
        let result = program
            .test_run(options)
            .unwrap_or_else(|error| panic!("XDP on {} bytes: {error:?}", frame.len()));
        (result.return_value, result.duration.as_nanos())
    }

    /// How many instructions the verifier followed.
    pub fn verified(&self, name: &str) -> Option<u32> {
        let mut ebpf = self.ebpf.borrow_mut();
        let info = loaded(&mut ebpf, name).info().unwrap();
        info.verified_instruction_count()
    }
}

/// The verifier takes its time, so that a test loads only what it runs.
fn loaded<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut Program {
    let program = ebpf.program_mut(name).expect("the object has the program");
    if program.fd().is_err() {
        match program {
            Program::SchedClassifier(program) => program.load(),
            Program::Xdp(program) => program.load(),
            _ => panic!("{name} is of no type that Sluice has"),
        }
        .unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
    program
}

/// CLOCK_MONOTONIC, which `bpf_ktime_get_ns` reads.
pub fn now() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() as u64 * SECOND + now.tv_nsec() as u64
}
