//! Entry points of the eBPF programs; the packet's way through the stages is in `tc.rs` and
//! `xdp.rs` of the library.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::macros::{classifier, xdp};
    use aya_ebpf::programs::{TcContext, XdpContext};

    /// TC ingress: marks each packet for its worker.
    #[classifier]
    pub(super) fn sluice_tc(context: TcContext) -> i32 {
        ips_ebpf::tc::run(&context)
    }

    /// XDP: drops packets of convicted flows.
    #[xdp]
    pub(super) fn sluice_xdp(context: XdpContext) -> u32 {
        ips_ebpf::xdp::run(&context)
    }

    /// Never attached: shows what the parser makes of a packet.
    #[classifier]
    pub(super) fn sluice_probe(context: TcContext) -> i32 {
        ips_ebpf::probe::run(&context)
    }

    /// Some helpers may be called by GPL-compatible programs only.
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
    eprintln!("these programs run in the kernel; `cargo xtask build` builds them");
}
