//! Plans, packets with marks, and a small routed network.

use std::io::ErrorKind::AddrInUse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::time::Duration;

use ips_common::{MarkLayout, Steer};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};
use sluice::netfilter::{Backend, DEFAULT_PRIORITY, Fail, Hook, Plan, install, remove};
use sluice_tests::patience::{PATIENCE, wait_for};
use sluice_tests::unnamed::sh;

const MASK: u32 = 0x00ff_0000;
/// What is dropped does not arrive for so long.
const SILENCE: Duration = Duration::from_millis(60);
/// Bits that belong to somebody else.
pub(crate) const FOREIGN: u32 = 0x8000_0007;

/// All rules of nf_tables with their handles, without counters.
pub(crate) fn rules() -> String {
    sh("nft -s -a list ruleset 2>/dev/null")
}

pub(crate) fn plan(workers: u32, backend: Backend) -> Plan {
    let mut queues: Vec<_> = (0..workers)
        .map(|index| (Steer::Worker(index), 100 + u16::try_from(index).unwrap()))
        .collect();
    queues.push((Steer::Backup, 99));
    Plan {
        instance: "sluice".to_owned(),
        hook: Hook::Forward,
        priority: DEFAULT_PRIORITY,
        mark: MarkLayout::new(MASK, workers).unwrap(),
        queues,
        interfaces: vec!["c".to_owned()],
        fail: Fail::Closed,
        backend: Some(backend),
    }
}

/// The backends that this kernel can run, best first.
pub(crate) fn backends() -> Vec<Backend> {
    let mut usable = vec![Backend::IptablesNft, Backend::IptablesLegacy];
    match install(&plan(1, Backend::Nft)) {
        Ok(_) => {
            remove("sluice").unwrap();
            usable.insert(0, Backend::Nft);
        }
        Err(error) => println!("skipped: backend nft: {error}"),
    }
    usable
}

fn any(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

fn localhost(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::LOCALHOST.into()
    } else {
        Ipv4Addr::LOCALHOST.into()
    }
}

/// Sends one datagram with a mark to ourselves. An error is a dropped packet's, and whether
/// it was dropped is asked of the receiver.
pub(crate) fn send(mark: u32, v6: bool, port: u16) {
    let socket = UdpSocket::bind((localhost(v6), 0)).unwrap();
    setsockopt(&socket, sockopt::Mark, &mark).unwrap();
    let _ = socket.send_to(b"sluice", (localhost(v6), port));
}

pub(crate) fn receiver(v6: bool) -> (UdpSocket, u16) {
    let socket = UdpSocket::bind((localhost(v6), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// How many datagrams have come that should not.
pub(crate) fn slipped(socket: &UdpSocket) -> usize {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    std::iter::from_fn(|| socket.recv(&mut [0; 16]).ok()).count()
}

/// Whether a datagram with this mark arrives, as is `expected`.
pub(crate) fn arrives(mark: u32, v6: bool, expected: bool) -> bool {
    let (socket, port) = receiver(v6);
    send(mark, v6, port);
    match expected {
        true => socket.recv(&mut [0; 16]).is_ok(),
        false => slipped(&socket) > 0,
    }
}

/// Accepts the next packet: the queue it came to, and its mark.
pub(crate) fn next_queue(queue: &mut nfq::Queue) -> (u16, u32) {
    let look = || match queue.recv() {
        Ok(message) => Some(message),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    };
    let mut message = wait_for(look, || "no packet is queued".to_owned());
    let found = (message.get_queue_num(), message.get_nfmark());
    message.set_verdict(nfq::Verdict::Accept);
    queue.verdict(message).unwrap();
    found
}

pub(crate) fn listen(plan: &Plan) -> nfq::Queue {
    let mut queue = nfq::Queue::open().unwrap();
    for &(_, number) in &plan.queues {
        queue.bind(number).unwrap();
    }
    queue.set_nonblocking(true);
    queue
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread with a namespace of its own that lives until this is dropped.
pub(crate) struct Neighbour {
    jobs: mpsc::Sender<Job>,
    tid: i32,
}

impl Neighbour {
    pub(crate) fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        Self {
            jobs,
            tid: is_ready.recv().unwrap(),
        }
    }

    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, is_done) = mpsc::channel();
        self.jobs
            .send(Box::new(move || {
                let _ = done.send(job());
            }))
            .unwrap();
        is_done.recv().unwrap()
    }
}

/// A routed network client – here – server, where a firewall marks UDP by destination port
/// and drops port 5004 in its forward chain.
pub(crate) fn routed_network() -> (Neighbour, Neighbour) {
    let (client, server) = (Neighbour::new(), Neighbour::new());
    for (name, neighbour, net) in [("c", &client, 1), ("s", &server, 2)] {
        // While its link-local address is tentative, a router asks for no neighbour.
        sh(&format!(
            "ip link add {name} type veth peer name eth netns {tid}
             ip addr add 10.0.{net}.1/24 dev {name}
             ip addr add fd00:{net}::1/64 dev {name} nodad
             echo 0 > /proc/sys/net/ipv6/conf/{name}/accept_dad
             ip link set {name} up",
            tid = neighbour.tid
        ));
        neighbour.run(move || {
            sh(&format!(
                "ip addr add 10.0.{net}.2/24 dev eth
                 ip addr add fd00:{net}::2/64 dev eth nodad
                 echo 0 > /proc/sys/net/ipv6/conf/eth/accept_dad
                 ip link set eth up
                 ip route add default via 10.0.{net}.1
                 ip route add default via fd00:{net}::1"
            ));
        });
    }
    sh("echo 1 > /proc/sys/net/ipv4/ip_forward
        echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
        nft -f - <<'X'
table inet test {
    chain marking {
        type filter hook prerouting priority -300;
        meta mark set udp dport map { 5001 : 0x10000, 5002 : 0x20000, 5003 : 0xff0000, 5004 : 0x10000 }
    }
    chain firewall {
        type filter hook forward priority 0;
        udp dport 5004 drop
    }
}
X");
    (client, server)
}

pub(crate) fn server_address(v6: bool, port: u16) -> SocketAddr {
    if v6 {
        (Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 2), port).into()
    } else {
        (Ipv4Addr::new(10, 0, 2, 2), port).into()
    }
}

/// A child process that another test has just forked may hold a closed socket for a moment more.
pub(crate) fn bind(port: u16, v6: bool) -> UdpSocket {
    let look = || match UdpSocket::bind((any(v6), port)) {
        Err(error) if error.kind() == AddrInUse => None,
        bound => Some(bound.unwrap()),
    };
    wait_for(look, || format!("port {port} stays in use"))
}

/// Sends a datagram from the client; whether the server got it in time.
pub(crate) fn crosses(
    client: &Neighbour,
    server: &Neighbour,
    to: SocketAddr,
    time: Duration,
    on_the_way: impl FnOnce(),
) -> bool {
    let v6 = to.is_ipv6();
    let socket = server.run(move || bind(to.port(), v6));
    socket.set_read_timeout(Some(time)).unwrap();
    client.run(move || {
        let socket = UdpSocket::bind((any(v6), 0)).unwrap();
        socket.send_to(b"sluice", to).unwrap();
    });
    on_the_way();
    socket.recv(&mut [0; 16]).is_ok()
}

/// A link becomes usable some time after `ip link` has returned, and a neighbour that was asked
/// for too early is asked for again only a second later.
pub(crate) fn await_connected(client: &Neighbour, server: &Neighbour) {
    for v6 in [false, true] {
        let to = server_address(v6, 5000);
        let connected =
            (0..100).any(|_| crosses(client, server, to, Duration::from_millis(100), || {}));
        assert!(connected, "{to} is never reached");
    }
}
