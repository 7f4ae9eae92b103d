//! Loads the eBPF programs, attaches them to interfaces and pins everything.
//!
//! Dropping [`Programs`] (or dying) leaves steering in place: the programs go on marking packets
//! by the heartbeats they find. The next [`Programs::load`] of the same instance finds the pins
//! and takes over maps and links without a gap. Only [`Programs::remove`] takes everything away.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use aya::programs::links::LinkError;
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use nix::net::if_::if_nametoindex;
use thiserror::Error;

use crate::maps::{MapsError, SteeringMaps};

mod adopt;
mod kernel_log;
mod link;
mod pins;
mod tc;
mod xdp;

pub use adopt::DiscardedMap;
pub use kernel_log::KernelLog;
pub use tc::{TcChoice, TcMode};
pub use xdp::{XdpChoice, XdpMode, XdpPolicy};

use adopt::Expected;
use pins::{LinkKind, LinkPin, PinLock, Pins, remove_pin};

/// The compiled eBPF programs (ELF).
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("IPS_EBPF_OBJECT"));

const TC_PROGRAM: &str = "sluice_tc";
const XDP_PROGRAM: &str = "sluice_xdp";
/// How often a program is loaded again after an interruption.
const LOAD_AGAIN: u32 = 20;

/// Why the programs could not be loaded, attached or removed.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The pin directory cannot be used.
    #[error("{path}: is not on a BPF file system", path = .0.display())]
    NotBpffs(PathBuf),
    /// A pin could not be made, read or removed.
    #[error("cannot {operation} {path}: {source}", path = .path.display())]
    Pin {
        /// What was tried.
        operation: &'static str,
        /// The pin or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The object was refused as a whole.
    #[error("loading the eBPF object: {0}")]
    Object(#[source] Box<EbpfError>),
    /// A program was refused, by the verifier as a rule.
    #[error("loading eBPF program {name}: {source}")]
    Program {
        /// The program.
        name: &'static str,
        /// Why not.
        source: Box<ProgramError>,
    },
    /// The programs' log could not be opened.
    #[error("opening the log of the eBPF programs: {0}")]
    KernelLog(String),
    /// A map could not be used.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// There is no such interface in this network namespace.
    #[error("interface {0}: no such interface")]
    NoInterface(String),
    /// Its packets have no Ethernet header.
    #[error(
        "interface {interface}: is no Ethernet interface (hardware type {kind}); its packets could not be steered"
    )]
    NotEthernet {
        /// The interface.
        interface: String,
        /// `ARPHRD_` of linux/if_arp.h.
        kind: u16,
    },
    /// Another process has these programs loaded.
    #[error("{path}: is in use by another running instance of this name", path = .0.display())]
    InUse(PathBuf),
    /// A program could not be attached.
    #[error("interface {interface}: attaching {program}: {source}")]
    Attach {
        /// The interface.
        interface: String,
        /// The program.
        program: &'static str,
        /// Why not.
        source: Box<ProgramError>,
    },
    /// Somebody else's XDP program is attached; it is never replaced.
    #[error("interface {0}: another XDP program is attached; remove it or set xdp = \"off\"")]
    ForeignXdp(String),
    /// A link could not be pinned or taken over.
    #[error("interface {interface}: {operation} the link: {reason}")]
    Link {
        /// The interface.
        interface: String,
        /// What was tried.
        operation: &'static str,
        /// Why not.
        reason: String,
    },
}

impl LoadError {
    fn pin(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Pin {
            operation,
            path,
            source,
        }
    }

    fn attach(interface: &str, program: &'static str) -> impl FnOnce(ProgramError) -> Self {
        let interface = interface.to_owned();
        move |source| Self::Attach {
            interface,
            program,
            source: Box::new(source),
        }
    }

    fn link(interface: &str, operation: &'static str) -> impl FnOnce(String) -> Self {
        let interface = interface.to_owned();
        move |reason| Self::Link {
            interface,
            operation,
            reason,
        }
    }
}

/// How to load. The maps' memory is allocated in advance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Directory of this instance on a BPF file system; below it there is one for each layout
    /// version.
    pub pin_base: PathBuf,
    /// Flows that can be placed elsewhere than the table says (about 130 bytes each).
    pub max_placed: u32,
    /// Flows that can be convicted (about 140 bytes each).
    pub max_convicted: u32,
    /// Fragmented datagrams that can be followed (about 160 bytes each).
    pub max_fragments: u32,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            pin_base: PathBuf::from("/sys/fs/bpf/sluice"),
            max_placed: 262_144,
            max_convicted: 65_536,
            max_fragments: 16_384,
        }
    }
}

/// What an unclean stop had left behind and is used again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Maps, with their contents.
    pub maps: usize,
    /// Links that were found. Each is updated in place when its interface is attached again,
    /// and removed by [`Programs::retire_leftovers`] otherwise.
    pub links: usize,
    /// Maps that did not fit and were replaced by empty ones.
    pub discarded: Vec<DiscardedMap>,
}

/// The loaded programs of one instance.
pub struct Programs {
    ebpf: Ebpf,
    pins: Pins,
    clsact: bool,
    adopted: Adopted,
    /// Held for as long as the programs are this process's.
    _lock: PinLock,
}

impl Programs {
    /// Loads and pins the programs and maps, or takes over the maps that are pinned already.
    /// Nothing is attached yet, and what was attached before goes on with the old programs.
    ///
    /// # Errors
    /// Without the privileges (root), without BPF in the kernel, or when the pins cannot be
    /// made.
    pub fn load(options: &LoadOptions) -> Result<(Self, SteeringMaps), LoadError> {
        let pins = Pins::open(&options.pin_base)?;
        let lock = pins.lock()?;
        let expected = Expected::all(options);
        let (maps, discarded) = adopt::check_maps(&pins, &expected)?;
        let links = pins.all_links()?.len();

        let mut loader = EbpfLoader::new();
        for map in &expected {
            loader
                .map_pin_path(map.name, pins.map(map.name))
                .map_max_entries(map.name, map.max_entries);
        }
        let ebpf = loader
            .load(OBJECT)
            .map_err(|error| LoadError::Object(Box::new(error)))?;
        let mut programs = Self {
            ebpf,
            pins,
            clsact: false,
            adopted: Adopted {
                maps,
                links,
                discarded,
            },
            _lock: lock,
        };
        programs.load_programs()?;
        let maps = SteeringMaps::take(&mut programs.ebpf)?;
        Ok((programs, maps))
    }

    fn load_programs(&mut self) -> Result<(), LoadError> {
        let refused = |name| {
            move |source| LoadError::Program {
                name,
                source: Box::new(source),
            }
        };
        let unpinned = |path: PathBuf| {
            let reported = path.clone();
            (path, move |error: aya::pin::PinError| {
                LoadError::pin("pin", reported)(io::Error::other(error))
            })
        };
        let (path, failed) = unpinned(self.pins.program(TC_PROGRAM));
        remove_pin(&path)?;
        let tc = self.tc_program();
        insist(|| tc.load()).map_err(refused(TC_PROGRAM))?;
        tc.pin(path).map_err(failed)?;

        let (path, failed) = unpinned(self.pins.program(XDP_PROGRAM));
        remove_pin(&path)?;
        let xdp = self.xdp_program();
        insist(|| xdp.load()).map_err(refused(XDP_PROGRAM))?;
        xdp.pin(path).map_err(failed)
    }

    /// What was found of an earlier run.
    pub fn adopted(&self) -> &Adopted {
        &self.adopted
    }

    /// Has [`Self::attach_tc`] use the clsact qdisc even where the kernel has tcx (Linux 6.6).
    pub fn prefer_clsact(&mut self) {
        self.clsact = true;
    }

    /// Starts to read what the programs log while `SteerFlags::LOG` is set. Can be taken once.
    ///
    /// # Errors
    /// When the log's map cannot be used.
    pub fn kernel_log(&mut self) -> Result<KernelLog, LoadError> {
        KernelLog::take(&mut self.ebpf)
    }

    /// Attaches the steering program to an interface's ingress, before the programs of others;
    /// a link of an earlier run is updated in place.
    ///
    /// # Errors
    /// When there is no such interface or the kernel refuses.
    pub fn attach_tc(&mut self, interface: &str) -> Result<TcChoice, LoadError> {
        tc::attach(self, interface)
    }

    /// Attaches the dropping program to an interface as the policy says; a link of an earlier
    /// run is updated in place, or removed when the policy is against it.
    ///
    /// # Errors
    /// When there is no such interface, or when a mode was demanded and is not to be had. With
    /// [`XdpPolicy::Auto`] that is not an error but a reason in the choice.
    pub fn attach_xdp(
        &mut self,
        interface: &str,
        policy: XdpPolicy,
    ) -> Result<XdpChoice, LoadError> {
        xdp::attach(self, interface, policy)
    }

    /// Detaches from every interface that is not in `keep`, and removes what other layout
    /// versions of the program have pinned. To be called after attaching, so that there is no
    /// gap. Returns what was detached.
    ///
    /// # Errors
    /// When the kernel refuses; the rest is still attached then.
    pub fn retire_leftovers(&mut self, keep: &[&str]) -> Result<Vec<String>, LoadError> {
        let mut retired = Vec::new();
        for pin in self.pins.all_links()? {
            if !keep.contains(&pin.interface.as_str()) {
                link::remove(&pin)?;
                retired.push(describe(&pin));
            }
        }
        self.pins.remove_other_versions()?;
        Ok(retired)
    }

    /// Detaches from one interface.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn detach(&mut self, interface: &str) -> Result<(), LoadError> {
        let links = self.pins.all_links()?;
        links
            .iter()
            .filter(|pin| pin.interface == interface)
            .try_for_each(link::remove)
    }

    /// The clean stop: detaches from all interfaces, and removes programs, maps and the pin
    /// directory.
    ///
    /// # Errors
    /// When the kernel refuses; what is left will be found by the next start.
    pub fn remove(self) -> Result<(), LoadError> {
        self.pins.all_links()?.iter().try_for_each(link::remove)?;
        self.pins.remove()
    }

    fn tc_program(&mut self) -> &mut SchedClassifier {
        self.ebpf
            .program_mut(TC_PROGRAM)
            .and_then(|program| program.try_into().ok())
            .expect("the embedded object has this classifier")
    }

    fn xdp_program(&mut self) -> &mut Xdp {
        self.ebpf
            .program_mut(XDP_PROGRAM)
            .and_then(|program| program.try_into().ok())
            .expect("the embedded object has this XDP program")
    }
}

/// Removes the pins of an instance without loading anything: for cleaning up after a run of
/// which nothing is left. Returns what was detached.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_leftovers(pin_base: &Path) -> Result<Vec<String>, LoadError> {
    if !pin_base.exists() {
        return Ok(Vec::new());
    }
    let pins = Pins::open(pin_base)?;
    let links = pins.all_links()?;
    links.iter().try_for_each(link::remove)?;
    pins.remove()?;
    Ok(links.iter().map(describe).collect())
}

/// Loads a program, again where a signal has interrupted the verifier: it gives up with EAGAIN then
/// (`kernel/bpf/verifier.c`, since Linux 5.0), and a frozen and thawed process has signals, too.
fn insist(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    let interrupted = |result: &Result<(), ProgramError>| match result {
        Err(ProgramError::LoadError { io_error, .. }) => io_error.kind() == ErrorKind::WouldBlock,
        _ => false,
    };
    let mut result = load();
    for _ in 0..LOAD_AGAIN {
        if !interrupted(&result) {
            break;
        }
        result = load();
    }
    result
}

fn describe(pin: &LinkPin) -> String {
    let kind = match pin.kind {
        LinkKind::Tcx => "tcx",
        LinkKind::Clsact => "clsact",
        LinkKind::XdpNative => "native XDP",
        LinkKind::XdpGeneric => "generic XDP",
    };
    format!("{} ({kind})", pin.interface)
}

fn interface_index(interface: &str) -> Result<u32, LoadError> {
    if_nametoindex(interface).map_err(|_| LoadError::NoInterface(interface.to_owned()))
}

fn link_error(interface: &str, operation: &'static str) -> impl FnOnce(LinkError) -> LoadError {
    let report = LoadError::link(interface, operation);
    move |error| report(error.to_string())
}
