//! What the supervisor puts into the seat's channel: other rules and settings, taken over between
//! two batches. And how far its journal of sets has been read.

use std::io;
use std::os::fd::OwnedFd;

use anyhow::Context;

use super::Turn;
use crate::config::Config;
use crate::desk::journal::Reader;
use crate::detect::Image;
use crate::inspection::InspectionOptions;
use crate::supervisor::feedback::Message;
use crate::supervisor::message::Channel;
use crate::supervisor::message::ToWorker;

/// The seat's channel, and how far it has been read.
pub(super) struct Mail {
    channel: Channel,
    /// How many messages the desk had announced then.
    read: Option<u64>,
    /// Which rules and configuration the worker has.
    generation: u32,
    pub(super) sets: Reader,
}

impl Mail {
    pub(super) const fn new(channel: Channel, generation: u32, sets: Reader) -> Self {
        Self {
            channel,
            read: None,
            generation,
            sets,
        }
    }
}

impl Turn<'_> {
    /// Reads what there is. Costs one load when there is nothing.
    pub(super) fn read_mail(&mut self) -> anyhow::Result<()> {
        // Before the messages: for one that comes meanwhile the next turn looks again.
        let announced = self.desk.mail();
        // A worker that has just begun looks in any case: its predecessor's count is not its own.
        if self.mail.read == Some(announced) {
            return Ok(());
        }
        self.mail.read = Some(announced);
        loop {
            match self.mail.channel.receive() {
                Ok(Some((ToWorker::Reload { generation, config }, fds))) => {
                    let image = fds
                        .into_iter()
                        .next()
                        .context("a reload without an image")?;
                    self.reload(generation, *config, image)
                        .with_context(|| format!("taking over generation {generation}"))?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Without a supervisor the queue is served all the same.
                Ok(None) => return Ok(()),
                Err(error) => return Err(error).context("listening to the supervisor"),
            }
        }
    }

    /// Goes on with other rules and settings. Flows stay as they are, and what was decided about
    /// them.
    fn reload(&mut self, generation: u32, config: Config, image: OwnedFd) -> anyhow::Result<()> {
        // A process that was started meanwhile has it from the beginning.
        if generation != self.mail.generation {
            let image = Image::open(image)?;
            let present = self.inspection.options();
            let options = InspectionOptions {
                seed: present.seed,
                interfaces: present.interfaces.clone(),
                utc_offset_s: present.utc_offset_s,
                ..InspectionOptions::of_worker(&config).map_err(anyhow::Error::msg)?
            };
            self.inspection.reload(image.map()?, options);
            self.begin_sets_anew()?;
            self.guard.set_stale(config.stale().as_nanos() as u64);
            self.mail.generation = generation;
            self.config = config;
        }
        let loaded = Message::Loaded {
            seat: self.seat,
            pid: std::process::id(),
            generation,
        };
        // A supervisor that does not hear it has this process replaced.
        if let Err(error) = self.shared.feedback.send(loaded) {
            log::warn!("{}: generation {generation} is loaded: {error}", self.seat);
        }
        Ok(())
    }
}
