//! Processes: fork, identity, CPU, clock.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, UsageWho, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, Pid};

/// CLOCK_MONOTONIC in nanoseconds, the clock of `bpf_ktime_get_ns`.
pub fn monotonic_ns() -> u64 {
    // The clock exists on every Linux; the call cannot fail with a valid clock id.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
    })
}

/// Microseconds since 1970-01-01 00:00 UTC.
pub fn wall_us() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as i64)
}

/// Offset of local time from UTC in seconds; zero when it cannot be told, as in a process with
/// several threads.
pub fn utc_offset_s() -> i32 {
    time::UtcOffset::current_local_offset().map_or(0, time::UtcOffset::whole_seconds)
}

/// 128 random bits. Opens no file: workers cannot.
///
/// # Errors
/// When getrandom(2) fails.
pub fn random_words() -> io::Result<[u64; 2]> {
    let mut words = [0_u64; 2];
    let bytes = size_of_val(&words);
    // SAFETY: the pointer and length describe `words`, which outlives the call.
    let filled = unsafe { libc::getrandom(words.as_mut_ptr().cast(), bytes, 0) };
    // Up to 256 bytes come whole (getrandom(2)).
    match usize::try_from(filled) {
        Ok(filled) if filled == bytes => Ok(words),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits until this thread is the only one: the kernel lists a thread for a moment after another
/// has joined it. Gives up after `patience`; whoever needs it finds out.
///
/// # Errors
/// When /proc cannot be read.
pub fn settle_threads(patience: std::time::Duration) -> io::Result<()> {
    let since = std::time::Instant::now();
    while thread_count()? > 1 && since.elapsed() < patience {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(())
}

/// Threads of this process.
///
/// # Errors
/// When /proc cannot be read.
pub fn thread_count() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

/// Has this process killed when its parent ends.
///
/// # Errors
/// When the kernel refuses, which it never does.
pub fn end_with_parent() -> io::Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)
}

/// Makes this process the first to be killed when memory runs out.
///
/// # Errors
/// When /proc cannot be written.
pub fn be_first_out_of_memory() -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", "1000")
}

/// The most memory that this process has had so far, in bytes.
pub fn peak_memory() -> u64 {
    let usage = nix::sys::resource::getrusage(UsageWho::RUSAGE_SELF);
    // getrusage(2): in kilobytes.
    usage.map_or(0, |usage| usage.max_rss() as u64 * 1024)
}

/// Forks. In the child runs `child`, whose return value is the exit status.
///
/// # Errors
/// When fork(2) fails, or when the process has more than one thread: a child of such a process
/// could find locks held by threads that it does not have.
pub fn fork(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    let threads = thread_count()?;
    if threads != 1 {
        return Err(io::Error::other(format!(
            "fork in a process with {threads} threads"
        )));
    }
    // SAFETY: the process has one thread (checked above), so the child's memory is consistent.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            // No destructors or exit handlers of the parent's: they would run twice.
            // SAFETY: _exit is async-signal-safe and does not return.
            unsafe { libc::_exit(status.unwrap_or(PANICKED)) }
        }
    }
}

/// The same; the child has only standard input, output and error, and copies of `keep` under the
/// same numbers. It must use no other descriptor of the parent's.
///
/// # Errors
/// As [`fork`].
pub fn fork_with_only(keep: &[BorrowedFd<'_>], child: impl FnOnce() -> i32) -> io::Result<Pid> {
    fork(|| match close_all_but(keep) {
        Ok(()) => child(),
        Err(error) => {
            log::error!("closing the launcher's descriptors: {error}");
            1
        }
    })
}

/// For a child that has just been forked.
fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let open: Vec<RawFd> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let kept =
        |fd: &RawFd| *fd <= libc::STDERR_FILENO || keep.iter().any(|it| it.as_raw_fd() == *fd);
    for fd in open.into_iter().filter(|fd| !kept(fd)) {
        // The list holds the descriptor that it was read by, which is closed already.
        // SAFETY: a copy that came with the fork; the caller's child uses only what is kept, and
        // runs no destructors of the parent's.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Exit status of a forked child that panicked, as of a Rust program.
pub const PANICKED: i32 = 101;

/// Binds the calling thread to one CPU.
///
/// # Errors
/// When the CPU does not exist or is not in the process's cpuset.
pub fn bind_to_cpu(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Sets the scheduling priority of the calling thread and of what it starts, -20 to 19. Below zero
/// needs CAP_SYS_NICE.
///
/// # Errors
/// When the kernel refuses.
pub fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: setpriority(2) takes numbers only; 0 is the calling thread.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// For threads and processes whose work is not urgent, and who were started by one whose work is:
/// the usual priority, or the lower one that they have.
pub fn take_usual_priority() {
    // SAFETY: getpriority(2) takes numbers only; 0 is the calling thread. -1 is a priority as well
    // as an error, and both ask for the same.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    if nice < 0
        && let Err(error) = set_nice(0)
    {
        log::warn!("scheduling priority 0: {error}");
    }
}

/// Has the allocator keep up to this many bytes that are freed at the end of the heap, and take
/// blocks up to that size from the heap. Buffers of streams grow and shrink with every window:
/// by default (mallopt(3)) each megabyte that comes and goes is given back to the kernel, and
/// zeroed and mapped page by page when it is asked for again, which costs a stream half of its
/// throughput.
pub fn keep_freed_memory(bytes: i32) {
    #[cfg(target_env = "gnu")]
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: mallopt(3) takes numbers only.
        if unsafe { libc::mallopt(parameter, bytes) } != 1 {
            log::warn!("the allocator does not keep {bytes} freed bytes");
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}

/// `OOM_SCORE_ADJ_MAX` (linux/oom.h).
const MOST_OOM_SCORE: i32 = 1000;

/// Sets how much the kernel's OOM killer prefers this process, -1000 (never) to 1000 (first),
/// and what it starts from now on: proc_pid_oom_score_adj(5). To lower it needs
/// CAP_SYS_RESOURCE.
///
/// # Errors
/// When the kernel refuses.
pub fn set_oom_score(adjustment: i32) -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", adjustment.to_string())
}

/// Has the OOM killer prefer this process by so much more than it does, which is what it was
/// before its fork. That needs no capability.
///
/// # Errors
/// When the kernel refuses.
pub fn raise_oom_score(by: i32) -> io::Result<()> {
    let now = fs::read_to_string("/proc/self/oom_score_adj")?;
    let now: i32 = now.trim().parse().map_err(io::Error::other)?;
    set_oom_score(now.saturating_add(by).min(MOST_OOM_SCORE))
}

/// Lets the calling process use at most `bytes` more memory of its own than it does now
/// (`RLIMIT_DATA`, which since Linux 4.7 covers all private writable mappings).
///
/// # Errors
/// When /proc cannot be read, or the kernel refuses.
pub fn limit_memory(bytes: u64) -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let now =
        data_bytes(&status).ok_or_else(|| io::Error::other("no VmData in /proc/self/status"))?;
    // Whoever started this process may have set a lower bound.
    let (_, most) = getrlimit(Resource::RLIMIT_DATA)?;
    let limit = now.saturating_add(bytes).min(most);
    Ok(setrlimit(Resource::RLIMIT_DATA, limit, limit)?)
}

/// What counts against `RLIMIT_DATA` (proc_pid_status(5)).
fn data_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmData:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// The CPUs that this process may use, ascending.
pub fn usable_cpus() -> Vec<usize> {
    sched_getaffinity(Pid::from_raw(0)).map_or_else(
        |_| vec![0],
        |set| {
            (0..CpuSet::count())
                .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
                .collect()
        },
    )
}

/// Names the process in ps and top; at most 15 bytes are kept.
pub fn set_name(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name) {
        // Only cosmetic: a failure changes nothing.
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// When a process started, in clock ticks since boot: with the pid it identifies a process.
/// `None` when there is no such process (or it is a zombie, which can do nothing any more).
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc_pid_stat(5): start time is field 22; the state is field 3.
    live_fields(&stat)?.nth(18)?.parse().ok()
}

/// Whether a process is called that, as far as the kernel keeps it (15 bytes).
pub fn has_name(pid: u32, name: &str) -> bool {
    let kept = fs::read_to_string(format!("/proc/{pid}/comm"));
    kept.is_ok_and(|kept| name.starts_with(kept.trim_end()))
}

/// The processes of a process group whose names begin with `prefix`; no zombies.
pub fn group_members(group: u32, prefix: &str) -> Vec<u32> {
    let member = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let named = stat.split_once('(')?.1.starts_with(prefix);
        // proc_pid_stat(5): the process group is field 5; the state is field 3.
        let group_of: u32 = live_fields(&stat)?.nth(1)?.parse().ok()?;
        (named && group_of == group).then_some(())
    };
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| member(pid).is_some())
        .collect()
}

/// The fields of a process's `stat` after its state; `None` for a zombie.
fn live_fields(stat: &str) -> Option<std::str::Split<'_, char>> {
    // The command name may contain anything; the fields begin after its last parenthesis.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    (state != "Z" && state != "X").then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_has_a_start_time_and_a_dead_one_has_none() {
        assert!(start_time(std::process::id()).is_some());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(start_time(pid), None);
    }

    #[test]
    fn the_memory_in_use_is_read_from_the_status() {
        let status = "Name:\tx\nVmData:\t    1204 kB\nVmStk:\t 132 kB\n";
        assert_eq!(data_bytes(status), Some(1204 * 1024));
        assert_eq!(data_bytes("VmStk:\t 132 kB\n"), None);
    }

    #[test]
    fn fork_is_refused_while_other_threads_exist() {
        // The test harness itself runs several threads.
        let result = fork(|| 0);
        assert!(result.unwrap_err().to_string().contains("threads"));
    }
}
