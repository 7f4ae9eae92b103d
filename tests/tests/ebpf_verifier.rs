//! The kernel accepts the programs.

use aya::programs::Program;
use aya::{EbpfLoader, VerifierLogLevel};

#[test]
fn the_verifier_accepts_every_program() {
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .load(sluice::loader::OBJECT)
        .unwrap();
    for (name, program) in ebpf.programs_mut() {
        match program {
            Program::Xdp(p) => p.load().unwrap_or_else(|e| panic!("{name}: {e:?}")),
            Program::SchedClassifier(p) => p.load().unwrap_or_else(|e| panic!("{name}: {e:?}")),
            _ => unreachable!(),
        }
        println!(
            "{name}: {:?} insns verified {:?}",
            program.info().unwrap().verified_instruction_count(),
            program.info().unwrap().size_translated()
        );
    }
}
