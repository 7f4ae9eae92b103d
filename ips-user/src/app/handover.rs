//! What of a conversation is handed to the process that takes its flow over. A parser's own state is
//! not: between two messages none is needed, and of what comes in the middle of one is said that it
//! was given up.

use super::conversation::{AppState, Hearing, Listening};
use super::figures::Counted;
use super::http1;
use super::layer::{AppLayer, MAX_UNKNOWN};
use super::protocol::AppProtocol;
use super::recognition::Ports;
use crate::flow::PacketDirection;
use crate::reassembly::tcp::Session;

/// How a conversation goes on that another process has listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Onward {
    /// With its next message.
    Next,
    /// In the middle of one: as soon as another one is recognised.
    Later,
    /// The same, and somebody has been told.
    Waits,
    /// Not at all.
    Lost,
}

/// How it was left, as a number; what nobody listens to any more is the last one.
const FAILED: u8 = 1;
const NEXT: u8 = 2;
const LATER: u8 = 3;
const LOST: u8 = 4;
const DEAF: u8 = 5;

/// Behind it stands the name of what a conversation was at first.
const BEFORE: u8 = b'/';

fn named(name: &[u8]) -> Option<AppProtocol> {
    let mut all = AppProtocol::ALL.iter().copied();
    all.find(|it| it.name().as_bytes() == name)
}

impl AppLayer {
    /// Writes what is known to the end of `out`; nothing if that is nothing.
    pub(crate) fn export(&self, out: &mut Vec<u8>) {
        let how = match self {
            Self::Unknown { .. } => return,
            Self::Failed => return out.push(FAILED),
            Self::Known(state) => state.onward(),
            Self::Over { .. } => None,
        };
        let (counted, stores) = match self {
            Self::Known(state) => (state.counted, state.stores),
            Self::Over {
                counted, stores, ..
            } => (*counted, *stores),
            Self::Unknown { .. } | Self::Failed => return,
        };
        out.push(match how {
            Some(Onward::Next) => NEXT,
            Some(Onward::Later | Onward::Waits) => LATER,
            Some(Onward::Lost) => LOST,
            None => DEAF,
        });
        out.push(u8::from(stores[0]) | u8::from(stores[1]) << 1);
        out.extend_from_slice(&counted.to_ne_bytes());
        out.extend_from_slice(self.name().unwrap_or_default().as_bytes());
        if let Some(original) = self.original() {
            out.push(BEFORE);
            out.extend_from_slice(original.name().as_bytes());
        }
    }

    /// Reads what was written; what is not understood was given up.
    pub(crate) fn import(bytes: &[u8]) -> Self {
        let Some((how, rest)) = bytes.split_first() else {
            return Self::default();
        };
        let known = rest.split_first().and_then(|(stores, rest)| {
            let (counted, name) = rest.split_first_chunk()?;
            let mut names = name.split(|byte| *byte == BEFORE).map(named);
            let stores = [stores & 1 != 0, stores & 2 != 0];
            let (protocol, original) = (names.next()??, names.next().flatten());
            Some((u64::from_ne_bytes(*counted), stores, protocol, original))
        });
        let Some((counted, stores, protocol, original)) = known else {
            return Self::Failed;
        };
        let onward = match *how {
            NEXT => Onward::Next,
            LATER => Onward::Later,
            LOST => Onward::Lost,
            _ => {
                return Self::Over {
                    protocol,
                    original,
                    counted,
                    stores,
                };
            }
        };
        let mut state = AppState::with(protocol, Listening::Inherited(onward));
        state.counted = counted;
        state.stores = stores;
        state.original = original;
        Self::Known(Box::new(state))
    }

    /// That of a connection which another process has listened to: `known` is what it has written
    /// of it.
    pub(crate) fn taken_over(session: &mut Session, known: Option<&[u8]>) -> Self {
        let app = match known {
            Some(bytes) => Self::import(bytes),
            None if PacketDirection::ALL.iter().all(|it| session.is_unread(*it)) => Self::default(),
            // What it has made of what was said is not known: nobody can go on in the middle.
            None => Self::Failed,
        };
        // It is this session that was heard.
        session.is_unannounced();
        if app.is_deaf() {
            for direction in PacketDirection::ALL {
                session.stop_reading(direction);
            }
        }
        app
    }
}

impl AppState {
    fn onward(&self) -> Option<Onward> {
        match &self.listening {
            Listening::Closed => None,
            Listening::Inherited(onward) => Some(*onward),
            Listening::Listens(listener) => Some(listener.onward(&self.transactions)),
        }
    }

    /// Goes on where another process has left it; whether these bytes are for a parser, `None`
    /// where more of them tell.
    pub(super) fn resume(
        &mut self,
        direction: PacketDirection,
        data: &[u8],
        ports: Ports,
        hearing: &mut Hearing<'_>,
    ) -> Option<bool> {
        let Listening::Inherited(onward) = self.listening else {
            return Some(true);
        };
        if matches!(onward, Onward::Later | Onward::Lost) {
            hearing.count(self.protocol, Counted::Lost, 1);
        }
        let begins = match onward {
            Onward::Next => true,
            Onward::Later | Onward::Waits => {
                let begins = match direction {
                    PacketDirection::ToServer => http1::begins(direction, data),
                    PacketDirection::ToClient => Some(false),
                };
                match begins {
                    Some(begins) => begins,
                    None if data.len() >= MAX_UNKNOWN => false,
                    None => {
                        self.listening = Listening::Inherited(Onward::Waits);
                        return None;
                    }
                }
            }
            Onward::Lost => false,
        };
        self.listening = match onward {
            _ if begins => Listening::new(self.protocol, ports, hearing.options, self.counted),
            Onward::Lost => Listening::Closed,
            _ => Listening::Inherited(Onward::Waits),
        };
        Some(begins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Known;

    #[test]
    fn what_a_conversation_was_and_what_is_stored_of_it_is_handed_over() {
        for was in [None, Some(AppProtocol::Smtp)] {
            for files in [[false; 2], [true, false], [false, true]] {
                let mut state = AppState::with(AppProtocol::Tls, Listening::Closed);
                (state.original, state.counted, state.stores) = (was, 7, files);
                let mut bytes = Vec::new();
                AppLayer::Known(Box::new(state)).export(&mut bytes);
                let layer = AppLayer::import(&bytes);
                assert_eq!((layer.name(), layer.original()), (Some("tls"), was));
                let stored = PacketDirection::ALL.map(|it| layer.stores(it));
                assert_eq!(stored, files);
                let AppLayer::Over { counted, .. } = layer else {
                    panic!("{layer:?}");
                };
                assert_eq!(counted, 7);
                // The same once more.
                let mut again = Vec::new();
                layer.export(&mut again);
                assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn what_is_not_understood_was_given_up() {
        let mut bytes = Vec::new();
        let state = AppState::with(AppProtocol::Dns, Listening::Closed);
        AppLayer::Known(Box::new(state)).export(&mut bytes);
        for length in 1..bytes.len() {
            let layer = AppLayer::import(&bytes[..length]);
            assert_eq!(layer.known(), Known::Failed, "{length}");
        }
    }
}
