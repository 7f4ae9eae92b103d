use serde_json::json;

use super::*;

fn set(settings: &[(&str, &str)]) -> EngineSettings {
    let mut engine = EngineSettings::default();
    for (name, value) in settings {
        engine.set(name, value).unwrap();
    }
    engine
}

fn check_error(name: &str, value: &str, expect: &str) {
    let mut engine = EngineSettings::default();
    let message = engine.set(name, value).unwrap_err().to_string();
    assert!(message.contains(expect), "{name}={value}: {message}");
    assert_eq!(engine, EngineSettings::default());
}

#[test]
fn settings_are_found_by_their_dotted_names() {
    let engine = set(&[
        ("stream.midstream", "true"),
        ("stream.inline", "yes"),
        ("stream.reassembly.depth", "0"),
        ("defrag.memcap", "1mb"),
        ("flow-timeouts.tcp.emergency-new", "3"),
        ("vars.address-groups.HOME_NET", "[10.0.0.0/8,!10.1.0.0/16]"),
        ("vars.port-groups.MY_PORTS", "22"),
        ("action-order", r#"["alert", "drop", "pass", "reject"]"#),
        ("host-os-policy.windows", r#"["192.0.2.0/24"]"#),
        ("host-os-policy.linux", "[198.51.100.7, 2001:db8::/32]"),
        ("exception-policy", "drop-packet"),
        ("decoder.vxlan.ports", "[4789, 8472]"),
        ("pcap-file.checksum-checks", "no"),
    ]);
    assert!(engine.stream.follows_midstream());
    assert!(engine.stream.is_inline(false));
    assert_eq!(engine.stream.reassembly.depth, ByteSize(0));
    assert_eq!(engine.defrag.memcap, ByteSize::mib(1));
    assert_eq!(engine.flow_timeouts.tcp.emergency_new, Seconds(3));
    assert_eq!(engine.flow_timeouts.tcp.established, Seconds(600));
    assert_eq!(
        engine.vars.address_groups["HOME_NET"],
        "[10.0.0.0/8,!10.1.0.0/16]"
    );
    assert_eq!(engine.vars.port_groups["MY_PORTS"], "22");
    assert_eq!(engine.action_order[0], ActionName::Alert);
    assert_eq!(engine.exception_policy, ExceptionPolicy::DropPacket);
    assert_eq!(engine.decoder.vxlan.ports, "[4789,8472]");
    let stack = |host: &str| engine.host_os_policy.of(host.parse().unwrap());
    assert_eq!(stack("192.0.2.7"), OsPolicy::Windows);
    assert_eq!(stack("198.51.100.7"), OsPolicy::Linux);
    assert_eq!(stack("198.51.100.8"), OsPolicy::Bsd);
    assert_eq!(stack("2001:db8::1"), OsPolicy::Linux);
}

#[test]
fn mistakes_are_told_from_names_that_are_unknown() {
    let mut engine = EngineSettings::default();
    for name in [
        "stream.midstraem",
        "stream.midstream.x",
        "",
        "stream..",
        "app-layer.protocols.x",
    ] {
        let unknown = Err(SettingError::Unknown { name: name.into() });
        assert_eq!(engine.set(name, "1"), unknown, "{name}");
    }
    check_error("stream.bypass", "perhaps", "expected yes or no");
    check_error(
        "stream.midstream",
        "perhaps",
        "expected one of auto, yes, no",
    );
    check_error("stream.memcap", "much", "a number of bytes");
    check_error("packet-alert-max", "99999", "0 to 65535");
    check_error(
        "action-order",
        r#"["pass", "pass", "drop", "alert"]"#,
        "twice",
    );
    check_error("action-order", r#"["pass"]"#, "all of pass, drop");
    check_error("host-os-policy.linux", "10.0.0.0/33", "a network");
    check_error("exception-policy", "explode", "drop-flow");
    check_error("stream", "5", "names with values");
    check_error(
        "stream.reassembly.urgent.policy",
        "late",
        "oob, inline, drop, gap",
    );
    assert!(is_without_effect("detect.profiling.grouping.include-rules"));
    assert!(is_without_effect("flow.hash-size") && !is_without_effect("flow.hash-sizes"));
}

#[test]
fn the_longest_prefix_says_which_stack_a_host_has() {
    let engine = set(&[
        ("host-os-policy.windows", "0.0.0.0/0"),
        ("host-os-policy.old-linux", "2.2.2.2"),
        ("host-os-policy.solaris", "2.2.2.0/24"),
    ]);
    let stack = |host: &str| engine.host_os_policy.of(host.parse().unwrap());
    assert_eq!(stack("2.2.2.2"), OsPolicy::OldLinux);
    assert_eq!(stack("2.2.2.3"), OsPolicy::Solaris);
    assert_eq!(stack("2.2.3.3"), OsPolicy::Windows);
    assert_eq!(stack("::1"), OsPolicy::Bsd);
}

#[test]
fn outputs_say_which_records_have_what() {
    let stock = EveOutputs::stock();
    assert_eq!(stock.logs.len(), 1);
    let types = stock.records();
    assert!(types.wants("alert") && types.wants("flow") && types.wants("stats"));
    assert!(!types.wants("drop") && !types.wants("netflow") && types.wants("sluice"));
    assert!(EveOutputs::default().records().wants("drop"));

    let value = json!([
        {"fast": {"enabled": true}},
        {"eve-log": {
            "enabled": true, "filetype": "regular", "filename": "eve.json", "community-id": true,
            "community-id-seed": 7, "rotate-interval": "hour", "rotate-size": "1mb",
            "types": [
                {"alert": {"payload": true, "payload-buffer-size": "1kb", "metadata": false,
                           "http": true}},
                {"drop": {"alerts": true, "flows": "all"}}, "http", {"anomaly": {"types": null}},
                {"netflow": {"enabled": false}}, {"stats": null},
            ],
        }},
        {"eve-log": {"filetype": "unix_dgram", "filename": "/run/x", "types": [
            {"alert": {"packet": "yes"}},
        ]}},
        {"eve-log": {"enabled": "no"}},
    ]);
    let mut engine = EngineSettings::default();
    engine.set("outputs", &value.to_string()).unwrap();
    let outputs = &engine.outputs;
    assert_eq!(outputs.ignored, ["outputs.fast", "alert.http"]);
    let [file, socket] = &outputs.logs[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(file.community_id, Some(7));
    let hour = Some(std::time::Duration::from_secs(3600));
    assert!(matches!(&file.to, To::File { rotation, .. }
        if rotation.every == hour && rotation.bytes == Some(1 << 20)));
    assert_eq!(socket.to, To::UnixDatagram("/run/x".into()));
    assert!(!file.types.wants("netflow") && file.types.wants("stats"));
    let both = outputs.records();
    let alert = both.alert.unwrap();
    assert!(alert.payload && alert.packet && !alert.payload_printable);
    // The second log has not said that it does not want it.
    assert!(alert.metadata.flow);
    assert_eq!(alert.payload_buffer_size, ByteSize::kib(4));
    assert_eq!(both.drop.unwrap().flows, DropFlows::All);

    check_error(
        "outputs",
        r#"[{"eve-log": {"rotate-interval": "fortnight"}}]"#,
        "rotate-interval",
    );
    check_error(
        "outputs",
        r#"[{"eve-log": {"types": [{"drop": {"flows": "x"}}]}}]"#,
        "drop.flows",
    );
    check_error("outputs", "alert", "a list of outputs");
}

#[test]
fn a_file_is_read_with_the_place_of_each_mistake() {
    let read = |text: &str| toml::from_str::<EngineSettings>(text);
    let engine = read(
        "packet-alert-max = 3\n[stream]\nmidstream = true\n[stream.reassembly]\ndepth = '2mb'\n\
         [vars.address-groups]\nDMZ = '192.0.2.0/24'",
    )
    .unwrap();
    assert!(engine.stream.follows_midstream() && engine.packet_alert_max == 3);
    assert_eq!(engine.stream.reassembly.depth, ByteSize::mib(2));
    assert_eq!(engine.vars.address_groups["DMZ"], "192.0.2.0/24");
    assert!(engine.vars.address_groups.contains_key("HOME_NET"));
    for (text, at, expect) in [
        ("[stream]\nmidstraem = true", 9, "unknown field `midstraem`"),
        ("[stream]\nbypass = 'x'", 18, "expected yes or no"),
        (
            "[stream]\nmidstream = 'x'",
            21,
            "expected one of auto, yes, no",
        ),
        ("strem = 1", 0, "unknown field `strem`"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.message().contains(expect), "{error}");
        assert_eq!(error.span().map(|span| span.start), Some(at), "{error}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    let mut engine = set(&[
        ("stream.midstream", "true"),
        ("host-os-policy.linux", "10.0.0.0/8"),
        ("stream.inline", "no"),
        ("outputs", r#"[{"eve-log": {"types": [{"alert": null}]}}]"#),
    ]);
    engine.exception_policy = ExceptionPolicy::Bypass;
    let text = toml::to_string(&engine).unwrap();
    assert_eq!(toml::from_str::<EngineSettings>(&text).unwrap(), engine);
}
