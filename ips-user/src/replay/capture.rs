//! Capture files: pcap and pcapng, packet by packet, as far as they can be read.
//!
//! References: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

use thiserror::Error;

/// A record that claims to be longer is damage, not a packet.
const LONGEST_PACKET: u32 = 256 << 10;
/// A block that claims to be longer is damage.
const LONGEST_BLOCK: u32 = 64 << 20;

/// Why there is no further packet although the file has not ended.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not begin as a capture does.
    #[error("neither pcap nor pcapng: it begins with {0:#010x}")]
    NotACapture(u32),
    /// It ends inside of something.
    #[error("cut off in packet {0}")]
    CutOff(u64),
    /// What cannot be.
    #[error("damaged at packet {0}: {1}")]
    Damaged(u64, &'static str),
}

/// A packet as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured<'a> {
    /// Its number in the file, from 1.
    pub number: u64,
    /// `LINKTYPE_…` of <https://www.tcpdump.org/linktypes.html>.
    pub link_type: u16,
    /// Microseconds since 1970.
    pub wall_us: i64,
    /// What was captured of it.
    pub bytes: &'a [u8],
    /// How long it was.
    pub original_len: u32,
}

/// A capture that is being read.
#[derive(Debug)]
pub struct Capture<R> {
    source: R,
    format: Format,
    number: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum Format {
    Pcap {
        order: Order,
        link_type: u16,
        nanoseconds: bool,
        record_header: usize,
    },
    PcapNg {
        order: Order,
        interfaces: Vec<Interface>,
    },
}

/// What pcapng says about an interface.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: u16,
    snap_len: u32,
    /// Ticks of a second.
    resolution: u64,
    /// Seconds that are added.
    offset_s: i64,
}

/// Byte order of the file.
#[derive(Clone, Copy, Debug)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        })
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        })
    }
}

/// Block types of pcapng.
mod block {
    pub(super) const SECTION: u32 = 0x0a0d_0d0a;
    pub(super) const INTERFACE: u32 = 1;
    pub(super) const OLD_PACKET: u32 = 2;
    pub(super) const SIMPLE_PACKET: u32 = 3;
    pub(super) const ENHANCED_PACKET: u32 = 6;
}

const BYTE_ORDER_MAGIC: [u8; 4] = [0x1a, 0x2b, 0x3c, 0x4d];

impl Capture<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read, or is no capture.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        Self::new(BufReader::with_capacity(1 << 20, File::open(path)?))
    }
}

impl<R: Read> Capture<R> {
    /// Reads the head of a capture.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(mut source: R) -> Result<Self, CaptureError> {
        let mut magic = [0; 4];
        let cut = |error: io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => CaptureError::CutOff(0),
            _ => error.into(),
        };
        source.read_exact(&mut magic).map_err(cut)?;
        let number = u32::from_be_bytes(magic);
        if number == block::SECTION {
            let mut capture = Self {
                source,
                format: Format::PcapNg {
                    order: Order::Little,
                    interfaces: Vec::new(),
                },
                number: 0,
                buffer: Vec::new(),
            };
            capture.section()?;
            return Ok(capture);
        }
        let (order, nanoseconds, record_header) = match number {
            0xa1b2_c3d4 => (Order::Big, false, 16),
            0xd4c3_b2a1 => (Order::Little, false, 16),
            0xa1b2_3c4d => (Order::Big, true, 16),
            0x4d3c_b2a1 => (Order::Little, true, 16),
            // A variant of early Linux distributions, with longer records.
            0xa1b2_cd34 => (Order::Big, false, 24),
            0x34cd_b2a1 => (Order::Little, false, 24),
            _ => return Err(CaptureError::NotACapture(number)),
        };
        let mut head = [0; 20];
        source.read_exact(&mut head).map_err(cut)?;
        // What stands above is the length of a frame check sequence.
        let link_type = order.u32(&head, 16).unwrap_or_default() as u16;
        Ok(Self {
            source,
            format: Format::Pcap {
                order,
                link_type,
                nanoseconds,
                record_header,
            },
            number: 0,
            buffer: Vec::new(),
        })
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read any further.
    pub fn next_packet(&mut self) -> Result<Option<Captured<'_>>, CaptureError> {
        match self.format {
            Format::Pcap {
                order,
                link_type,
                nanoseconds,
                record_header,
            } => self.record(order, link_type, nanoseconds, record_header),
            Format::PcapNg { .. } => self.next_block(),
        }
    }

    fn record(
        &mut self,
        order: Order,
        link_type: u16,
        nanoseconds: bool,
        record_header: usize,
    ) -> Result<Option<Captured<'_>>, CaptureError> {
        let mut header = [0; 24];
        if !self.fill(&mut header[..record_header])? {
            return Ok(None);
        }
        let field = |at| order.u32(&header, at).unwrap_or_default();
        let (seconds, fraction, len, original_len) = (field(0), field(4), field(8), field(12));
        if len > LONGEST_PACKET {
            return Err(CaptureError::Damaged(
                self.number + 1,
                "longer than any packet",
            ));
        }
        self.read_into_buffer(len as usize)?;
        self.number += 1;
        let micros = if nanoseconds {
            fraction / 1000
        } else {
            fraction
        };
        Ok(Some(Captured {
            number: self.number,
            link_type,
            wall_us: i64::from(seconds) * 1_000_000 + i64::from(micros),
            bytes: &self.buffer,
            original_len,
        }))
    }

    /// False at the end of the file.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<bool, CaptureError> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.source.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(CaptureError::CutOff(self.number + 1)),
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Grows with what is there, not with what is claimed.
    fn read_into_buffer(&mut self, len: usize) -> Result<(), CaptureError> {
        self.buffer.clear();
        let read = (&mut self.source)
            .take(len as u64)
            .read_to_end(&mut self.buffer)?;
        match read == len {
            true => Ok(()),
            false => Err(CaptureError::CutOff(self.number + 1)),
        }
    }

    fn next_block(&mut self) -> Result<Option<Captured<'_>>, CaptureError> {
        loop {
            let mut kind = [0; 4];
            if !self.fill(&mut kind)? {
                return Ok(None);
            }
            if u32::from_be_bytes(kind) == block::SECTION {
                self.section()?;
                continue;
            }
            let Format::PcapNg { order, .. } = self.format else {
                return Ok(None);
            };
            let kind = order.u32(&kind, 0).unwrap_or_default();
            self.block_body(order)?;
            match kind {
                block::INTERFACE => self.interface(order)?,
                block::ENHANCED_PACKET | block::OLD_PACKET | block::SIMPLE_PACKET => {
                    let found = self.packet(order, kind)?;
                    self.number += 1;
                    let (link_type, wall_us, from, len, original_len) = found;
                    return Ok(Some(Captured {
                        number: self.number,
                        link_type,
                        wall_us,
                        bytes: self.buffer.get(from..from + len).unwrap_or_default(),
                        original_len,
                    }));
                }
                _ => {}
            }
        }
    }

    /// Reads what follows the type of a block: its body is in the buffer then.
    fn block_body(&mut self, order: Order) -> Result<(), CaptureError> {
        let mut length = [0; 4];
        self.fill_surely(&mut length)?;
        let length = order.u32(&length, 0).unwrap_or_default();
        // Type, length, length again.
        let body = length.checked_sub(12).filter(|_| length <= LONGEST_BLOCK);
        let body = body.ok_or(CaptureError::Damaged(
            self.number + 1,
            "impossible block length",
        ))?;
        self.read_into_buffer(body as usize)?;
        self.fill_surely(&mut [0; 4])
    }

    fn fill_surely(&mut self, bytes: &mut [u8]) -> Result<(), CaptureError> {
        match self.fill(bytes)? {
            true => Ok(()),
            false => Err(CaptureError::CutOff(self.number + 1)),
        }
    }

    /// A section header: another byte order may begin, and other interfaces.
    fn section(&mut self) -> Result<(), CaptureError> {
        let mut head = [0; 8];
        self.fill_surely(&mut head)?;
        let order = match head.last_chunk::<4>() {
            Some(magic) if *magic == BYTE_ORDER_MAGIC => Order::Big,
            Some(&[d, c, b, a]) if [a, b, c, d] == BYTE_ORDER_MAGIC => Order::Little,
            _ => {
                return Err(CaptureError::Damaged(
                    self.number + 1,
                    "no byte order in a section",
                ));
            }
        };
        let length = order.u32(&head, 0).unwrap_or_default();
        // Type, length, byte order, length again.
        let rest = length.checked_sub(16).filter(|_| length <= LONGEST_BLOCK);
        let rest = rest.ok_or(CaptureError::Damaged(
            self.number + 1,
            "impossible block length",
        ))?;
        self.read_into_buffer(rest as usize)?;
        self.fill_surely(&mut [0; 4])?;
        self.format = Format::PcapNg {
            order,
            interfaces: Vec::new(),
        };
        Ok(())
    }

    fn interface(&mut self, order: Order) -> Result<(), CaptureError> {
        let body = &self.buffer;
        let (Some(link_type), Some(snap_len)) = (order.u16(body, 0), order.u32(body, 4)) else {
            return Err(CaptureError::Damaged(
                self.number + 1,
                "interface block cut short",
            ));
        };
        let mut interface = Interface {
            link_type,
            snap_len,
            resolution: 1_000_000,
            offset_s: 0,
        };
        let mut options = body.get(8..).unwrap_or_default();
        while let (Some(code), Some(len)) = (order.u16(options, 0), order.u16(options, 2)) {
            const END: u16 = 0;
            const TIME_RESOLUTION: u16 = 9;
            const TIME_OFFSET: u16 = 14;
            let len = usize::from(len);
            let Some(value) = options.get(4..4 + len) else {
                break;
            };
            match (code, value) {
                (END, _) => break,
                (TIME_RESOLUTION, &[power]) => interface.resolution = resolution(power),
                (TIME_OFFSET, value) if len == 8 => {
                    let halves = (order.u32(value, 0), order.u32(value, 4));
                    let (Some(a), Some(b)) = halves else { break };
                    let (high, low) = match order {
                        Order::Little => (b, a),
                        Order::Big => (a, b),
                    };
                    interface.offset_s = (u64::from(high) << 32 | u64::from(low)) as i64;
                }
                _ => {}
            }
            options = options
                .get(4 + len.next_multiple_of(4)..)
                .unwrap_or_default();
        }
        if let Format::PcapNg { interfaces, .. } = &mut self.format {
            interfaces.push(interface);
        }
        Ok(())
    }

    /// Link type, time, place in the buffer and original length of the packet in a block.
    fn packet(
        &self,
        order: Order,
        kind: u32,
    ) -> Result<(u16, i64, usize, usize, u32), CaptureError> {
        let damaged = |why| CaptureError::Damaged(self.number + 1, why);
        let body = &self.buffer;
        let field = |at| order.u32(body, at).ok_or(damaged("packet block cut short"));
        let Format::PcapNg { interfaces, .. } = &self.format else {
            return Err(damaged("no section"));
        };
        let interface = match kind {
            block::SIMPLE_PACKET => 0,
            block::OLD_PACKET => u32::from(order.u16(body, 0).unwrap_or_default()),
            _ => field(0)?,
        };
        let interface = interfaces.get(interface as usize);
        let interface = interface.ok_or(damaged("an interface that was not described"))?;
        if kind == block::SIMPLE_PACKET {
            let original = field(0)?;
            let bound = match interface.snap_len {
                0 => original,
                snap_len => original.min(snap_len),
            };
            let len = (bound as usize).min(body.len() - 4);
            return Ok((interface.link_type, 0, 4, len, original));
        }
        let ticks = u64::from(field(4)?) << 32 | u64::from(field(8)?);
        let (len, original) = (field(12)? as usize, field(16)?);
        if body.len() - 20 < len {
            return Err(damaged("longer than its block"));
        }
        let micros = u128::from(ticks) * 1_000_000 / u128::from(interface.resolution);
        let micros = i64::try_from(micros).unwrap_or(i64::MAX);
        let wall_us = micros.saturating_add(interface.offset_s.saturating_mul(1_000_000));
        Ok((interface.link_type, wall_us, 20, len, original))
    }
}

/// `if_tsresol`: a negative power of 10, or of 2 with the highest bit set.
fn resolution(power: u8) -> u64 {
    let (base, power) = match power & 0x80 {
        0 => (10u64, power),
        _ => (2, power & 0x7f),
    };
    base.checked_pow(u32::from(power)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
