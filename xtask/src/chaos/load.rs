//! The mixed load: TCP streams whose every byte is checked, short connections, UDP requests and
//! replies, and packets that are no packets; over IPv4 and IPv6, in both directions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use sluice_tests::datagram::{Replier, RequestPlan, RequestReport, Requester};
use sluice_tests::elsewhere::Elsewhere;
use sluice_tests::stream::{Extent, Sender, SenderReport, Sink};
use sluice_tests::{Lab, Namespace, Side, http};

use super::malformed::Malformed;

/// Bytes a second of the first stream and of each other one. As fast as they can they would fill
/// the receive rings of the virtual wires, and what is lost there would hide what Sluice loses.
const PACE: (u64, u64) = (150 << 20, 20 << 20);
/// Bytes of each stream of a series: new flows while workers come and go.
const SHORT_STREAM: u64 = 2 << 20;
/// A stream that stands still for so long is dead. TCP in bad luck waits 12.8 s after its sixth
/// attempt (RFC 6298 §5.5).
const STALL: Duration = Duration::from_secs(20);
/// UDP flows, and the time between two requests, of each family.
const FLOWS: usize = 16;
const INTERVAL: Duration = Duration::from_millis(2);
/// Time between two short connections of each family.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes of a page.
const PAGE: usize = 6_000;
/// Streams have no end of their own.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

/// Everything that sends.
pub(super) struct Load {
    started: Instant,
    stop: Arc<AtomicBool>,
    streams: Vec<Stream>,
    series: Vec<(String, Sink, JoinHandle<SeriesReport>)>,
    pages: Vec<(String, http::Server, JoinHandle<PagesReport>)>,
    datagrams: Vec<(String, Replier, Requester)>,
    malformed: Vec<Malformed>,
    elsewhere: Elsewhere,
}

struct Stream {
    name: String,
    // Dropped in this order: the sender ends first.
    sender: Sender,
    sink: Sink,
    /// What had arrived when it last moved, and when that was.
    progress: (u64, Instant),
}

/// Something that went wrong, at a time from the load's start.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Mishap {
    /// When.
    pub(super) at: Duration,
    /// What.
    pub(super) what: String,
}

#[derive(Clone, Debug, Default)]
struct SeriesReport {
    streams: u64,
    sent: u64,
    mishaps: Vec<Mishap>,
}

/// Short connections of one family.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(super) struct PagesReport {
    /// Pages that came whole.
    pub(super) fetched: u64,
    /// The longest time from the connection's start to the page's end.
    pub(super) slowest: Duration,
    /// Connections that failed.
    pub(super) mishaps: Vec<Mishap>,
}

/// What came of one stream, or of one series of them.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct StreamOutcome {
    /// Family and direction.
    pub(super) name: String,
    /// Connections made.
    pub(super) connections: u64,
    /// Bytes sent.
    pub(super) sent: u64,
    /// Bytes received and found right.
    pub(super) received: u64,
    /// How long it was sent.
    pub(super) elapsed: Duration,
    /// The longest time without a byte.
    pub(super) longest_gap: Duration,
    /// What went wrong.
    pub(super) faults: Vec<String>,
}

/// What came of everything.
pub(super) struct Outcome {
    /// Streams, and series of them.
    pub(super) streams: Vec<StreamOutcome>,
    /// Short connections by family.
    pub(super) pages: Vec<(String, PagesReport)>,
    /// UDP by family.
    pub(super) datagrams: Vec<(String, RequestReport)>,
    /// Packets lost by the test's own ends.
    pub(super) lost_elsewhere: u64,
    /// Malformed frames sent.
    pub(super) malformed: u64,
}

impl Load {
    /// Starts everything; UDP sends for so long, the rest until [`Load::finish`].
    pub(super) fn start(lab: &Lab, seed: u64, length: Duration) -> Result<Self> {
        let elsewhere = Elsewhere::watch(lab)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Self {
            started: Instant::now(),
            stop,
            streams: Vec::new(),
            series: Vec::new(),
            pages: Vec::new(),
            datagrams: Vec::new(),
            malformed: Vec::new(),
            elsewhere,
        };
        for (from, to, direction) in [
            (Side::Client, Side::Server, "to the server"),
            (Side::Server, Side::Client, "to the client"),
        ] {
            for (family, address) in lab.families(to) {
                let name = format!("{family} {direction}");
                let sink = Sink::start(lab.side(to), address, 0)?;
                let pace = if load.streams.is_empty() {
                    PACE.0
                } else {
                    PACE.1
                };
                let extent = Extent::Paced(FOREVER, pace);
                let sender = Sender::start(lab.side(from), sink.address(), extent);
                load.streams.push(Stream {
                    name: name.clone(),
                    sink,
                    sender,
                    progress: (0, Instant::now()),
                });
                let sink = Sink::start(lab.side(to), address, 0)?;
                let thread = load.series(lab.side(from), &sink);
                load.series.push((format!("{name}, short"), sink, thread));
            }
            let malformed = Malformed::start(lab, from, seed, Arc::clone(&load.stop))?;
            load.malformed.push(malformed);
        }
        let requests = u64::try_from(length.as_millis() / INTERVAL.as_millis())?;
        for (family, address) in lab.families(Side::Server) {
            let server = http::Server::start(lab.server(), address, 0, &[b'p'; PAGE])?;
            let thread = load.fetch(lab.client(), &server);
            load.pages.push((family.to_owned(), server, thread));
            let replier = Replier::start(lab.server(), address, 0)?;
            let plan = RequestPlan {
                flows: FLOWS,
                requests,
                interval: INTERVAL,
                patience: STALL,
                ..RequestPlan::to(replier.address())
            };
            let requester = Requester::start(lab.client(), plan);
            load.datagrams.push((family.to_owned(), replier, requester));
        }
        Ok(load)
    }

    /// When it was started.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// The streams that stand still.
    pub(super) fn stalled(&mut self) -> Vec<String> {
        let mut stalled = Vec::new();
        for stream in &mut self.streams {
            let received = stream.sink.received();
            if received != stream.progress.0 {
                stream.progress = (received, Instant::now());
            } else if stream.progress.1.elapsed() > STALL {
                stalled.push(format!("{} at byte {received}", stream.name));
            }
        }
        stalled
    }

    /// Ends everything in order and says what came of it.
    pub(super) fn finish(mut self, lab: &Lab) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let malformed = std::mem::take(&mut self.malformed)
            .into_iter()
            .map(Malformed::finish)
            .sum();
        let mut streams = Vec::new();
        for stream in std::mem::take(&mut self.streams) {
            // Before its end: waiting for the last acknowledgement is no gap.
            let longest_gap = stream.sink.longest_gap();
            let sent = stream.sender.stop();
            streams.push(conclude(stream.name, &stream.sink, longest_gap, &sent));
        }
        for (name, sink, thread) in std::mem::take(&mut self.series) {
            let series = thread.join().expect("a series does not panic");
            streams.push(conclude_series(name, &sink, series));
        }
        let mut pages = Vec::new();
        for (family, _server, thread) in std::mem::take(&mut self.pages) {
            pages.push((family, thread.join().expect("a client does not panic")));
        }
        let mut datagrams = Vec::new();
        for (family, _replier, requester) in std::mem::take(&mut self.datagrams) {
            datagrams.push((family, requester.finish()?));
        }
        Ok(Outcome {
            streams,
            pages,
            datagrams,
            lost_elsewhere: self.elsewhere.lost(lab)?,
            malformed,
        })
    }

    /// One stream after the other.
    fn series(&self, from: &Namespace, sink: &Sink) -> JoinHandle<SeriesReport> {
        let (started, stop) = (self.started, Arc::clone(&self.stop));
        let (namespace, to) = (from.clone(), sink.address());
        from.spawn("series", move || {
            let mut report = SeriesReport::default();
            while !stop.load(Ordering::Relaxed) {
                let extent = Extent::Bytes(SHORT_STREAM);
                let begun = started.elapsed();
                let sent = Sender::start(&namespace, to, extent).finish();
                report.streams += 1;
                report.sent += sent.sent;
                if let Some(error) = sent.error {
                    let what = format!("begun at {begun:.2?}: {error}");
                    let at = started.elapsed();
                    report.mishaps.push(Mishap { at, what });
                }
            }
            report
        })
    }

    /// One page after the other, each over a connection of its own.
    fn fetch(&self, from: &Namespace, server: &http::Server) -> JoinHandle<PagesReport> {
        let (started, stop) = (self.started, Arc::clone(&self.stop));
        let (namespace, to) = (from.clone(), server.address());
        from.spawn("pages", move || {
            let mut report = PagesReport::default();
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                match http::get(&namespace, to, "/", &[], STALL) {
                    Ok(page) if page.status == 200 && page.body == [b'p'; PAGE] => {
                        report.fetched += 1;
                        report.slowest = report.slowest.max(begun.elapsed());
                    }
                    result => {
                        let what = match result {
                            Ok(page) => format!(
                                "status {}, {} bytes, not the page",
                                page.status,
                                page.body.len()
                            ),
                            Err(error) => format!("{error} after {:.2?}", begun.elapsed()),
                        };
                        let at = started.elapsed();
                        report.mishaps.push(Mishap { at, what });
                    }
                }
                std::thread::sleep(PAUSE);
            }
            report
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Also when the campaign fails: nothing shall go on sending.
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn conclude(
    name: String,
    sink: &Sink,
    longest_gap: Duration,
    sent: &SenderReport,
) -> StreamOutcome {
    let mut faults = sink.faults();
    faults.extend(sent.error.clone());
    StreamOutcome {
        name,
        connections: sink.accepted(),
        sent: sent.sent,
        received: sink.received(),
        elapsed: sent.elapsed,
        longest_gap,
        faults,
    }
}

fn conclude_series(name: String, sink: &Sink, series: SeriesReport) -> StreamOutcome {
    let mut faults = sink.faults();
    let shown = |mishap: Mishap| format!("at {:.2?}: {}", mishap.at, mishap.what);
    faults.extend(series.mishaps.into_iter().map(shown));
    if series.streams != sink.finished() {
        faults.push(format!(
            "{} of {} connections ended in order",
            sink.finished(),
            series.streams
        ));
    }
    StreamOutcome {
        name,
        connections: series.streams,
        sent: series.sent,
        received: sink.received(),
        elapsed: sink.started().elapsed(),
        longest_gap: sink.longest_gap(),
        faults,
    }
}

impl StreamOutcome {
    /// Whether every byte sent arrived, once, in order, and right.
    pub(super) fn intact(&self) -> bool {
        self.faults.is_empty() && self.received > 0 && self.received == self.sent
    }
}
