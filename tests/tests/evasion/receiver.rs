//! The applications on the server: real sockets of its kernel, and what was read from them.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc::{Receiver as Inbox, Sender as Outbox, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use sluice_tests::Namespace;

use crate::case::{ATTACK, BENIGN, LEN, Listener};

/// Of the applications that read late: enough for a handful of small segments.
const SMALL_BUFFER: usize = 2304;
/// SYNs with data that may wait (TCP_FASTOPEN).
const FAST_OPEN_QUEUE: libc::c_int = 1024;

/// What an application has got: one unit of a stream, or datagrams.
#[derive(Default)]
struct Record {
    units: Vec<Vec<u8>>,
    /// The attack, and its twin, were in a unit.
    whole: [bool; 2],
}

impl Record {
    const TEXTS: [&[u8; LEN]; 2] = [ATTACK, BENIGN];

    fn extend_stream(&mut self, bytes: &[u8]) {
        if self.units.is_empty() {
            self.units.push(Vec::new());
        }
        let known = self.units[0].len();
        self.units[0].extend(bytes);
        self.look(0, known.saturating_sub(LEN - 1));
    }

    fn add_datagram(&mut self, bytes: &[u8]) {
        self.units.push(bytes.to_vec());
        self.look(self.units.len() - 1, 0);
    }

    fn look(&mut self, unit: usize, from: usize) {
        let fresh = &self.units[unit][from..];
        for (whole, text) in self.whole.iter_mut().zip(Self::TEXTS) {
            *whole |= fresh.windows(LEN).any(|window| window == text);
        }
    }
}

/// By the client's port.
type Records = Arc<Mutex<HashMap<u16, Record>>>;

#[derive(Clone, Copy)]
enum Order {
    Connect(SocketAddr),
    Read(u16),
    Close(u16),
}

/// The server's applications, in a thread of its namespace.
pub(crate) struct Receiver {
    records: Records,
    orders: Option<Outbox<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Every kind of listener over both protocols.
    pub(crate) fn start(server: &Namespace) -> io::Result<Self> {
        let records = Records::default();
        let sockets = server.enter(Sockets::open)?;
        let (orders, inbox) = channel();
        let into = Arc::clone(&records);
        let thread = server.spawn("receiver", move || sockets.serve(&inbox, &into));
        Ok(Self {
            records,
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    fn order(&self, order: Order) {
        let orders = self.orders.as_ref().expect("not stopped yet");
        orders.send(order).expect("the receiver runs");
    }

    /// Has an application connect to the client.
    pub(crate) fn connect(&self, client: SocketAddr) {
        self.order(Order::Connect(client));
    }

    /// Has the application that this port of the client is connected to begin to read.
    pub(crate) fn read(&self, port: u16) {
        self.order(Order::Read(port));
    }

    /// Closes what this port of the client is connected to.
    pub(crate) fn close(&self, port: u16) {
        self.order(Order::Close(port));
    }

    /// Whether an application has read `text` in one: in a stream, or in a datagram.
    pub(crate) fn has(&self, port: u16, text: &[u8; LEN]) -> bool {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = records.get(&port).map_or([false; 2], |it| it.whole);
        let mut texts = whole.into_iter().zip(Record::TEXTS);
        texts.any(|(whole, other)| whole && text == other)
    }

    /// The same as text, to be shown.
    pub(crate) fn shown(&self, port: u16) -> String {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let units = records.get(&port).into_iter().flat_map(|it| &it.units);
        let shown: Vec<String> = units
            .map(|bytes| {
                bytes[bytes.len().saturating_sub(96)..]
                    .escape_ascii()
                    .to_string()
            })
            .collect();
        shown.join(" | ")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Connected {
    stream: TcpStream,
    port: u16,
    reads: bool,
}

struct Sockets {
    listeners: Vec<(Listener, TcpListener)>,
    datagrams: Vec<UdpSocket>,
    connected: Vec<Connected>,
    /// Clients' ports whose applications may read.
    may_read: HashSet<u16>,
}

impl Sockets {
    fn open() -> io::Result<Self> {
        let mut sockets = Self {
            listeners: Vec::new(),
            datagrams: Vec::new(),
            connected: Vec::new(),
            may_read: HashSet::new(),
        };
        for kind in Listener::ALL {
            for by_flow in [false, true] {
                for any in [
                    IpAddr::from(Ipv4Addr::UNSPECIFIED),
                    Ipv6Addr::UNSPECIFIED.into(),
                ] {
                    sockets.listen(kind, SocketAddr::new(any, kind.port(by_flow)))?;
                }
            }
        }
        Ok(sockets)
    }

    fn listen(&mut self, kind: Listener, address: SocketAddr) -> io::Result<()> {
        match kind {
            Listener::Connecting => {}
            Listener::Datagrams => {
                let socket: UdpSocket = bound(address, SockType::Datagram)?.into();
                socket.set_nonblocking(true)?;
                setsockopt(&socket, sockopt::RcvBuf, &(4 << 20))?;
                self.datagrams.push(socket);
            }
            _ => {
                let socket = bound(address, SockType::Stream)?;
                match kind {
                    Listener::FastOpen => enable_fast_open(&socket)?,
                    Listener::Slow => setsockopt(&socket, sockopt::RcvBuf, &SMALL_BUFFER)?,
                    Listener::UrgentInline => setsockopt(&socket, sockopt::OobInline, &true)?,
                    _ => {}
                }
                nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(1024)?)?;
                let listener: TcpListener = socket.into();
                listener.set_nonblocking(true)?;
                self.listeners.push((kind, listener));
            }
        }
        Ok(())
    }

    /// Until nobody gives orders any more.
    fn serve(mut self, inbox: &Inbox<Order>, records: &Records) {
        loop {
            loop {
                match inbox.try_recv() {
                    Ok(order) => self.follow(order),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.await_something();
            self.accept();
            let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
            self.read_streams(&mut records);
            self.read_datagrams(&mut records);
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Connect(client) => {
                if let Ok(stream) = connecting(client) {
                    self.connected.push(Connected {
                        stream,
                        port: client.port(),
                        reads: true,
                    });
                }
            }
            Order::Read(port) => {
                self.may_read.insert(port);
                for connected in self.connected.iter_mut().filter(|it| it.port == port) {
                    connected.reads = true;
                }
            }
            Order::Close(port) => self.connected.retain(|it| it.port != port),
        }
    }

    fn await_something(&self) {
        let listeners = self.listeners.iter().map(|(_, listener)| listener.as_fd());
        let datagrams = self.datagrams.iter().map(AsFd::as_fd);
        let reading = self.connected.iter().filter(|it| it.reads);
        let mut polled: Vec<PollFd<'_>> = listeners
            .chain(datagrams)
            .chain(reading.map(|it| it.stream.as_fd()))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        // Orders come in between.
        let _ = poll(&mut polled, PollTimeout::from(2_u8));
    }

    fn accept(&mut self) {
        for (kind, listener) in &self.listeners {
            while let Ok((stream, client)) = listener.accept() {
                if stream.set_nonblocking(true).is_ok() {
                    self.connected.push(Connected {
                        stream,
                        port: client.port(),
                        reads: *kind != Listener::Slow || self.may_read.contains(&client.port()),
                    });
                }
            }
        }
    }

    fn read_streams(&mut self, records: &mut HashMap<u16, Record>) {
        let mut buffer = [0; 65_536];
        self.connected.retain_mut(|connected| {
            while connected.reads {
                match connected.stream.read(&mut buffer) {
                    Ok(0) => return false,
                    Ok(len) => {
                        let record = records.entry(connected.port).or_default();
                        record.extend_stream(&buffer[..len]);
                    }
                    Err(error) => {
                        return matches!(
                            error.kind(),
                            io::ErrorKind::WouldBlock
                                | io::ErrorKind::Interrupted
                                | io::ErrorKind::NotConnected
                        );
                    }
                }
            }
            true
        });
    }

    fn read_datagrams(&mut self, records: &mut HashMap<u16, Record>) {
        let mut buffer = [0; 65_536];
        for socket in &self.datagrams {
            while let Ok((len, client)) = socket.recv_from(&mut buffer) {
                let record = records.entry(client.port()).or_default();
                record.add_datagram(&buffer[..len]);
            }
        }
    }
}

fn bound(address: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

/// A connection that is being opened.
fn connecting(client: SocketAddr) -> io::Result<TcpStream> {
    let any = match client {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let fd = bound(
        SocketAddr::new(any, Listener::Connecting.port(false)),
        SockType::Stream,
    )?;
    let stream = TcpStream::from(fd);
    stream.set_nonblocking(true)?;
    match connect(stream.as_raw_fd(), &SockaddrStorage::from(client)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => Ok(stream),
        Err(error) => Err(error.into()),
    }
}

fn enable_fast_open(socket: &OwnedFd) -> io::Result<()> {
    let value = FAST_OPEN_QUEUE;
    // SAFETY: the value is an int that outlives the call, and the length passed is its size.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
