//! What a `classtype` means.

use std::collections::BTreeMap;

use super::ast::Class;

/// The well-known classes: name, description, priority. The names and descriptions are those
/// that existing rules, dashboards and reports use (Emerging Threats Open,
/// `classification.config`, BSD-3-Clause).
const WELL_KNOWN: [(&str, &str, u8); 42] = [
    ("not-suspicious", "Not Suspicious Traffic", 3),
    ("unknown", "Unknown Traffic", 3),
    ("bad-unknown", "Potentially Bad Traffic", 2),
    ("attempted-recon", "Attempted Information Leak", 2),
    ("successful-recon-limited", "Information Leak", 2),
    (
        "successful-recon-largescale",
        "Large Scale Information Leak",
        2,
    ),
    ("attempted-dos", "Attempted Denial of Service", 2),
    ("successful-dos", "Denial of Service", 2),
    ("attempted-user", "Attempted User Privilege Gain", 1),
    ("unsuccessful-user", "Unsuccessful User Privilege Gain", 1),
    ("successful-user", "Successful User Privilege Gain", 1),
    (
        "attempted-admin",
        "Attempted Administrator Privilege Gain",
        1,
    ),
    (
        "successful-admin",
        "Successful Administrator Privilege Gain",
        1,
    ),
    ("rpc-portmap-decode", "Decode of an RPC Query", 2),
    ("shellcode-detect", "Executable code was detected", 1),
    ("string-detect", "A suspicious string was detected", 3),
    (
        "suspicious-filename-detect",
        "A suspicious filename was detected",
        2,
    ),
    (
        "suspicious-login",
        "An attempted login using a suspicious username was detected",
        2,
    ),
    ("system-call-detect", "A system call was detected", 2),
    ("tcp-connection", "A TCP connection was detected", 4),
    ("trojan-activity", "A Network Trojan was detected", 1),
    (
        "unusual-client-port-connection",
        "A client was using an unusual port",
        2,
    ),
    ("network-scan", "Detection of a Network Scan", 3),
    (
        "denial-of-service",
        "Detection of a Denial of Service Attack",
        2,
    ),
    (
        "non-standard-protocol",
        "Detection of a non-standard protocol or event",
        2,
    ),
    (
        "protocol-command-decode",
        "Generic Protocol Command Decode",
        3,
    ),
    (
        "web-application-activity",
        "access to a potentially vulnerable web application",
        2,
    ),
    ("web-application-attack", "Web Application Attack", 1),
    ("misc-activity", "Misc activity", 3),
    ("misc-attack", "Misc Attack", 2),
    ("icmp-event", "Generic ICMP event", 3),
    (
        "policy-violation",
        "Potential Corporate Privacy Violation",
        1,
    ),
    (
        "default-login-attempt",
        "Attempt to login by a default username and password",
        2,
    ),
    (
        "targeted-activity",
        "Targeted Malicious Activity was Detected",
        1,
    ),
    ("exploit-kit", "Exploit Kit Activity Detected", 1),
    (
        "external-ip-check",
        "Device Retrieving External IP Address Detected",
        2,
    ),
    ("domain-c2", "Domain Observed Used for C2 Detected", 1),
    ("pup-activity", "Possibly Unwanted Program Detected", 2),
    (
        "credential-theft",
        "Successful Credential Theft Detected",
        1,
    ),
    (
        "social-engineering",
        "Possible Social Engineering Attempted",
        2,
    ),
    ("coin-mining", "Crypto Currency Mining Activity Detected", 2),
    (
        "command-and-control",
        "Malware Command and Control Activity Detected",
        1,
    ),
];

/// Classes by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classification {
    classes: BTreeMap<String, Class>,
}

impl Default for Classification {
    /// The well-known classes.
    fn default() -> Self {
        let mut known = Self {
            classes: BTreeMap::new(),
        };
        for (name, description, priority) in WELL_KNOWN {
            known.insert(name, description, priority);
        }
        known
    }
}

impl Classification {
    /// Adds the lines `config classification: name,description,priority` of a
    /// `classification.config`; returns the numbers (from 1) of lines that are something else.
    pub fn add(&mut self, text: &str) -> Vec<usize> {
        let mut wrong = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match parse_line(line) {
                Some((name, description, priority)) => self.insert(name, description, priority),
                None => wrong.push(index + 1),
            }
        }
        wrong
    }

    /// The class of this name, in any case.
    pub fn get(&self, name: &str) -> Option<&Class> {
        self.classes.get(&name.to_ascii_lowercase())
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.classes.keys().map(String::as_str)
    }

    fn insert(&mut self, name: &str, description: &str, priority: u8) {
        self.classes.insert(
            name.to_ascii_lowercase(),
            Class {
                name: name.to_owned(),
                description: description.to_owned(),
                priority,
            },
        );
    }
}

fn parse_line(line: &str) -> Option<(&str, &str, u8)> {
    let rest = line.strip_prefix("config")?.trim_start();
    let rest = rest.strip_prefix("classification:")?;
    let (name, rest) = rest.split_once(',')?;
    let (description, priority) = rest.rsplit_once(',')?;
    let priority = priority.trim().parse().ok().filter(|&p| p > 0)?;
    let name = name.trim();
    (!name.is_empty()).then_some((name, description.trim(), priority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_classification_file_adds_and_replaces() {
        let mut classes = Classification::default();
        assert_eq!(classes.get("Trojan-Activity").unwrap().priority, 1);
        let wrong = classes.add(
            "# c\nconfig classification: mine,My, own class, 4\nnonsense\n\
             config classification: trojan-activity,Changed,2\n",
        );
        assert_eq!(wrong, [3]);
        assert_eq!(classes.get("mine").unwrap().description, "My, own class");
        assert_eq!(classes.get("trojan-activity").unwrap().priority, 2);
    }
}
