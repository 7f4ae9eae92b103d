//! Follows `eve.json`: shows alerts and drops as they happen and keeps them for the evidence.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The events so far.
pub(super) struct Events {
    seen: Arc<Mutex<Vec<Value>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Events {
    /// Follows a file that may not exist yet.
    pub(super) fn follow(path: &Path) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared_seen, shared_stop) = (Arc::clone(&seen), Arc::clone(&stop));
        let path = path.to_path_buf();
        let thread = thread::spawn(move || read_all(&path, &shared_seen, &shared_stop));
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    /// How many events have come: what follows is newer.
    pub(super) fn mark(&self) -> usize {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// The first event after `mark` that `wanted` says yes to, if it comes within `timeout`.
    pub(super) fn find(
        &self,
        mark: usize,
        timeout: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        let deadline = Instant::now() + timeout;
        loop {
            let found = {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.iter().skip(mark).find(|event| wanted(event)).cloned()
            };
            if found.is_some() || Instant::now() >= deadline {
                return found;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read_all(path: &PathBuf, seen: &Mutex<Vec<Value>>, stop: &AtomicBool) {
    let mut reader = None;
    let mut line = String::new();
    while !stop.load(Ordering::Relaxed) {
        if reader.is_none() {
            reader = File::open(path).ok().map(BufReader::new);
        }
        let read = reader
            .as_mut()
            .and_then(|reader| reader.read_line(&mut line).ok())
            .unwrap_or(0);
        // A line without its end is still being written.
        if read == 0 || !line.ends_with('\n') {
            thread::sleep(Duration::from_millis(10));
            continue;
        }
        if let Ok(event) = serde_json::from_str::<Value>(&line) {
            if let Some(text) = describe(&event) {
                println!("         {text}");
            }
            seen.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(event);
        }
        line.clear();
    }
}

/// A line for alerts and drops, nothing for other records.
fn describe(event: &Value) -> Option<String> {
    let text = |pointer: &str| {
        event
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("?")
    };
    let number = |pointer: &str| event.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let way = format!(
        "{} {}:{} → {}:{}",
        text("/proto"),
        text("/src_ip"),
        number("/src_port"),
        text("/dest_ip"),
        number("/dest_port")
    );
    match event["event_type"].as_str()? {
        "alert" => Some(format!(
            "eve alert  [{}] {:?} {}  {way}",
            number("/alert/signature_id"),
            text("/alert/signature"),
            text("/alert/action"),
        )),
        "drop" => Some(format!("eve drop   {}  {way}", text("/drop/reason"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn alerts_and_drops_are_shown_and_other_records_are_not() {
        let ends = json!({"proto": "TCP", "src_ip": "10.0.0.1", "src_port": 1, "dest_ip": "10.0.0.2", "dest_port": 2});
        let with = |more: Value| {
            let mut event = ends.clone();
            for (name, value) in more.as_object().expect("an object") {
                event[name] = value.clone();
            }
            describe(&event)
        };
        assert_eq!(
            with(
                json!({"event_type": "alert", "alert": {"signature_id": 7, "signature": "x", "action": "blocked"}})
            ),
            Some("eve alert  [7] \"x\" blocked  TCP 10.0.0.1:1 → 10.0.0.2:2".to_owned())
        );
        assert_eq!(
            with(json!({"event_type": "drop", "drop": {"reason": "rules"}})),
            Some("eve drop   rules  TCP 10.0.0.1:1 → 10.0.0.2:2".to_owned())
        );
        assert_eq!(with(json!({"event_type": "stats"})), None);
    }
}
