//! The image of the compiled rules, in process trees of its own: made in one process, used in
//! others.
//!
//! Processes fork only while they have one thread, and libtest runs every test in a second one:
//! so this program has a main function of its own, which starts itself anew for each test.

use std::fmt::{self, Write as _};
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use sluice::decode::Decoded;
use sluice::detect::{Building, CompileOptions, Engine, Image, Inspected, Summary, Tables};
use sluice::flow::Timestamp;
use sluice::rules::{RuleSet, RuleSource};
use sluice::sys::process::fork;
use sluice_tests::{Process, rule_set};

const PATIENCE: Duration = Duration::from_secs(240);

type Test = (&'static str, fn());

macro_rules! tests {
    ($($test:ident),* $(,)?) => { [$((stringify!($test), $test as fn())),*] };
}

const TESTS: [Test; 4] = tests![
    an_engine_in_an_image_detects_what_a_directly_compiled_one_does,
    whatever_happens_to_the_compiling_process_is_told_and_harms_nobody,
    images_are_mapped_side_by_side_and_gone_when_dropped,
    an_image_of_another_run_of_the_program_is_refused,
];

/// What tests start as another process, which is no fork of theirs.
const STRANGERS: [Test; 1] = tests![stranger];

/// Names the function that this process is to run.
const ONLY: &str = "SLUICE_TEST_ONLY";

/// As libtest does: runs the tests whose names contain one of the arguments, and says so in its
/// words, which `cargo xtask test` reads.
fn main() -> ExitCode {
    if let Ok(only) = std::env::var(ONLY) {
        let mut all = TESTS.iter().chain(&STRANGERS);
        let (_, run) = all.find(|(name, _)| *name == only).expect("a test's name");
        run();
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| !it.starts_with('-'))
        .collect();
    let given = |option: &str| std::env::args().any(|it| it == option);
    let exact = given("--exact");
    let wanted = |(name, _): &&Test| {
        let names = |it: &String| if exact { name == it } else { name.contains(it) };
        filters.is_empty() || filters.iter().any(names)
    };
    if given("--list") {
        for (name, _) in TESTS.iter().filter(wanted) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let since = Instant::now();
    let (mut passed, mut failed) = (0, 0);
    for (name, _) in TESTS.iter().filter(wanted) {
        let succeeded = alone(name, Stdio::null());
        println!(
            "test {name} ... {}",
            if succeeded { "ok" } else { "FAILED" }
        );
        if succeeded {
            passed += 1;
        } else {
            failed += 1;
        }
    }
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s",
        if failed == 0 { "ok" } else { "FAILED" },
        TESTS.len() - passed - failed,
        since.elapsed().as_secs_f64()
    );
    ExitCode::from(if failed == 0 { 0 } else { 101 })
}

/// Runs a function in a process of its own, and shows what it says. Whether it succeeded.
fn alone(name: &str, input: Stdio) -> bool {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.env(ONLY, name);
    let mut process = Process::spawn_with_input(&mut command, input).expect("start this program");
    let ended = process.wait(PATIENCE);
    println!("{}", process.log());
    ended.is_ok_and(|status| status.success())
}

fn compile(text: String) -> anyhow::Result<(Engine, Summary)> {
    let loaded = RuleSet::default().load_sources(&[RuleSource::new("t.rules", text.into())]);
    let compiled = Engine::compile(loaded.rules, &CompileOptions::default())?;
    assert!(compiled.refused.is_empty(), "{:?}", compiled.refused);
    let engine = compiled.engine;
    let summary = Summary {
        rules: engine.rule_count() as u64,
        skipped: (loaded.wrong + loaded.unsupported) as u64,
        wrong: loaded.wrong as u64,
    };
    Ok((engine, summary))
}

/// Waits for the compiling process.
fn ended(building: &Building) -> WaitStatus {
    waitpid(building.process(), None).unwrap()
}

fn image(generation: u32, text: &str) -> Image {
    let text = text.to_owned();
    let building = Image::build(generation, || compile(text)).unwrap();
    let how = ended(&building);
    building.finish(&how).unwrap()
}

/// Runs this in a fork; a panic there is one here.
fn in_a_fork(run: impl FnOnce()) {
    let pid = fork(|| {
        run();
        0
    });
    let how = waitpid(pid.unwrap(), None).unwrap();
    assert!(matches!(how, WaitStatus::Exited(_, 0)), "{how:?}");
}

/// UDP and TCP packets around a payload.
fn packets(payload: &[u8]) -> Vec<Vec<u8>> {
    let header = |protocol: u8, transport: &[u8]| {
        let length = (20 + transport.len() + payload.len()) as u16;
        let mut packet = vec![0x45, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        packet.extend(Ipv4Addr::new(192, 0, 2, 1).octets());
        packet.extend(Ipv4Addr::new(10, 77, 2, 1).octets());
        packet.extend(transport);
        packet.extend(payload);
        packet
    };
    let mut tcp = [0; 20];
    tcp[..4].copy_from_slice(&[0x30, 0x39, 0, 80]);
    tcp[12..14].copy_from_slice(&[0x50, 0x18]);
    let mut udp = [0x30, 0x39, 0, 80, 0, 0, 0, 0];
    udp[4..6].copy_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
    vec![header(6, &tcp), header(17, &udp)]
}

fn sids(engine: &Engine, packet: &[u8]) -> Vec<u32> {
    let decoded = Decoded::parse(packet).unwrap();
    assert_eq!(decoded.source(), IpAddr::from([192, 0, 2, 1]));
    let mut scratch = engine.scratch();
    let mut tables = Tables::default();
    let input = Inspected {
        packet: &decoded,
        flow: None,
        stream: None,
        stream_events: sluice::reassembly::tcp::StreamEvents::NONE,
        only_stream: false,
        only_established: false,
        app: None,
        now: Timestamp::default(),
        tables: &mut tables,
    };
    let detection = engine.inspect(input, &mut scratch);
    let sid = |index| engine.rule(index).options.signature_id;
    let alerts = detection.alerts.iter();
    alerts.map(|alert| sid(alert.rule)).collect()
}

fn an_engine_in_an_image_detects_what_a_directly_compiled_one_does() {
    let text = rule_set::rules(rule_set::LARGE);
    let image = image(7, &text);
    println!(
        "{} rules: {} KiB, made in {:?} with {} KiB at most",
        image.summary().rules,
        image.bytes() >> 10,
        image.took(),
        image.peak_bytes() >> 10
    );
    assert_eq!(image.generation(), 7);
    assert_eq!(image.summary().rules, u64::from(rule_set::LARGE));
    assert_eq!(image.summary().skipped, 0);
    assert!(image.peak_bytes() > image.bytes());
    in_a_fork(|| {
        let since = Instant::now();
        let mut mapped = image.map().unwrap();
        println!("mapped in {:?}", since.elapsed());
        let since = Instant::now();
        let steps = (1..).take_while(|_| mapped.warm()).count() as u32 + 1;
        println!("warm in {steps} steps of {:?}", since.elapsed() / steps);
        // First, while the memory in which the other process compiled is nothing in this one:
        // a pointer into it would not go unnoticed.
        let found = look_at_all(&mapped);
        let (direct, _) = compile(text).unwrap();
        assert_eq!(mapped.rule_count(), direct.rule_count());
        assert_eq!(mapped.prefilter_bytes(), direct.prefilter_bytes());
        assert!(found == look_at_all(&direct), "they differ");
        let matched: usize = found.1.iter().map(Vec::len).sum();
        println!("{matched} matches, all the same");
        assert!(matched > 500, "{matched}");
        assert!(sids(&mapped, &packets(b"nothing of interest")[0]).is_empty());
    });
}

/// A hash of all that an engine consists of, as far as it can be shown, and what it finds in many
/// packets.
fn look_at_all(engine: &Engine) -> (u64, Vec<Vec<u32>>) {
    struct Hashed(DefaultHasher);
    impl fmt::Write for Hashed {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut hashed = Hashed(DefaultHasher::new());
    write!(hashed, "{engine:?}").unwrap();
    let packets = (0..rule_set::LARGE)
        .step_by(37)
        .flat_map(|number| packets(rule_set::payload(number).as_bytes()));
    let found = packets.map(|packet| sids(engine, &packet)).collect();
    (hashed.0.finish(), found)
}

fn whatever_happens_to_the_compiling_process_is_told_and_harms_nobody() {
    let failure = |generation, compile: fn() -> anyhow::Result<(Engine, Summary)>| {
        let building = Image::build(generation, compile).unwrap();
        let how = ended(&building);
        building.finish(&how).unwrap_err().to_string()
    };
    let refused = failure(
        1,
        || Err(anyhow::anyhow!("no such file").context("x.rules")),
    );
    assert_eq!(refused, "x.rules: no such file");
    let panicked = failure(2, || panic!("on purpose"));
    assert!(panicked.contains("exit status 101"), "{panicked}");
    let without_memory = failure(3, || {
        setrlimit(Resource::RLIMIT_AS, 256 << 20, 256 << 20)?;
        compile(rule_set::rules(rule_set::LARGE * 10))
    });
    assert!(
        without_memory.contains("SIGABRT") && without_memory.contains("memory ran out"),
        "{without_memory}"
    );
    let without_window = failure(4, || {
        setrlimit(Resource::RLIMIT_AS, 8 << 30, 8 << 30)?;
        compile(rule_set::rules(1))
    });
    assert!(
        without_window.contains("Cannot allocate memory"),
        "{without_window}"
    );
    let killed = Image::build(5, || {
        loop {
            std::thread::park();
        }
    });
    let killed = killed.unwrap();
    kill(killed.process(), Signal::SIGKILL).unwrap();
    let how = ended(&killed);
    let killed = killed.finish(&how).unwrap_err().to_string();
    assert!(killed.contains("SIGKILL"), "{killed}");
    // One that does not end is given up.
    let endless = Image::build(6, || {
        loop {
            std::thread::park();
        }
    });
    let endless = endless.unwrap();
    assert!(!endless.left_of(PATIENCE).is_zero());
    let limit = Duration::from_secs(1);
    std::thread::sleep(endless.left_of(limit));
    assert!(endless.left_of(limit).is_zero());
    let process = endless.process();
    let late = endless.give_up(limit).to_string();
    assert!(
        late.contains("within 1 s (rules.compile_seconds)"),
        "{late}"
    );
    let how = waitpid(process, None).unwrap();
    assert_eq!(how, WaitStatus::Signaled(process, Signal::SIGKILL, false));
    // And after all that:
    let image = image(7, &rule_set::rules(10));
    assert_eq!(image.map().unwrap().rule_count(), 10);
}

fn images_are_mapped_side_by_side_and_gone_when_dropped() {
    let mapped = |text: &str| {
        fs::read_to_string("/proc/self/maps")
            .unwrap()
            .matches(text)
            .count()
    };
    let first = image(1, &rule_set::rules(10));
    let second = image(2, &rule_set::rules(20));
    // At the place of the first one.
    let clash = image(5, &rule_set::rules(30));
    let one = first.map().unwrap();
    let two = second.map().unwrap();
    assert_eq!((one.rule_count(), one.generation()), (10, 1));
    assert_eq!((two.rule_count(), two.generation()), (20, 2));
    assert_eq!(mapped("sluice-rules"), 2);
    // What is there stays.
    let error = clash.map().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}");
    assert_eq!(one.rule_count(), 10);
    drop(one);
    assert_eq!(mapped("sluice-rules"), 1);
    assert_eq!(clash.map().unwrap().rule_count(), 30);
    drop((first, second, clash));
    assert_eq!(two.rule_count(), 20, "without its file");
    drop(two);
    assert_eq!(mapped("sluice-rules"), 0);
}

fn an_image_of_another_run_of_the_program_is_refused() {
    let image = image(1, &rule_set::rules(10));
    let file = image.as_fd().try_clone_to_owned().unwrap();
    assert!(alone("stranger", Stdio::from(file)));
}

fn stranger() {
    let open = || Image::open(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let error = open().unwrap_err();
    assert!(error.to_string().contains("another run"), "{error}");
    // Not even when it makes images itself.
    let own = image(1, &rule_set::rules(10));
    let error = open().unwrap_err();
    assert!(error.to_string().contains("another run"), "{error}");
    let own = Image::open(own.as_fd().try_clone_to_owned().unwrap()).unwrap();
    assert_eq!(own.summary().rules, 10);
    // Nor anything that is no image.
    let nothing = tempfile::tempfile().unwrap();
    Image::open(nothing.into()).unwrap_err();
}
