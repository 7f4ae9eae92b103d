//! Finds the compiled eBPF programs, which the library embeds, and libhs, which it uses where
//! there is one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::exit;

/// Names a prebuilt object (for packagers).
const OBJECT_VARIABLE: &str = "IPS_EBPF_OBJECT";
/// Where `cargo xtask build` leaves the object, inside the target directory.
const BUILT_OBJECT: &str = "bpf/bpfel-unknown-none/release/sluice";

/// Says no to libhs though there is one: to measure or test what remains.
const WITHOUT_LIBHS: &str = "SLUICE_WITHOUT_LIBHS";

fn main() {
    libhs();
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

/// Hyperscan, or Vectorscan, which has the same interface under the same name. 5.2 is the first
/// with `hs_compile_lit_multi`.
fn libhs() {
    println!("cargo::rustc-check-cfg=cfg(libhs)");
    println!("cargo::rerun-if-env-changed={WITHOUT_LIBHS}");
    if env::var_os(WITHOUT_LIBHS).is_some_and(|value| !value.is_empty()) {
        return;
    }
    match pkg_config::Config::new()
        .atleast_version("5.2")
        .probe("libhs")
    {
        Ok(_) => println!("cargo::rustc-cfg=libhs"),
        Err(error) => println!(
            "cargo::warning=without libhs, patterns are searched more slowly (install \
             libhyperscan-dev, or libvectorscan-dev): {}",
            error.to_string().lines().next().unwrap_or_default()
        ),
    }
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
