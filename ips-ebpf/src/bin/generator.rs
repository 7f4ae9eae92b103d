//! Makes packets for load tests, one each time it runs. Not part of the product's object.
//!
//! Meant for `BPF_PROG_TEST_RUN` with `BPF_F_TEST_XDP_LIVE_FRAMES` (Linux 5.18): each frame is
//! sent out of the interface named in the test's context. The kernel recycles the pages of
//! the frames with everything that receivers wrote into them, and initialises them only once:
//! so the whole frame is written anew each time.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_TX};
    use aya_ebpf::helpers::bpf_get_prandom_u32;
    use aya_ebpf::macros::{map, xdp};
    use aya_ebpf::maps::Array;
    use aya_ebpf::programs::XdpContext;

    /// Bytes of a frame: Ethernet, IPv4 without options, UDP, and 18 bytes of payload: the
    /// shortest that Ethernet carries.
    const FRAME: usize = 60;
    /// Where the UDP source port is.
    const SOURCE_PORT: usize = 14 + 20;

    /// The frame to send but for its source port; UDP checksum zero (none).
    #[map(name = "TEMPLATE")]
    static TEMPLATE: Array<[u8; FRAME]> = Array::with_max_entries(1, 0);

    /// Sends the template from a random port: each frame a flow of its own.
    #[xdp]
    fn generator(context: XdpContext) -> u32 {
        let (start, end) = (context.data(), context.data_end());
        if start + FRAME > end {
            return XDP_ABORTED;
        }
        let Some(template) = TEMPLATE.get(0) else {
            return XDP_ABORTED;
        };
        // SAFETY: the helper has no preconditions.
        let random = unsafe { bpf_get_prandom_u32() };
        // Above the ports of well-known services.
        let port = (random as u16 | 0x0400).to_be_bytes();
        let frame = start as *mut [u8; FRAME];
        // SAFETY: `FRAME` bytes from `start` lie within the packet, as checked above; nothing
        // else refers to them while the program runs.
        unsafe {
            *frame = *template;
            (*frame)[SOURCE_PORT] = port[0];
            (*frame)[SOURCE_PORT + 1] = port[1];
        }
        XDP_TX
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        // The verifier refuses a program from which this is reachable.
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this program runs in the kernel: cargo xtask build");
}
