//! Both transports against the real kernel: one suite, run for each of them.
//!
//! Traffic goes from client to server through the gateway's FORWARD hook, where a rule sends
//! what goes to [`PORT`] to the queue. What only one transport can do is tested in
//! [`batched`].

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sluice::source::crate_nfq::CrateQueue;
use sluice::source::nfqueue::{NfQueue, QueueSocket};
use sluice::source::{
    Disposition, Inspector, Packet, PacketId, PacketQueue, QueueCounters, QueueError, QueueOptions,
    Verdict,
};
use sluice_tests::over::OverOnDrop;
use sluice_tests::patience::{PATIENCE, wait_for};
use sluice_tests::queue_state::{self, QueueState};
use sluice_tests::{Lab, LabOptions};

mod batched;
mod hand_over;
mod shared;

/// Destination port of the traffic that is queued.
const PORT: u16 = 5000;
/// Bytes of a datagram where a test does not say otherwise.
const SIZE: usize = 100;
/// The queue.
const QUEUE: u16 = 7;
/// What does not arrive does not come for so long.
const SILENCE: Duration = Duration::from_millis(150);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Batched,
    Crate,
}

impl Transport {
    const ALL: [Self; 2] = [Self::Batched, Self::Crate];

    /// Opens a queue that another one has just left. The crate's socket is inherited by every
    /// program that any test starts meanwhile, and holds the queue until that has ended.
    fn open_after_another(self, lab: &Lab, options: &QueueOptions) -> Box<dyn PacketQueue + Send> {
        let last = RefCell::new(None);
        let open = || {
            let opened = self.open(lab, options);
            opened.map_err(|error| last.replace(Some(error))).ok()
        };
        wait_for(open, || format!("{:?}", last.borrow()))
    }

    fn open(
        self,
        lab: &Lab,
        options: &QueueOptions,
    ) -> Result<Box<dyn PacketQueue + Send>, QueueError> {
        lab.gateway().enter(|| {
            Ok(match self {
                Self::Batched => {
                    let socket = QueueSocket::open(options)?;
                    Box::new(NfQueue::new(socket.into_fd(), options)?) as Box<_>
                }
                Self::Crate => Box::new(CrateQueue::open(options)?) as Box<_>,
            })
        })
    }
}

fn options() -> QueueOptions {
    QueueOptions {
        number: QUEUE,
        max_length: 4096,
        receive_buffer: 8 << 20,
        copy_range: u16::MAX,
        fail_open: false,
        gso: true,
        batch: 32,
    }
}

/// A lab whose gateway queues TCP and UDP to [`PORT`], and counts what goes on with mark 5.
fn lab_with_rules() -> Lab {
    let lab = Lab::new(&LabOptions::default()).unwrap();
    for iptables in ["iptables", "ip6tables"] {
        for protocol in ["udp", "tcp"] {
            let rule = format!(
                "-t mangle -A FORWARD -p {protocol} --dport {PORT} -j NFQUEUE --queue-num {QUEUE}"
            );
            let arguments: Vec<&str> = rule.split(' ').collect();
            lab.gateway().run(iptables, &arguments).unwrap();
        }
        let count = ["-A", "FORWARD", "-m", "mark", "--mark", "5"];
        lab.gateway().run(iptables, &count).unwrap();
    }
    lab
}

/// Packets that went on with mark 5, both protocols.
fn marked(lab: &Lab) -> u64 {
    ["iptables", "ip6tables"]
        .iter()
        .map(|iptables| {
            let shown = lab
                .gateway()
                .run(iptables, &["-L", "FORWARD", "-v", "-x", "-n"])
                .unwrap();
            let rule = shown.lines().find(|line| line.contains("0x5")).unwrap();
            let packets = rule.split_whitespace().next().unwrap();
            packets.parse::<u64>().unwrap()
        })
        .sum()
}

fn state(lab: &Lab) -> QueueState {
    queue_state::of(lab.gateway(), QUEUE).unwrap().unwrap()
}

/// What an inspector saw of a packet.
#[derive(Clone, Debug)]
struct Seen {
    id: u32,
    hook: u8,
    ethertype: u16,
    in_interface: u32,
    out_interface: u32,
    payload: Vec<u8>,
    original_len: u32,
    gso: bool,
}

/// Remembers every packet (its first 128 bytes) and asks a function for the verdict.
struct Recorder<F> {
    decide: F,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Highest id announced for the current batch, and packets still to come of it.
    announced: (u32, usize),
    largest_batch: Arc<Mutex<usize>>,
}

impl<F: FnMut(&Packet<'_>) -> Verdict> Inspector for Recorder<F> {
    fn batch(&mut self, highest: PacketId, packets: usize) {
        assert_eq!(self.announced.1, 0, "a batch before the last one's end");
        assert!(packets > 0, "an empty batch");
        self.announced = (highest.0, packets);
        let mut largest = self.largest_batch.lock().unwrap();
        *largest = packets.max(*largest);
    }

    fn packet(&mut self, packet: Packet<'_>) -> Verdict {
        let (highest, left) = &mut self.announced;
        *left = left.checked_sub(1).expect("a packet beyond its batch");
        assert!(packet.id.0 <= *highest);
        assert_eq!(*left == 0, packet.id.0 == *highest);
        self.seen.lock().unwrap().push(Seen {
            id: packet.id.0,
            hook: packet.hook,
            ethertype: packet.ethertype,
            in_interface: packet.in_interface,
            out_interface: packet.out_interface,
            payload: packet.payload[..packet.payload.len().min(128)].to_vec(),
            original_len: packet.original_len,
            gso: packet.gso,
        });
        (self.decide)(&packet)
    }
}

/// A queue being served on its own thread until it is stopped.
struct Serving {
    running: OverOnDrop,
    seen: Arc<Mutex<Vec<Seen>>>,
    largest_batch: Arc<Mutex<usize>>,
    thread: JoinHandle<Box<dyn PacketQueue + Send>>,
}

impl Serving {
    fn start(
        mut queue: Box<dyn PacketQueue + Send>,
        decide: impl FnMut(&Packet<'_>) -> Verdict + Send + 'static,
    ) -> Self {
        let running = OverOnDrop::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let largest_batch = Arc::new(Mutex::new(0));
        let mut recorder = Recorder {
            decide,
            seen: Arc::clone(&seen),
            announced: (0, 0),
            largest_batch: Arc::clone(&largest_batch),
        };
        let stopped = running.watch();
        let thread = std::thread::spawn(move || {
            while !stopped.is_over() {
                queue
                    .serve(Duration::from_millis(20), &mut recorder)
                    .unwrap();
            }
            queue
        });
        Self {
            running,
            seen,
            largest_batch,
            thread,
        }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until an inspector has seen so many.
    fn await_seen(&self, count: usize) -> Vec<Seen> {
        let look = || Some(self.seen()).filter(|seen| seen.len() >= count);
        wait_for(look, || format!("{count} packets: {:?}", self.seen()))
    }

    fn largest_batch(&self) -> usize {
        *self.largest_batch.lock().unwrap()
    }

    /// Stops; the queue lives on.
    fn stop(self) -> Box<dyn PacketQueue + Send> {
        drop(self.running);
        self.thread.join().unwrap()
    }

    fn counters(self) -> QueueCounters {
        self.stop().counters()
    }
}

/// A UDP socket of the server at [`PORT`].
fn receiver(lab: &Lab, address: IpAddr) -> UdpSocket {
    let socket = lab
        .server()
        .enter(|| UdpSocket::bind((address, PORT)))
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    socket
}

/// Sends datagrams 0, 1, … each of `size` bytes of its number.
fn send_numbered(lab: &Lab, address: IpAddr, numbers: std::ops::Range<u8>, size: usize) {
    let socket = lab
        .client()
        .enter(|| {
            UdpSocket::bind(if address.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            })
        })
        .unwrap();
    for number in numbers {
        let to = SocketAddr::new(address, PORT);
        assert_eq!(socket.send_to(&vec![number; size], to).unwrap(), size);
    }
}

/// Takes what arrives: so many datagrams are waited for, and those beyond them until none comes
/// any more.
fn take(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    let mut buffer = [0; 65_536];
    let mut last = Instant::now();
    loop {
        if let Ok(len) = socket.recv(&mut buffer) {
            datagrams.push(buffer[..len].to_vec());
            last = Instant::now();
            continue;
        }
        let patience = match datagrams.len() < count {
            true => PATIENCE,
            false => SILENCE,
        };
        if last.elapsed() >= patience {
            return datagrams;
        }
    }
}

/// The numbers of what arrives, see [`take`].
fn take_numbers(socket: &UdpSocket, count: usize) -> Vec<u8> {
    take(socket, count).iter().map(|bytes| bytes[0]).collect()
}

/// Waits until a condition about the queue holds.
fn await_state(lab: &Lab, what: &str, condition: impl Fn(&QueueState) -> bool) -> QueueState {
    wait_for(
        || Some(state(lab)).filter(&condition),
        || format!("{what} does not come true: {:?}", state(lab)),
    )
}

/// The UDP payload of an IP packet, header lengths from the packet.
fn udp_payload(packet: &[u8]) -> &[u8] {
    &packet[udp_offset(packet) + 8..]
}

fn udp_offset(packet: &[u8]) -> usize {
    match packet[0] >> 4 {
        4 => usize::from(packet[0] & 0xf) * 4,
        6 => 40,
        version => panic!("IP version {version}"),
    }
}

/// The packet with another UDP payload, lengths and checksums right.
fn with_udp_payload(packet: &[u8], payload: &[u8]) -> Vec<u8> {
    use sluice_tests::frame::internet_checksum;
    let udp = udp_offset(packet);
    let mut new = packet[..udp + 8].to_vec();
    new.extend_from_slice(payload);
    let udp_len = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    new[udp + 4..udp + 6].copy_from_slice(&udp_len);
    new[udp + 6..udp + 8].fill(0);
    let addresses = if packet[0] >> 4 == 4 {
        let total = u16::try_from(new.len()).unwrap().to_be_bytes();
        new[2..4].copy_from_slice(&total);
        new[10..12].fill(0);
        let checksum = internet_checksum(&[&new[..udp]]).to_be_bytes();
        new[10..12].copy_from_slice(&checksum);
        12..20
    } else {
        new[4..6].copy_from_slice(&udp_len);
        8..40
    };
    let pseudo = [&[0, 17], udp_len.as_slice()].concat();
    let checksum = internet_checksum(&[&new[addresses], &pseudo, &new[udp..]]).to_be_bytes();
    new[udp + 6..udp + 8].copy_from_slice(&checksum);
    new
}

/// The TCP packet with its checksum computed, which an aggregate does not need: the kernel
/// computes those of its segments.
fn with_tcp_checksum(packet: &[u8]) -> Vec<u8> {
    use sluice_tests::frame::internet_checksum;
    let tcp = udp_offset(packet);
    let addresses = if tcp == 40 { 8..40 } else { 12..20 };
    let mut new = packet.to_vec();
    new[tcp + 16..tcp + 18].fill(0);
    let tcp_len = u16::try_from(new.len() - tcp).unwrap().to_be_bytes();
    let pseudo = [&[0, 6], tcp_len.as_slice()].concat();
    let checksum = internet_checksum(&[&new[addresses], &pseudo, &new[tcp..]]).to_be_bytes();
    new[tcp + 16..tcp + 18].copy_from_slice(&checksum);
    new
}

fn accept_with_mark(mark: u32) -> Verdict {
    Verdict {
        mark: Some(mark),
        ..Verdict::ACCEPT
    }
}

fn accept_with(replacement: Vec<u8>) -> Verdict {
    Verdict {
        replacement: Some(replacement),
        ..Verdict::ACCEPT
    }
}
