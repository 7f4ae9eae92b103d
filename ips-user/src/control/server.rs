//! The supervisor's side.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{Request, Response};

/// Longest request line.
const REQUEST_BYTES: u64 = 64 * 1024;
/// How much of what follows a request that is too long is read and thrown away.
const DISCARDED_BYTES: u64 = 1024 * 1024;
/// A client that does not go on for this long is left.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clients served at once; more wait in the socket's backlog.
const CLIENTS: usize = 16;

/// A request, and where its answer goes.
#[derive(Debug)]
pub struct Ask {
    /// What.
    pub request: Request,
    /// Where to.
    pub answer: oneshot::Sender<Response>,
}

/// Listens at `path` (readable for root only) and hands requests to `asks`, until dropped.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(path: &Path, asks: mpsc::Sender<Ask>) -> io::Result<impl Future<Output = ()> + use<>> {
    // The instance's lock is held, so a socket that exists is a dead predecessor's.
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(CLIENTS));
    Ok(async move {
        loop {
            let Ok(place) = std::sync::Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((client, _)) => {
                    let asks = asks.clone();
                    tokio::spawn(async move {
                        if let Err(error) = converse(client, asks).await {
                            log::debug!("control client: {error}");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    log::warn!("control socket: accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

async fn converse(client: UnixStream, asks: mpsc::Sender<Ask>) -> io::Result<()> {
    let (reader, mut writer) = client.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(REQUEST_BYTES);
        let length = timeout(PATIENCE, limited.read_until(b'\n', &mut line)).await??;
        if length == 0 {
            return Ok(());
        }
        let complete = line.ends_with(b"\n");
        let response = match serde_json::from_slice(&line) {
            Ok(request) => answer(request, &asks).await,
            Err(_) if !complete => Response::Error(format!(
                "a request is one line of at most {REQUEST_BYTES} bytes"
            )),
            Err(error) => Response::Error(format!("not understood: {error}")),
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        timeout(PATIENCE, writer.write_all(&text)).await??;
        if !complete {
            // Closing with something unread would reset the connection, and the answer with it.
            let mut rest = (&mut reader).take(DISCARDED_BYTES);
            timeout(PATIENCE, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await??;
            return Ok(());
        }
    }
}

async fn answer(request: Request, asks: &mpsc::Sender<Ask>) -> Response {
    let (answer, answered) = oneshot::channel();
    if asks.send(Ask { request, answer }).await.is_err() {
        return Response::Error("stopping".into());
    }
    answered
        .await
        .unwrap_or_else(|_| Response::Error("stopping".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(sent: &str, expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (asks, mut asked) = mpsc::channel(1);
        tokio::spawn(serve(&path, asks).unwrap());
        tokio::spawn(async move {
            while let Some(ask) = asked.recv().await {
                ask.answer
                    .send(Response::Ok(serde_json::json!({"asked": ask.request})))
                    .unwrap();
            }
        });
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(sent.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains(expected), "{sent:?}: {answer}");
    }

    #[tokio::test]
    async fn requests_are_answered_and_nonsense_is_refused_without_harm() {
        check(
            "{\"command\":\"status\"}\n",
            r#"{"ok":{"asked":{"command":"status"}}}"#,
        )
        .await;
        check(
            "{\"command\":\"explode\"}\n",
            r#"{"error":"not understood: unknown variant"#,
        )
        .await;
        check(
            "{\"command\":\"status\",\"x\":1}\n",
            r#"{"error":"not understood"#,
        )
        .await;
        check("\u{0}\n{\"command\":\"status\"}\n", r#"{"ok":"#).await;
        check(
            &"x".repeat(REQUEST_BYTES as usize + 1),
            "at most 65536 bytes",
        )
        .await;
    }
}
