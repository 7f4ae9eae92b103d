//! Capture files, as `sluice replay` reads them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::replay::capture::Capture;

fuzz_target!(|data: &[u8]| {
    let Ok(mut capture) = Capture::new(data) else {
        return;
    };
    let mut number = 0;
    let mut bytes = 0;
    while let Ok(Some(packet)) = capture.next_packet() {
        number += 1;
        assert_eq!(packet.number, number);
        bytes += packet.bytes.len();
    }
    assert!(bytes <= data.len());
});
