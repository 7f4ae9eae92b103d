//! Which files make a rule set: those named, all of a directory or pattern, and those that they
//! include.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::diagnostic::{Diagnostic, Severity};
use super::source::{LogicalLine, RuleSource, Span};
use super::sources::Sources;

/// Deepest `include` in an included file.
const MAX_DEPTH: usize = 16;

/// Asks the disk which files a path stands for: itself, `*.rules` of a directory, or those that a pattern
/// with `*` in its last part matches; sorted by name.
///
/// # Errors
/// When a directory cannot be read, or a pattern matches nothing.
pub(super) fn expand(path: &Path) -> io::Result<Vec<PathBuf>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (directory, pattern) = if path.is_dir() {
        (path, "*.rules")
    } else if name.contains('*') {
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        (parent.unwrap_or(Path::new(".")), &*name)
    } else {
        return Ok(vec![path.to_owned()]);
    };
    let mut found: Vec<PathBuf> = fs::read_dir(directory)?
        .filter_map(Result::ok)
        .filter(|entry| matches(pattern, &entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    if found.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("no file here is called {pattern}"),
        ));
    }
    Ok(found)
}

/// Whether a name is like a pattern, in which `*` is any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The path behind `include`, if this line is one.
pub(super) fn included(line: &LogicalLine) -> Option<(&str, Span)> {
    let rest = line.text.strip_prefix(b"include")?;
    if !rest.first()?.is_ascii_whitespace() {
        return None;
    }
    let path = std::str::from_utf8(rest).ok()?.trim();
    let start = line.text.len() - rest.trim_ascii_start().len();
    let span = Span {
        start,
        end: start + path.len(),
    };
    let path = path.trim_matches('"');
    (!path.is_empty() && !path.contains('(')).then_some((path, span))
}

/// Reads files and what they include, each once. What is included and cannot be read is a
/// diagnostic.
pub(super) struct Reader<'a> {
    from: &'a Sources,
    sources: Vec<RuleSource>,
    seen: HashSet<PathBuf>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    /// Nothing read yet.
    pub(super) fn new(from: &'a Sources) -> Self {
        Self {
            from,
            sources: Vec::new(),
            seen: HashSet::new(),
            diagnostics: Vec::new(),
        }
    }

    /// Reads the files that a path stands for.
    ///
    /// # Errors
    /// When one of them cannot be read: those before it have been.
    pub(super) fn add(&mut self, path: &Path) -> io::Result<()> {
        self.read_all(path, 0)
    }

    /// The same; what cannot be read is a diagnostic, too.
    pub(super) fn add_or_say(&mut self, path: &Path) {
        if let Err(error) = self.add(path) {
            self.diagnostics.push(unreadable(path, &error));
        }
    }

    /// What was read, an included file before the one that includes it, and what was not.
    pub(super) fn finish(self) -> (Vec<RuleSource>, Vec<Diagnostic>) {
        (self.sources, self.diagnostics)
    }

    fn read_all(&mut self, path: &Path, depth: usize) -> io::Result<()> {
        for file in self.from.files(path)? {
            if self.seen.insert(self.from.name_of(&file)) {
                let bytes = self.from.read(&file)?;
                self.follow(RuleSource::new(file, bytes), depth);
            }
        }
        Ok(())
    }

    /// Reads what a file includes, and then has it as well.
    fn follow(&mut self, source: RuleSource, depth: usize) {
        let parent = source.name().parent().unwrap_or(Path::new("")).to_owned();
        let mut wanted = Vec::new();
        for line in source.logical_lines() {
            if let Some((path, span)) = included(&line) {
                wanted.push((parent.join(path), line.file_span(span)));
            }
        }
        let mut findings = Vec::new();
        for (path, span) in wanted {
            let followed = if depth >= MAX_DEPTH {
                Err(io::Error::other(format!(
                    "files include each other more than {MAX_DEPTH} deep"
                )))
            } else {
                self.read_all(&path, depth + 1)
            };
            if let Err(error) = followed {
                findings.push(source.diagnostic(
                    Severity::Error,
                    span,
                    format!("cannot read {}: {error}", path.display()),
                    Some("a path relative to this file, or an absolute one".into()),
                ));
            }
        }
        self.diagnostics.append(&mut findings);
        self.sources.push(source);
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        file: path.to_owned(),
        line: 1,
        column: 1,
        length: 1,
        message: format!("cannot read the rule file: {error}"),
        help: None,
        source_line: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, name, expect) in [
            ("*.rules", "a.rules", true),
            ("*.rules", "a.rule", false),
            ("et-*-2.rules", "et-x-2.rules", true),
            ("et-*-2.rules", "et-2.rules", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyyd", false),
            ("abc", "abc", true),
            ("abc", "abcd", false),
        ] {
            assert_eq!(matches(pattern, name), expect, "{pattern} {name}");
        }
    }

    #[test]
    fn files_include_others_each_once() {
        let directory = std::env::temp_dir().join(format!("sluice-include-{}", std::process::id()));
        fs::create_dir_all(directory.join("more")).unwrap();
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
        write("main.rules", "include more/*.rules\ninclude gone.rules\n");
        write(
            "more/a.rules",
            "alert ip any any -> any any (sid:1;)\ninclude ../main.rules\n",
        );
        write("more/b.rules", "alert ip any any -> any any (sid:2;)\n");
        let from = Sources::disk();
        let mut reader = Reader::new(&from);
        reader.add(&directory.join("main.rules")).unwrap();
        // It is there already.
        reader.add(&directory.join("more/../more/b.rules")).unwrap();
        let (sources, diagnostics) = reader.finish();
        fs::remove_dir_all(&directory).unwrap();
        let names: Vec<_> = sources
            .iter()
            .map(|source| source.name().file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["a.rules", "b.rules", "main.rules"]);
        assert_eq!(diagnostics.len(), 1, "{diagnostics:?}");
        assert_eq!((diagnostics[0].line, diagnostics[0].column), (2, 9));
        assert!(diagnostics[0].message.contains("gone.rules"));
    }
}
