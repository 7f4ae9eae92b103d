//! What both ends say of themselves.

use md5::{Digest as _, Md5};
use serde_json::{Map, Value, json};

use crate::app::content::{Content, Part};
use crate::app::protocol::AppProtocol;
use crate::bounded::{heap, held};
use crate::flow::PacketDirection;
use crate::rules::ast::AppBuffer;

/// What an end says of itself.
#[derive(Debug, Default)]
struct Hello {
    /// `2.0`
    protocol: Vec<u8>,
    /// `OpenSSH_9.2p1`
    software: Vec<u8>,
    /// What it can do, and the hash of that: HASSH (<https://github.com/salesforce/hassh>).
    hassh: Option<(String, String)>,
}

/// Both ends.
#[derive(Debug, Default)]
pub struct Hellos {
    ends: [Option<Hello>; 2],
}

impl Hellos {
    /// A line that begins with `SSH-`; whether it is whole.
    pub(super) fn banner(&mut self, direction: PacketDirection, line: &[u8]) -> bool {
        let text = line.get(4..).unwrap_or_default();
        let Some(dash) = text.iter().position(|byte| *byte == b'-') else {
            return false;
        };
        let software = &text[dash + 1..];
        let end = software.iter().position(|byte| *byte == b' ');
        self.ends[direction.number()] = Some(Hello {
            protocol: text[..dash].to_vec(),
            software: software[..end.unwrap_or(software.len())].to_vec(),
            hassh: None,
        });
        true
    }

    /// The first packet of a key exchange (RFC 4253, section 7.1); whether it is one.
    pub(super) fn exchange(&mut self, direction: PacketDirection, payload: &[u8]) -> bool {
        let mut rest = payload.get(16..).unwrap_or_default();
        let mut lists = Vec::new();
        for _ in 0..8 {
            let Some((length, after)) = rest.split_first_chunk::<4>() else {
                return false;
            };
            let length = u32::from_be_bytes(*length) as usize;
            let Some((list, after)) = after.split_at_checked(length) else {
                return false;
            };
            lists.push(String::from_utf8_lossy(list).into_owned());
            rest = after;
        }
        // Those of the own direction: encryption, authentication, compression.
        let own = direction.number();
        let string = [0, 2 + own, 4 + own, 6 + own]
            .map(|at| lists[at].as_str())
            .join(";");
        let hash = Md5::digest(string.as_bytes());
        let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        if let Some(hello) = &mut self.ends[own] {
            hello.hassh = Some((string, hash));
        }
        true
    }
}

/// The object `ssh` of a record.
pub(crate) fn fields(hellos: &Hellos) -> Value {
    let mut out = Map::new();
    for (name, hello) in ["client", "server"].into_iter().zip(&hellos.ends) {
        let Some(hello) = hello else { continue };
        let mut fields = json!({
            "proto_version": String::from_utf8_lossy(&hello.protocol),
            "software_version": String::from_utf8_lossy(&hello.software),
        });
        if let Some((string, hash)) = &hello.hassh {
            fields["hassh"] = json!({ "hash": hash, "string": string });
        }
        out.insert(name.into(), fields);
    }
    out.into()
}

impl Content for Hellos {
    fn protocol(&self) -> AppProtocol {
        AppProtocol::Ssh
    }

    fn taken(&self) -> usize {
        let ends = self.ends.iter().flatten().map(|hello| {
            let hassh = hello.hassh.as_ref().map_or(0, |(string, hash)| {
                heap(string.capacity()) + heap(hash.capacity())
            });
            held(&hello.protocol) + held(&hello.software) + hassh
        });
        heap(size_of::<Self>()) + ends.sum::<usize>()
    }

    fn part(&self, direction: PacketDirection, which: AppBuffer, number: usize) -> Part<'_> {
        use AppBuffer as B;
        let to_server = direction == PacketDirection::ToServer;
        let Some(hello) = &self.ends[direction.number()] else {
            return Part::Pending;
        };
        let hassh = |of: fn(&(String, String)) -> &str| match &hello.hassh {
            None => Part::Pending,
            Some(pair) => Part::whole(of(pair).as_bytes()),
        };
        match which {
            _ if number > 0 => Part::Absent,
            B::SshProto => Part::whole(&hello.protocol),
            B::SshSoftware => Part::whole(&hello.software),
            B::SshHassh if to_server => hassh(|it| &it.1),
            B::SshHasshString if to_server => hassh(|it| &it.0),
            B::SshHasshServer if !to_server => hassh(|it| &it.1),
            B::SshHasshServerString if !to_server => hassh(|it| &it.0),
            _ => Part::Absent,
        }
    }

    fn fields(&self, _transaction: u64) -> Value {
        fields(self)
    }
}
