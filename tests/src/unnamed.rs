//! A network namespace without a name, which is gone with its thread: for tests that need one
//! host and nothing around it.

use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

/// Runs `body` in a thread with a network namespace of its own, its loopback up; says why when
/// it cannot.
///
/// # Panics
/// When `body` does, or the namespace cannot be made.
pub fn in_namespace(test: &str, body: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: {test} needs root for its network namespace");
        return;
    }
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        sh("ip link set lo up");
        body();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A shell command in this thread's namespace; its output.
///
/// # Panics
/// When it cannot be started or fails.
pub fn sh(script: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", script])
        .output()
        .expect("a shell");
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}
