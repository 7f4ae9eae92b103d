//! Reads pcap and pcapng files, as far as they can be read.
//!
//! The collections hold files that were damaged on purpose: what was read before the damage is
//! used, and the damage is reported.

/// One packet as captured.
pub struct Captured {
    pub link_type: u32,
    pub bytes: Vec<u8>,
}

/// All packets of a file, and why it could not be read to its end.
pub fn read(file: &[u8]) -> (Vec<Captured>, Option<String>) {
    let mut packets = Vec::new();
    let end = match file.first_chunk::<4>() {
        Some([0x0a, 0x0d, 0x0d, 0x0a]) => read_pcapng(file, &mut packets),
        Some(&magic) => read_pcap(magic, file, &mut packets),
        None => Err(format!("only {} bytes", file.len())),
    };
    (packets, end.err())
}

/// Numbers in the byte order of the file.
#[derive(Clone, Copy)]
struct Order {
    little: bool,
}

impl Order {
    fn u32(self, bytes: &[u8], offset: usize) -> Option<u32> {
        let word = *bytes.get(offset..)?.first_chunk::<4>()?;
        Some(if self.little {
            u32::from_le_bytes(word)
        } else {
            u32::from_be_bytes(word)
        })
    }

    fn u16(self, bytes: &[u8], offset: usize) -> Option<u16> {
        let word = *bytes.get(offset..)?.first_chunk::<2>()?;
        Some(if self.little {
            u16::from_le_bytes(word)
        } else {
            u16::from_be_bytes(word)
        })
    }
}

fn read_pcap(magic: [u8; 4], file: &[u8], packets: &mut Vec<Captured>) -> Result<(), String> {
    let (little, record_len) = match u32::from_le_bytes(magic) {
        0xa1b2_c3d4 | 0xa1b2_3c4d => (true, 16),
        0xd4c3_b2a1 | 0x4d3c_b2a1 => (false, 16),
        // Kuznetzov's variant of libpcap.
        0xa1b2_cd34 => (true, 24),
        0x34cd_b2a1 => (false, 24),
        other => return Err(format!("unknown magic {other:#010x}")),
    };
    let order = Order { little };
    // The upper bits say how long the frame check sequence is.
    let link_type = order.u32(file, 20).ok_or("cut in the file header")? & 0x03ff_ffff;
    let mut rest = &file[24..];
    while !rest.is_empty() {
        let len = order.u32(rest, 8).ok_or("cut in a record header")? as usize;
        let bytes = rest
            .get(record_len..)
            .and_then(|body| body.get(..len))
            .ok_or_else(|| format!("cut in a record of {len} bytes"))?;
        packets.push(Captured {
            link_type,
            bytes: bytes.to_vec(),
        });
        rest = &rest[record_len + len..];
    }
    Ok(())
}

fn read_pcapng(file: &[u8], packets: &mut Vec<Captured>) -> Result<(), String> {
    let mut order = Order { little: true };
    let mut link_types = Vec::new();
    let mut rest = file;
    while !rest.is_empty() {
        let kind = order.u32(rest, 0).ok_or("cut in a block header")?;
        if kind == 0x0a0d_0d0a {
            // Section header: the byte order may change, and interfaces count from zero again.
            let magic = rest.get(8..12).ok_or("cut in a section header")?;
            order.little = match magic {
                [0x4d, 0x3c, 0x2b, 0x1a] => true,
                [0x1a, 0x2b, 0x3c, 0x4d] => false,
                _ => return Err("unknown byte order".to_owned()),
            };
            link_types.clear();
        }
        let len = order.u32(rest, 4).ok_or("cut in a block header")? as usize;
        if len < 12 || !len.is_multiple_of(4) {
            return Err(format!("block of {len} bytes"));
        }
        let block = rest
            .get(..len)
            .ok_or_else(|| format!("cut in a block of {len} bytes"))?;
        let body = &block[8..len - 4];
        match kind {
            1 => {
                let link_type = order.u16(body, 0).ok_or("short interface block")?;
                link_types.push(u32::from(link_type));
            }
            // Enhanced and obsolete packet block.
            2 | 6 => {
                let interface = if kind == 6 {
                    order.u32(body, 0)
                } else {
                    order.u16(body, 0).map(u32::from)
                };
                let interface = interface.ok_or("short packet block")? as usize;
                let captured = order.u32(body, 12).ok_or("short packet block")? as usize;
                let bytes = body
                    .get(20..)
                    .and_then(|data| data.get(..captured))
                    .ok_or("packet longer than its block")?;
                packets.push(Captured {
                    link_type: *link_types.get(interface).ok_or("unknown interface")?,
                    bytes: bytes.to_vec(),
                });
            }
            // Simple packet block.
            3 => {
                let original = order.u32(body, 0).ok_or("short packet block")? as usize;
                let data = &body[4..];
                packets.push(Captured {
                    link_type: *link_types.first().ok_or("unknown interface")?,
                    bytes: data[..original.min(data.len())].to_vec(),
                });
            }
            _ => {}
        }
        rest = &rest[len..];
    }
    Ok(())
}

/// The packet as an Ethernet frame: as it is, or what its link header is put around of with an
/// Ethernet header instead. A link type without an IP packet at a known place is wrapped whole,
/// which is as good a test as any other bytes.
pub fn as_ethernet(packet: &Captured) -> Vec<u8> {
    let bytes = &packet.bytes;
    let (ethertype, payload) = match packet.link_type {
        1 => return bytes.clone(),
        // NULL and LOOP
        0 | 108 => by_version(bytes.get(4..)),
        // Linux cooked, versions 1 and 2
        113 => cooked(bytes, 14, 16),
        276 => cooked(bytes, 0, 20),
        _ => by_version(Some(bytes)),
    };
    super::ethernet(&[], ethertype, payload)
}

fn by_version(ip: Option<&[u8]>) -> (u16, &[u8]) {
    let ip = ip.unwrap_or_default();
    match ip.first().map(|byte| byte >> 4) {
        Some(6) => (0x86dd, ip),
        _ => (0x0800, ip),
    }
}

fn cooked(bytes: &[u8], protocol: usize, payload: usize) -> (u16, &[u8]) {
    let order = Order { little: false };
    (
        order.u16(bytes, protocol).unwrap_or_default(),
        bytes.get(payload..).unwrap_or_default(),
    )
}
