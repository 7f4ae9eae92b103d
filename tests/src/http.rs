//! A small HTTP/1.1 server and client: enough for pages over persistent connections.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Namespace;
use crate::patience::PATIENCE;

/// A web server: every path gives the same page, 200 OK.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `address` (port 0 chooses one) inside `namespace`; `page` is its content.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(
        namespace: &Namespace,
        address: IpAddr,
        port: u16,
        page: &[u8],
    ) -> io::Result<Self> {
        let listener = namespace.enter(|| TcpListener::bind((address, port)))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nServer: lab\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n",
            page.len()
        )
        .into_bytes();
        answer.extend_from_slice(page);
        let requests = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared_requests, shared_stop) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = namespace.spawn("http-server", move || {
            std::thread::scope(|scope| {
                while !shared_stop.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            let (answer, requests, stop) =
                                (&answer, &shared_requests, &shared_stop);
                            // A client that breaks off notices it itself.
                            scope.spawn(move || drop(serve(stream, answer, requests, stop)));
                        }
                        Err(_) => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
            });
        });
        Ok(Self {
            address,
            requests,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests answered so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    mut stream: TcpStream,
    answer: &[u8],
    requests: &AtomicU64,
    stop: &AtomicBool,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut pending = Vec::with_capacity(8192);
    let mut buffer = [0; 8192];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => pending.extend_from_slice(&buffer[..read]),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        }
        while let Some(end) = pending.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&pending[..end]).to_ascii_lowercase();
            let close = head.contains("connection: close");
            pending.drain(..end + 4);
            requests.fetch_add(1, Ordering::Relaxed);
            stream.write_all(answer)?;
            if close {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header lines, without line ends.
    pub headers: Vec<String>,
    /// Content.
    pub body: Vec<u8>,
}

/// Fetches one page from inside `namespace`. `path` and `headers` go out as they are (each
/// header a whole line), so that tests can put anything into them.
///
/// # Errors
/// When the connection is refused, reset, or nothing comes for `timeout`.
pub fn get(
    namespace: &Namespace,
    to: SocketAddr,
    path: &str,
    headers: &[&str],
    timeout: Duration,
) -> io::Result<Response> {
    namespace.enter(|| {
        let stream = TcpStream::connect_timeout(&to, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        (&stream).write_all(request.as_bytes())?;
        read_response(&mut BufReader::new(&stream))
    })
}

fn read_response(reader: &mut impl BufRead) -> io::Result<Response> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if line.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let status = line
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, line.clone()))?;
    let mut headers = Vec::new();
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let header = line.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value
                .trim()
                .parse()
                .map_err(|_| io::Error::new(ErrorKind::InvalidData, header.to_owned()))?;
        }
        headers.push(header.to_owned());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Response {
        status,
        headers,
        body,
    })
}

/// What a load has measured.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// Requests answered with 200.
    pub requests: u64,
    /// Connections that failed or broke; each is opened again.
    pub errors: u64,
    /// How long it ran.
    pub elapsed: Duration,
    /// Median latency.
    pub p50: Duration,
    /// 99th percentile of the latency.
    pub p99: Duration,
}

impl LoadReport {
    /// Requests a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
        let requests = self.requests as f64;
        requests / self.elapsed.as_secs_f64()
    }
}

/// Requests `path` over `connections` persistent connections from inside `namespace`, as fast
/// as the answers come, for `duration`.
///
/// # Panics
/// When a thread cannot be started.
#[must_use]
pub fn load(
    namespace: &Namespace,
    to: SocketAddr,
    path: &str,
    connections: usize,
    duration: Duration,
) -> LoadReport {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: lab\r\n\r\n");
    let started = Instant::now();
    let deadline = started + duration;
    let errors = AtomicU64::new(0);
    let mut latencies = namespace.enter(|| {
        std::thread::scope(|scope| {
            // Threads are in the namespace of the thread that starts them.
            let clients: Vec<_> = (0..connections)
                .map(|_| scope.spawn(|| request_until(to, request.as_bytes(), deadline, &errors)))
                .collect();
            clients
                .into_iter()
                .flat_map(|client| client.join().unwrap_or_default())
                .collect::<Vec<u32>>()
        })
    });
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    let percentile = |share: usize| {
        let index = latencies.len() * share / 100;
        let micros = latencies.get(index).copied().unwrap_or_default();
        Duration::from_micros(micros.into())
    };
    LoadReport {
        requests: latencies.len() as u64,
        errors: errors.into_inner(),
        elapsed,
        p50: percentile(50),
        p99: percentile(99),
    }
}

/// Latencies in microseconds.
fn request_until(
    to: SocketAddr,
    request: &[u8],
    deadline: Instant,
    errors: &AtomicU64,
) -> Vec<u32> {
    let mut latencies = Vec::new();
    while Instant::now() < deadline {
        if request_over_one(to, request, deadline, &mut latencies).is_err() {
            errors.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    latencies
}

fn request_over_one(
    to: SocketAddr,
    request: &[u8],
    deadline: Instant,
    latencies: &mut Vec<u32>,
) -> io::Result<()> {
    let timeout = PATIENCE;
    let mut stream = TcpStream::connect_timeout(&to, timeout)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    let mut answer = Answer::default();
    loop {
        let begun = Instant::now();
        if begun >= deadline {
            return Ok(());
        }
        stream.write_all(request)?;
        answer.skip_one(&mut stream)?;
        latencies.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
}

/// Reads answers without keeping their content.
struct Answer {
    buffer: Box<[u8; 64 * 1024]>,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            buffer: Box::new([0; 64 * 1024]),
        }
    }
}

impl Answer {
    fn skip_one(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let mut filled = 0;
        let (head, length) = loop {
            let read = stream.read(&mut self.buffer[filled..])?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            let seen = &self.buffer[..filled];
            if let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
                let mut head = &seen[..end + 4];
                if !head.starts_with(b"HTTP/1.1 200 ") {
                    return Err(ErrorKind::InvalidData.into());
                }
                let mut length = 0;
                let mut line = String::new();
                while head.read_line(&mut line)? > 0 {
                    if let Some(value) = line.strip_prefix("Content-Length:") {
                        length = value.trim().parse().map_err(|_| ErrorKind::InvalidData)?;
                    }
                    line.clear();
                }
                break (end + 4, length);
            }
            if filled == self.buffer.len() {
                return Err(ErrorKind::InvalidData.into());
            }
        };
        let mut missing: usize = (head + length)
            .checked_sub(filled)
            .ok_or(ErrorKind::InvalidData)?;
        while missing > 0 {
            let part = missing.min(self.buffer.len());
            let read = stream.read(&mut self.buffer[..part])?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            missing -= read;
        }
        Ok(())
    }
}
