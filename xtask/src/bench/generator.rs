//! Runs the kernel-side packet generator (`ips-ebpf/src/bin/generator.rs`).

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::maps::Array;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use sluice_tests::frame::{hardware_address, internet_checksum};
use sluice_tests::{Lab, Namespace};

/// Bytes of a frame, without Ethernet's checksum.
pub(crate) const FRAME: usize = 60;
/// The discard service (RFC 863).
pub(crate) const PORT: u16 = 9;
/// Frames of one system call: a fraction of a second, so that the end can be timed.
const FRAMES_A_CALL: u32 = 1 << 16;
/// System calls a second at a limited rate: each costs some milliseconds by itself, and what
/// comes at once shall not wait for long.
const BURSTS_A_SECOND: f64 = 20.0;
/// Frames that the kernel runs and sends at a time; 64 is its default.
const FRAMES_A_BATCH: u32 = 64;

/// The loaded program, aimed from the lab's client at its server.
pub(crate) struct Generator {
    ebpf: Ebpf,
    client: Namespace,
    interface_index: u32,
}

impl Generator {
    /// Loads the program from its object file.
    pub(crate) fn load(object: &Path, lab: &Lab) -> Result<Self> {
        let bytes = std::fs::read(object).with_context(|| format!("read {}", object.display()))?;
        let mut ebpf = EbpfLoader::new()
            .load(&bytes)
            .with_context(|| format!("load {}", object.display()))?;
        let template = template(lab)?;
        let map = ebpf.map_mut("TEMPLATE").context("a map TEMPLATE")?;
        Array::<_, [u8; FRAME]>::try_from(map)?.set(0, template, 0)?;
        let program: &mut Xdp = ebpf
            .program_mut("generator")
            .context("a program generator")?
            .try_into()?;
        program.load().context("load the generator")?;
        let client = lab.client().clone();
        let interface_index =
            client.enter(|| nix::net::if_::if_nametoindex(Lab::CLIENT_INTERFACE))?;
        Ok(Self {
            ebpf,
            client,
            interface_index,
        })
    }

    /// Sends for so long, from the calling thread's CPU, and returns the number of frames. No
    /// more than `pace` frames a second, or as many as it can.
    pub(crate) fn run(&mut self, duration: Duration, pace: Option<f64>) -> Result<u64> {
        let program: &Xdp = self
            .ebpf
            .program("generator")
            .context("a program generator")?
            .try_into()?;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        let frame = u32::try_from(FRAME)?;
        let context: Vec<u8> = [0, frame, 0, self.interface_index, 0, 0]
            .iter()
            .flat_map(|field| field.to_ne_bytes())
            .collect();
        // The interface is looked up in the calling thread's namespace.
        self.client.enter(|| {
            let began = Instant::now();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "kept within the bounds of a call"
            )]
            let repeat = pace.map_or(FRAMES_A_CALL, |pace| {
                let burst = (pace / BURSTS_A_SECOND) as u32;
                burst.clamp(FRAMES_A_BATCH, FRAMES_A_CALL)
            });
            let mut frames = 0_u32;
            while began.elapsed() < duration {
                if let Some(pace) = pace
                    && Duration::from_secs_f64(f64::from(frames) / pace) > began.elapsed()
                {
                    std::thread::sleep(Duration::from_micros(100));
                    continue;
                }
                program
                    .test_run(TestRunOptions {
                        data_in: Some(&[0; FRAME]),
                        ctx_in: Some(&context),
                        repeat,
                        attrs: TestRunAttrs::new().xdp_live_frames(FRAMES_A_BATCH),
                        ..TestRunOptions::new()
                    })
                    .context("BPF_PROG_TEST_RUN with live frames (Linux 5.18)")?;
                frames += repeat;
            }
            Ok(u64::from(frames))
        })
    }
}

/// The whole frame; the program chooses the source port.
fn template(lab: &Lab) -> Result<[u8; FRAME]> {
    let to = hardware_address(lab.gateway(), Lab::GATEWAY_CLIENT_INTERFACE)?;
    let from = hardware_address(lab.client(), Lab::CLIENT_INTERFACE)?;
    let mut frame = [0; FRAME];
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14..34].copy_from_slice(&ipv4_header(lab.client_v4(), lab.server_v4())?);
    frame[36..38].copy_from_slice(&PORT.to_be_bytes());
    let udp_len = u16::try_from(FRAME - 34)?;
    frame[38..40].copy_from_slice(&udp_len.to_be_bytes());
    Ok(frame)
}

fn ipv4_header(from: Ipv4Addr, to: Ipv4Addr) -> Result<[u8; 20]> {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&u16::try_from(FRAME - 14)?.to_be_bytes());
    header[8] = 64;
    header[9] = 17;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let checksum = internet_checksum(&[&header]);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    Ok(header)
}
