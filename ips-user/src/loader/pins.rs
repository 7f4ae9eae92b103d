//! Where maps, programs and links are pinned: `<base>/v<LAYOUT_VERSION>/{maps,programs,links}`.
//!
//! A link's name is `<kind>-<interface>`. The BPF file system allows no dots in names (VLAN
//! interfaces have them), so they are escaped.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ips_common::LAYOUT_VERSION;
use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};

use super::LoadError;
use crate::lock::lock;

/// Where distributions mount the BPF file system.
const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` in `linux/magic.h`.
const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);

/// What a pinned link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkKind {
    /// TC program by a tcx link.
    Tcx,
    /// TC program by a filter of the clsact qdisc. There is no link: the pin is an empty
    /// directory that says whose the filter is.
    Clsact,
    /// XDP in the driver.
    XdpNative,
    /// XDP in the stack.
    XdpGeneric,
}

impl LinkKind {
    const ALL: [Self; 4] = [Self::Tcx, Self::Clsact, Self::XdpNative, Self::XdpGeneric];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Tcx => "tc",
            Self::Clsact => "clsact",
            Self::XdpNative => "xdp",
            Self::XdpGeneric => "xdpgeneric",
        }
    }
}

/// A pinned link that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkPin {
    pub(super) kind: LinkKind,
    pub(super) interface: String,
    pub(super) path: PathBuf,
}

/// The hold on an instance's directory; ends with the process.
pub(super) struct PinLock {
    _lock: Flock<File>,
}

/// The pins of one instance.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    base: PathBuf,
    version: PathBuf,
}

impl Pins {
    /// Makes sure that the directories exist, on a BPF file system.
    pub(super) fn open(base: &Path) -> Result<Self, LoadError> {
        ensure_bpffs(base)?;
        let pins = Self {
            version: base.join(format!("v{LAYOUT_VERSION}")),
            base: base.to_path_buf(),
        };
        for directory in [pins.maps(), pins.programs(), pins.links()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(LoadError::pin("create", &directory))?;
        }
        Ok(pins)
    }

    /// Claims the instance's directory. Its name may be used by a run with another control
    /// directory, hence another lock there, or in another network namespace: the BPF file
    /// system is the same.
    pub(super) fn lock(&self) -> Result<PinLock, LoadError> {
        let directory = File::open(&self.base).map_err(LoadError::pin("open", &self.base))?;
        match lock(directory) {
            Ok(lock) => Ok(PinLock { _lock: lock }),
            Err(Errno::EAGAIN) => Err(LoadError::InUse(self.base.clone())),
            Err(error) => Err(LoadError::pin("lock", &self.base)(error.into())),
        }
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.programs().join(name)
    }

    pub(super) fn link(&self, kind: LinkKind, interface: &str) -> PathBuf {
        self.links()
            .join(format!("{}-{}", kind.prefix(), escape(interface)))
    }

    fn maps(&self) -> PathBuf {
        self.version.join("maps")
    }

    fn programs(&self) -> PathBuf {
        self.version.join("programs")
    }

    fn links(&self) -> PathBuf {
        self.version.join("links")
    }

    /// All pinned links, those of other layout versions last.
    pub(super) fn all_links(&self) -> Result<Vec<LinkPin>, LoadError> {
        let mut directories = vec![self.links()];
        directories.extend(self.other_versions()?.iter().map(|v| v.join("links")));
        let mut links = Vec::new();
        for directory in directories {
            for path in entries(&directory)? {
                if let Some((kind, interface)) = parse_link_name(&path) {
                    links.push(LinkPin {
                        kind,
                        interface,
                        path,
                    });
                }
            }
        }
        Ok(links)
    }

    fn other_versions(&self) -> Result<Vec<PathBuf>, LoadError> {
        let mut versions = entries(&self.base)?;
        versions.retain(|path| *path != self.version && is_version(path));
        Ok(versions)
    }

    /// Removes what other layout versions have pinned; returns their directories.
    pub(super) fn remove_other_versions(&self) -> Result<Vec<PathBuf>, LoadError> {
        let versions = self.other_versions()?;
        for version in &versions {
            remove_tree(version)?;
        }
        Ok(versions)
    }

    /// Removes everything; the base directory too if nothing of others is in it.
    pub(super) fn remove(&self) -> Result<(), LoadError> {
        self.remove_other_versions()?;
        remove_tree(&self.version)?;
        match fs::remove_dir(&self.base) {
            Ok(()) => Ok(()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(LoadError::pin("remove", &self.base)(error)),
        }
    }
}

/// Removes a pin; that there is none is fine.
pub(super) fn remove_pin(path: &Path) -> Result<(), LoadError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LoadError::pin("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn is_version(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_prefix('v'))
        .is_some_and(|number| number.parse::<u32>().is_ok())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let iterator = match fs::read_dir(directory) {
        Ok(iterator) => iterator,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LoadError::pin("read", directory)(error)),
    };
    let mut paths = Vec::new();
    for entry in iterator {
        paths.push(entry.map_err(LoadError::pin("read", directory))?.path());
    }
    paths.sort();
    Ok(paths)
}

fn remove_tree(directory: &Path) -> Result<(), LoadError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LoadError::pin("remove", directory)(error))
        }
        _ => Ok(()),
    }
}

fn ensure_bpffs(base: &Path) -> Result<(), LoadError> {
    let on_bpffs = || {
        let existing = base.ancestors().find(|path| path.exists());
        let existing = existing.unwrap_or(Path::new("/"));
        statfs(existing)
            .map(|info| info.filesystem_type() == BPF_FS_MAGIC)
            .map_err(|error| LoadError::pin("statfs", existing)(error.into()))
    };
    if on_bpffs()? {
        return Ok(());
    }
    if base.starts_with(BPFFS) {
        mount(
            Some("bpf"),
            BPFFS,
            Some("bpf"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            Some("mode=0700"),
        )
        .map_err(|error| LoadError::pin("mount a BPF file system at", BPFFS)(error.into()))?;
        if on_bpffs()? {
            return Ok(());
        }
    }
    Err(LoadError::NotBpffs(base.to_path_buf()))
}

fn escape(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

fn unescape(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

fn parse_link_name(path: &Path) -> Option<(LinkKind, String)> {
    let (prefix, interface) = path.file_name()?.to_str()?.split_once('-')?;
    let kind = LinkKind::ALL.into_iter().find(|k| k.prefix() == prefix)?;
    Some((kind, unescape(interface)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_name_survives_its_pin() {
        let pins = Pins {
            base: "/b".into(),
            version: "/b/v1".into(),
        };
        for interface in ["eth0", "eth0.100", "a-b", "100%", "%2e", "%252e.%"] {
            for kind in LinkKind::ALL {
                let path = pins.link(kind, interface);
                assert!(!path.to_str().unwrap().contains('.'), "{path:?}");
                assert_eq!(parse_link_name(&path), Some((kind, interface.to_owned())));
            }
        }
    }

    #[test]
    fn only_version_directories_are_taken_for_ones() {
        for (path, expected) in [
            ("/b/v1", true),
            ("/b/v12", true),
            ("/b/v", false),
            ("/b/vmap", false),
            ("/b/1", false),
        ] {
            assert_eq!(is_version(Path::new(path)), expected, "{path}");
        }
    }
}
