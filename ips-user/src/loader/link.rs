//! Links that are pinned.

use std::os::fd::AsFd;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};

use super::pins::{LinkKind, LinkPin, Pins, remove_pin};
use super::{LoadError, link_error, tc};
use crate::sys::bpf_link;

/// The link of an earlier run, if there is one and it is still that of this interface: names
/// are given to other interfaces, and an interface that went away took its links with it.
pub(super) fn find(
    pins: &Pins,
    kind: LinkKind,
    interface: &str,
    index: u32,
) -> Result<Option<FdLink>, LoadError> {
    for pin in pins.all_links()? {
        if pin.kind != kind || pin.interface != interface {
            continue;
        }
        let attached_to = bpf_link::open(&pin.path)
            .and_then(|link| bpf_link::interface_index(link.as_fd()))
            .map_err(|error| LoadError::link(interface, "reading")(error.to_string()))?;
        if attached_to == index {
            let link = PinnedLink::from_pin(&pin.path).map_err(link_error(interface, "opening"))?;
            return Ok(Some(link.into()));
        }
        remove(&pin)?;
    }
    Ok(None)
}

/// Pins a link where this layout version has it, and unpins it elsewhere.
pub(super) fn pin(
    pins: &Pins,
    kind: LinkKind,
    interface: &str,
    link: FdLink,
) -> Result<(), LoadError> {
    let path = pins.link(kind, interface);
    if !path.exists() {
        link.pin(&path)
            .map_err(|error| LoadError::link(interface, "pinning")(error.to_string()))?;
    }
    for other in pins.all_links()? {
        if other.kind == kind && other.interface == interface && other.path != path {
            remove_pin(&other.path)?;
        }
    }
    Ok(())
}

/// Detaches a link now and removes its pin.
pub(super) fn remove(pin: &LinkPin) -> Result<(), LoadError> {
    if pin.kind == LinkKind::Clsact {
        tc::detach_clsact(&pin.interface);
    } else {
        detach(&pin.path)
            .map_err(|error| LoadError::link(&pin.interface, "detaching")(error.to_string()))?;
    }
    remove_pin(&pin.path)
}

fn detach(path: &Path) -> std::io::Result<()> {
    let link = bpf_link::open(path)?;
    match bpf_link::detach(link.as_fd()) {
        // The interface is gone, and the attachment with it.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        result => result,
    }
}
