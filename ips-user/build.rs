//! Finds the compiled eBPF programs, which the library embeds.

use std::env;
use std::path::{Path, PathBuf};
use std::process::exit;

/// Names a prebuilt object (for packagers).
const OBJECT_VARIABLE: &str = "IPS_EBPF_OBJECT";
/// Where `cargo xtask build` leaves the object, inside the target directory.
const BUILT_OBJECT: &str = "bpf/bpfel-unknown-none/release/sluice";

fn main() {
    println!("cargo::rerun-if-env-changed={OBJECT_VARIABLE}");
    let object = match env::var_os(OBJECT_VARIABLE).filter(|value| !value.is_empty()) {
        Some(named) => PathBuf::from(named),
        None => target_directory().join(BUILT_OBJECT),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let Ok(object) = object.canonicalize() else {
        println!(
            "cargo::error=there are no compiled eBPF programs at {}: run `cargo xtask build`, or \
             let {OBJECT_VARIABLE} name a prebuilt object",
            object.display()
        );
        exit(1);
    };
    println!("cargo::rustc-env={OBJECT_VARIABLE}={}", object.display());
}

/// `OUT_DIR` is `<target directory>/[<triple>/]<profile>/build/<package>/out`.
fn target_directory() -> PathBuf {
    let out = env::var_os("OUT_DIR")
        .map(PathBuf::from)
        .unwrap_or_default();
    let above_profile = out.ancestors().nth(4).unwrap_or(Path::new("target"));
    let triple = env::var_os("TARGET").unwrap_or_default();
    match above_profile.parent() {
        Some(above) if above_profile.file_name() == Some(&*triple) => above.to_path_buf(),
        _ => above_profile.to_path_buf(),
    }
}
