//! A worker's sandbox, tried from inside: this test program runs itself again, confines the
//! thread of one test there, and looks at how that process ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::*;
use crate::sys::shared_words::SharedWords;
use crate::worker::confinement;

/// Names the case for the process inside.
const CASE: &str = "SLUICE_CONFINED";
/// A case ends with this when what it tried was refused.
const REFUSED: i32 = 40;
/// And with this when it worked.
const WORKED: i32 = 41;

fn inside(case: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "sys::sandbox::tests::inside_the_sandbox"])
        .args(["--include-ignored", "--nocapture"])
        .env(CASE, case)
        .env("RUST_BACKTRACE", "1");
    command
}

/// `None` when this process may not confine another.
fn run(case: &str) -> Option<Output> {
    if !holds(Capability::CAP_SETUID) || !holds(Capability::CAP_NET_ADMIN) {
        println!("skipped: needs CAP_SETUID and CAP_NET_ADMIN");
        return None;
    }
    Some(inside(case).output().unwrap())
}

fn ends_by_code(case: &str, code: i32) {
    let Some(output) = run(case) else { return };
    assert_eq!(output.status.code(), Some(code), "{case}: {output:?}");
}

fn ends_by_signal(case: &str, signal: Signal) {
    let Some(output) = run(case) else { return };
    let ended = output.status.signal();
    assert_eq!(ended, Some(signal as i32), "{case}: {output:?}");
}

fn outcome<T, E>(result: &Result<T, E>) -> i32 {
    match result {
        Ok(_) => WORKED,
        Err(_) => REFUSED,
    }
}

#[test]
#[ignore = "the others run it in a process of its own"]
fn inside_the_sandbox() {
    let case = std::env::var(CASE).expect("a case");
    let (case, filtered) = match case.strip_prefix("unfiltered ") {
        Some(case) => (case, false),
        None => (case.as_str(), true),
    };
    let file = SharedWords::create(c"shared", 1).unwrap();
    let sockets = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .unwrap();
    let parent = nix::unistd::getppid();
    confinement::sandbox(Account::named("nobody").unwrap(), true, filtered)
        .enter(Support::of_kernel())
        .unwrap();
    let code = match case {
        "open" => outcome(&std::fs::File::open("/etc/passwd")),
        "create" => outcome(&std::fs::write("/tmp/sluice-sandbox-test", "x")),
        "connect" => outcome(&std::net::TcpStream::connect("127.0.0.1:9")),
        "listen" => outcome(&std::net::TcpListener::bind("127.0.0.1:0")),
        "spawn" => outcome(&Command::new("/bin/true").spawn()),
        "signal another" => outcome(&nix::sys::signal::kill(parent, None)),
        "become root" => outcome(&nix::unistd::setuid(0.into())),
        "raise a capability" => outcome(&caps::raise(
            None,
            CapSet::Effective,
            Capability::CAP_NET_RAW,
        )),
        "exec" => {
            let none = std::ptr::null();
            // SAFETY: the path is a C string, and no arguments and no environment are allowed.
            unsafe { libc::execve(c"/bin/true".as_ptr(), none, none) }
        }
        "ptrace" => {
            // SAFETY: makes the calling process traceable by its parent, and takes no memory.
            (unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }) as i32
        }
        "executable memory" => {
            // SAFETY: a new mapping that nothing uses.
            let mapped = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    libc::PROT_READ | libc::PROT_EXEC,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            i32::from(mapped == libc::MAP_FAILED)
        }
        "panic" => panic!("on purpose"),
        "abort" => std::process::abort(),
        "out of memory" => {
            std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u8; 1 << 20]>())
        }
        "overflow" => i32::from(deeper(0) == 7),
        "fault" => {
            // SAFETY: not at all: the process shall end here.
            unsafe { std::ptr::null::<u8>().read_volatile() }.into()
        }
        "work" => {
            work(&file, sockets);
            WORKED
        }
        "wait" => {
            println!("\nready {}", file.as_fd().as_raw_fd());
            io::stdout().flush().unwrap();
            let _ = io::stdin().read(&mut [0]);
            WORKED
        }
        other => panic!("unknown case {other}"),
    };
    std::process::exit(code);
}

/// Without an end.
fn deeper(depth: u64) -> u64 {
    if depth == u64::MAX {
        return 0;
    }
    let ballast = std::hint::black_box([depth; 64]);
    deeper(depth + 1) + ballast[7]
}

/// What workers do while they run.
fn work(shared: &SharedWords, (one, other): (OwnedFd, OwnedFd)) {
    // The heap grows by brk, by maps of their own, and shrinks again.
    let mut grown = Vec::new();
    for size in [10, 1000, 100_000, 10_000_000, 100_000_000_usize] {
        grown.push(vec![1_u8; size]);
    }
    grown[4].extend_from_slice(&[2; 50_000_000]);
    assert_eq!(grown[4].len(), 150_000_000);
    drop(grown);
    process_calls();
    // Files come from the supervisor and are mapped.
    let file = shared.as_fd();
    let rights = [file.as_raw_fd()];
    nix::sys::socket::sendmsg::<()>(
        one.as_raw_fd(),
        &[io::IoSlice::new(b"here")],
        &[nix::sys::socket::ControlMessage::ScmRights(&rights)],
        nix::sys::socket::MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .unwrap();
    let (_, mut files) = crate::sys::descriptors::receive(&other, &mut [0; 16]).unwrap();
    let mapped = SharedWords::map(files.remove(0)).unwrap();
    mapped.words()[0].store(7, std::sync::atomic::Ordering::Relaxed);
    let word = shared.words()[0].load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(word, 7);
    let mut copy = std::fs::File::from(file.try_clone_to_owned().unwrap());
    std::os::unix::fs::FileExt::write_all_at(&copy, b"flow", 0).unwrap();
    copy.write_all(b"flows").unwrap();
    copy.set_len(8).unwrap();
    assert_eq!(copy.metadata().unwrap().len(), 8);
    log::warn!("still able to say so");
    eprintln!("and to print");
}

fn process_calls() {
    crate::sys::process::random_words().unwrap();
    crate::sys::process::set_name("sluice-test");
    assert!(crate::sys::process::monotonic_ns() > 0);
    std::thread::sleep(Duration::from_millis(1));
    std::thread::yield_now();
}

#[test]
fn a_confined_process_opens_no_file_and_lives() {
    for case in ["open", "create"] {
        ends_by_code(case, REFUSED);
    }
}

#[test]
fn a_call_that_workers_do_not_need_kills_the_process() {
    for case in [
        "connect",
        "listen",
        "spawn",
        "exec",
        "ptrace",
        "become root",
        "raise a capability",
        "signal another",
        "executable memory",
    ] {
        ends_by_signal(case, Signal::SIGSYS);
    }
}

#[test]
fn without_the_filter_user_capabilities_and_landlock_refuse_the_same() {
    let landlock = Support::of_kernel().landlock.unwrap_or(0);
    let mut cases = vec!["become root", "raise a capability", "signal another"];
    if landlock >= 1 {
        cases.extend(["open", "create", "spawn"]);
    }
    if landlock >= 4 {
        cases.extend(["connect", "listen"]);
    }
    for case in cases {
        ends_by_code(&format!("unfiltered {case}"), REFUSED);
    }
}

#[test]
fn a_confined_process_can_do_its_work() {
    ends_by_code("work", WORKED);
}

#[test]
fn a_confined_process_still_ends_as_any_other_and_says_why() {
    for (case, signal, said) in [
        ("abort", Signal::SIGABRT, ""),
        ("out of memory", Signal::SIGABRT, "memory allocation of"),
        ("overflow", Signal::SIGABRT, "has overflowed its stack"),
        ("fault", Signal::SIGSEGV, ""),
    ] {
        ends_by_signal(case, signal);
        let Some(output) = run(case) else { return };
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(log.contains(said), "{case}: {log}");
    }
    let Some(output) = run("panic") else { return };
    assert_eq!(output.status.code(), Some(101), "{output:?}");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("on purpose"), "{log}");
}

#[test]
fn a_supervisor_with_cap_sys_ptrace_fetches_descriptors_from_a_confined_process() {
    if run("work").is_none() {
        return;
    }
    let mut child = inside("wait")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let number = lines.find_map(|line| line.unwrap().strip_prefix("ready ")?.parse().ok());
    let number: libc::c_int = number.expect("the descriptor's number");
    // SAFETY: both calls take numbers and return a descriptor of this process or an error.
    let fetched = unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, child.id(), 0);
        libc::syscall(libc::SYS_pidfd_getfd, pidfd, number, 0)
    };
    assert!(fetched >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel has just made it for this process; nothing else owns it.
    let fetched = unsafe { OwnedFd::from_raw_fd(fetched as libc::c_int) };
    assert_eq!(SharedWords::map(fetched).unwrap().words().len(), 1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    assert!(status.contains("Seccomp:"), "root still sees it");
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(WORKED));
}
