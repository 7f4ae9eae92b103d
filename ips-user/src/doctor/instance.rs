//! What each process of the running instance may do. Workers and rejecter look at what
//! attackers send: what one of them may do, whoever takes it over may do too.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use caps::Capability;
use serde::Serialize;

use super::{Check, Status};
use crate::metrics::snapshot::Snapshot;

/// A running instance, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its processes: what they are called, their ids (zero: there is none), what they may keep.
    processes: Vec<(String, u32, Keeps)>,
    /// Version of Landlock that confines the confined ones; the kernel does not show it.
    landlock: Option<u32>,
}

/// What a process is expected to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    /// What it was started with.
    Everything,
    /// One capability, in a sandbox.
    Only(Capability),
}

/// What one process may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Process {
    /// `supervisor`, `launcher`, `rejecter`, `worker 0`, `backup`.
    pub name: String,
    /// Its id.
    pub pid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities by set: `effective`, `permitted`, `inheritable`, `ambient`, `bounding`.
    pub capabilities: BTreeMap<&'static str, Capabilities>,
    /// `off`, `strict`, `filter`.
    pub seccomp: String,
    /// Whether no exec can give it anything.
    pub no_new_privs: bool,
    /// Version of Landlock that confines it, by its own account; `None`: not confined by it.
    pub landlock: Option<u32>,
}

/// Names of capabilities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Capabilities(Vec<String>);

impl Capabilities {
    fn of_mask(mask: u64) -> Self {
        let mut held: Vec<_> = caps::all()
            .into_iter()
            .filter(|it| mask & it.bitmask() != 0)
            .collect();
        held.sort_by_key(Capability::index);
        Self(held.iter().map(Capability::to_string).collect())
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More than this are counted, not named.
        const NAMED: usize = 4;
        match self.0.len() {
            0 => f.write_str("no capabilities"),
            1..=NAMED => f.write_str(&self.0.join(" ")),
            many => write!(f, "{many} capabilities"),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, uid, .. } = self;
        write!(f, "pid {pid}, uid {uid}, {}", self.set("effective"))?;
        write!(f, ", seccomp {}", self.seccomp)?;
        if self.no_new_privs {
            f.write_str(", no new privileges")?;
        }
        match self.landlock {
            Some(version) => write!(f, ", Landlock {version}"),
            None => f.write_str(", no Landlock"),
        }
    }
}

/// The sets, as they are called here and in proc_pid_status(5).
const SETS: [(&str, &str); 5] = [
    ("effective", "CapEff"),
    ("permitted", "CapPrm"),
    ("inheritable", "CapInh"),
    ("ambient", "CapAmb"),
    ("bounding", "CapBnd"),
];

impl Process {
    fn read(name: &str, pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Self::parse(name, pid, &text)
    }

    fn parse(name: &str, pid: u32, text: &str) -> Option<Self> {
        let fields: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(field, value)| (field, value.trim()))
            .collect();
        let set = |(set, field): (&'static str, &str)| {
            // Ambient capabilities came with Linux 4.3.
            let mask = fields
                .get(field)
                .map_or(Ok(0), |it| u64::from_str_radix(it, 16));
            Some((set, Capabilities::of_mask(mask.ok()?)))
        };
        let numbers = |field: &str| -> Option<Vec<u32>> {
            let values = fields.get(field)?.split_ascii_whitespace();
            values.map(|value| value.parse().ok()).collect()
        };
        Some(Self {
            name: name.to_owned(),
            pid,
            // Real, effective, saved, file system.
            uid: *numbers("Uid")?.get(1)?,
            groups: numbers("Groups")?,
            capabilities: SETS.into_iter().map(set).collect::<Option<_>>()?,
            seccomp: match fields.get("Seccomp").copied() {
                Some("2") => "filter",
                Some("1") => "strict",
                _ => "off",
            }
            .to_owned(),
            no_new_privs: fields.get("NoNewPrivs") == Some(&"1"),
            landlock: None,
        })
    }

    fn set(&self, set: &str) -> Capabilities {
        self.capabilities.get(set).cloned().unwrap_or_default()
    }

    /// What it has beyond `keeps`, in words.
    fn excess(&self, keeps: Keeps) -> Vec<String> {
        let Keeps::Only(capability) = keeps else {
            return Vec::new();
        };
        let mut excess = Vec::new();
        if self.uid == 0 {
            excess.push("it is root".to_owned());
        }
        if !self.groups.is_empty() {
            excess.push("it is in supplementary groups".to_owned());
        }
        for (set, held) in &self.capabilities {
            let may = match *set {
                "effective" | "permitted" => capability.to_string(),
                _ => String::new(),
            };
            let more: Vec<_> = held.0.iter().filter(|it| **it != may).cloned().collect();
            if !more.is_empty() {
                excess.push(format!("{set}: {}", Capabilities(more)));
            }
        }
        if self.seccomp != "filter" {
            excess.push("any system call".to_owned());
        }
        if !self.no_new_privs {
            excess.push("new privileges by exec".to_owned());
        }
        if self.landlock.is_none() {
            excess.push("not confined by Landlock".to_owned());
        }
        excess
    }
}

impl Instance {
    /// The instance that says this about itself.
    pub fn of(snapshot: &Snapshot) -> Self {
        let worker = Keeps::Only(Capability::CAP_NET_ADMIN);
        let rejecter = Keeps::Only(Capability::CAP_NET_RAW);
        let mut processes = vec![
            ("supervisor".to_owned(), snapshot.pid, Keeps::Everything),
            ("launcher".to_owned(), snapshot.launcher, Keeps::Everything),
            ("rejecter".to_owned(), snapshot.rejecter.pid, rejecter),
        ];
        let seats = snapshot.seats();
        processes.extend(seats.map(|it| (it.seat.to_string(), it.pid, worker)));
        Self {
            processes,
            landlock: snapshot.sandbox.landlock,
        }
    }
}

/// Looks at each process.
pub(super) fn examine(instance: &Instance) -> (Vec<Process>, Vec<Check>) {
    let mut processes = Vec::new();
    let mut checks = Vec::new();
    for (name, pid, keeps) in &instance.processes {
        let matters = match keeps {
            Keeps::Everything => "it sees no packet, and sets up the others",
            Keeps::Only(_) => "what it may do, whoever takes it over by a packet may do too",
        };
        let check = Check::new(format!("instance: {name}"), matters);
        let Some(mut process) = Process::read(name, *pid).filter(|_| *pid != 0) else {
            checks.push(
                check
                    .is(Status::Warn, "there is no such process now")
                    .advise("look again; the log says why it ends, if it keeps ending"),
            );
            continue;
        };
        if *keeps != Keeps::Everything {
            process.landlock = instance.landlock;
        }
        let excess = process.excess(*keeps);
        checks.push(if excess.is_empty() {
            check.is(Status::Ok, process.to_string())
        } else {
            check
                .is(
                    Status::Warn,
                    format!("{process}; more than it needs: {}", excess.join("; ")),
                )
                .advise(
                    "sandbox.seccomp = true and sandbox.landlock = true (where the kernel has \
                     them), and CAP_SETUID, CAP_SETGID and CAP_SETPCAP for `sluice run`",
                )
        });
        processes.push(process);
    }
    (processes, checks)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFINED: &str = "Name:\tsluice-0\nUid:\t65534\t65534\t65534\t65534\nGroups:\t \n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000001000\nCapEff:\t0000000000001000\n\
        CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    fn process(text: &str) -> Process {
        let mut process = Process::parse("worker 0", 7, text).unwrap();
        process.landlock = Some(7);
        process
    }

    #[test]
    fn a_confined_worker_has_nothing_that_it_does_not_need() {
        let worker = process(CONFINED);
        let keeps = Keeps::Only(Capability::CAP_NET_ADMIN);
        assert_eq!(worker.excess(keeps), Vec::<String>::new());
        assert_eq!(
            worker.to_string(),
            "pid 7, uid 65534, CAP_NET_ADMIN, seccomp filter, no new privileges, Landlock 7"
        );
    }

    #[test]
    fn whatever_is_too_much_is_named() {
        let keeps = Keeps::Only(Capability::CAP_NET_RAW);
        for (from, to, expected) in [
            ("Uid:\t65534\t65534", "Uid:\t65534\t0", "it is root"),
            ("Groups:\t ", "Groups:\t4 27 ", "supplementary groups"),
            ("Seccomp:\t2", "Seccomp:\t0", "any system call"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "by exec"),
            ("Name", "Name", "effective: CAP_NET_ADMIN"),
            (
                "CapBnd:\t0000000000000000",
                "CapBnd:\t000001ffffffffff",
                "bounding: 41 capabilities",
            ),
        ] {
            let excess = process(&CONFINED.replacen(from, to, 1)).excess(keeps);
            let named = excess.iter().any(|it| it.contains(expected));
            assert!(named, "{expected}: {excess:?}");
        }
        assert_eq!(process(CONFINED).excess(Keeps::Everything).len(), 0);
    }

    #[test]
    fn what_is_no_status_is_not_understood() {
        assert_eq!(Process::parse("x", 1, ""), None);
        assert_eq!(Process::parse("x", 1, "Uid:\t1\nGroups:\t\n"), None);
    }
}
