//! Attaching the steering program to TC ingress.

use std::fmt;
use std::fs;
use std::io;
use std::mem;

use aya::programs::links::FdLink;
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
};
use aya::programs::{LinkOrder, TcAttachType};
use aya::util::KernelVersion;

use super::pins::{LinkKind, remove_pin};
use super::{LoadError, Programs, TC_PROGRAM, interface_index, link, link_error};
use crate::sys::ethtool::Ethtool;

/// The filter's place in the clsact qdisc, which is how it is found again: filters have no
/// links.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 0x51);

/// How the steering program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcMode {
    /// By a tcx link (Linux 6.6).
    Tcx,
    /// By a filter of the clsact qdisc.
    Clsact,
}

impl fmt::Display for TcMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// What was done on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcChoice {
    /// How the program is attached.
    pub mode: TcMode,
    /// Whether the attachment of an earlier run was taken over in place.
    pub adopted: bool,
}

impl fmt::Display for TcChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mode.fmt(f)?;
        if self.adopted {
            f.write_str(" (taken over)")?;
        }
        Ok(())
    }
}

pub(super) fn attach(programs: &mut Programs, interface: &str) -> Result<TcChoice, LoadError> {
    let index = interface_index(interface)?;
    // The parser begins at an Ethernet header. What comes in elsewhere (ppp, tun, wireguard) has
    // none: it would all pass as not IP, uninspected.
    let kind = Ethtool::new(interface).and_then(|ethtool| ethtool.hardware_type());
    if let Ok(kind) = kind
        && !matches!(kind, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK)
    {
        return Err(LoadError::NotEthernet {
            interface: interface.to_owned(),
            kind,
        });
    }
    let tcx = !programs.clsact && has_tcx();
    let (mode, adopted) = if tcx {
        (TcMode::Tcx, attach_tcx(programs, interface, index)?)
    } else {
        (TcMode::Clsact, attach_clsact(programs, interface)?)
    };
    // What an earlier run attached in the other way would steer twice.
    for pin in programs.pins.all_links()? {
        let other = matches!(
            (mode, pin.kind),
            (TcMode::Tcx, LinkKind::Clsact) | (TcMode::Clsact, LinkKind::Tcx)
        );
        if other && pin.interface == interface {
            link::remove(&pin)?;
        }
    }
    Ok(TcChoice { mode, adopted })
}

fn attach_tcx(programs: &mut Programs, interface: &str, index: u32) -> Result<bool, LoadError> {
    let attach_error = || LoadError::attach(interface, TC_PROGRAM);
    let found = link::find(&programs.pins, LinkKind::Tcx, interface, index)?;
    let adopted = found.is_some();
    let program = programs.tc_program();
    let id = match found {
        Some(link) => {
            let link = SchedClassifierLink::try_from(link)
                .map_err(link_error(interface, "taking over"))?;
            program.attach_to_link(link)
        }
        // First, so that no other program's final verdict hides packets from steering.
        None => program.attach_with_options(
            interface,
            TcAttachType::Ingress,
            TcAttachOptions::TcxOrder(LinkOrder::first()),
        ),
    }
    .map_err(attach_error())?;
    let link = program.take_link(id).map_err(attach_error())?;
    let link = FdLink::try_from(link).map_err(link_error(interface, "opening"))?;
    link::pin(&programs.pins, LinkKind::Tcx, interface, link)?;
    Ok(adopted)
}

fn attach_clsact(programs: &mut Programs, interface: &str) -> Result<bool, LoadError> {
    let attach_error = || LoadError::attach(interface, TC_PROGRAM);
    match qdisc_add_clsact(interface) {
        Err(error) if !is_already_there(&error) => {
            return Err(attach_error()(error.into()));
        }
        _ => {}
    }
    let marked: Vec<_> = programs
        .pins
        .all_links()?
        .into_iter()
        .filter(|pin| pin.kind == LinkKind::Clsact && pin.interface == interface)
        .collect();
    let options = || NlOptions {
        priority: PRIORITY,
        handle: HANDLE,
        classid: None,
    };
    let program = programs.tc_program();
    let mut adopted = false;
    let mut attached = None;
    if !marked.is_empty() {
        let link = existing_filter(interface)
            .map_err(|error| LoadError::link(interface, "taking over")(error.to_string()))?;
        // Fails when the filter is gone, with its interface for example.
        if let Ok(id) = program.attach_to_link(link) {
            adopted = true;
            attached = Some(id);
        }
    }
    let id = match attached {
        Some(id) => id,
        None => program
            .attach_with_options(
                interface,
                TcAttachType::Ingress,
                TcAttachOptions::Netlink(options()),
            )
            .map_err(attach_error())?,
    };
    // Dropping the link would detach the filter.
    mem::forget(program.take_link(id).map_err(attach_error())?);

    let marker = programs.pins.link(LinkKind::Clsact, interface);
    for pin in marked.iter().filter(|pin| pin.path != marker) {
        remove_pin(&pin.path)?;
    }
    match fs::create_dir(&marker) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(LoadError::pin("create", &marker)(error))
        }
        _ => Ok(adopted),
    }
}

/// Removes the filter; the qdisc stays, others may have filters in it. That the interface or
/// the filter is gone is fine.
pub(super) fn detach_clsact(interface: &str) {
    // Dropping it detaches it.
    drop(existing_filter(interface));
}

fn existing_filter(interface: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, TcAttachType::Ingress, PRIORITY, HANDLE, None)
}

fn is_already_there(error: &TcError) -> bool {
    match error {
        TcError::AlreadyAttached => true,
        TcError::NetlinkError(error) => error.raw_os_error() == Some(libc::EEXIST),
        TcError::IoError(error) => error.raw_os_error() == Some(libc::EEXIST),
        _ => false,
    }
}

fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}
