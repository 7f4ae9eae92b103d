//! What other processes say: requests and answers of the control socket, messages between
//! supervisor, launcher and workers, the record of a predecessor, the kernel's datagrams, what
//! tools print, what is asked of the rejecter, and memory that is shared with workers.
#![no_main]

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice::control::{Request, Response};
use sluice::desk::Desk;
use sluice::desk::hands::Hands;
use sluice::desk::watchlist::{Watch, Watchlist};
use sluice::fuzzing;
use sluice::metrics::snapshot::Snapshot;
use sluice::supervisor::feedback::FeedbackSocket;
use sluice::supervisor::message::{FromLauncher, ToLauncher, ToWorker};
use sluice::supervisor::seat::Seat;
use sluice_fuzz::Input;

/// A message that is understood can be passed on, and means the same then.
fn message<M: DeserializeOwned + Serialize>(bytes: &[u8]) -> Option<M> {
    let read: M = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&read).expect("a message");
    let again: M = serde_json::from_slice(&written).expect("what was written");
    assert_eq!(serde_json::to_vec(&again).expect("a message"), written);
    Some(read)
}

/// Puts bytes into memory that others share.
fn scribble(file: impl AsFd, bytes: &[u8]) {
    let file = File::from(file.as_fd().try_clone_to_owned().expect("a descriptor"));
    let len = file.metadata().expect("a file").len() as usize;
    let bytes = &bytes[..bytes.len().min(len)];
    file.write_all_at(bytes, 0).expect("memory");
}

fn feedback(bytes: &[u8]) {
    let (supervisor, workers) = FeedbackSocket::pair().expect("descriptors");
    let workers = File::from(workers.as_fd().try_clone_to_owned().expect("a descriptor"));
    use std::io::Write;
    let _ = (&workers).write(bytes);
    while let Ok(message) = supervisor.receive() {
        let _ = format!("{message:?}");
    }
}

fn desk(bytes: &[u8]) {
    let desk = Desk::create(4096).expect("memory");
    scribble(desk.files()[0], bytes);
    if let Some(in_hand) = desk.in_hand() {
        if let Ok(packet) = desk.packet(&in_hand, 65_535) {
            assert!(packet.len() <= 4096);
        }
        let _ = in_hand
            .key
            .map(|key| (key.ends(ips_common::Direction::LowToHigh), key.family));
    }
    let _ = (
        desk.command(),
        desk.mail(),
        desk.overload(),
        desk.last_result(),
    );
    let number = desk.give(sluice::desk::Command::HandOver);
    let _ = desk.answer(number);
    desk.clear_command();
    assert!(desk.command().is_none());
    desk.announce_mail();
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let kind = input.u8() % 15;
    let bytes = input.rest();
    match kind {
        0 => {
            message::<Request>(bytes);
        }
        1 => {
            message::<Response>(bytes);
        }
        2 => {
            message::<ToLauncher>(bytes);
        }
        3 => {
            message::<FromLauncher>(bytes);
        }
        4 => {
            message::<ToWorker>(bytes);
        }
        5 => {
            if let Some(snapshot) = message::<Snapshot>(bytes) {
                assert!(!snapshot.to_string().is_empty());
            }
        }
        6 => fuzzing::supervisor::record(bytes),
        7 => {
            fuzzing::nfqueue::messages(bytes);
        }
        8 => {
            fuzzing::queue_truth(&String::from_utf8_lossy(bytes));
        }
        9 => fuzzing::netfilter::iptables_saved(&String::from_utf8_lossy(bytes)),
        10 => {
            if let Ok(listing) = serde_json::from_slice(bytes) {
                fuzzing::netfilter::nft_listing(&listing);
            }
        }
        11 => {
            fuzzing::rejecter::check(bytes);
        }
        12 => feedback(bytes),
        13 => desk(bytes),
        _ => {
            let list = Watchlist::create().expect("memory");
            scribble(&list, bytes);
            let salvaged = list.salvage();
            let mut watch = Watch::new(&list);
            for flow in salvaged.iter().take(3) {
                let _ = watch.standing(&flow.key);
            }
            list.publish(&salvaged);
            let read = list.read().expect("nobody changes it");
            assert_eq!(read.len(), salvaged.len());
            let hands = Hands::create().expect("memory");
            let _ = (hands.of(Seat::Backup).key(), hands.workers().count());
        }
    }
});
