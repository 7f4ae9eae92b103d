//! Frames as the kernel hands them to the programs.

use core::arch::asm;

use aya_ebpf::programs::{TcContext, XdpContext};

use crate::parse::{Packet, Wire};

/// The verifier follows packet offsets up to 65,535. Nothing that the key definition lets the
/// parser reach lies beyond: 22 bytes of Ethernet, twice 40 of IPv6 with eight extension headers
/// of 2048 each, and 8 of ICMP are under 33,000.
const MAX_OFFSET: usize = 0xf000;

/// Reads `T` from the memory between `data` and `data_end`.
#[inline(always)]
fn read_direct<T: Wire>(data: usize, data_end: usize, offset: usize) -> Option<T> {
    if offset > MAX_OFFSET {
        return None;
    }
    let start = advance(data, offset);
    if start + size_of::<T>() > data_end {
        return None;
    }
    // SAFETY: start to start + size_of::<T>() lies inside the packet, which the verifier proves
    // anew whenever the program is loaded; any bytes are a valid T (AnyBitPattern). `T` may be
    // unaligned there: BPF loads have no alignment rule of their own, and the kernel accepts
    // unaligned packet loads on every architecture that is efficient at them (x86-64, arm64,
    // s390x, ppc64) and refuses to load the program elsewhere.
    Some(unsafe { (start as *const T).read() })
}

/// `data + offset`, in a way that keeps the compiler from computing it twice: the verifier
/// believes a bounds check only of the very register that was checked.
#[inline(always)]
fn advance(mut data: usize, offset: usize) -> usize {
    // SAFETY: one addition; whoever reads there has to check the bounds.
    unsafe {
        asm!("{0} += {1}", inout(reg) data, in(reg) offset, options(pure, nomem, nostack));
    }
    data
}

/// See [`Packet::forget_origin`]: exclusive-or twice with a number that the verifier does not know.
#[inline(always)]
fn forget_origin(mut offset: usize, unknown: usize) -> usize {
    // SAFETY: two operations on a register, without any other effect; volatile or not does not
    // matter, but the compiler must not see that they cancel each other.
    unsafe {
        asm!(
            "{0} ^= {1}",
            "{0} ^= {1}",
            inout(reg) offset,
            in(reg) unknown,
            options(pure, nomem, nostack),
        );
    }
    offset & 0xffff
}

/// An skb at TC.
pub struct Skb<'a> {
    context: &'a TcContext,
    data: usize,
    data_end: usize,
}

impl<'a> Skb<'a> {
    /// The skb of a program run.
    #[inline(always)]
    pub fn new(context: &'a TcContext) -> Self {
        Self {
            data: context.data(),
            data_end: context.data_end(),
            context,
        }
    }
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn frame_len(&self) -> usize {
        self.context.len() as usize
    }

    #[inline(always)]
    fn load<T: Wire>(&self, offset: usize) -> Option<T> {
        match read_direct(self.data, self.data_end, offset) {
            Some(value) => Some(value),
            // Drivers put the headers they know into the linear part; what lies in page
            // fragments is copied out instead of being pulled, so that the skb stays as it is.
            None => self.context.load(offset).ok(),
        }
    }

    #[inline(always)]
    fn forget_origin(&self, offset: usize) -> usize {
        forget_origin(offset, self.frame_len())
    }
}

/// A frame at XDP; the program does not declare fragment support, so it is linear.
pub struct Frame {
    data: usize,
    data_end: usize,
}

impl Frame {
    /// The frame of a program run.
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        Self {
            data: context.data(),
            data_end: context.data_end(),
        }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn frame_len(&self) -> usize {
        self.data_end - self.data
    }

    #[inline(always)]
    fn load<T: Wire>(&self, offset: usize) -> Option<T> {
        read_direct(self.data, self.data_end, offset)
    }

    #[inline(always)]
    fn forget_origin(&self, offset: usize) -> usize {
        forget_origin(offset, self.frame_len())
    }
}
