//! Files in memory that nobody can change once they are finished (memfd_create(2), fcntl(2)
//! `F_ADD_SEALS`).

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Neither length nor contents can change any more, nor this.
fn seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL
}

/// An empty file that can be written, and closed by exec.
///
/// # Errors
/// When descriptors run out.
pub fn file(name: &CStr) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    Ok(memfd_create(name, flags)?.into())
}

/// Finishes it.
///
/// # Errors
/// When it is mapped for writing somewhere, or was not made by [`file()`].
pub fn seal(file: &impl AsFd) -> io::Result<()> {
    fcntl(file, FcntlArg::F_ADD_SEALS(seals()))?;
    Ok(())
}

/// Whether a file is finished.
pub fn is_sealed(file: &impl AsFd) -> bool {
    let present = fcntl(file, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain);
    present.is_ok_and(|present| present.contains(seals()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_finished_file_stays_as_it_is() {
        let mut file = file(c"test").unwrap();
        file.write_all(b"text").unwrap();
        assert!(!is_sealed(&file));
        seal(&file).unwrap();
        assert!(is_sealed(&file));
        file.write_all(b"more").unwrap_err();
        file.set_len(0).unwrap_err();
        assert!(!is_sealed(&File::open("/proc/version").unwrap()));
    }
}
