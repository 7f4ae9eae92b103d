//! What applications say, piece by piece: whatever it is, every transaction comes to its end; and of
//! what is told exactly, how the stream is cut makes no difference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::fuzzing::app;
use sluice_fuzz::Input;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let kind = input.u8();
    let mut pieces = Vec::new();
    while !input.is_empty() && pieces.len() < 64 {
        let to_server = input.u8() & 1 == 0;
        pieces.push((to_server, input.chunk()));
    }
    if kind & 1 == 1 {
        app::datagrams(&pieces);
        return;
    }
    let (protocol, whole) = app::stream(&pieces, usize::MAX);
    let (other, cut) = app::stream(&pieces, usize::from(kind >> 1) % 32 + 1);
    if app::is_indifferent_to_cuts(protocol) && protocol == other {
        assert_eq!(whole, cut);
    }
});
