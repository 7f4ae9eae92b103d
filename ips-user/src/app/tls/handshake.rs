//! What the messages of a handshake say.

use serde_json::Value;
use tls_parser::{TlsMessage, TlsMessageHandshake, parse_tls_message_handshake};

use super::certificate::Certificate;
use super::fingerprint::{self, Hello};
use super::{record, version2};
use crate::app::content::{Asked, Content, Part};
use crate::app::protocol::AppProtocol;
use crate::bounded::{heap, held};
use crate::flow::PacketDirection;
use crate::rules::ast::AppBuffer;

/// Types of messages (RFC 8446, section 4; RFC 5246, section 7.4).
mod kind {
    pub(super) const CLIENT_HELLO: u8 = 1;
    pub(super) const SERVER_HELLO: u8 = 2;
    pub(super) const CERTIFICATE: u8 = 11;
    pub(super) const SERVER_HELLO_DONE: u8 = 14;
    pub(super) const CLIENT_KEY_EXCHANGE: u8 = 16;
}

/// What stands for random bytes in a server's hello that asks for another one of the client
/// (RFC 8446, section 4.1.3).
pub(super) const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// The handshake of a connection.
#[derive(Debug, Default)]
pub struct Handshake {
    pub(super) client: Option<Hello>,
    pub(super) server: Option<Hello>,
    /// How often client and server have said hello: after a retry they do so again (RFC 8446,
    /// section 4.1.4).
    hellos: [u32; 2],
    /// The certificates of client and server, its own first.
    chains: [Vec<Vec<u8>>; 2],
    /// The first of them.
    certificates: [Option<Certificate>; 2],
    pub(super) ja3: Option<(String, String)>,
    pub(super) ja3s: Option<(String, String)>,
    pub(super) ja4: Option<String>,
    /// Nothing comes of a direction that would change what is known.
    done: [bool; 2],
}

impl Handshake {
    /// Takes a message with its header. Whether its direction is complete, and what is wrong.
    pub(super) fn message(
        &mut self,
        direction: PacketDirection,
        kind: u8,
        message: &[u8],
    ) -> (bool, Vec<&'static str>) {
        let mut wrong = Vec::new();
        let parsed = match kind {
            kind::CLIENT_HELLO | kind::SERVER_HELLO | kind::CERTIFICATE => {
                parse_tls_message_handshake(message).ok()
            }
            _ => None,
        };
        match parsed {
            Some((_, TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello)))) => {
                let hello = Hello::client(&hello);
                self.hellos[0] += 1;
                self.ja3 = Some(fingerprint::ja3(&hello));
                self.ja4 = Some(fingerprint::ja4(&hello, "t"));
                self.client = Some(hello);
            }
            Some((_, TlsMessage::Handshake(TlsMessageHandshake::ServerHello(hello)))) => {
                let hello = Hello::server(&hello);
                self.hellos[1] += 1;
                self.ja3s = Some(fingerprint::ja3s(&hello));
                self.server = Some(hello);
            }
            Some((_, TlsMessage::Handshake(TlsMessageHandshake::Certificate(list)))) => {
                let chain: Vec<_> = list.cert_chain.iter().map(|it| it.data.to_vec()).collect();
                let first = chain.first();
                let certificate = first.and_then(|der| Certificate::read(der));
                if certificate.is_none() && first.is_some() {
                    wrong.push("invalid_certificate");
                }
                self.chains[direction.number()] = chain;
                self.certificates[direction.number()] = certificate;
                self.done[direction.number()] = true;
            }
            Some(_) => {}
            None => match kind {
                kind::CLIENT_HELLO | kind::SERVER_HELLO => {
                    wrong.push("invalid_handshake_message");
                }
                kind::CERTIFICATE => wrong.push("invalid_certificate"),
                kind::SERVER_HELLO_DONE => self.done[1] = true,
                kind::CLIENT_KEY_EXCHANGE => self.done[0] = true,
                _ => {}
            },
        }
        (self.done[direction.number()], wrong)
    }

    /// Takes a hello in the form of SSL 2.0; what is wrong with it.
    pub(super) fn old_hello(
        &mut self,
        direction: PacketDirection,
        hello: &version2::Hello<'_>,
    ) -> Option<&'static str> {
        match *hello {
            version2::Hello::Client { version, session } => {
                self.client = Some(Hello::old(version, session));
                None
            }
            version2::Hello::Server { certificate } => {
                self.server = Some(Hello::old(version2::VERSION, &[]));
                let read = Certificate::read(certificate);
                let wrong =
                    (read.is_none() && !certificate.is_empty()).then_some("invalid_certificate");
                self.chains[direction.number()] = vec![certificate.to_vec()];
                self.certificates[direction.number()] = read;
                wrong
            }
        }
    }

    /// The version in use, or offered.
    pub(super) fn version(&self) -> Option<u16> {
        let hello = self.server.as_ref().or(self.client.as_ref())?;
        Some(hello.version_in_use())
    }

    /// Whether the server's last hello asks the client for another one.
    pub(super) fn is_retried(&self) -> bool {
        self.server.as_ref().is_some_and(|it| it.random == RETRY)
    }

    /// The server's certificate.
    pub(super) fn certificate(&self) -> Option<&Certificate> {
        self.certificates[PacketDirection::ToClient.number()].as_ref()
    }

    /// Whether it goes on with a session that was agreed on before (RFC 5246, section 7.3).
    pub(super) fn is_resumed(&self) -> bool {
        let sessions = self.client.as_ref().zip(self.server.as_ref());
        sessions.is_some_and(|(client, server)| {
            !server.session.is_empty()
                && server.session == client.session
                && server.version_in_use() < 0x0304
        })
    }

    fn said(&self, direction: PacketDirection, which: AppBuffer, number: usize) -> Part<'_> {
        use AppBuffer as B;
        fn text(text: &str) -> Part<'_> {
            Part::whole(text.as_bytes())
        }
        let to_server = direction == PacketDirection::ToServer;
        let own = if to_server {
            &self.client
        } else {
            &self.server
        };
        let chain = &self.chains[direction.number()];
        let first = number == 0;
        match which {
            B::TlsSni | B::Ja3Hash | B::Ja3String | B::Ja4Hash if to_server => {
                let Some(client) = &self.client else {
                    return Part::Pending;
                };
                let (ja3, ja4) = (self.ja3.as_ref(), self.ja4.as_deref());
                match which {
                    _ if !first => Part::Absent,
                    B::TlsSni => client.name.as_deref().map_or(Part::Absent, Part::whole),
                    B::Ja3Hash => ja3.map_or(Part::Absent, |it| text(&it.1)),
                    B::Ja3String => ja3.map_or(Part::Absent, |it| text(&it.0)),
                    _ => ja4.map_or(Part::Absent, text),
                }
            }
            B::Ja3sHash | B::Ja3sString if !to_server => match &self.ja3s {
                None => Part::Pending,
                Some(_) if !first => Part::Absent,
                Some((string, hash)) => text(if which == B::Ja3sHash { hash } else { string }),
            },
            B::TlsAlpn => match own {
                None => Part::Pending,
                Some(hello) => hello
                    .protocols
                    .get(number)
                    .map_or(Part::Absent, |it| Part::whole(it)),
            },
            B::TlsRandom | B::TlsRandomTime | B::TlsRandomBytes => match own {
                None => Part::Pending,
                Some(_) if !first => Part::Absent,
                Some(hello) => {
                    let part = match which {
                        B::TlsRandom => hello.random.get(..),
                        B::TlsRandomTime => hello.random.get(..4),
                        _ => hello.random.get(4..),
                    };
                    part.map_or(Part::Absent, Part::whole)
                }
            },
            B::TlsCerts => match chain.get(number) {
                Some(der) => Part::whole(der),
                None if chain.is_empty() => Part::Pending,
                None => Part::Absent,
            },
            B::TlsCertSubject
            | B::TlsCertIssuer
            | B::TlsCertSerial
            | B::TlsCertFingerprint
            | B::TlsSubjectAltName => {
                let Some(certificate) = &self.certificates[direction.number()] else {
                    return if chain.is_empty() {
                        Part::Pending
                    } else {
                        Part::Absent
                    };
                };
                match which {
                    B::TlsSubjectAltName => {
                        let names = &certificate.names;
                        names.get(number).map_or(Part::Absent, |it| text(it))
                    }
                    _ if !first => Part::Absent,
                    B::TlsCertSubject => text(&certificate.subject),
                    B::TlsCertIssuer => text(&certificate.issuer),
                    B::TlsCertSerial => text(&certificate.serial),
                    _ => text(&certificate.fingerprint),
                }
            }
            _ => Part::Absent,
        }
    }
}

impl Content for Handshake {
    fn protocol(&self) -> AppProtocol {
        AppProtocol::Tls
    }

    fn taken(&self) -> usize {
        let hellos = self.client.iter().chain(&self.server).map(Hello::taken);
        let chains = self.chains.iter();
        let chains = chains.map(|chain| held(chain) + chain.iter().map(held).sum::<usize>());
        let certificates = self.certificates.iter().flatten().map(Certificate::taken);
        let pairs = self.ja3.iter().chain(&self.ja3s);
        let pairs = pairs.map(|(text, hash)| heap(text.capacity()) + heap(hash.capacity()));
        heap(size_of::<Self>())
            + hellos.sum::<usize>()
            + chains.sum::<usize>()
            + certificates.sum::<usize>()
            + pairs.sum::<usize>()
            + self.ja4.as_ref().map_or(0, |it| heap(it.capacity()))
    }

    fn part(&self, direction: PacketDirection, which: AppBuffer, number: usize) -> Part<'_> {
        let part = self.said(direction, which, number);
        part.said(self.hellos[direction.number()])
    }

    fn answers(&self, direction: PacketDirection, asked: &Asked) -> Option<bool> {
        match asked {
            Asked::TlsVersion(version) => self.version().map(|own| own == *version),
            Asked::TlsChainLength(compare) => {
                let length = u32::try_from(self.chains[direction.number()].len()).ok()?;
                (length > 0).then(|| compare.holds(length))
            }
            Asked::TlsText { of, text, negated } => {
                let certificate = self.certificates[direction.number()].as_ref()?;
                let own = match of {
                    AppBuffer::TlsCertSubject => &certificate.subject,
                    AppBuffer::TlsCertIssuer => &certificate.issuer,
                    _ => &certificate.fingerprint,
                };
                Some(own.contains(text.as_str()) != *negated)
            }
            _ => Some(false),
        }
    }

    fn fields(&self, _transaction: u64) -> Value {
        record::fields(self)
    }
}
