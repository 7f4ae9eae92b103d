//! Resets: which of them the receiver believes.

use super::event::StreamEvent;
use super::session::{Pass, Refused, Session, SessionState, StreamDrop};
use crate::config::settings::OsPolicy;

impl Session {
    /// A reset of a connection whose SYN was answered.
    ///
    /// Inline, the connection is looked at all the same afterwards: its receiver may not have
    /// got the reset, or not believed it.
    pub(super) fn reset(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        let signed = self.control.sides[pass.from].signed;
        if pass.fields.signed && !signed && !self.control.midstream {
            // Receivers ignore what is signed with a key that they do not have.
            return pass.refuse(StreamEvent::SuspectedRstInject);
        }
        if !self.takes_timestamp(pass) {
            return pass.refuse(StreamEvent::PktInvalidTimestamp);
        }
        if !self.takes_ack(pass) {
            return pass.refuse(StreamEvent::RstInvalidAck);
        }
        let side = &self.control.sides[pass.from];
        let start = side.place(pass.segment.seq);
        let after_fin = side.fin.map_or(side.next, |fin| fin + 1);
        let exact = [side.next, side.acked, side.highest, after_fin].contains(&start);
        let within = (side.acked..=side.edge.max(after_fin)).contains(&start);
        let believed = if pass.options.inline {
            // RFC 5961, section 3.2: another one in the window is asked about.
            if within && !exact {
                return pass.leave_out();
            }
            exact
        } else if self.control.midstream || self.control.one_sided {
            within
        } else {
            match Self::policy(pass) {
                OsPolicy::Linux | OsPolicy::OldLinux | OsPolicy::Solaris | OsPolicy::OldSolaris => {
                    within
                }
                OsPolicy::Hpux11 => start >= side.next,
                _ => exact,
            }
        };
        if !believed {
            return Err(Refused(StreamDrop::Invalid));
        }
        self.take_ack(pass);
        self.control.sides[pass.from].reset = true;
        self.control.state = SessionState::Closed;
        Ok(())
    }
}
