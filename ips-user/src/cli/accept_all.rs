//! `sluice accept-all`: serves one queue and accepts everything. Hidden; what the transport
//! benchmark measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::config::Transport;
use crate::source::crate_nfq::CrateQueue;
use crate::source::nfqueue::{NfQueue, QueueSocket};
use crate::source::{Inspector, Packet, PacketId, PacketQueue, QueueOptions, Verdict};
use crate::sys::process::bind_to_cpu;

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
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("signals")?;
    }
    if let Some(cpu) = args.cpu {
        bind_to_cpu(cpu).with_context(|| format!("run on CPU {cpu}"))?;
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
