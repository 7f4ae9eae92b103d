//! Which application protocol a flow speaks, and what that makes of its packets.

use super::AppOptions;
use super::conversation::{AppState, Heard, Hearing, Listening};
use super::figures::Counted;
use super::protocol::AppProtocol;
use super::recognition::{self, Answer, Ports};
use super::transaction::Transaction;
use crate::flow::PacketDirection;
use crate::reassembly::tcp::{Behind, Contiguous, Session, StreamOptions};

/// Which application protocol a flow speaks, as far as that is known.
#[derive(Debug)]
pub enum AppLayer {
    /// Nothing has been said that tells.
    Unknown {
        /// What was said in these directions is nobody's: of client and server.
        nobodys: [bool; 2],
    },
    /// None that anybody knows.
    Failed,
    /// Its conversation.
    Known(Box<AppState>),
    /// It speaks this, and nobody listens any more.
    Over {
        /// What it speaks.
        protocol: AppProtocol,
        /// What it spoke at first, if that is something else.
        original: Option<AppProtocol>,
        /// Transactions until then.
        counted: u64,
        /// All files of client and server are stored.
        stores: [bool; 2],
    },
}

/// What is known while nobody knows the protocol: what was said in these directions is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Undecided([bool; 2]);

/// What is known of a flow's protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    #[default]
    NotYet,
    /// That it is none of those that can be told.
    Failed,
    /// Which one it is.
    Is(AppProtocol),
}

/// A parser is of this process, and what it knows is not copied: a copy of a flow, as records have
/// it, knows the protocol at most.
impl Clone for AppLayer {
    fn clone(&self) -> Self {
        match self {
            Self::Unknown { nobodys } => Self::Unknown { nobodys: *nobodys },
            Self::Failed => Self::Failed,
            Self::Known(state) => state.over(),
            Self::Over {
                protocol,
                original,
                counted,
                stores,
            } => Self::Over {
                protocol: *protocol,
                original: *original,
                counted: *counted,
                stores: *stores,
            },
        }
    }
}

/// As far as it can be copied.
impl PartialEq for AppLayer {
    fn eq(&self, other: &Self) -> bool {
        self.known() == other.known()
    }
}

impl Eq for AppLayer {}

/// Most bytes of a direction that wait until something tells what they are.
pub(super) const MAX_UNKNOWN: usize = 16 << 10;

impl Default for AppLayer {
    fn default() -> Self {
        Self::Unknown {
            nobodys: [false; 2],
        }
    }
}

/// Somebody reads both directions from here on, if nobody does.
fn start_reading(session: &mut Session, direction: PacketDirection) {
    if !session.is_read(direction) {
        for direction in PacketDirection::ALL {
            session.start_reading(direction, None);
        }
    }
}

impl AppLayer {
    /// What is known of the protocol.
    pub fn known(&self) -> Known {
        match self {
            Self::Unknown { .. } => Known::NotYet,
            Self::Failed => Known::Failed,
            Self::Known(state) => Known::Is(state.protocol),
            Self::Over { protocol, .. } => Known::Is(*protocol),
        }
    }

    /// What it was at first, where it has become something else.
    pub fn original(&self) -> Option<AppProtocol> {
        match self {
            Self::Known(state) => state.original,
            Self::Over { original, .. } => *original,
            Self::Unknown { .. } | Self::Failed => None,
        }
    }

    /// The name that records have for it; none while nothing is known.
    pub fn name(&self) -> Option<&'static str> {
        match self {
            Self::Unknown { .. } => None,
            Self::Failed => Some("failed"),
            Self::Known(state) => Some(state.protocol.name()),
            Self::Over { protocol, .. } => Some(protocol.name()),
        }
    }

    /// A datagram of a flow between these ports.
    pub(crate) fn datagram(
        &mut self,
        direction: PacketDirection,
        payload: &[u8],
        ports: Ports,
        hearing: &mut Hearing<'_>,
    ) -> Heard {
        if payload.is_empty() {
            return Heard::Well;
        }
        // One datagram says nothing about the next.
        if !matches!(self, Self::Known(_) | Self::Over { .. }) {
            let answer = recognition::datagram(direction, payload, ports, hearing.options);
            self.decide(direction, answer, ports, hearing);
            if matches!(self, Self::Unknown { .. }) {
                hearing.count_failed();
                *self = Self::Failed;
            }
        }
        match self {
            Self::Known(state) => state.datagram(direction, payload, ports, hearing),
            _ => Heard::Well,
        }
    }

    /// What has come of this direction of a connection.
    pub(crate) fn segment(
        &mut self,
        direction: PacketDirection,
        session: &mut Session,
        stream: &StreamOptions,
        ports: Ports,
        hearing: &mut Hearing<'_>,
    ) -> Heard {
        let mut heard = Heard::Well;
        let was_unknown = matches!(self, Self::Unknown { .. });
        if was_unknown {
            start_reading(session, direction);
        }
        let complete = self.complete_in(direction);
        while let Some(next) = session.contiguous(direction, stream) {
            let mut missing = 0;
            match next {
                Contiguous::Data { data, behind, .. } => {
                    let (read, how) = self.bytes(direction, &data, ports, hearing);
                    if how == Heard::Badly {
                        heard = how;
                    }
                    let left = data.len() as u64 - read;
                    match behind {
                        _ if read > 0 => session.read(direction, read),
                        Behind::More => break,
                        // What would complete it never comes.
                        Behind::Gap => {
                            session.read(direction, left);
                            missing = left;
                        }
                        Behind::End => session.read(direction, left),
                    }
                }
                Contiguous::Gap { len, .. } => {
                    session.skip(direction, len);
                    missing = len;
                }
            }
            // Holes of our own making say nothing about the ends.
            if missing > 0
                && self.gap(direction, missing, hearing) == Heard::Badly
                && !session.has_missed_packets()
            {
                heard = Heard::Badly;
            }
            if self.is_deaf() {
                break;
            }
        }
        if self.is_deaf() {
            for direction in PacketDirection::ALL {
                session.stop_reading(direction);
            }
            return heard;
        }
        if session.is_read_out(direction, stream)
            && let Self::Known(state) = self
        {
            state.end(direction);
        }
        if self.complete_in(direction) > complete {
            // Rules about the stream are asked about it together with those about what it said.
            session.flush_raw(direction);
        }
        if was_unknown && matches!(self, Self::Known(_)) {
            // What has waited there has not been anybody's until now.
            let other = self.segment(direction.other(), session, stream, ports, hearing);
            heard = if other == Heard::Badly { other } else { heard };
        }
        heard
    }

    /// Transactions of which this direction is complete.
    fn complete_in(&self, direction: PacketDirection) -> usize {
        let all = self.in_hand().iter();
        all.filter(|it| it.way(direction).complete).count()
    }

    /// Whether what there is of a direction is what only the other one can begin with, of a
    /// connection whose beginning was not seen.
    pub(crate) fn is_wrong_way(
        &self,
        direction: PacketDirection,
        session: &mut Session,
        (stream, options): (&StreamOptions, &AppOptions),
        ports: Ports,
    ) -> bool {
        if !matches!(self, Self::Unknown { .. }) {
            return false;
        }
        start_reading(session, direction);
        let Some(Contiguous::Data { data, .. }) = session.contiguous(direction, stream) else {
            return false;
        };
        let is_its = |direction, ports| {
            let answer = recognition::stream(direction, &data, ports, options);
            matches!(answer, Answer::Is(_))
        };
        let turned = Ports {
            client: ports.server,
            server: ports.client,
        };
        !is_its(direction, ports) && is_its(direction.other(), turned)
    }

    /// Whether something was heard that is not of this session. What nobody listens to any more
    /// may go on in the middle.
    pub(crate) fn is_of_another(&self, session: &Session) -> bool {
        match self {
            Self::Unknown { nobodys } => *nobodys != [false; 2],
            Self::Failed | Self::Over { .. } => !session.is_midstream(),
            Self::Known(_) => true,
        }
    }

    /// What was heard is not what is said: somebody listens from the beginning.
    pub(crate) fn begin_anew(&mut self, hearing: &mut Hearing<'_>) {
        if let Self::Known(state) = self {
            hearing.count(state.protocol, Counted::Gap, 1);
        }
        *self = Self::default();
    }

    /// What was the client is the server.
    pub(crate) fn turn_round(&mut self) {
        if let Self::Unknown { nobodys } = self {
            nobodys.swap(0, 1);
        }
    }

    pub(super) fn bytes(
        &mut self,
        direction: PacketDirection,
        data: &[u8],
        ports: Ports,
        hearing: &mut Hearing<'_>,
    ) -> (u64, Heard) {
        if self.is_unclear_in(direction) {
            let answer = recognition::stream(direction, data, ports, hearing.options);
            self.decide(direction, answer, ports, hearing);
        }
        match self {
            Self::Known(state) => {
                let (taken, heard) = state.stream(direction, data, ports, hearing);
                (taken as u64, heard)
            }
            Self::Unknown { .. } if data.len() < MAX_UNKNOWN => (0, Heard::Well),
            // Nobody knows where it ends.
            Self::Unknown { .. } if data.iter().all(u8::is_ascii_whitespace) => {
                (data.len() as u64, Heard::Well)
            }
            Self::Unknown { .. } => {
                hearing.count_failed();
                *self = Self::Failed;
                (data.len() as u64, Heard::Well)
            }
            Self::Failed | Self::Over { .. } => (data.len() as u64, Heard::Well),
        }
    }

    /// Whether what is said in this direction may tell.
    fn is_unclear_in(&self, direction: PacketDirection) -> bool {
        matches!(self, Self::Unknown { nobodys } if !nobodys[direction.number()])
    }

    fn decide(
        &mut self,
        direction: PacketDirection,
        answer: Answer,
        ports: Ports,
        hearing: &mut Hearing<'_>,
    ) {
        if matches!(self, Self::Known(_) | Self::Over { .. }) {
            return;
        }
        match answer {
            Answer::Is(protocol) => {
                *self = Self::Known(Box::new(AppState::of(protocol, ports, hearing)));
            }
            Answer::Unclear => {}
            Answer::None => self.decide_none(direction, hearing),
        }
    }

    /// What is said in this direction does not tell; the other one may.
    fn decide_none(&mut self, direction: PacketDirection, hearing: &mut Hearing<'_>) {
        if let Self::Unknown { nobodys } = self {
            nobodys[direction.number()] = true;
            if *nobodys == [true; 2] {
                hearing.count_failed();
                *self = Self::Failed;
            }
        }
    }

    /// Whether nothing that comes makes a difference.
    pub(crate) fn is_deaf(&self) -> bool {
        match self {
            Self::Unknown { .. } => false,
            Self::Failed | Self::Over { .. } => true,
            Self::Known(state) => state.is_closed(),
        }
    }

    fn gap(&mut self, direction: PacketDirection, len: u64, hearing: &mut Hearing<'_>) -> Heard {
        match self {
            Self::Known(state) => return state.gap(direction, len, hearing),
            Self::Unknown { .. } => self.decide_none(direction, hearing),
            Self::Failed | Self::Over { .. } => {}
        }
        Heard::Well
    }

    /// Nothing more comes of the flow: what is incomplete stays so.
    pub(crate) fn finish(&mut self) {
        if let Self::Known(state) = self {
            for direction in PacketDirection::ALL {
                state.end(direction);
            }
            state.close();
        }
    }

    /// Nobody inspects any more: what has been said until now is all.
    pub(crate) fn let_out(&mut self) {
        self.finish();
        self.pass_over();
    }

    /// The flow is dropped: what is incomplete never will be complete, and is no conversation.
    pub(crate) fn cut_off(&mut self) {
        if let Self::Known(state) = self {
            state.listening = Listening::Closed;
            state.transactions.retain(Transaction::is_complete);
            state.settle();
        }
        self.pass_over();
    }

    /// What has been said until now is not asked about.
    pub(crate) fn pass_over(&mut self) {
        for transaction in self.transactions() {
            for direction in PacketDirection::ALL {
                transaction.way_mut(direction).changed = false;
            }
        }
    }

    /// What is known as long as the protocol is not.
    pub(crate) const fn undecided(&self) -> Option<Undecided> {
        match self {
            Self::Unknown { nobodys } => Some(Undecided(*nobodys)),
            _ => None,
        }
    }

    /// The packet that has come since then is not delivered, and nobody has taken what it says for
    /// said: something else may come instead. Whether another protocol may be seen then.
    pub(crate) fn take_back(
        &mut self,
        Undecided(nobodys): Undecided,
        session: &mut Session,
    ) -> bool {
        match self {
            Self::Unknown { .. } => {}
            Self::Failed => {
                for direction in PacketDirection::ALL {
                    session.start_reading(direction, None);
                }
            }
            Self::Known(state) => {
                let unread = PacketDirection::ALL.iter().all(|it| session.is_unread(*it));
                if !unread || state.is_closed() {
                    return false;
                }
            }
            Self::Over { .. } => return false,
        }
        let was_told = self.known() != Known::NotYet;
        *self = Self::Unknown { nobodys };
        was_told
    }

    /// Whether there is anything to let out.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Known(_))
    }

    /// Whether rules have not been asked about something of this direction.
    pub(crate) fn has_changed(&self, direction: PacketDirection) -> bool {
        match self {
            Self::Known(state) => {
                let mut transactions = state.transactions.iter();
                transactions.any(|it| it.way(direction).changed)
            }
            _ => false,
        }
    }

    /// The transactions in hand.
    pub fn transactions(&mut self) -> &mut [Transaction] {
        match self {
            Self::Known(state) => &mut state.transactions,
            _ => &mut [],
        }
    }

    /// The same, to be looked at.
    pub(crate) fn in_hand(&self) -> &[Transaction] {
        match self {
            Self::Known(state) => &state.transactions,
            _ => &[],
        }
    }

    /// Whether all files of a direction are to be stored.
    pub(crate) fn stores(&self, direction: PacketDirection) -> bool {
        match self {
            Self::Known(state) => state.stores[direction.number()],
            Self::Over { stores, .. } => stores[direction.number()],
            Self::Unknown { .. } | Self::Failed => false,
        }
    }

    /// Lets go of those that are over. Those that are complete have been recorded.
    pub(crate) fn let_go(&mut self) {
        if let Self::Known(state) = self {
            let before = state.transactions.len();
            for transaction in &mut state.transactions {
                transaction.recorded |= transaction.is_complete();
                for direction in PacketDirection::ALL {
                    let stores = &mut state.stores[direction.number()];
                    *stores |= transaction.stores_of_flow(direction);
                }
            }
            state.transactions.retain(|it| !it.is_over());
            if state.transactions.is_empty() && state.is_closed() {
                *self = state.over();
            } else if state.transactions.len() < before {
                if state.transactions.is_empty() {
                    // A flow is idle for longer than it says something.
                    state.transactions = Vec::new();
                }
                state.settle();
            }
        }
    }
}
