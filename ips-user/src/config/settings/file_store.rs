//! `outputs`, `file-store`: files that are kept. Reference: "File-store (Enabling)" in the chapter
//! about extraction of Suricata's user guide.

use std::path::PathBuf;

use serde_json::Value;

use super::node::{Fault, settings};
use super::outputs::take;
use super::value::{ByteSize, choice};

choice! {
    /// `enabled`
    pub Storing {
        /// When rules have files stored.
        Auto = "auto",
        /// The same; and all of them with `force-filestore`.
        Yes = "yes" | "true" | "on",
        /// Never.
        No = "no" | "false" | "off",
    }
}

settings! {
    /// `file-store`
    pub FileStore {
        /// Whether files are stored.
        enabled("enabled"): Storing = Storing::Auto,
        /// Version of the format; there is one.
        version("version"): u8 = 2,
        /// Where, below the directory of logs.
        directory("dir"): PathBuf = "filestore".into(),
        /// Whether the record of a file is put beside it.
        write_fileinfo("write-fileinfo"): bool = false,
        /// Whether all files are stored, whatever rules say.
        force("force-filestore"): bool = false,
        /// Bytes of each that are stored; as much as there is of its stream if zero.
        stream_depth("stream-depth"): ByteSize = ByteSize(0),
        /// Hashes that records of files are to have.
        force_hash("force-hash"): Vec<String> = Vec::new(),
    }
}

impl FileStore {
    pub(super) fn parse(options: &Value, ignored: &mut Vec<String>) -> Result<Self, Fault> {
        let mut own = Self::default();
        let options = match options {
            Value::Object(options) => options,
            Value::Null => return Ok(own),
            other => return Err(Fault::expected("options", other)),
        };
        for (name, value) in options {
            take(&mut own, "file-store", name, value, ignored)?;
        }
        match own.version {
            2 => Ok(own),
            other => Err(Fault::Wrong(format!(
                "file-store: there is no version {other}"
            ))),
        }
    }

    /// Whether files are stored; when rules say so, if `None`.
    pub const fn is_on(&self) -> Option<bool> {
        match self.enabled {
            Storing::Auto | Storing::Yes if self.force => Some(true),
            Storing::Auto | Storing::Yes => None,
            Storing::No => Some(false),
        }
    }
}
