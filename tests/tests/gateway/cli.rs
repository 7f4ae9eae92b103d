//! The command line as a person or a script meets it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use sluice_tests::{Lab, LabOptions, require_lab, require_queues};

use crate::rig::{Gateway, all_up, program, sluice};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Fails unless the program ended with status 1 and said all of this on standard error.
fn refused(output: &Output, said: &[&str]) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    for said in said {
        assert!(errors.contains(said), "{said:?} is not in: {errors}");
    }
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn the_printed_defaults_are_a_valid_configuration_that_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("defaults.toml");
    let printed = sluice(&["config", "--defaults"]);
    assert!(printed.status.success());
    fs::write(&file, &printed.stdout).expect("write");
    let checked = sluice(&["check", "-c", utf8(&file)]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let empty = directory.path().join("empty.toml");
    fs::write(&empty, "").expect("write");
    let shown = |file| text(&sluice(&["config", "-c", utf8(file)]).stdout);
    assert_eq!(shown(&file), shown(&empty));
}

#[test]
fn check_names_every_mistake_in_the_rules_with_its_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("broken.rules");
    let rules = "alert tcp any any -> any 80 (msg:\"fine\"; content:\"x\"; sid:1;)\n\
                 alert tcp any any -> any 99999 (msg:\"no such port\"; sid:2;)\n\
                 \n\
                 alert tcp any any -> any any (msg:\"no such keyword\"; contnet:\"x\"; sid:3;)\n\
                 alert tcp 10.0.0.0/64 any -> any any (msg:\"no such prefix\"; sid:4;)\n\
                 alert tcp any any -> any any (msg:\"unfinished\n";
    fs::write(&file, rules).expect("write");
    let checked = sluice(&["check", "--rules", utf8(&file)]);
    let name = utf8(&file);
    refused(
        &checked,
        &[
            &format!("{name}:2:26: error"),
            &format!("{name}:4:54: error"),
            &format!("{name}:5:"),
            &format!("{name}:6:"),
            "content",
        ],
    );
    assert!(!text(&checked.stderr).contains(&format!("{name}:1:")));
    let summary = text(&checked.stdout);
    assert!(summary.contains("1 loaded"), "{summary}");

    fs::write(&file, rules.lines().next().unwrap_or_default()).expect("write");
    let checked = sluice(&["check", "--rules", utf8(&file)]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
}

#[test]
fn check_refuses_rule_files_that_cannot_be_read() {
    let checked = sluice(&["check", "--rules", "/nonexistent/x.rules"]);
    refused(&checked, &["/nonexistent/x.rules", "No such file"]);
    // Binary noise is no reason to panic.
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("noise.rules");
    let noise: Vec<u8> = (0..20_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    fs::write(&file, noise).expect("write");
    refused(
        &sluice(&["check", "--rules", utf8(&file)]),
        &["noise.rules:1:"],
    );
}

#[test]
fn unknown_and_impossible_configuration_is_refused_with_its_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("wrong.toml");
    let name = utf8(&file);
    for (content, place, message) in [
        ("name = \"x\"\ninterfacs = []\n", ":2:1", "interfacs"),
        ("[queue]\n  lenght = 4\n", ":2:3", "lenght"),
        ("[queue]\nlength = \"long\"\n", ":2:10", "invalid type"),
        ("fail = \"ajar\"\n", ":1:8", "ajar"),
        ("name = \"a name\"\n", "", "name"),
        ("[steering]\nmark_mask = 5\n", "", "steering.mark_mask"),
        ("[workers]\ncount = 100000\n", "", "workers.count"),
        ("\u{0}", ":1:", ""),
    ] {
        fs::write(&file, content).expect("write");
        for command in ["check", "run", "config", "status", "doctor"] {
            let output = sluice(&[command, "-c", name]);
            refused(&output, &[&format!("{name}{place}"), message]);
        }
    }
    refused(&sluice(&["run", "-c", "/nonexistent"]), &["/nonexistent"]);
    fs::write(&file, "").expect("write");
    refused(&sluice(&["run", "-c", name]), &["no interfaces"]);
}

#[test]
fn status_of_an_instance_that_does_not_run_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("a.toml");
    let run = utf8(directory.path());
    fs::write(
        &file,
        format!("name = \"ghost\"\n[control]\ndirectory = \"{run}\"\n"),
    )
    .expect("write");
    for arguments in [&["status"][..], &["status", "--json"]] {
        let output = sluice(&[arguments, &["-c", utf8(&file)]].concat());
        refused(&output, &["\"ghost\" is not running", "ghost.sock"]);
        assert!(output.stdout.is_empty());
    }
    // What a killed instance leaves is a socket nobody listens at.
    drop(std::os::unix::net::UnixListener::bind(
        directory.path().join("ghost.sock"),
    ));
    let output = sluice(&["status", "-c", utf8(&file)]);
    refused(&output, &["\"ghost\" is not running"]);
}

#[test]
fn doctor_speaks_json_and_names_what_is_used_where_nft_cannot_queue() {
    require_lab!();
    let lab = Lab::new(&LabOptions::default()).expect("a lab");
    let mut command = lab.gateway().command(program());
    let interfaces = ["--interface", "g0", "--interface", "g1"];
    command.args(["doctor", "--json"]).args(interfaces);
    let output = command.output().expect("start sluice");
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)));
    let checks = report["checks"].as_array().expect("checks");
    assert!(checks.len() > 10, "{report:#}");
    let queue = checks.iter().find(|check| {
        check["name"]
            .as_str()
            .is_some_and(|it| it.contains("nft queue"))
    });
    let queue = queue.unwrap_or_else(|| panic!("nothing about nft queue: {report:#}"));
    // Whether the kernel can is asked of nft itself.
    let probe = "add table ip probe; add chain ip probe c; add rule ip probe c queue num 1";
    let kernel_can = lab.gateway().run("nft", &[probe]).is_ok();
    println!("nft can queue: {kernel_can}; doctor: {queue}");
    if kernel_can {
        assert_eq!(queue["status"], "ok", "{queue}");
    } else {
        let found = queue["found"].as_str().unwrap_or_default();
        assert!(found.contains("instead"), "{queue}");
    }
    assert!(matches!(output.status.code(), Some(0 | 1)));
}

/// Sends bytes to the control socket and returns what comes back.
fn say(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(gateway.config.control_socket()).expect("connect");
    let patience = Some(Duration::from_secs(15));
    stream.set_read_timeout(patience).expect("a timeout");
    // The other side may have heard enough before the end.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    text(&answer)
}

#[test]
fn malformed_control_messages_are_answered_and_do_no_harm() {
    require_queues!();
    let gateway = Gateway::start(|_| {});
    for (message, expected) in [
        (&b"\n"[..], "error"),
        (b"{}\n", "error"),
        (b"{\"command\":\"explode\"}\n", "error"),
        (b"{\"command\":\"status\",\"and\":1}\n", "error"),
        (b"\xff\xfe\x00\n", "error"),
        (b"{\"command\":\"status\"}", "ok"),
        (b"", ""),
    ] {
        let answer = say(&gateway, message);
        assert!(answer.contains(expected), "{message:?}: {answer}");
    }
    say(&gateway, &vec![b'['; 1 << 20]);
    say(&gateway, &[b"[".repeat(60_000), b"\n".to_vec()].concat());
    // Clients that leave in the middle.
    for _ in 0..50 {
        let mut stream = UnixStream::connect(gateway.config.control_socket()).expect("connect");
        stream.write_all(b"{\"comm").expect("write");
    }
    // Nonsense first, then sense, on one connection.
    let mut stream = UnixStream::connect(gateway.config.control_socket()).expect("connect");
    stream
        .write_all(b"what?\n{\"command\":\"status\"}\n")
        .expect("write");
    let mut lines = BufReader::new(stream).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert!(next().contains("not understood"));
    assert!(next().contains("\"ok\""));
    assert!(all_up(&gateway.status()));
}

#[test]
fn status_shows_people_and_scripts_the_same_instance() {
    require_queues!();
    let gateway = Gateway::start(|_| {});
    let file = gateway.config_file();
    let shown = sluice(&["status", "-c", utf8(&file)]);
    assert!(shown.status.success());
    let shown = text(&shown.stdout);
    for expected in [&gateway.config.name, "worker 0", "worker 1", "backup"] {
        assert!(shown.contains(expected), "{shown}");
    }
    let json = sluice(&["status", "--json", "-c", utf8(&file)]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["instance"], gateway.config.name);
    assert_eq!(json["workers"].as_array().map(Vec::len), Some(2));
    let mut own = Command::new(program());
    own.args(["status", "-c"]).arg(&file);
    own.args(["--instance", "another"]);
    refused(
        &own.output().expect("start sluice"),
        &["\"another\" is not running"],
    );
}
