//! `sluice launcher`: what `sluice run` starts; not for people.

use std::fs::File;
use std::os::fd::AsFd;

use anyhow::Context;

use crate::supervisor::launcher;

pub(super) fn run() -> anyhow::Result<()> {
    // The socket came as standard input, so that no descriptor number has to be agreed on.
    let socket = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("standard input")?;
    let nothing = File::open("/dev/null").context("/dev/null")?;
    nix::unistd::dup2_stdin(&nothing).context("standard input")?;
    launcher::run(socket)
}
