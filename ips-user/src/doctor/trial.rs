//! Trials of the kernel in a network namespace that nothing else uses.

use std::io;

use ips_common::{MarkLayout, Steer};
use nix::sched::{CloneFlags, unshare};

use crate::netfilter::{self, Backend, Fail, Hook, NetfilterError, Plan, find_program, run};
use crate::sys::bpf_probe::{
    AttachPoint, MapKind, ProgramKind, attach, create_map, load_btf, load_program, run_live_frame,
};

/// What came of a trial: an error's text when the kernel refused.
pub(super) type Outcome = Result<(), String>;

/// Everything that was tried.
pub(super) struct Trials {
    pub(super) maps: Vec<(MapKind, Outcome)>,
    pub(super) btf: Outcome,
    pub(super) classifier: Outcome,
    pub(super) tcx: Outcome,
    pub(super) clsact: Outcome,
    pub(super) xdp: Outcome,
    pub(super) live_frames: Outcome,
    pub(super) queue_socket: Outcome,
    pub(super) queue_gso: Outcome,
    pub(super) queue_fail_open: Outcome,
    pub(super) conntrack: Outcome,
    /// The outcome and, where it worked, what it says.
    pub(super) backends: Vec<(Backend, Result<String, String>)>,
}

const LOOPBACK: u32 = 1;

fn text(error: &io::Error) -> String {
    error.to_string()
}

/// Runs all trials.
///
/// # Errors
/// When no namespace can be made (it needs root or `CAP_SYS_ADMIN`).
pub(super) fn run_all() -> Result<Trials, String> {
    std::thread::Builder::new()
        .name("doctor-trials".to_owned())
        .spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
                format!("no network namespace can be made to try it in: {errno}")
            })?;
            Ok(in_own_namespace())
        })
        .map_err(|error| text(&error))?
        .join()
        .unwrap_or_else(|_| Err("the trial ended unexpectedly".to_owned()))
}

fn in_own_namespace() -> Trials {
    let kinds = [
        MapKind::PerCpuArray,
        MapKind::LruHash,
        MapKind::MappedArray,
        MapKind::RingBuffer,
    ];
    let maps = kinds
        .into_iter()
        .map(|kind| (kind, create_map(kind).map_err(|error| text(&error))))
        .collect();
    let load = |kind| load_program(kind).map_err(|error| format!("loading: {error}"));
    let classifier = load(ProgramKind::SchedClassifier);
    let tcx = classifier
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|program| {
            attach(program, LOOPBACK, AttachPoint::TcxIngress)
                .map(drop)
                .map_err(|error| text(&error))
        });
    let program = load(ProgramKind::Xdp);
    let xdp = program.as_ref().map_err(Clone::clone).and_then(|program| {
        attach(program, LOOPBACK, AttachPoint::XdpGeneric)
            .map(drop)
            .map_err(|error| text(&error))
    });
    let live_frames = program
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|program| run_live_frame(program).map_err(|error| text(&error)));
    let (queue_socket, queue_gso, queue_fail_open) = queue_socket();
    Trials {
        maps,
        btf: load_btf().map_err(|error| text(&error)),
        classifier: classifier.map(drop),
        tcx,
        clsact: command("tc", &["qdisc", "add", "dev", "lo", "clsact"], ""),
        xdp,
        live_frames,
        queue_socket,
        queue_gso,
        queue_fail_open,
        conntrack: command(
            "nft",
            &["-f", "-"],
            "table inet conntrack {\n\
             \tchain forward {\n\
             \t\ttype filter hook forward priority 0;\n\
             \t\tct state established ct mark 1 accept\n\
             \t}\n\
             }\n",
        ),
        backends: [Backend::Nft, Backend::IptablesNft, Backend::IptablesLegacy]
            .map(|backend| (backend, install(backend)))
            .to_vec(),
    }
}

/// Binds a queue of this namespace, where no packet can come to it.
fn queue_socket() -> (Outcome, Outcome, Outcome) {
    let mut queue = match nfq::Queue::open() {
        Ok(queue) => queue,
        Err(error) => {
            let error = text(&error);
            return (Err(error.clone()), Err(error.clone()), Err(error));
        }
    };
    if let Err(error) = queue.bind(0) {
        let error = text(&error);
        return (Err(error.clone()), Err(error.clone()), Err(error));
    }
    let gso = queue.set_recv_gso(0, true).map_err(|error| text(&error));
    let fail_open = queue.set_fail_open(0, true).map_err(|error| text(&error));
    (Ok(()), gso, fail_open)
}

fn command(program: &str, arguments: &[&str], input: &str) -> Outcome {
    let path = find_program(program).ok_or_else(|| format!("{program} is not installed"))?;
    run(&path, arguments, input)
        .map(drop)
        .map_err(|failure| failure.summary().to_owned())
}

fn install(backend: Backend) -> Result<String, String> {
    let mark = MarkLayout::new(0x00ff_0000, 1).map_err(|error| error.to_string())?;
    let plan = Plan {
        instance: "doctor".to_owned(),
        hook: Hook::Forward,
        priority: netfilter::DEFAULT_PRIORITY,
        mark,
        queues: vec![(Steer::Worker(0), 0), (Steer::Backup, 1)],
        interfaces: Vec::new(),
        fail: Fail::Open,
        backend: Some(backend),
    };
    match netfilter::install(&plan) {
        Ok(installed) => Ok(installed.place),
        Err(NetfilterError::NoBackend { attempts }) => Err(attempts.join("; ")),
        Err(error) => Err(error.to_string()),
    }
}
