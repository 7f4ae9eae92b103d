//! Attaching the dropping program to XDP, where that is worth it.

use std::fmt;

use aya::programs::ProgramError;
use aya::programs::links::FdLink;
use aya::programs::xdp::{XdpLink, XdpMode as AyaMode};

use super::pins::LinkKind;
use serde::{Deserialize, Serialize};

use super::{LoadError, Programs, XDP_PROGRAM, interface_index, link, link_error};
use crate::sys::ethtool::Ethtool;

/// What is wanted on an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpPolicy {
    /// Native, but off where that would cost more than it gains.
    #[default]
    Auto,
    /// In the driver; failing is an error.
    Native,
    /// In the stack, after the skb was made; failing is an error.
    Generic,
    /// Not at all.
    Off,
}

/// What there is on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
    /// Nothing: let TC drop convicted flows (`SteerFlags::CONVICT_IN_TC`).
    Off,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        })
    }
}

/// What was done on an interface, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpChoice {
    /// What there is now.
    pub mode: XdpMode,
    /// Why, for the log.
    pub reason: String,
    /// Whether the attachment of an earlier run was taken over in place.
    pub adopted: bool,
}

/// Drivers under which a native XDP program takes aggregation away from the whole path, and with
/// what consequence. Measured for veth only; the others are held to
/// the same until somebody measures them.
const COSTLY_DRIVERS: [(&str, &str); 4] = [
    ("veth", "turns segmentation offload of the peer off"),
    ("tun", "sends every aggregate through the slow path"),
    (
        "virtio_net",
        "turns receive offloads of the virtual device off",
    ),
    ("xen_netfront", "takes a page for every packet"),
];

pub(super) fn attach(
    programs: &mut Programs,
    interface: &str,
    policy: XdpPolicy,
) -> Result<XdpChoice, LoadError> {
    let index = interface_index(interface)?;
    match policy {
        XdpPolicy::Off => {
            let reason = String::from("off by configuration");
            off(programs, interface, reason)
        }
        XdpPolicy::Native => {
            let adopted = attach_as(programs, interface, index, LinkKind::XdpNative)?;
            Ok(XdpChoice {
                mode: XdpMode::Native,
                reason: String::from("native by configuration"),
                adopted,
            })
        }
        XdpPolicy::Generic => {
            let adopted = attach_as(programs, interface, index, LinkKind::XdpGeneric)?;
            Ok(XdpChoice {
                mode: XdpMode::Generic,
                reason: String::from("generic by configuration"),
                adopted,
            })
        }
        XdpPolicy::Auto => attach_auto(programs, interface, index),
    }
}

fn attach_auto(
    programs: &mut Programs,
    interface: &str,
    index: u32,
) -> Result<XdpChoice, LoadError> {
    // An interface without a driver to ask is none of those that cost.
    let driver = Ethtool::new(interface)
        .and_then(|ethtool| ethtool.driver())
        .unwrap_or_default();
    if let Some((_, cost)) = COSTLY_DRIVERS.iter().find(|(name, _)| *name == driver) {
        let reason = format!("native XDP under driver {driver} {cost}; TC drops instead");
        return off(programs, interface, reason);
    }
    match attach_as(programs, interface, index, LinkKind::XdpNative) {
        Ok(adopted) => Ok(XdpChoice {
            mode: XdpMode::Native,
            reason: format!("driver {driver} has it"),
            adopted,
        }),
        Err(LoadError::ForeignXdp(_)) => {
            let reason =
                String::from("another XDP program is attached and is left alone; TC drops instead");
            off(programs, interface, reason)
        }
        Err(LoadError::Attach { source, .. }) => {
            let reason = format!("driver {driver} refused it ({source:?}); TC drops instead");
            off(programs, interface, reason)
        }
        Err(error) => Err(error),
    }
}

fn off(programs: &Programs, interface: &str, reason: String) -> Result<XdpChoice, LoadError> {
    remove_except(programs, interface, None)?;
    Ok(XdpChoice {
        mode: XdpMode::Off,
        reason,
        adopted: false,
    })
}

/// An interface has either native or generic XDP.
fn remove_except(
    programs: &Programs,
    interface: &str,
    keep: Option<LinkKind>,
) -> Result<(), LoadError> {
    for pin in programs.pins.all_links()? {
        let is_xdp = matches!(pin.kind, LinkKind::XdpNative | LinkKind::XdpGeneric);
        if is_xdp && pin.interface == interface && Some(pin.kind) != keep {
            link::remove(&pin)?;
        }
    }
    Ok(())
}

fn attach_as(
    programs: &mut Programs,
    interface: &str,
    index: u32,
    kind: LinkKind,
) -> Result<bool, LoadError> {
    remove_except(programs, interface, Some(kind))?;
    let found = link::find(&programs.pins, kind, interface, index)?;
    let adopted = found.is_some();
    let mode = match kind {
        LinkKind::XdpGeneric => AyaMode::Skb,
        _ => AyaMode::Driver,
    };
    let attach_error = || LoadError::attach(interface, XDP_PROGRAM);
    let program = programs.xdp_program();
    let id = match found {
        Some(link) => {
            let link = XdpLink::try_from(link).map_err(link_error(interface, "taking over"))?;
            program.attach_to_link(link).map_err(attach_error())?
        }
        None => program
            .attach_to_if_index(index, mode)
            .map_err(|error| match errno(&error) {
                Some(libc::EBUSY | libc::EEXIST) => LoadError::ForeignXdp(interface.to_owned()),
                _ => attach_error()(error),
            })?,
    };
    let link = program.take_link(id).map_err(attach_error())?;
    // Without link support (before Linux 5.9) aya attaches by netlink; dropping that detaches.
    let link = FdLink::try_from(link).map_err(link_error(interface, "opening"))?;
    link::pin(&programs.pins, kind, interface, link)?;
    Ok(adopted)
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}
