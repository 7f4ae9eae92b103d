//! `cargo xtask test`: every test of the workspace, one test program after the other, and a
//! summary that leaves nothing out: what failed, and what was skipped and why.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, setsid};

use crate::build;
use crate::progress::{self, Progress};
use crate::setup;
use crate::toolchain::system;
use crate::workspace::{Workspace, clean_library_path};

/// A test program that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(300);

/// The package whose tests build networks, which they wait for more than they compute.
const LAB: &str = "sluice-tests";

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only tests whose name contains this
    #[arg(long, short)]
    filter: Option<String>,
    /// Only this package (ips-common, ips-user, sluice-tests, xtask)
    #[arg(long, short)]
    package: Option<String>,
    /// Captures to run decoders and eBPF programs over (instead of SLUICE_PCAPS)
    #[arg(long, value_name = "DIR")]
    pcaps: Option<PathBuf>,
    /// How many tests of the lab run at a time
    #[arg(long, short, default_value = "2", value_name = "N")]
    jobs: NonZeroUsize,
    /// How often a test of the lab that fails is run again, alone; the summary names those that
    /// pass then
    #[arg(long, default_value_t = 1, value_name = "N")]
    retries: u32,
    /// Print what every test prints
    #[arg(long, short)]
    verbose: bool,
    /// Further arguments for the test programs
    #[arg(last = true)]
    further: Vec<String>,
}

/// A compiled test program.
struct TestProgram {
    package: String,
    target: String,
    executable: PathBuf,
    directory: PathBuf,
}

impl TestProgram {
    fn name(&self) -> String {
        format!("{} {}", self.package, self.target)
    }
}

/// What one program's run showed.
#[derive(Default)]
struct Results {
    passed: usize,
    /// Tests.
    failed: Vec<String>,
    /// What went wrong with a whole program.
    broken: Vec<String>,
    ignored: usize,
    /// Test and reason.
    skipped: Vec<(String, String)>,
    /// Those that failed and then passed.
    unsteady: Vec<String>,
}

impl Results {
    /// Takes in what another process of the same program has shown.
    fn join(&mut self, other: Self) {
        self.passed += other.passed;
        self.ignored += other.ignored;
        self.failed.extend(other.failed);
        self.broken.extend(other.broken);
        self.skipped.extend(other.skipped);
        self.unsteady.extend(other.unsteady);
    }

    /// Takes in what `program` has shown.
    fn add(&mut self, program: &str, mut other: Self) {
        let names = other
            .failed
            .iter_mut()
            .chain(&mut other.broken)
            .chain(&mut other.unsteady);
        for name in names.chain(other.skipped.iter_mut().map(|(test, _)| test)) {
            *name = format!("{program}: {name}");
        }
        self.join(other);
    }

    /// Takes in what another attempt at the tests that failed has shown: a machine that others use
    /// as well may have no time for one of them once, and what fails again is no accident.
    fn amend(&mut self, again: Self) {
        if again.passed + again.failed.len() != self.failed.len() {
            self.broken.push("another attempt ran other tests".into());
        }
        let failed = std::mem::replace(&mut self.failed, again.failed);
        let passes = |test: &String| !self.failed.contains(test);
        self.unsteady.extend(failed.into_iter().filter(passes));
        self.passed += again.passed;
        self.broken.extend(again.broken);
        self.skipped.extend(again.skipped);
    }

    fn is_failure(&self) -> bool {
        !(self.failed.is_empty() && self.broken.is_empty())
    }
}

/// Runs the command.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let setup = setup::ensure(workspace, system::ALL)?;
    build::object(workspace, setup.source)?;
    // The namespace tests start the `sluice` program itself.
    build::program(workspace, false)?;
    let programs = compile(workspace)?;
    let started = Instant::now();
    let mut totals = Results::default();
    for program in &programs {
        if arguments
            .package
            .as_ref()
            .is_some_and(|package| *package != program.package)
        {
            continue;
        }
        let mut results = run_program(workspace, program, arguments, &[])?;
        for _ in 0..arguments.retries {
            if program.package != LAB || results.failed.is_empty() || !results.broken.is_empty() {
                break;
            }
            println!("{}: what failed is run again", program.name());
            results.amend(run_program(workspace, program, arguments, &results.failed)?);
        }
        totals.add(&program.name(), results);
    }
    Ok(summary(&totals, started.elapsed()))
}

fn summary(totals: &Results, elapsed: Duration) -> ExitCode {
    println!();
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (test, reason) in &totals.skipped {
        reasons.entry(reason).or_default().push(test);
    }
    for (reason, tests) in &reasons {
        println!("skipped: {reason}");
        for test in tests {
            println!("    {test}");
        }
    }
    for test in &totals.unsteady {
        println!("unsteady, failed and then passed: {test}");
    }
    for what in totals.failed.iter().chain(&totals.broken) {
        println!("FAILED: {what}");
    }
    let seconds = elapsed.as_secs();
    let unsteady = match totals.unsteady.len() {
        0 => String::new(),
        number => format!(" ({number} at another attempt)"),
    };
    println!(
        "{} passed{}{unsteady}, {} failed, {} ignored in {seconds} s",
        totals.passed,
        of_these_skipped(totals),
        totals.failed.len() + totals.broken.len(),
        totals.ignored
    );
    if totals.passed + totals.failed.len() == 0 {
        println!("No test was run.");
        return ExitCode::FAILURE;
    }
    match totals.is_failure() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

/// libtest counts a test that could not run as passed, and a test over several variants may have
/// run some of them: so the skipped ones are shown as a part of the passed.
fn of_these_skipped(results: &Results) -> String {
    let mut tests: Vec<&str> = results
        .skipped
        .iter()
        .map(|(test, _)| test.as_str())
        .collect();
    tests.dedup();
    if tests.is_empty() {
        return String::new();
    }
    format!(" (of these {} skipped, wholly or in part)", tests.len())
}

/// Compiles all tests and lists the programs, unit tests first and the lab last.
fn compile(workspace: &Workspace) -> Result<Vec<TestProgram>> {
    let selection = ["--workspace", "--exclude", "ips-ebpf"];
    progress::cargo(
        "tests",
        workspace.cargo().args(["test", "--no-run"]).args(selection),
    )?;
    // Everything is fresh now; this only asks for the paths.
    let output = workspace
        .cargo()
        .args(["test", "--no-run", "--quiet", "--message-format=json"])
        .args(selection)
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!(
            "cargo test --no-run: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let mut programs: Vec<TestProgram> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(test_program)
        .collect();
    programs.sort_by_key(|program| {
        (
            program.package == LAB,
            program.package.clone(),
            program.target.clone(),
        )
    });
    Ok(programs)
}

/// The test program that a message of cargo announces, if it does.
fn test_program(message: &str) -> Option<TestProgram> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let directory = Path::new(message["manifest_path"].as_str()?)
        .parent()?
        .to_path_buf();
    // The id ends in `path/to/directory#version` or `#name@version`.
    let id = message["package_id"].as_str()?;
    let package = match id.rsplit_once('#')?.1.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => directory.file_name()?.to_str()?.to_owned(),
    };
    let kind = message["target"]["kind"][0].as_str()?;
    let name = message["target"]["name"].as_str()?;
    Some(TestProgram {
        package,
        target: match kind {
            "lib" => "library".to_owned(),
            "bin" => format!("program {name}"),
            _ => name.to_owned(),
        },
        executable: message["executable"].as_str()?.into(),
        directory,
    })
}

/// Runs the tests of a program that were asked for, or exactly `only` those.
fn run_program(
    workspace: &Workspace,
    program: &TestProgram,
    arguments: &Arguments,
    only: &[String],
) -> Result<Results> {
    let name = program.name();
    let mut commands = Vec::new();
    if program.package == LAB {
        // Processes, not threads: what a test does to its own one must not reach another.
        let (tests, jobs) = match only {
            [] => (list(workspace, program, arguments)?, arguments.jobs),
            only => (only.to_vec(), NonZeroUsize::MIN),
        };
        if tests.is_empty() && arguments.filter.is_none() && arguments.further.is_empty() {
            bail!("{name} --list names no test");
        }
        for share in shares(&tests, jobs) {
            let mut command = command(workspace, program, arguments)?;
            command.args(["--test-threads=1", "--exact"]).args(&share);
            commands.push((command, Some(share.len())));
        }
    } else {
        let mut command = command(workspace, program, arguments)?;
        command.args(&arguments.filter);
        commands.push((command, None));
    }
    let started = Instant::now();
    let mut results = Results::default();
    let (commands, expected): (Vec<_>, Vec<_>) = commands.into_iter().unzip();
    for (attempt, expected) in observe(&name, commands)?.into_iter().zip(expected) {
        let output = &attempt.output;
        let mut part = read_results(output);
        if attempt.hung {
            let silence = SILENCE.as_secs();
            part.broken.push(format!("said nothing for {silence} s"));
        } else if !attempt.status.success() && part.failed.is_empty() {
            let status = attempt.status;
            part.broken.push(format!("ended with {status}"));
        }
        let ran = part.passed + part.failed.len() + part.ignored;
        if let Some(expected) = expected.filter(|expected| *expected != ran) {
            let what = format!("{ran} tests ran, of {expected}");
            part.broken.push(what);
        }
        if arguments.verbose {
            output.iter().for_each(|line| println!("{line}"));
        } else if part.is_failure() {
            without_successes(output).for_each(|line| println!("{line}"));
        }
        results.join(part);
    }
    let ran = results.passed + results.failed.len();
    if ran > 0 {
        println!(
            "{name}: {} passed{}, {} failed ({:.1} s)",
            results.passed,
            of_these_skipped(&results),
            results.failed.len(),
            started.elapsed().as_secs_f32()
        );
    }
    Ok(results)
}

/// A test program with everything but the choice of tests.
fn command(workspace: &Workspace, program: &TestProgram, arguments: &Arguments) -> Result<Command> {
    let mut command = Command::new(&program.executable);
    clean_library_path(&mut command);
    command
        .args(["--show-output", "--color=never"])
        .args(&arguments.further)
        .current_dir(&program.directory)
        .env("CARGO_MANIFEST_DIR", &program.directory)
        .env("SLUICE_BIN", workspace.sluice(false))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    in_own_session(&mut command);
    if let Some(pcaps) = &arguments.pcaps {
        let absolute = pcaps
            .canonicalize()
            .with_context(|| format!("captures in {}", pcaps.display()))?;
        command.env("SLUICE_PCAPS", absolute);
    }
    Ok(command)
}

/// The tests that were asked for.
fn list(
    workspace: &Workspace,
    program: &TestProgram,
    arguments: &Arguments,
) -> Result<Vec<String>> {
    let mut command = command(workspace, program, arguments)?;
    let output = command
        .args(&arguments.filter)
        .args(["--list", "--format=terse"])
        .output()
        .with_context(|| format!("cannot start {}", program.executable.display()))?;
    if !output.status.success() {
        bail!(
            "{} --list: {}",
            program.name(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.strip_suffix(": test").map(str::to_owned))
        .collect())
}

/// The tests for each of up to so many processes. Neighbours, which take about as long, go to
/// different ones.
fn shares(tests: &[String], jobs: NonZeroUsize) -> impl Iterator<Item = Vec<&String>> {
    let number = jobs.get().min(tests.len());
    (0..number).map(move |first| tests.iter().skip(first).step_by(number).collect())
}

/// How a process went.
struct Attempt {
    child: Child,
    status: ExitStatus,
    output: Vec<String>,
    /// When it has said something.
    last: Instant,
    /// Streams that somebody may still write to.
    open: usize,
    hung: bool,
}

impl Attempt {
    /// Ends it with everything that it has started.
    fn kill(&self) {
        // There may be nobody any more.
        let _ = killpg(
            Pid::from_raw(self.child.id().cast_signed()),
            Signal::SIGKILL,
        );
    }
}

/// Runs the commands at the same time, under one progress line.
fn observe(name: &str, commands: Vec<Command>) -> Result<Vec<Attempt>> {
    let mut progress = Progress::new(name);
    let (sender, lines) = mpsc::channel();
    let mut attempts = Vec::new();
    for (number, mut command) in commands.into_iter().enumerate() {
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                attempts.iter().for_each(Attempt::kill);
                let program = command.get_program().display();
                return Err(error).with_context(|| format!("cannot start {program}"));
            }
        };
        let tagged = move |line| (number, line);
        progress::forward(child.stdout.take(), sender.clone(), tagged);
        progress::forward(child.stderr.take(), sender.clone(), tagged);
        attempts.push(Attempt {
            child,
            status: ExitStatus::default(),
            output: Vec::new(),
            last: Instant::now(),
            open: 2,
            hung: false,
        });
    }
    drop(sender);
    let mut said = String::new();
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok((number, None)) => attempts[number].open -= 1,
            Ok((number, Some(line))) => {
                let attempt = &mut attempts[number];
                attempt.last = Instant::now();
                said.clone_from(&line);
                attempt.output.push(line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        // One that has ended may have left somebody who keeps its streams open.
        for attempt in attempts.iter_mut().filter(|it| it.open > 0 && !it.hung) {
            if attempt.last.elapsed() > SILENCE {
                attempt.hung = true;
                attempt.kill();
            }
        }
        progress.tick(said.trim());
    }
    for attempt in &mut attempts {
        attempt.status = attempt.child.wait().context("waiting for a test program")?;
    }
    progress.clear();
    Ok(attempts)
}

/// Its own group, so that a hanging test goes together with what it started. Its own session,
/// because in that of the first process the kernel takes every group whose parent has ended for
/// orphaned, and continues what tests have stopped there as soon as one of the group ends.
fn in_own_session(command: &mut Command) {
    let begin = || setsid().map(drop).map_err(io::Error::from);
    // SAFETY: between fork and exec only setsid(2) is called, which is async-signal-safe.
    unsafe { command.pre_exec(begin) };
}

/// What libtest prints, without the tests that passed: whoever looks for the cause of a failure
/// shall find it first.
fn without_successes(output: &[String]) -> impl Iterator<Item = &String> {
    let mut of_successes = false;
    output.iter().filter(move |line| {
        match line.as_str() {
            "successes:" => of_successes = true,
            "failures:" => of_successes = false,
            _ => {}
        }
        let passed = line.starts_with("test ") && line.ends_with(" ... ok");
        !(of_successes || passed)
    })
}

/// Reads what libtest prints.
fn read_results(output: &[String]) -> Results {
    let mut results = Results::default();
    let mut shown = "";
    let (mut told, mut failed) = (false, 0);
    for line in output {
        if let Some(test) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            shown = test;
        } else if let Some(reason) = skip_reason(line) {
            results.skipped.push((shown.to_owned(), reason.to_owned()));
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            told = true;
            let count = |what: &str| {
                counts
                    .split([';', '.'])
                    .filter_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
                    .next()
                    .unwrap_or(0)
            };
            results.passed += count("passed");
            results.ignored += count("ignored");
            failed += count("failed");
        } else if let Some(test) = failed_test(line)
            && !results.failed.iter().any(|it| it == test)
        {
            results.failed.push(test.to_owned());
        }
    }
    // What a test starts may write into the line that tells of it.
    if told && failed != results.failed.len() {
        let read = results.failed.len();
        let what = format!("{failed} tests failed, of which {read} are named");
        results.broken.push(what);
    }
    if !told {
        results.broken.push("did not come to its end".into());
    }
    results
}

/// The reason in the line with which a test says that it, or a part of it, cannot run here:
/// `skipped: REASON`, `SKIPPED: REASON` or `SKIPPED NAME: REASON`.
fn skip_reason(line: &str) -> Option<&str> {
    let rest = line
        .strip_prefix("SKIPPED")
        .or_else(|| line.strip_prefix("skipped"))?;
    let (name, reason) = rest.split_once(": ")?;
    let is_name = name.is_empty() || (name.starts_with(' ') && !name[1..].contains(' '));
    is_name.then_some(reason)
}

/// The name in `test NAME ... FAILED`.
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn passed_failed_and_skipped_tests_are_counted_from_libtests_output() {
        let results = read_results(&lines(
            "running 3 tests\n\
                 test a::one ... ok\n\
                 test a::two ... FAILED\n\
                 test b::three ... ok\n\
                 \n\
                 successes:\n\
                 \n\
                 ---- b::three stdout ----\n\
                 SKIPPED sluice_tests::b: needs root (network namespaces)\n\
                 \n\
                 failures:\n\
                 \n\
                 ---- a::two stdout ----\n\
                 thread panicked\n\
                 \n\
                 test result: FAILED. 2 passed; 1 failed; 4 ignored; 0 measured; 5 filtered out; finished in 0.00s",
        ));
        assert_eq!((results.passed, results.ignored), (2, 4));
        assert_eq!(results.failed, ["a::two"]);
        assert_eq!(
            results.skipped,
            [(
                "b::three".to_owned(),
                "needs root (network namespaces)".to_owned()
            )]
        );
    }

    #[test]
    fn what_passes_at_another_attempt_is_told_and_what_fails_again_has_failed() {
        let results = |passed, failed: &[&str]| Results {
            passed,
            failed: failed.iter().map(|it| (*it).to_owned()).collect(),
            ..Results::default()
        };
        let mut first = results(5, &["a", "b"]);
        first.amend(results(1, &["b"]));
        assert_eq!(first.passed, 6);
        assert_eq!(
            (&*first.unsteady, &*first.failed),
            (&["a".to_owned()][..], &["b".to_owned()][..])
        );
        assert!(first.is_failure());
        let mut steady = results(5, &["b"]);
        steady.amend(results(1, &[]));
        assert!(!steady.is_failure());
        // Nothing was run: that is no success.
        first.amend(results(0, &[]));
        assert!(first.is_failure());
    }

    #[test]
    fn a_failure_that_is_not_named_and_an_end_that_does_not_come_are_failures() {
        let output = "test a ... something said\nFAILED\ntest b ... FAILED\n\
                      test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured";
        let results = read_results(&lines(output));
        assert_eq!(results.failed, ["b"]);
        assert_eq!(results.broken.len(), 1, "{:?}", results.broken);
        let cut = read_results(&lines("test a ... ok\ntest b ... FAILED"));
        assert_eq!(cut.broken.len(), 1, "{:?}", cut.broken);
        let whole = read_results(&lines("test a ... ok\ntest result: ok. 1 passed; 0 failed"));
        assert!(!whole.is_failure());
    }

    #[test]
    fn every_test_is_in_one_share_and_neighbours_are_in_different_ones() {
        let tests = ["a", "b", "c", "d", "e"].map(str::to_owned);
        let of = |jobs, tests: &[String]| {
            let jobs = NonZeroUsize::new(jobs).unwrap();
            shares(tests, jobs)
                .map(|it| it.iter().map(|it| &***it).collect::<String>())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(2, &tests), ["ace", "bd"]);
        assert_eq!(of(9, &tests[..2]), ["a", "b"]);
        assert!(of(2, &[]).is_empty());
    }

    #[test]
    fn after_a_failure_nothing_is_shown_of_what_passed() {
        let output = lines(
            "running 2 tests\n\
             test one ... ok\n\
             test two ... FAILED\n\
             successes:\n\
             ---- one stdout ----\n\
             all is well\n\
             failures:\n\
             ---- two stdout ----\n\
             test of nothing\n\
             test result: FAILED.",
        );
        let shown: Vec<&str> = without_successes(&output).map(String::as_str).collect();
        assert_eq!(
            shown,
            [
                "running 2 tests",
                "test two ... FAILED",
                "failures:",
                "---- two stdout ----",
                "test of nothing",
                "test result: FAILED."
            ]
        );
    }

    #[test]
    fn all_forms_of_a_skip_line_are_understood() {
        assert_eq!(skip_reason("skipped: no captures"), Some("no captures"));
        assert_eq!(skip_reason("SKIPPED: no captures"), Some("no captures"));
        assert_eq!(skip_reason("SKIPPED a::b: needs root"), Some("needs root"));
        assert_eq!(skip_reason("skipped the first line: it is a title"), None);
        assert_eq!(skip_reason("nothing was skipped: really"), None);
    }
}
