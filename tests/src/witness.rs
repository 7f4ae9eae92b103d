//! Servers that write down what really reached them, and clients that say how it ended for them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Namespace;
use crate::patience::PATIENCE;
use serde::Serialize;

/// What is dropped does not come for so long.
pub const SILENCE: Duration = Duration::from_millis(500);

/// How a connection or a request ended, seen from one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Everything was answered as sent.
    Answered,
    /// Closed in order.
    Closed,
    /// Reset by the peer, or by somebody in its name (ECONNRESET).
    Reset,
    /// An ICMP error came (ECONNREFUSED, EHOSTUNREACH, EACCES, by its code).
    Unreachable,
    /// Nothing came.
    Silence,
    /// Something else.
    Other,
}

impl End {
    /// How long to wait for it: that nothing comes has to be believed some time.
    #[must_use]
    pub fn patience(self) -> Duration {
        match self {
            Self::Silence => SILENCE,
            _ => PATIENCE,
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Reset,
            ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied => Self::Unreachable,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Silence,
            ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Other,
        }
    }
}

/// What one client's connection (TCP) or address (UDP) delivered.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The client.
    pub peer: SocketAddr,
    /// Every byte, in order.
    pub bytes: Vec<u8>,
    /// How it ended, when it has.
    pub end: Option<End>,
}

type Deliveries = Arc<Mutex<Vec<Delivery>>>;

/// A TCP and UDP server on one port that answers with what it gets.
#[derive(Debug)]
pub struct Witness {
    address: SocketAddr,
    deliveries: Deliveries,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Witness {
    /// Listens inside `namespace`; port 0 chooses one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(namespace: &Namespace, address: IpAddr, port: u16) -> io::Result<Self> {
        let (listener, socket) = namespace.enter(|| {
            let listener = TcpListener::bind((address, port))?;
            let socket = UdpSocket::bind(listener.local_addr()?)?;
            io::Result::Ok((listener, socket))
        })?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let deliveries = Deliveries::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (tcp, tcp_stop) = (Arc::clone(&deliveries), Arc::clone(&stop));
        let (udp, udp_stop) = (Arc::clone(&deliveries), Arc::clone(&stop));
        let threads = vec![
            namespace.spawn("witness-tcp", move || serve_tcp(&listener, &tcp, &tcp_stop)),
            namespace.spawn("witness-udp", move || serve_udp(&socket, &udp, &udp_stop)),
        ];
        Ok(Self {
            address,
            deliveries,
            stop,
            threads,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a client has delivered so far.
    #[must_use]
    pub fn delivery(&self, peer: SocketAddr) -> Option<Delivery> {
        let deliveries = self
            .deliveries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        deliveries
            .iter()
            .find(|delivery| delivery.peer == peer)
            .cloned()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn record(deliveries: &Deliveries, peer: SocketAddr, note: impl FnOnce(&mut Delivery)) {
    let mut deliveries = deliveries.lock().unwrap_or_else(PoisonError::into_inner);
    let index = match deliveries.iter().position(|delivery| delivery.peer == peer) {
        Some(index) => index,
        None => {
            deliveries.push(Delivery {
                peer,
                bytes: Vec::new(),
                end: None,
            });
            deliveries.len() - 1
        }
    };
    note(&mut deliveries[index]);
}

fn serve_tcp(listener: &TcpListener, deliveries: &Deliveries, stop: &AtomicBool) {
    std::thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, peer)) => {
                    scope.spawn(move || {
                        let end = answer(&stream, peer, deliveries, stop);
                        record(deliveries, peer, |delivery| delivery.end = end);
                    });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    });
}

/// Answers until the connection ends; nothing when it is ours that ends first.
fn answer(
    mut stream: &TcpStream,
    peer: SocketAddr,
    deliveries: &Deliveries,
    stop: &AtomicBool,
) -> Option<End> {
    let prepared = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(Some(Duration::from_millis(50))));
    if let Err(error) = prepared {
        return Some(End::of(&error));
    }
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return Some(End::Closed),
            Ok(read) => {
                record(deliveries, peer, |delivery| {
                    delivery.bytes.extend_from_slice(&buffer[..read]);
                });
                if let Err(error) = stream.write_all(&buffer[..read]) {
                    return Some(End::of(&error));
                }
            }
            Err(error) if End::of(&error) == End::Silence => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Some(End::of(&error)),
        }
    }
    None
}

fn serve_udp(socket: &UdpSocket, deliveries: &Deliveries, stop: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((read, peer)) = socket.recv_from(&mut buffer) {
            record(deliveries, peer, |delivery| {
                delivery.bytes.extend_from_slice(&buffer[..read]);
            });
            // A client that has gone is its own affair.
            let _ = socket.send_to(&buffer[..read], peer);
        }
    }
}

/// What a client did and saw.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Its address.
    pub local: SocketAddr,
    /// How the harmless beginning ended.
    pub greeting: End,
    /// How the rest ended; as `greeting` when it did not come to that.
    pub end: End,
}

/// Transport of an [`attempt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One connection.
    Tcp,
    /// One socket.
    Udp,
}

impl Transport {
    /// Its name in texts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// Sends `greeting`, waits for its echo, then sends `payload` and waits for what comes of it: so
/// long, see [`End::patience`].
///
/// # Errors
/// When there is no connection or socket to begin with.
pub fn attempt(
    namespace: &Namespace,
    transport: Transport,
    to: SocketAddr,
    greeting: &[u8],
    payload: &[u8],
    patience: Duration,
) -> io::Result<Attempt> {
    namespace.enter(|| match transport {
        Transport::Tcp => {
            let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_nodelay(true)?;
            let wait = |time| stream.set_read_timeout(Some(time));
            converse(
                stream.local_addr()?,
                &stream,
                greeting,
                payload,
                patience,
                wait,
            )
        }
        Transport::Udp => {
            let any: IpAddr = if to.is_ipv4() {
                [0; 4].into()
            } else {
                [0_u16; 8].into()
            };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(to)?;
            let wait = |time| socket.set_read_timeout(Some(time));
            converse(
                socket.local_addr()?,
                Datagrams(&socket),
                greeting,
                payload,
                patience,
                wait,
            )
        }
    })
}

fn converse(
    local: SocketAddr,
    mut stream: impl Read + Write,
    greeting: &[u8],
    payload: &[u8],
    patience: Duration,
    wait: impl Fn(Duration) -> io::Result<()>,
) -> io::Result<Attempt> {
    let mut say = |bytes: &[u8]| -> End {
        let mut answer = vec![0; bytes.len()];
        let result = stream
            .write_all(bytes)
            .and_then(|()| stream.read_exact(&mut answer));
        match result {
            Ok(()) if answer == bytes => End::Answered,
            Ok(()) => End::Other,
            Err(error) => End::of(&error),
        }
    };
    wait(PATIENCE)?;
    let first = say(greeting);
    let end = if first == End::Answered {
        wait(patience)?;
        say(payload)
    } else {
        first
    };
    Ok(Attempt {
        local,
        greeting: first,
        end,
    })
}

/// A connected socket read and written like a stream, one datagram a call.
struct Datagrams<'a>(&'a UdpSocket);

impl Read for Datagrams<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }
}

impl Write for Datagrams<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
