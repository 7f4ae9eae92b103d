//! `reference.config`: where the systems of references are.

use std::collections::BTreeMap;

/// The well-known systems, by their names in published rules.
const WELL_KNOWN: [(&str, &str); 12] = [
    ("url", "http://"),
    ("cve", "https://cve.mitre.org/cgi-bin/cvename.cgi?name="),
    ("bugtraq", "http://www.securityfocus.com/bid/"),
    ("bid", "http://www.securityfocus.com/bid/"),
    ("nessus", "https://www.tenable.com/plugins/nessus/"),
    ("mcafee", "http://vil.nai.com/vil/content/v_"),
    ("osvdb", "http://osvdb.org/show/osvdb/"),
    ("exploitdb", "https://www.exploit-db.com/exploits/"),
    (
        "msb",
        "https://technet.microsoft.com/en-us/library/security/",
    ),
    ("md5", "http://www.threatexpert.com/report.aspx?md5="),
    ("secunia", "http://www.secunia.com/advisories/"),
    ("et", "http://doc.emergingthreats.net/"),
];

/// The address in front of an id, by system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct References(BTreeMap<String, String>);

impl Default for References {
    /// The well-known systems.
    fn default() -> Self {
        let owned = WELL_KNOWN.map(|(system, prefix)| (system.to_owned(), prefix.to_owned()));
        Self(owned.into())
    }
}

impl References {
    /// Adds the lines `config reference: system prefix` of a `reference.config`; returns the
    /// numbers (from 1) of lines that are something else.
    pub fn add(&mut self, text: &str) -> Vec<usize> {
        let mut wrong = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match parse_line(line) {
                Some((system, prefix)) => {
                    self.0
                        .insert(system.to_ascii_lowercase(), prefix.to_owned());
                }
                None => wrong.push(index + 1),
            }
        }
        wrong
    }

    /// What stands before an id of this system, whose name may be in any case.
    pub fn prefix(&self, system: &str) -> Option<&str> {
        let prefix = match self.0.get(system) {
            Some(prefix) => prefix,
            None => self.0.get(&system.to_ascii_lowercase())?,
        };
        Some(prefix)
    }
}

fn parse_line(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("config")?.trim_start();
    let rest = rest.strip_prefix("reference:")?.trim_start();
    let (system, prefix) = rest.split_once(|c: char| c.is_ascii_whitespace())?;
    let prefix = prefix.trim();
    (!system.is_empty() && !prefix.is_empty()).then_some((system, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_file_adds_and_replaces() {
        let mut references = References::default();
        assert_eq!(references.prefix("URL"), Some("http://"));
        let wrong = references.add(
            "# systems\nconfig reference: mine https://example.org/?id=\n\
             config reference: cve   https://cve.example/\nconfig reference: empty\nx\n",
        );
        assert_eq!(wrong, [4, 5]);
        assert_eq!(references.prefix("mine"), Some("https://example.org/?id="));
        assert_eq!(references.prefix("CVE"), Some("https://cve.example/"));
        assert_eq!(references.prefix("empty"), None);
    }
}
