//! What a transaction is made of, as its protocol has it, and what is asked of that.

use std::any::Any;
use std::fmt::Debug;

use serde_json::Value;

use super::file::{File, HashKind};
use super::protocol::AppProtocol;
use crate::flow::PacketDirection;
use crate::rules::ast::{AppBuffer, Compare};

/// A message, a request with its response, a handshake: what rules and records look at.
pub trait Content: Any + Debug {
    /// Which protocol it is of.
    fn protocol(&self) -> AppProtocol;

    /// Bytes that it takes.
    fn taken(&self) -> usize;

    /// A buffer as it is in packets of this direction; of one that can exist several times the one
    /// of this number.
    fn part(&self, direction: PacketDirection, which: AppBuffer, number: usize) -> Part<'_>;

    /// Whether something holds for it that is no buffer; `None` while that is not known.
    fn answers(&self, _direction: PacketDirection, _asked: &Asked) -> Option<bool> {
        Some(false)
    }

    /// Nothing more comes of a direction, whether it is complete or not.
    fn finish(&mut self, _direction: PacketDirection) {}

    /// What records show of it: the object under the name of the protocol. `transaction` is the
    /// number of it in its flow.
    fn fields(&self, transaction: u64) -> Value;

    /// What its own records show of it, one for each; `version` is that of their format.
    fn records(&self, transaction: u64, _version: u8) -> Vec<Value> {
        vec![self.fields(transaction)]
    }

    /// Another object that records show of it, and its name.
    fn further_fields(&self) -> Option<(&'static str, Value)> {
        None
    }

    /// In which direction its record shows the ends of the flow; that of the packet if `None`.
    fn record_direction(&self, _version: u8) -> Option<PacketDirection> {
        Some(PacketDirection::ToServer)
    }

    /// The files that this direction of it has carried.
    fn files(&self, _direction: PacketDirection) -> Vec<File> {
        Vec::new()
    }

    /// What is kept of the file with this number among [`Self::files`].
    fn file_content(&self, _direction: PacketDirection, _number: usize) -> Option<&[u8]> {
        None
    }

    /// The value of a header of the request.
    fn request_header(&self, _name: &str) -> Option<&[u8]> {
        None
    }
}

/// What there is of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// It may still come.
    Pending,
    /// There is none, and there will be none.
    Absent,
    /// These are its bytes.
    Bytes {
        /// As far as they are kept.
        data: &'a [u8],
        /// Whether there will be no more of them.
        complete: bool,
        /// Another number when there are others.
        revision: u32,
    },
}

impl<'a> Part<'a> {
    /// All there will ever be.
    pub const fn whole(data: &'a [u8]) -> Self {
        Self::Bytes {
            data,
            complete: true,
            revision: 1,
        }
    }

    /// The same of something that has been said so often.
    #[must_use]
    pub const fn said(self, times: u32) -> Self {
        match self {
            Self::Bytes { data, complete, .. } => Self::Bytes {
                data,
                complete,
                revision: times,
            },
            part => part,
        }
    }
}

/// What rules ask of a transaction besides its buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `dns.opcode`
    DnsOpcode(Compare<u8>),
    /// `dns.rcode`
    DnsRcode(Compare<u16>),
    /// `dns.rrtype`: of any question or record.
    DnsType(Compare<u16>),
    /// `tls.version`, `ssl_version`
    TlsVersion(u16),
    /// `tls.cert_chain_len`
    TlsChainLength(Compare<u32>),
    /// `tls.subject` and the like: something of the certificate contains a text.
    TlsText {
        /// What.
        of: AppBuffer,
        /// The text.
        text: String,
        /// `!`
        negated: bool,
    },
    /// `filename`, `fileext`: what the file is called.
    FileName {
        /// Contained in the name, or behind its last dot.
        text: String,
        /// The latter.
        extension: bool,
        /// `!`
        negated: bool,
    },
    /// `filesize`
    FileSize(Compare<u64>),
    /// `filestore`: there is one.
    AnyFile,
    /// Something of a certain direction, in rules about both.
    Toward(PacketDirection, Box<Asked>),
    /// `filemd5` and the like: the file's hash is one of these.
    FileHash {
        /// Which.
        kind: HashKind,
        /// Ascending.
        hashes: Box<[Box<[u8]>]>,
        /// `!`
        negated: bool,
    },
    /// `app-layer-event`: found in it, or with it.
    Event(&'static str),
}

impl Asked {
    /// Whether it is about files.
    pub(crate) const fn is_of_file(&self) -> bool {
        matches!(
            self,
            Self::FileName { .. } | Self::FileSize(_) | Self::FileHash { .. } | Self::AnyFile
        )
    }
}
