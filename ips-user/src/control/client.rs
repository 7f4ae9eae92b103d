//! The command line's side.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Request, Response};

/// Asks the instance whose socket is at `path`.
///
/// # Errors
/// When nobody listens there, or there is no answer in 10 s.
pub fn ask(path: &Path, request: &Request) -> io::Result<Response> {
    ask_within(path, request, Duration::from_secs(10))
}

/// The same with another time for the answer.
///
/// # Errors
/// When nobody listens there, or there is no answer in that time.
pub fn ask_within(path: &Path, request: &Request, patience: Duration) -> io::Result<Response> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&answer)?)
}
