//! `sluice accept-all`: serves one queue and accepts everything. Hidden; what the transport
//! benchmark measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;

use crate::source::crate_nfq::CrateQueue;
use crate::source::nfqueue::{NfQueue, QueueSocket};
use crate::source::{Inspector, Packet, PacketId, PacketQueue, QueueOptions, Verdict};

/// Arguments of `sluice accept-all`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AcceptAllArgs {
    /// Queue number.
    #[arg(long)]
    pub(super) queue: u16,
    /// Which transport serves it.
    #[arg(long, value_enum, default_value_t = Transport::Batched)]
    pub(super) transport: Transport,
    /// CPU to run on; any when absent.
    #[arg(long)]
    pub(super) cpu: Option<usize>,
    /// Most packets of one receive call (batched).
    #[arg(long, default_value_t = 64)]
    pub(super) batch: usize,
    /// Packets that may wait in the kernel.
    #[arg(long, default_value_t = 4096)]
    pub(super) max_length: u32,
    /// Bytes of receive buffer (batched).
    #[arg(long, default_value_t = 8 << 20)]
    pub(super) receive_buffer: usize,
}

/// The two implementations of [`PacketQueue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Transport {
    /// [`crate::source::nfqueue`].
    Batched,
    /// [`crate::source::crate_nfq`].
    Nfq,
}

struct AcceptAll;

impl Inspector for AcceptAll {
    fn batch(&mut self, _: PacketId, _: usize) {}

    fn packet(&mut self, _: Packet<'_>) -> Verdict {
        Verdict::ACCEPT
    }
}

/// Serves until SIGINT or SIGTERM, then prints the counters as one line of JSON.
///
/// # Errors
/// When the queue cannot be bound, or its socket fails.
pub(super) fn run(args: &AcceptAllArgs) -> Result<()> {
    let stop = stop_on_signal()?;
    if let Some(cpu) = args.cpu {
        let mut cpus = CpuSet::new();
        cpus.set(cpu)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus))
            .with_context(|| format!("run on CPU {cpu}"))?;
    }
    let options = QueueOptions {
        number: args.queue,
        max_length: args.max_length,
        receive_buffer: args.receive_buffer,
        copy_range: u16::MAX,
        fail_open: false,
        gso: true,
        batch: args.batch,
    };
    match args.transport {
        Transport::Batched => {
            let socket = QueueSocket::open(&options)?;
            if socket.receive_buffer() < options.receive_buffer {
                eprintln!(
                    "receive buffer: {} bytes granted of {}",
                    socket.receive_buffer(),
                    options.receive_buffer
                );
            }
            serve(NfQueue::new(socket.into_fd(), &options)?, &stop)
        }
        Transport::Nfq => serve(CrateQueue::open(&options)?, &stop),
    }
}

fn serve(mut queue: impl PacketQueue, stop: &AtomicBool) -> Result<()> {
    println!("ready");
    while !stop.load(Ordering::Relaxed) {
        queue.serve(Duration::from_millis(100), &mut AcceptAll)?;
    }
    let counters = queue.counters();
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("getrusage")?;
    let cpu = usage.user_time() + usage.system_time();
    println!(
        "{}",
        serde_json::json!({
            "received": counters.received,
            "batches": counters.batches,
            "accepted": counters.accepted,
            "dropped": counters.dropped,
            "replaced": counters.replaced,
            "undecodable": counters.undecodable,
            "overruns": counters.overruns,
            "refused": counters.refused,
            "cpu_us": cpu.num_microseconds(),
        })
    );
    Ok(())
}

/// A flag that SIGINT and SIGTERM set. Both are blocked in the calling thread, so that no
/// system call of it is interrupted in the middle of a batch.
fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("block signals")?;
    let stop = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&stop);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            // Fails for an invalid set only.
            let _ = signals.wait();
            shared.store(true, Ordering::Relaxed);
        })
        .context("start a thread")?;
    Ok(stop)
}
