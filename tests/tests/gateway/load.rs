//! Traffic through a gateway while things happen to it.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use sluice::metrics::snapshot::{Snapshot, Worker};
use sluice_tests::datagram::{Replier, RequestPlan, RequestReport, Requester};
use sluice_tests::elsewhere::{Elsewhere, attribute};
use sluice_tests::patience::{PATIENCE, wait_until};
use sluice_tests::stream::{Extent, Sender, SenderReport, Sink};

use crate::rig::{Gateway, seat};

/// What a kill may cost where nobody else has the CPU for long.
pub(crate) const GAP: Duration = Duration::from_millis(500);
/// For so long others may have it: what is measured once may take so much longer.
pub(crate) const STALL: Duration = Duration::from_secs(2);
/// Of so many attempts, one meets with none of that.
pub(crate) const ATTEMPTS: usize = 5;
/// The stream runs for so long before anything happens to it.
const BEFORE: Duration = Duration::from_millis(500);

/// A stream through the gateway.
pub(crate) struct Load {
    pub(crate) sink: Sink,
    sender: Sender,
}

impl Load {
    /// Starts it, and waits until it runs.
    pub(crate) fn start(gateway: &Gateway, address: IpAddr) -> Self {
        let sink = Sink::start(gateway.lab.server(), address, 0).expect("a server");
        let forever = Extent::Time(Duration::from_secs(600));
        let sender = Sender::start(gateway.lab.client(), sink.address(), forever);
        let load = Self { sink, sender };
        sleep(BEFORE);
        load.await_progress(1 << 20);
        load.sink.reset_longest_gap();
        load
    }

    /// Waits until so many more bytes have come.
    pub(crate) fn await_progress(&self, bytes: u64) {
        let goal = self.sink.received() + bytes;
        let come = || {
            assert_eq!(self.sink.faults(), Vec::<String>::new());
            self.sink.received() >= goal
        };
        wait_until(come, || {
            format!("the stream stands at {}", self.sink.received())
        });
    }

    /// Whether the stream has paused for no longer than this.
    pub(crate) fn paused_within(&self, longest: Duration) -> Result<(), String> {
        let gap = self.sink.longest_gap();
        println!("longest gap {gap:?}");
        match gap < longest {
            true => Ok(()),
            false => Err(format!("a gap of {gap:?}")),
        }
    }

    /// Ends the stream; fails unless every byte has come, and right.
    pub(crate) fn finish(self) -> SenderReport {
        let sent = self.sender.stop();
        assert_eq!(self.sink.faults(), Vec::<String>::new());
        assert_eq!(sent.error, None);
        assert_eq!(self.sink.received(), sent.sent);
        assert_eq!((self.sink.accepted(), self.sink.finished()), (1, 1));
        println!("{} MiB in {:?}", sent.sent >> 20, sent.elapsed);
        sent
    }
}

/// Waits until another process sits there and serves.
pub(crate) fn await_replaced(gateway: &Gateway, dead: &Worker) -> Snapshot {
    gateway.await_status("replaced", |status| {
        let successor = seat(status, dead);
        successor.state == "up" && successor.pid != dead.pid
    })
}

/// Requests at a moderate rate over some flows, with a reply to each.
pub(crate) fn requests(gateway: &Gateway, requests: u64) -> (Replier, Requester) {
    let address = gateway.lab.server_v4().into();
    let replier = Replier::start(gateway.lab.server(), address, 0).expect("a server");
    let plan = RequestPlan {
        flows: 16,
        requests,
        // How late an answer may be is the business of those who look at the gaps.
        patience: PATIENCE,
        ..RequestPlan::to(replier.address())
    };
    let requester = Requester::start(gateway.lab.client(), plan);
    (replier, requester)
}

/// What full rings and buffers of the test's own ends lost is not counted.
pub(crate) fn nothing_lost(report: &RequestReport, elsewhere: &Elsewhere, gateway: &Gateway) {
    let elsewhere = elsewhere.lost(&gateway.lab).expect("the kernel's counters");
    println!("{report:?}, lost elsewhere: {elsewhere}");
    let (by_sluice, _) = attribute(report.lost, elsewhere);
    assert_eq!(
        (by_sluice, report.corrupt, report.duplicates),
        (0, 0, 0),
        "{report:?}\n{}",
        gateway.log()
    );
}
