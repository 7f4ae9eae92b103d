//! The kernel accepts the programs, with room to spare.

mod common_packets;

/// The kernel gives up after a million instructions; older verifiers follow more of them.
const COMFORTABLE: u32 = 300_000;

#[test]
fn the_verifier_accepts_every_program_with_room_to_spare() {
    let rig = rig!();
    for name in ["sluice_tc", "sluice_xdp", "sluice_probe"] {
        // Told since Linux 5.16.
        let verified = rig.verified(name).unwrap_or(0);
        println!("{name}: {verified} instructions verified");
        assert!(verified < COMFORTABLE, "{name}: {verified}");
    }
}
