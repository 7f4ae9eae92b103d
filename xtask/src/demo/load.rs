//! The load under which workers fail: one TCP stream, or UDP requests over many flows.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use sluice_tests::Side;
use sluice_tests::datagram::{Replier, RequestPlan, RequestReport, Requester};
use sluice_tests::elsewhere::{Elsewhere, attribute, snmp};
use sluice_tests::stream::{Extent, Sender, SenderReport, Sink};

use super::benign::gigabits;
use crate::stage::Stage;

/// Load before the failure: what is usual is measured here.
pub(super) const BEFORE: Duration = Duration::from_millis(1_500);
/// TCP load at the end, to see how it goes on.
const AFTERGLOW: Duration = Duration::from_millis(500);
/// UDP load after the failure.
pub(super) const AFTER: Duration = Duration::from_millis(2_000);
/// Time between two UDP requests of one family.
const INTERVAL: Duration = Duration::from_millis(1);
/// UDP flows of each family.
const FLOWS: usize = 16;

/// A TCP stream.
pub(super) struct Stream {
    /// Its receiver.
    pub(super) sink: Sink,
    sender: Sender,
    retransmitted: u64,
}

/// What came of it.
pub(super) struct StreamOutcome {
    sent: SenderReport,
    received: u64,
    faults: Vec<String>,
    /// Segments that the client sent more than once.
    pub(super) retransmitted: u64,
}

impl Stream {
    /// Starts sending to an address of the server, for [`BEFORE`] and `then` and some more.
    pub(super) fn start(stage: &Stage, address: IpAddr, then: Duration) -> Result<Self> {
        let retransmitted = retransmissions(stage)?;
        let sink = Sink::start(stage.lab.server(), address, 0)?;
        let sender = Sender::start(
            stage.lab.client(),
            sink.address(),
            Extent::Time(BEFORE + then + AFTERGLOW),
        );
        Ok(Self {
            sink,
            sender,
            retransmitted,
        })
    }

    /// Waits for its end.
    pub(super) fn finish(self, stage: &Stage) -> Result<StreamOutcome> {
        Ok(StreamOutcome {
            sent: self.sender.finish(),
            received: self.sink.received(),
            faults: self.sink.faults(),
            retransmitted: retransmissions(stage)? - self.retransmitted,
        })
    }
}

impl StreamOutcome {
    /// Whether every byte sent arrived, and is right.
    pub(super) fn intact(&self) -> bool {
        self.sent.error.is_none()
            && self.faults.is_empty()
            && self.received > 0
            && self.received == self.sent.sent
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        let wrong = self.faults.len() + usize::from(self.sent.error.is_some());
        format!(
            "{} MiB at {:.1} Gbit/s, lost = {}, wrong = {wrong}",
            self.received >> 20,
            gigabits(self.received, self.sent.elapsed),
            self.sent.sent.saturating_sub(self.received)
        )
    }

    /// With every figure.
    pub(super) fn data(&self) -> Value {
        json!({
            "sent": self.sent.sent, "received_and_compared": self.received,
            "error": self.sent.error, "faults": self.faults,
            "segments_sent_again": self.retransmitted,
        })
    }
}

/// TCP segments that the client has sent more than once (`tcpRetransSegs`, RFC 4022).
fn retransmissions(stage: &Stage) -> Result<u64> {
    snmp(stage.lab.client(), "Tcp", "RetransSegs")
}

/// UDP requests over IPv4 and IPv6 at the same time.
pub(super) struct Datagrams {
    runs: Vec<(Replier, Requester)>,
    elsewhere: Elsewhere,
}

/// What came of them, both families together.
pub(super) struct DatagramsOutcome {
    total: RequestReport,
    lost_elsewhere: u64,
}

impl Datagrams {
    /// Starts sending to the server.
    pub(super) fn start(stage: &Stage) -> Result<Self> {
        let elsewhere = Elsewhere::watch(&stage.lab)?;
        let requests = u64::try_from((BEFORE + AFTER).as_millis() / INTERVAL.as_millis())?;
        let runs = stage
            .lab
            .families(Side::Server)
            .into_iter()
            .map(|(_, address)| {
                let replier = Replier::start(stage.lab.server(), address, 0)?;
                let plan = RequestPlan {
                    flows: FLOWS,
                    requests,
                    interval: INTERVAL,
                    patience: Duration::from_secs(3),
                    ..RequestPlan::to(replier.address())
                };
                let requester = Requester::start(stage.lab.client(), plan);
                Ok((replier, requester))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { runs, elsewhere })
    }

    /// Waits for the last replies.
    pub(super) fn finish(self, stage: &Stage) -> Result<DatagramsOutcome> {
        let mut total = RequestReport::default();
        for (_replier, requester) in self.runs {
            let got = requester.finish()?;
            total.sent += got.sent;
            total.errors += got.errors;
            total.answered += got.answered;
            total.lost += got.lost;
            total.duplicates += got.duplicates;
            total.corrupt += got.corrupt;
            total.slowest = total.slowest.max(got.slowest);
        }
        Ok(DatagramsOutcome {
            total,
            lost_elsewhere: self.elsewhere.lost(&stage.lab)?,
        })
    }
}

impl DatagramsOutcome {
    /// Whether Sluice lost none, and every answer came once and is right.
    pub(super) fn intact(&self) -> bool {
        let got = &self.total;
        let (by_sluice, _) = attribute(got.lost, self.lost_elsewhere);
        got.answered > 0 && by_sluice + got.corrupt + got.duplicates + got.errors == 0
    }

    /// The longest time between a request and its reply.
    pub(super) fn slowest(&self) -> Duration {
        self.total.slowest
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        let got = &self.total;
        format!(
            "{} of {} answered over {} flows, {}, slowest reply {} ms",
            got.answered,
            got.sent,
            2 * FLOWS,
            attribute(got.lost, self.lost_elsewhere).1,
            got.slowest.as_millis()
        )
    }

    /// With every figure.
    pub(super) fn data(&self) -> Value {
        json!({ "requests": self.total, "lost_elsewhere": self.lost_elsewhere })
    }
}
