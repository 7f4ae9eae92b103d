//! Loading, attaching, pinning, and taking over what an unclean stop has left.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::maps::{Array, Map, MapData};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{SchedClassifier, TcAttachType};
use ips_common::{Counter, LAYOUT_VERSION, SteerConfig, SteerFlags};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sluice::loader::{LoadError, LoadOptions, Programs, TcMode, XdpMode, XdpPolicy};
use sluice::maps::SteeringMaps;
use sluice_tests::patience::wait_until;
use sluice_tests::{Namespace, require_lab};

/// A namespace with a veth pair, and a pin directory; both are gone afterwards.
struct Place {
    namespace: Namespace,
    options: LoadOptions,
}

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sluice-load-{}-{number}", process::id());
        let place = Self {
            namespace: Namespace::create(&name).unwrap(),
            options: LoadOptions {
                pin_base: Path::new("/sys/fs/bpf").join(name),
                max_placed: 1024,
                max_convicted: 1024,
                max_fragments: 1024,
            },
        };
        place.add_pair("a", "b");
        place
    }

    fn add_pair(&self, one: &str, other: &str) {
        let add = [
            "link", "add", "name", one, "type", "veth", "peer", "name", other,
        ];
        self.ip(&add);
        self.ip(&["link", "set", "dev", one, "up"]);
        self.ip(&["link", "set", "dev", other, "up"]);
    }

    fn ip(&self, arguments: &[&str]) -> String {
        self.namespace.run("ip", arguments).unwrap()
    }

    fn load(&self) -> (Programs, SteeringMaps) {
        // The BPF file system is the same in all network namespaces.
        Programs::load(&self.options).unwrap()
    }

    /// Ids of the TC programs on an interface.
    fn tcx(&self, interface: &str) -> Vec<u32> {
        self.namespace.enter(|| {
            let (_, programs) =
                SchedClassifier::query_tcx(interface, TcAttachType::Ingress).unwrap();
            programs
                .iter()
                .map(aya::programs::ProgramInfo::id)
                .collect()
        })
    }

    fn xdp_attached(&self, interface: &str) -> bool {
        self.ip(&["link", "show", "dev", interface]).contains("xdp")
    }

    fn filters(&self, interface: &str) -> usize {
        let arguments = ["filter", "show", "dev", interface, "ingress"];
        let listed = self.namespace.run("tc", &arguments).unwrap();
        listed.matches("handle 0x51").count()
    }

    fn pin(&self, name: &str) -> PathBuf {
        self.version().join("links").join(name)
    }

    fn version(&self) -> PathBuf {
        self.options.pin_base.join(format!("v{LAYOUT_VERSION}"))
    }

    /// Link and program id behind a pin.
    fn link(&self, name: &str) -> (u32, u32) {
        let link: FdLink = PinnedLink::from_pin(self.pin(name)).unwrap().into();
        let info = link.info().unwrap();
        (info.id(), info.program_id())
    }

    /// Has the neighbour's ARP requests arrive at `a`.
    fn make_traffic(&self) {
        let frame = [0xff; 60];
        let socket = sluice_tests::frame::FrameSocket::open(&self.namespace, "b").unwrap();
        for _ in 0..10 {
            socket.send(&frame).unwrap();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self
            .namespace
            .enter(|| sluice::loader::remove_leftovers(&self.options.pin_base));
        let _ = self.namespace.remove();
    }
}

/// Waits for what the kernel does in its own time.
fn eventually(what: &str, condition: impl FnMut() -> bool) {
    wait_until(condition, || format!("{what} did not happen"));
}

fn counted(maps: &SteeringMaps, counter: Counter) -> u64 {
    maps.counters.read().unwrap().get(counter)
}

trait Attach {
    fn tc(&mut self, place: &Place, interface: &str) -> sluice::loader::TcChoice;
    fn xdp(
        &mut self,
        place: &Place,
        interface: &str,
        policy: XdpPolicy,
    ) -> Result<sluice::loader::XdpChoice, LoadError>;
}

impl Attach for Programs {
    fn tc(&mut self, place: &Place, interface: &str) -> sluice::loader::TcChoice {
        place.namespace.enter(|| self.attach_tc(interface)).unwrap()
    }

    fn xdp(
        &mut self,
        place: &Place,
        interface: &str,
        policy: XdpPolicy,
    ) -> Result<sluice::loader::XdpChoice, LoadError> {
        place.namespace.enter(|| self.attach_xdp(interface, policy))
    }
}

#[test]
fn a_clean_stop_leaves_nothing() {
    require_lab!();
    let place = Place::new();
    let (mut programs, maps) = place.load();
    assert_eq!(*programs.adopted(), sluice::loader::Adopted::default());
    assert_eq!(programs.tc(&place, "a").mode, TcMode::Tcx);
    let xdp = programs.xdp(&place, "a", XdpPolicy::Native).unwrap();
    assert_eq!((xdp.mode, xdp.adopted), (XdpMode::Native, false));
    assert_eq!(place.tcx("a").len(), 1);
    assert!(place.xdp_attached("a"));
    for pin in [
        "maps/CONFIG",
        "programs/sluice_tc",
        "links/tc-a",
        "links/xdp-a",
    ] {
        assert!(place.version().join(pin).exists(), "{pin}");
    }
    place.make_traffic();
    eventually("TC sees the frames", || {
        counted(&maps, Counter::TcPackets) >= 10
    });
    eventually("XDP sees the frames", || {
        counted(&maps, Counter::XdpPackets) >= 10
    });

    drop(maps);
    place.namespace.enter(|| programs.remove()).unwrap();
    assert_eq!(place.tcx("a"), [0_u32; 0]);
    assert!(!place.xdp_attached("a"));
    assert!(!place.options.pin_base.exists());
}

#[test]
fn after_an_unclean_stop_steering_goes_on_and_the_next_start_takes_over_in_place() {
    require_lab!();
    let place = Place::new();
    let (mut programs, mut maps) = place.load();
    programs.tc(&place, "a");
    programs.xdp(&place, "a", XdpPolicy::Native).unwrap();
    let config = SteerConfig {
        stale_ns: 4711,
        ..SteerConfig::default()
    };
    maps.write_config(&config).unwrap();
    place.make_traffic();
    // As after SIGKILL: every descriptor is closed and nothing was removed.
    drop((programs, maps));
    let (tc_before, xdp_before) = (place.link("tc-a"), place.link("xdp-a"));
    assert_eq!(place.tcx("a"), [tc_before.1], "steering goes on");
    assert!(place.xdp_attached("a"));
    place.make_traffic();

    let (mut programs, maps) = place.load();
    let adopted = programs.adopted().clone();
    assert_eq!((adopted.maps, adopted.links), (9, 2));
    assert_eq!(adopted.discarded, []);
    assert_eq!(
        place.tcx("a"),
        [tc_before.1],
        "nothing changes before attaching"
    );
    assert_eq!(maps.config().unwrap(), config);
    eventually("both runs are counted", || {
        counted(&maps, Counter::TcPackets) >= 20
    });
    let before = counted(&maps, Counter::TcPackets);

    assert!(programs.tc(&place, "a").adopted);
    assert!(
        programs
            .xdp(&place, "a", XdpPolicy::Native)
            .unwrap()
            .adopted
    );
    let (tc_after, xdp_after) = (place.link("tc-a"), place.link("xdp-a"));
    assert_eq!(tc_after.0, tc_before.0, "the same link");
    assert_eq!(xdp_after.0, xdp_before.0, "the same link");
    assert_ne!(tc_after.1, tc_before.1, "a new program");
    assert_ne!(xdp_after.1, xdp_before.1, "a new program");
    assert_eq!(place.tcx("a"), [tc_after.1]);
    place.make_traffic();
    eventually("the new program counts", || {
        counted(&maps, Counter::TcPackets) >= before + 10
    });

    place.namespace.enter(|| programs.remove()).unwrap();
    assert_eq!(place.tcx("a"), [0_u32; 0]);
    assert!(!place.options.pin_base.exists());
}

#[test]
fn a_map_of_another_size_is_discarded_and_reported() {
    require_lab!();
    let mut place = Place::new();
    drop(place.load());
    place.options.max_convicted = 2048;
    let (programs, _maps) = place.load();
    let adopted = programs.adopted();
    assert_eq!(adopted.maps, 8);
    assert_eq!(adopted.discarded.len(), 1);
    assert_eq!(adopted.discarded[0].name, "CONVICTED");
    assert_eq!(adopted.discarded[0].reason, "entries 1024 instead of 2048");
}

#[test]
fn links_of_interfaces_that_are_no_longer_configured_are_removed() {
    require_lab!();
    let place = Place::new();
    let (mut programs, maps) = place.load();
    programs.tc(&place, "a");
    programs.tc(&place, "b");
    programs.xdp(&place, "b", XdpPolicy::Generic).unwrap();
    drop((programs, maps));

    let (mut programs, _maps) = place.load();
    programs.tc(&place, "a");
    let retired = programs.retire_leftovers(&["a"]).unwrap();
    assert_eq!(retired, ["b (tcx)", "b (generic XDP)"]);
    assert_eq!(place.tcx("a").len(), 1);
    assert_eq!(place.tcx("b"), [0_u32; 0]);
    assert!(!place.xdp_attached("b"));
}

#[test]
fn an_interface_that_took_over_a_name_gets_a_link_of_its_own() {
    require_lab!();
    let place = Place::new();
    let (mut programs, _maps) = place.load();
    programs.tc(&place, "a");
    place.ip(&["link", "del", "dev", "a"]);
    place.add_pair("x", "y");
    place.add_pair("a", "b");
    let choice = programs.tc(&place, "a");
    assert!(!choice.adopted);
    assert_eq!(place.tcx("a").len(), 1);

    // Renamed: the link stays with the interface, and a new one is made for the new name.
    place.ip(&["link", "set", "dev", "x", "down"]);
    place.ip(&["link", "set", "dev", "x", "name", "x.100"]);
    let choice = programs.tc(&place, "x.100");
    assert!(!choice.adopted);
    assert!(programs.tc(&place, "x.100").adopted);
    assert_eq!(place.tcx("x.100").len(), 1);
    place.namespace.enter(|| programs.remove()).unwrap();
    assert_eq!(place.tcx("x.100"), [0_u32; 0]);
}

#[test]
fn a_new_layout_version_takes_over_the_links_of_the_old_one() {
    require_lab!();
    let place = Place::new();
    let (mut programs, maps) = place.load();
    programs.tc(&place, "a");
    programs.xdp(&place, "a", XdpPolicy::Native).unwrap();
    let (tc_before, xdp_before) = (place.link("tc-a"), place.link("xdp-a"));
    drop((programs, maps));
    let old = place.options.pin_base.join("v0");
    fs::rename(place.version(), &old).unwrap();

    let (mut programs, _maps) = place.load();
    let adopted = programs.adopted();
    assert_eq!((adopted.maps, adopted.links), (0, 2));
    assert!(programs.tc(&place, "a").adopted);
    assert!(
        programs
            .xdp(&place, "a", XdpPolicy::Native)
            .unwrap()
            .adopted
    );
    assert_eq!(place.link("tc-a").0, tc_before.0);
    assert_eq!(place.link("xdp-a").0, xdp_before.0);
    assert_eq!(programs.retire_leftovers(&["a"]).unwrap(), [""; 0]);
    assert!(!old.exists());
    assert_eq!(place.tcx("a").len(), 1);
}

#[test]
fn xdp_is_chosen_by_policy_and_the_reason_is_given() {
    require_lab!();
    let place = Place::new();
    let (mut programs, _maps) = place.load();
    let choice = programs.xdp(&place, "a", XdpPolicy::Auto).unwrap();
    assert_eq!(choice.mode, XdpMode::Off);
    assert!(choice.reason.contains("veth"), "{}", choice.reason);
    assert!(!place.xdp_attached("a"));

    for (policy, mode) in [
        (XdpPolicy::Native, XdpMode::Native),
        (XdpPolicy::Generic, XdpMode::Generic),
        (XdpPolicy::Native, XdpMode::Native),
    ] {
        let choice = programs.xdp(&place, "a", policy).unwrap();
        assert_eq!((choice.mode, choice.adopted), (mode, false));
        assert!(place.xdp_attached("a"));
        assert!(programs.xdp(&place, "a", policy).unwrap().adopted);
    }
    let choice = programs.xdp(&place, "a", XdpPolicy::Off).unwrap();
    assert_eq!(choice.mode, XdpMode::Off);
    assert!(!place.xdp_attached("a"));
}

#[test]
fn the_xdp_program_of_somebody_else_is_never_replaced() {
    require_lab!();
    let (place, other) = (Place::new(), Place::new());
    let (mut foreign, _foreign_maps) = other.load();
    let (mut programs, _maps) = place.load();
    for theirs in [XdpPolicy::Native, XdpPolicy::Generic] {
        foreign.xdp(&place, "a", theirs).unwrap();
        for ours in [XdpPolicy::Native, XdpPolicy::Generic] {
            let error = programs.xdp(&place, "a", ours).unwrap_err();
            assert!(matches!(error, LoadError::ForeignXdp(_)), "{error}");
        }
    }
    foreign.xdp(&place, "a", XdpPolicy::Off).unwrap();
    programs.xdp(&place, "a", XdpPolicy::Native).unwrap();
}

#[test]
fn clsact_serves_where_there_is_no_tcx() {
    require_lab!();
    let place = Place::new();
    let (mut programs, maps) = place.load();
    programs.prefer_clsact();
    let choice = programs.tc(&place, "a");
    assert_eq!((choice.mode, choice.adopted), (TcMode::Clsact, false));
    assert_eq!((place.filters("a"), place.tcx("a").len()), (1, 0));
    place.make_traffic();
    eventually("the filter counts", || {
        counted(&maps, Counter::TcPackets) >= 10
    });
    drop((programs, maps));
    assert_eq!(place.filters("a"), 1, "steering goes on");

    let (mut programs, maps) = place.load();
    assert_eq!(programs.adopted().links, 1);
    programs.prefer_clsact();
    let choice = programs.tc(&place, "a");
    assert_eq!((choice.mode, choice.adopted), (TcMode::Clsact, true));
    assert_eq!(place.filters("a"), 1);
    drop((programs, maps));

    // A newer kernel's way replaces it.
    let (mut programs, _maps) = place.load();
    let choice = programs.tc(&place, "a");
    assert_eq!((choice.mode, choice.adopted), (TcMode::Tcx, false));
    assert_eq!((place.filters("a"), place.tcx("a").len()), (0, 1));
    place.namespace.enter(|| programs.remove()).unwrap();
    assert!(!place.options.pin_base.exists());
}

#[test]
fn an_interface_without_ethernet_headers_is_refused() {
    require_lab!();
    let place = Place::new();
    let tun = ["tuntap", "add", "dev", "tun0", "mode", "tun"];
    if let Err(error) = place.namespace.run("ip", &tun) {
        println!("skipped: no tun devices here: {error:#}");
        return;
    }
    let (mut programs, _maps) = place.load();
    let error = place.namespace.enter(|| programs.attach_tc("tun0"));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("is no Ethernet interface"), "{error}");
}

#[test]
fn pins_in_use_are_refused_and_left_as_they_are() {
    require_lab!();
    let place = Place::new();
    let (mut programs, _maps) = place.load();
    place
        .namespace
        .enter(|| programs.attach_tc("a").map(drop))
        .unwrap();
    let attached = place.tcx("a");
    let error = Programs::load(&place.options).err().unwrap().to_string();
    assert!(error.contains("another running instance"), "{error}");
    assert_eq!(place.tcx("a"), attached);
    place.namespace.enter(|| programs.remove()).unwrap();
    place.load();
}

#[test]
fn a_wrong_interface_or_pin_directory_is_named() {
    require_lab!();
    let place = Place::new();
    let (mut programs, _maps) = place.load();
    let error = programs.attach_tc("sluice-no-such").unwrap_err();
    assert_eq!(
        error.to_string(),
        "interface sluice-no-such: no such interface"
    );

    let directory = tempfile::tempdir().unwrap();
    let options = LoadOptions {
        pin_base: directory.path().join("pins"),
        ..LoadOptions::default()
    };
    let error = Programs::load(&options).err().unwrap();
    assert!(
        error.to_string().contains("is not on a BPF file system"),
        "{error}"
    );
}

#[test]
fn the_programs_log_only_while_the_switch_is_on() {
    require_lab!();
    let place = Place::new();
    let (mut programs, mut maps) = place.load();
    let mut log = programs.kernel_log().unwrap();
    programs.tc(&place, "a");
    let readable = |log: &sluice::loader::KernelLog| {
        let mut fds = [PollFd::new(log.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    };
    let mut config = SteerConfig {
        workers: 1,
        mark_mask: 0xff,
        ..SteerConfig::default()
    };
    maps.write_config(&config).unwrap();
    // An IPv4 packet by its EtherType, which is all that matters here.
    let mut frame = [0; 60];
    frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
    let send = || {
        let before = counted(&maps, Counter::TcWorker);
        let socket = sluice_tests::frame::FrameSocket::open(&place.namespace, "b").unwrap();
        socket.send(&frame).unwrap();
        eventually("the packet is steered", || {
            counted(&maps, Counter::TcWorker) > before
        });
    };
    send();
    assert!(!readable(&log));
    config.flags = SteerFlags::LOG;
    write_through_pin(&place, &config);
    send();
    eventually("the programs log", || readable(&log));
    log.flush();
    assert!(!readable(&log));
}

/// Writes the configuration through the pin, as another process could.
fn write_through_pin(place: &Place, config: &SteerConfig) {
    let data = MapData::from_pin(place.version().join("maps/CONFIG")).unwrap();
    let mut map: Array<_, SteerConfig> = Map::Array(data).try_into().unwrap();
    map.set(0, config, 0).unwrap();
}
