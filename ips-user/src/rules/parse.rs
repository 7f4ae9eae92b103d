//! One rule: `action protocol source ports -> destination ports (options)`.
//!
//! Everything that can be understood is, after a mistake too, so that one run shows all
//! mistakes.

use super::ast::{Arrow, Options, Rule};
use super::classification::Classification;
use super::diagnostic::{Severity, nearest, shortened};
use super::list::{self, Finding};
use super::options::OptionParser;
use super::source::{LogicalLine, RuleSource, Span};
use super::variables::Variables;
use super::vocabulary::{ACTIONS, ACTIONS_NOT_YET, PROTOCOLS, PROTOCOLS_NOT_YET};

/// What the words of a rule refer to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) variables: &'a Variables,
    pub(super) classification: &'a Classification,
}

/// Most findings about one rule: what follows is noise, and a file of nothing but semicolons
/// must not fill the memory.
const MAX_FINDINGS: usize = 20;

/// A finding and how bad it is.
#[derive(Clone, Debug)]
pub(super) struct Graded {
    pub(super) severity: Severity,
    pub(super) finding: Finding,
}

/// Collects findings about one rule; spans are those of the logical line.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) graded: Vec<Graded>,
    /// Words that Sluice does not support yet, first occurrence of each.
    pub(super) unsupported: Vec<(String, Span)>,
}

impl Findings {
    pub(super) fn error(&mut self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.push(Severity::Error, span, message.into(), help);
    }

    pub(super) fn warning(&mut self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.push(Severity::Warning, span, message.into(), help);
    }

    /// A finding whose span is relative to `base`.
    pub(super) fn error_at(&mut self, base: usize, mut finding: Finding) {
        finding.span.start += base;
        finding.span.end += base;
        self.add(Severity::Error, finding);
    }

    pub(super) fn unsupported(&mut self, word: &str, span: Span) {
        if !self.unsupported.iter().any(|(known, _)| known == word) {
            self.unsupported.push((word.to_owned(), span));
        }
    }

    fn push(&mut self, severity: Severity, span: Span, message: String, help: Option<String>) {
        self.add(
            severity,
            Finding {
                span,
                message,
                help,
            },
        );
    }

    fn add(&mut self, severity: Severity, finding: Finding) {
        // An error always gets in: it decides that the rule is skipped.
        let first_error = severity == Severity::Error && !self.skips_rule();
        if self.graded.len() < MAX_FINDINGS || first_error {
            self.graded.push(Graded { severity, finding });
        }
    }

    fn skips_rule(&self) -> bool {
        !self.unsupported.is_empty()
            || self
                .graded
                .iter()
                .any(|graded| graded.severity == Severity::Error)
    }
}

/// Parses one logical line. `None` when the rule has to be skipped: then `findings` says why.
pub(super) fn rule(
    source: &RuleSource,
    line: &LogicalLine,
    context: Context<'_>,
    findings: &mut Findings,
) -> Option<Rule> {
    let text = line.text.as_slice();
    let (header, options_at) = match header_end(text) {
        Some(open) => (&text[..open], Some(open + 1)),
        None => (text, None),
    };
    let words = words(header);
    let header = parse_header(header, &words, context, findings);
    let options = match options_at {
        Some(at) => {
            let mut parser = OptionParser::new(text, at, context.classification, findings);
            parser.parse()
        }
        None => {
            let end = Span {
                start: text.len(),
                end: text.len(),
            };
            findings.error(
                end,
                "no options",
                Some("a rule ends with `(… sid:1; rev:1;)`".into()),
            );
            None
        }
    };
    if findings.skips_rule() {
        return None;
    }
    let (header, options): (Header, Options) = (header?, options?);
    let start = line.file_span(Span { start: 0, end: 1 }).start;
    Some(Rule {
        action: header.action,
        protocol: header.protocol,
        source: header.source,
        source_ports: header.source_ports,
        direction: header.direction,
        destination: header.destination,
        destination_ports: header.destination_ports,
        options,
        file: source.name().to_owned(),
        line: source.line_of(start),
    })
}

struct Header {
    action: super::ast::Action,
    protocol: super::ast::RuleProtocol,
    source: super::ast::AddressSet,
    source_ports: super::ast::PortSet,
    direction: Arrow,
    destination: super::ast::AddressSet,
    destination_ports: super::ast::PortSet,
}

/// Where the options begin: no part of a header has parentheses.
fn header_end(text: &[u8]) -> Option<usize> {
    text.iter().position(|&byte| byte == b'(')
}

/// Words of a header; a list in brackets is one word, spaces and all.
fn words(header: &[u8]) -> Vec<Span> {
    let mut words = Vec::new();
    let mut start = None;
    let mut open = 0usize;
    for (at, &byte) in header.iter().enumerate() {
        match byte {
            b'[' => open += 1,
            b']' => open = open.saturating_sub(1),
            _ => {}
        }
        let gap = byte.is_ascii_whitespace() && open == 0;
        match start {
            Some(from) if gap => {
                words.push(Span {
                    start: from,
                    end: at,
                });
                start = None;
            }
            None if !gap => start = Some(at),
            _ => {}
        }
    }
    words.extend(start.map(|from| Span {
        start: from,
        end: header.len(),
    }));
    words
}

const PARTS: [&str; 7] = [
    "action",
    "protocol",
    "source address",
    "source port",
    "direction",
    "destination address",
    "destination port",
];
const DIRECTION_AT: usize = 4;

/// What is wrong with a header that has too few or too many words: best told by its arrow.
fn wrong_parts(header: &[u8], words: &[Span]) -> Finding {
    let text = |span: Span| &header[span.start..span.end];
    let count = |span: Span, bracket| text(span).iter().filter(|&&byte| byte == bracket).count();
    let finding = |span: Span, message: String, help: &str| Finding {
        span,
        message,
        help: Some(help.into()),
    };
    let shape = "action protocol source ports -> destination ports (options)";
    let open = words
        .iter()
        .find(|&&word| count(word, b'[') > count(word, b']'));
    if let Some(&word) = open {
        return finding(word, "`[` without `]`".into(), "a list is written [a,b,!c]");
    }
    let is_arrow = |word: &[u8]| word == b"->" || word == b"<>";
    match words.iter().position(|&word| is_arrow(text(word))) {
        Some(at @ 2..DIRECTION_AT) => {
            let message = format!("the header has no {} before its direction", PARTS[at]);
            return finding(words[at], message, shape);
        }
        Some(at) if at > DIRECTION_AT => {
            let message = "unexpected word in the header".into();
            return finding(words[DIRECTION_AT], message, shape);
        }
        Some(_) => {}
        None => {
            let has_arrow = |bytes: &[u8]| bytes.windows(2).any(is_arrow);
            if let Some(&word) = words.iter().find(|&&word| has_arrow(text(word))) {
                return finding(word, "no spaces around the direction".into(), shape);
            }
            if let Some(&word) = words.get(DIRECTION_AT) {
                let message = "`->` or `<>` is missing before this".into();
                return finding(word, message, shape);
            }
        }
    }
    match (words.get(PARTS.len()), PARTS.get(words.len())) {
        (None, Some(missing)) => {
            let end = header.trim_ascii_end().len();
            let span = Span { start: end, end };
            let message = format!("the header ends before its {missing}");
            finding(span, message, shape)
        }
        (extra, _) => {
            let span = extra.copied().unwrap_or(Span { start: 0, end: 1 });
            finding(span, "unexpected word in the header".into(), shape)
        }
    }
}

fn parse_header(
    header: &[u8],
    words: &[Span],
    context: Context<'_>,
    findings: &mut Findings,
) -> Option<Header> {
    let text_of = |span: Span, findings: &mut Findings| match std::str::from_utf8(
        &header[span.start..span.end],
    ) {
        Ok(text) => Some(text),
        Err(_) => {
            findings.error(span, "not UTF-8", None);
            None
        }
    };
    let action = words.first().and_then(|&span| {
        let word = text_of(span, findings)?;
        choose("action", word, span, &ACTIONS, &ACTIONS_NOT_YET, findings)
    });
    let protocol = words.get(1).and_then(|&span| {
        let word = text_of(span, findings)?;
        choose(
            "protocol",
            word,
            span,
            &PROTOCOLS,
            &PROTOCOLS_NOT_YET,
            findings,
        )
    });
    if words.len() != PARTS.len() {
        let Finding {
            span,
            message,
            help,
        } = wrong_parts(header, words);
        findings.error(span, message, help);
        return None;
    }
    let direction = match text_of(words[4], findings) {
        Some("->") => Some(Arrow::Toward),
        Some("<>") => Some(Arrow::Either),
        Some(other) => {
            let help = match other {
                "<-" => "exchange the two sides and write `->`",
                _ => "`->` or `<>`",
            };
            findings.error(
                words[4],
                format!("`{}` is not a direction", shortened(other)),
                Some(help.into()),
            );
            None
        }
        None => None,
    };
    let addresses = |span: Span, findings: &mut Findings| {
        let text = text_of(span, findings)?;
        list::addresses(text, context.variables)
            .map_err(|finding| findings.error_at(span.start, finding))
            .ok()
    };
    let source = addresses(words[2], findings);
    let destination = addresses(words[5], findings);
    let ports = |span: Span, findings: &mut Findings| {
        let text = text_of(span, findings)?;
        list::ports(text, context.variables)
            .map_err(|finding| findings.error_at(span.start, finding))
            .ok()
    };
    let source_ports = ports(words[3], findings);
    let destination_ports = ports(words[6], findings);
    Some(Header {
        action: action?,
        protocol: protocol?,
        source: source?,
        source_ports: source_ports?,
        direction: direction?,
        destination: destination?,
        destination_ports: destination_ports?,
    })
}

fn choose<T: Copy>(
    what: &str,
    word: &str,
    span: Span,
    known: &[(&str, T)],
    not_yet: &[&str],
    findings: &mut Findings,
) -> Option<T> {
    if let Some((_, value)) = known.iter().find(|(name, _)| *name == word) {
        return Some(*value);
    }
    if not_yet.contains(&word) {
        findings.unsupported(word, span);
        return None;
    }
    let names = known
        .iter()
        .map(|(name, _)| *name)
        .chain(not_yet.iter().copied());
    let help = nearest(word, names).map(|near| format!("did you mean `{near}`?"));
    findings.error(span, format!("unknown {what} `{}`", shortened(word)), help);
    None
}
