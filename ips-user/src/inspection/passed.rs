//! Flows that pass: no rule is asked about them, but records tell what their applications say, as
//! long as anybody wants those.

use super::Feedback;
use super::case::{Case, InFlow};
use super::examiner::Examiner;
use crate::app::{AppProtocol, Known};
use crate::config::settings::EveTypes;
use crate::flow::{Flow, FlowAction, PacketDirection};
use crate::log::EventSink;
use crate::reassembly::tcp::StreamMemory;
use crate::verdict::RejectSender;

/// Whether what a flow says is listened to although it passes.
pub(super) fn listens(types: &EveTypes, flow: &Flow) -> bool {
    if flow.action != FlowAction::Pass || flow.observed.is_bypassed() || flow.app.is_deaf() {
        return false;
    }
    let wants = |protocol: AppProtocol| types.wants(protocol.record());
    match flow.app.known() {
        Known::NotYet => AppProtocol::ALL.iter().copied().any(wants) || types.wants("fileinfo"),
        Known::Is(protocol) => wants(protocol) || types.wants("fileinfo"),
        Known::Failed => false,
    }
}

impl<S: EventSink, R: RejectSender, F: Feedback> Examiner<S, R, F> {
    /// A packet of a flow that passes.
    pub(super) fn listen(
        &mut self,
        case: &Case<'_>,
        flow: &mut InFlow<'_>,
        memory: &mut StreamMemory,
    ) {
        let Some((in_flow, direction)) = flow else {
            return;
        };
        if !listens(&self.options.records.types, in_flow) {
            in_flow.session = None;
            return;
        }
        let direction = *direction;
        let options = &self.options.stream;
        let tracked = in_flow.track(case.packet, direction, case.now, options, memory);
        let (stream, mut hearing) = self.hearing(in_flow);
        match tracked {
            None => {
                let _ = in_flow.hear_datagram(case.packet, direction, &mut hearing);
            }
            Some(_) => {
                let Some(mut session) = in_flow.session.take() else {
                    return;
                };
                for direction in [direction.other(), direction] {
                    let _ = in_flow.hear(direction, &mut session, stream, &mut hearing);
                    // It is not kept for rules.
                    while session.raw(direction, stream).is_some() {
                        session.raw_done(direction, stream);
                        if stream.inline {
                            break;
                        }
                    }
                }
                in_flow.session = Some(session);
            }
        }
        in_flow.app.pass_over();
        self.reports.transactions(case, flow);
    }

    /// What is left of one that passes, when nothing comes any more.
    pub(super) fn listen_ended(&mut self, case: &Case<'_>, flow: &mut InFlow<'_>) {
        if let Some((flow, _)) = flow {
            if let Some(mut session) = flow.session.take() {
                session.finish();
                let (stream, mut hearing) = self.hearing(flow);
                for direction in PacketDirection::ALL {
                    let _ = flow.hear(direction, &mut session, stream, &mut hearing);
                }
            }
            flow.app.finish();
            flow.app.pass_over();
        }
        self.reports.transactions(case, flow);
    }
}
