//! What a careless or hostile program might say at the control socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::dice::Dice;

/// How long it listens for an answer, or stays silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// Says something by itself; whatever is answered is right, as long as others are heard.
pub(super) fn say(socket: PathBuf, seed: u64) {
    thread::spawn(move || {
        let mut dice = Dice::new(seed);
        let words = words(&mut dice);
        let said = UnixStream::connect(socket).and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.write_all(&words)?;
            if dice.within(0..=1) == 1 {
                stream.shutdown(std::net::Shutdown::Write)?;
            }
            stream.read(&mut [0; 4096])
        });
        // To be thrown out, or left without an answer, is what nonsense may expect.
        drop(said);
    });
}

fn words(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(dice.within(1..=4096)).unwrap_or(1)];
    dice.fill(&mut bytes);
    match dice.within(0..=4) {
        // Bytes without an end of line, or with some.
        0 => bytes,
        // A line that is too long.
        1 => vec![b'{'; 200_000],
        // Half a request.
        2 => b"{\"command\":\"sta".to_vec(),
        // A request with what does not belong there.
        3 => b"{\"command\":\"status\",\"x\":[[[[[[]]]]]]}\n".to_vec(),
        // Very deep.
        _ => [vec![b'['; 60_000], b"\n".to_vec()].concat(),
    }
}
