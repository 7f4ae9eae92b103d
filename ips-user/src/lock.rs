//! Locks that tell whether somebody is running.

use std::fs::File;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// A program that was killed while it was starting another one may have left a child that holds
/// its files still: until the child has become that other program (fork(2), execve(2)), which takes
/// longer the busier the machine is.
const HELD_BY_CHILDREN: Duration = Duration::from_secs(2);
/// From one attempt to the next.
const TRY_EVERY: Duration = Duration::from_millis(5);

/// Locks a file that nobody else shall have locked.
///
/// # Errors
/// EAGAIN when somebody has, for two seconds on; those of flock(2).
pub(crate) fn lock(file: File) -> Result<Flock<File>, Errno> {
    lock_within(file, HELD_BY_CHILDREN)
}

fn lock_within(mut file: File, patience: Duration) -> Result<Flock<File>, Errno> {
    let began = Instant::now();
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EAGAIN)) if began.elapsed() < patience => file,
            Err((_, error)) => return Err(error),
        };
        sleep(TRY_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lets_go_soon_is_waited_for_and_who_stays_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let open = || File::create(directory.path().join("lock")).unwrap();
        let held = lock(open()).unwrap();
        let refused = lock_within(open(), Duration::from_millis(20));
        assert_eq!(refused.err(), Some(Errno::EAGAIN));
        let holder = std::thread::spawn(move || {
            sleep(Duration::from_millis(50));
            drop(held);
        });
        assert!(lock_within(open(), Duration::from_secs(60)).is_ok());
        holder.join().unwrap();
    }
}
