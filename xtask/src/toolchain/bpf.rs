//! The BPF toolchain: a compiler that has `core` for `bpfel-unknown-none`, and bpf-linker.
//!
//! In this order: a prebuilt object named by `IPS_EBPF_OBJECT`; rustup's nightly with rust-src;
//! Debian's rustc-web, whose package libstd-rust-web-dev-bpf brings `core` as LLVM bitcode.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};

use super::{debian, linker, nightly, search};
use crate::build::is_bpf_object;
use crate::workspace::{Workspace, clean_library_path};

/// The target all eBPF programs are built for.
const TARGET: &str = "bpfel-unknown-none";
/// Debian's compiler, whatever else PATH has under this name.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// The packages that bring it.
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];
/// The oldest compiler that builds the eBPF programs, `rust-version` of the workspace.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// Where the eBPF object comes from.
pub(crate) enum Source {
    /// `IPS_EBPF_OBJECT` names it.
    Prebuilt(PathBuf),
    /// It is built.
    Toolchain(Toolchain),
}

/// A compiler and a linker for BPF.
pub(crate) struct Toolchain {
    rustc: PathBuf,
    version: CompilerVersion,
    /// Whether `core` has to be compiled from source.
    build_core: bool,
    /// The bpf-linker.
    pub(crate) linker: PathBuf,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.rustc.display(), self.version)
    }
}

/// What `rustc -vV` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CompilerVersion {
    release: (u32, u32),
    llvm_major: u32,
}

impl fmt::Display for CompilerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.release;
        write!(f, "Rust {major}.{minor}, LLVM {}", self.llvm_major)
    }
}

impl CompilerVersion {
    /// Asks a compiler.
    pub(super) fn of(rustc: &Path) -> Option<Self> {
        let mut command = Command::new(rustc);
        clean_library_path(&mut command);
        let output = command.arg("-vV").output().ok()?;
        Self::parse(&String::from_utf8_lossy(&output.stdout))
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        Some(Self {
            release: release(value("release: ")?)?,
            llvm_major: value("LLVM version: ")?.split('.').next()?.parse().ok()?,
        })
    }
}

/// Major and minor of a version like `1.95.0` or `1.97.0-nightly`.
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Finds a BPF toolchain, installs what is missing of it where that is possible.
pub(crate) fn ensure(workspace: &Workspace) -> Result<Source> {
    if let Some(object) = env::var_os("IPS_EBPF_OBJECT") {
        let object = PathBuf::from(object);
        if !is_bpf_object(&object).context("IPS_EBPF_OBJECT")? {
            bail!(
                "IPS_EBPF_OBJECT: {} is not an eBPF object",
                object.display()
            );
        }
        return Ok(Source::Prebuilt(object));
    }
    if let Some(toolchain) = with_nightly() {
        return Ok(Source::Toolchain(toolchain));
    }
    let compiler = match debian_compiler() {
        Some(compiler) => compiler,
        None => install_compiler()?,
    };
    with_linker(workspace, &compiler).map(Source::Toolchain)
}

fn with_nightly() -> Option<Toolchain> {
    let linker = linker::find()?;
    let (rustc, version) = nightly::find()?;
    linker::starts(&linker).ok()?;
    if linker::llvm_major(&linker).is_some_and(|llvm| llvm < version.llvm_major) {
        return None;
    }
    Some(Toolchain {
        rustc,
        version,
        build_core: true,
        linker,
    })
}

/// Debian's compiler, if it is new enough and has `core` for BPF.
fn debian_compiler() -> Option<CompilerVersion> {
    let rustc = Path::new(DEBIAN_RUSTC);
    let version = CompilerVersion::of(rustc)?;
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .ok()?;
    let libraries = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let has_core = fs::read_dir(libraries)
        .ok()?
        .flatten()
        .any(|file| file.file_name().to_string_lossy().starts_with("libcore-"));
    (has_core && Some(version.release) >= release(OLDEST)).then_some(version)
}

fn install_compiler() -> Result<CompilerVersion> {
    eprintln!("The eBPF programs need a Rust compiler that has `core` for {TARGET}. Missing here:");
    for package in DEBIAN_PACKAGES {
        eprintln!("  {package}");
    }
    let obstacle = match debian::can_install() {
        Ok(()) => {
            debian::ensure_lists()?;
            if DEBIAN_PACKAGES
                .iter()
                .all(|package| debian::offers(package))
            {
                debian::install(&DEBIAN_PACKAGES)?;
                return debian_compiler().with_context(|| {
                    format!("{DEBIAN_RUSTC} is older than {OLDEST} or has no `core` for {TARGET}: is the security suite of your release in the apt sources?")
                });
            }
            "the package lists do not offer it; on Debian 12 it comes from the suite bookworm-security"
        }
        Err(obstacle) => obstacle,
    };
    print_commands(debian::Distribution::read() == debian::Distribution::Debian);
    bail!("no BPF compiler ({obstacle})");
}

/// bpf-linker for Debian's compiler, proven by compiling something.
fn with_linker(workspace: &Workspace, compiler: &CompilerVersion) -> Result<Toolchain> {
    let toolchain = |linker| Toolchain {
        rustc: DEBIAN_RUSTC.into(),
        version: compiler.clone(),
        build_core: false,
        linker,
    };
    let missing = match linker::find() {
        None => "it is not on PATH".to_owned(),
        Some(found) => {
            let candidate = toolchain(found);
            match candidate.works(workspace)? {
                Ok(()) => return Ok(candidate),
                Err(message) => format!(
                    "{} does not work with {candidate}: {message}",
                    candidate.linker.display()
                ),
            }
        }
    };
    eprintln!("bpf-linker links the eBPF programs; {missing}");
    install_linker(workspace, compiler.llvm_major)?;
    let installed = toolchain(linker::find().context("bpf-linker is not on PATH")?);
    match installed.works(workspace)? {
        Ok(()) => Ok(installed),
        Err(message) => bail!(
            "{} does not work with {installed}: {message}",
            installed.linker.display()
        ),
    }
}

fn install_linker(workspace: &Workspace, llvm_major: u32) -> Result<()> {
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm_major}"));
    let packages = [
        format!("llvm-{llvm_major}-dev"),
        format!("libpolly-{llvm_major}-dev"),
        "zlib1g-dev".to_owned(),
        // llvm-sys links the C++ runtime that LLVM was built with.
        "g++".to_owned(),
    ];
    if let Err(obstacle) = debian::can_install() {
        print_commands(debian::Distribution::read() == debian::Distribution::Debian);
        bail!("no bpf-linker ({obstacle})");
    }
    let present = prefix.join("bin/llvm-config").is_file()
        && prefix.join("lib/libPolly.a").is_file()
        && Path::new("/usr/include/zlib.h").is_file()
        && search::executable("c++").is_some();
    if !present {
        eprintln!(
            "Building it takes the LLVM libraries: {}",
            packages.join(" ")
        );
        debian::install(&packages.each_ref().map(String::as_str))?;
    }
    linker::install(workspace, llvm_major, &prefix)
}

/// What the user can type instead; every line runs as it stands.
fn print_commands(debian: bool) {
    let version = linker::VERSION;
    eprintln!("The BPF toolchain can be installed with:");
    if debian {
        eprintln!("  sudo apt-get update");
        eprintln!(
            "  sudo apt-get install --no-install-recommends {}",
            DEBIAN_PACKAGES.join(" ")
        );
        eprintln!("  LLVM=$({DEBIAN_RUSTC} -vV | sed -n 's/^LLVM version: \\([0-9]*\\).*/\\1/p')");
        eprintln!(
            "  sudo apt-get install --no-install-recommends llvm-$LLVM-dev libpolly-$LLVM-dev zlib1g-dev g++"
        );
        eprintln!(
            "  LLVM_PREFIX=/usr/lib/llvm-$LLVM cargo install bpf-linker --locked --force --version {version} --no-default-features --features llvm-$LLVM"
        );
        eprintln!("or, where rustc-web is not to be had:");
    }
    eprintln!("  rustup toolchain install nightly --component rust-src");
    eprintln!("  cargo install bpf-linker   # built against an LLVM as new as the nightly's");
    eprintln!("or IPS_EBPF_OBJECT can name an object that was built elsewhere.");
}

impl Toolchain {
    /// Cargo, set up to build the eBPF object into its own target directory.
    pub(crate) fn cargo_build(&self, workspace: &Workspace) -> Command {
        let flags = [
            format!("-Clinker={}", self.linker.display()),
            "-Clink-arg=--btf".to_owned(),
            "-Cdebuginfo=2".to_owned(),
            format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        ];
        let mut cargo = workspace.cargo();
        for name in [
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "CARGO_BUILD_TARGET",
            "RUSTFLAGS",
        ] {
            cargo.env_remove(name);
        }
        cargo
            .args(["build", "--package", "ips-ebpf", "--bins", "--release"])
            .args(["--target", TARGET, "--target-dir"])
            .arg(workspace.bpf_target())
            .env("RUSTC", &self.rustc)
            // aya-ebpf uses asm_experimental_arch.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        if self.build_core {
            cargo.args(["-Z", "build-std=core"]);
        }
        cargo
    }

    /// Compiles and links a minimal program, unless exactly this pair has been proven before.
    /// The outer error is ours, the inner one says why the pair does not work.
    fn works(&self, workspace: &Workspace) -> Result<Result<(), String>> {
        let directory = workspace.bpf_target().join("probe");
        let proof = directory.join("proven");
        let pair = format!("{}\n{}\n", identity(&self.rustc), identity(&self.linker));
        if fs::read_to_string(&proof).is_ok_and(|proven| proven == pair) {
            return Ok(Ok(()));
        }
        if let Err(message) = linker::starts(&self.linker) {
            return Ok(Err(message));
        }
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let source = directory.join("probe.rs");
        let object = directory.join("probe.o");
        fs::write(&source, PROBE).with_context(|| format!("cannot write {}", source.display()))?;
        let mut command = Command::new(&self.rustc);
        clean_library_path(&mut command);
        let output = command
            .args([
                "--edition=2024",
                "--crate-type=bin",
                "-Copt-level=3",
                "--target",
                TARGET,
            ])
            .arg(format!("-Clinker={}", self.linker.display()))
            .arg("-o")
            .args([&object, &source])
            .env("RUSTC_BOOTSTRAP", "1")
            .output()
            .with_context(|| format!("cannot start {}", self.rustc.display()))?;
        if !output.status.success() {
            return Ok(Err(String::from_utf8_lossy(&output.stderr)
                .trim()
                .to_owned()));
        }
        if !is_bpf_object(&object)? {
            return Ok(Err("its output is not an eBPF object".to_owned()));
        }
        fs::write(&proof, pair).with_context(|| format!("cannot write {}", proof.display()))?;
        Ok(Ok(()))
    }
}

/// The smallest program that has to go through both tools.
const PROBE: &str = r#"#![no_std]
#![no_main]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn probe(_context: *mut u8) -> i32 {
    0
}
"#;

/// A file as it is now: changes when the program is replaced.
fn identity(path: &Path) -> String {
    let stamp = path.metadata().ok().map(|file| {
        let modified = file
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .unwrap_or_default();
        (file.len(), modified.as_nanos())
    });
    format!("{} {stamp:?}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiler_versions_are_read_and_compared() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
                    binary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\n\
                    LLVM version: 22.1.8\n";
        let version = CompilerVersion::parse(text).expect("well formed");
        assert_eq!(version.to_string(), "Rust 1.96, LLVM 22");
        assert!(Some(version.release) >= release("1.95"));
        assert!(Some(version.release) < release("1.100"));
        assert_eq!(release("1.97.0-nightly"), Some((1, 97)));
        assert_eq!(CompilerVersion::parse("garbage"), None);
    }
}
