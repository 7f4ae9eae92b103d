//! What the kernel says of a process that runs: its state and its time on a CPU.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Clock ticks in `stat` are hundredths of a second on every Linux that userspace sees
/// (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// State of a process, proc_pid_stat(5) field 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// On a CPU, or waiting for one.
    Running,
    /// Waits for something that may never come.
    Sleeping,
    /// Inside the kernel, which will not be interrupted there.
    Uninterruptible,
    /// Stopped by a signal.
    Stopped,
    /// Stopped by a debugger.
    Traced,
    /// It has ended.
    Ended,
}

/// A process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What it does.
    pub state: RunState,
    /// How long it has been on a CPU in its life.
    pub cpu: Duration,
}

/// Open files about one process: they never tell of another one that has its number later.
#[derive(Debug)]
pub struct Vitals {
    stat: File,
    /// Absent in a kernel without scheduler statistics (CONFIG_SCHED_INFO).
    schedstat: Option<File>,
}

impl Vitals {
    /// Opens them. Of a process with several threads they tell about the first one.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self {
            stat: File::open(format!("/proc/{pid}/stat"))?,
            schedstat: File::open(format!("/proc/{pid}/schedstat")).ok(),
        })
    }

    /// This moment; `None` when the process is gone.
    pub fn sample(&self) -> Option<Sample> {
        // Room for the numbers of one process: 52 fields and a name of at most 64 bytes.
        let mut buffer = [0; 2048];
        let (state, in_ticks) = parse_stat(read(&self.stat, &mut buffer)?)?;
        let on_cpu = self.schedstat.as_ref().and_then(|file| {
            let text = read(file, &mut buffer)?;
            let nanoseconds = text.split_ascii_whitespace().next()?.parse().ok()?;
            Some(Duration::from_nanos(nanoseconds))
        });
        Some(Sample {
            state,
            cpu: on_cpu.unwrap_or(in_ticks),
        })
    }
}

fn read<'a>(file: &File, buffer: &'a mut [u8]) -> Option<&'a str> {
    let len = file.read_at(buffer, 0).ok()?;
    // Of the name, which may be in any encoding, only the end matters.
    let text = &buffer[..len];
    let from = text.iter().rposition(|&byte| byte == b')').unwrap_or(0);
    std::str::from_utf8(&text[from..]).ok()
}

/// State and CPU time out of what follows the name.
fn parse_stat(text: &str) -> Option<(RunState, Duration)> {
    let mut fields = text.strip_prefix(") ")?.split(' ');
    let state = match fields.next()? {
        "R" => RunState::Running,
        "S" => RunState::Sleeping,
        "T" => RunState::Stopped,
        "t" => RunState::Traced,
        "Z" | "X" => RunState::Ended,
        _ => RunState::Uninterruptible,
    };
    // Fields 14 and 15: in user mode and in the kernel.
    let user: u32 = fields.nth(10)?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((state, TICK * user.saturating_add(system)))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Instant;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    /// Ends with its test.
    struct Running(Child);

    impl Running {
        fn start(program: &str, arguments: &[&str]) -> Self {
            Self(Command::new(program).args(arguments).spawn().unwrap())
        }

        fn await_state(&self, vitals: &Vitals, wanted: RunState) -> Sample {
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                let sample = vitals.sample().unwrap();
                if sample.state == wanted {
                    return sample;
                }
                assert!(Instant::now() < deadline, "{sample:?}, not {wanted:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_process_is_seen_asleep_stopped_and_ended() {
        let mut child = Running::start("sleep", &["1000"]);
        let vitals = Vitals::of(child.0.id()).unwrap();
        child.await_state(&vitals, RunState::Sleeping);
        let pid = Pid::from_raw(child.0.id() as i32);
        kill(pid, Signal::SIGSTOP).unwrap();
        child.await_state(&vitals, RunState::Stopped);
        kill(pid, Signal::SIGKILL).unwrap();
        child.await_state(&vitals, RunState::Ended);
        child.0.wait().unwrap();
        assert_eq!(vitals.sample(), None);
    }

    #[test]
    fn time_on_a_cpu_is_counted_by_both_sources() {
        let child = Running::start("sh", &["-c", "while :; do :; done"]);
        let vitals = Vitals::of(child.0.id()).unwrap();
        let by_ticks = Vitals {
            schedstat: None,
            ..Vitals::of(child.0.id()).unwrap()
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        let enough = Duration::from_millis(100);
        while vitals.sample().unwrap().cpu < enough || by_ticks.sample().unwrap().cpu < enough {
            assert!(Instant::now() < deadline, "{:?}", vitals.sample());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(vitals.sample().unwrap().state, RunState::Running);
    }

    #[test]
    fn a_name_may_contain_anything() {
        let text = "7 (a) R (b) T 1 2 3 4 5 6 7 8 9 10 30 12 13";
        let from = text.rfind(')').unwrap();
        let parsed = parse_stat(&text[from..]);
        assert_eq!(parsed, Some((RunState::Stopped, TICK * 42)));
    }
}
