//! One rule: `action protocol source ports -> destination ports (options)`.
//!
//! Everything that can be understood is, after a mistake too, so that one run shows all
//! mistakes.

use super::ast::{Action, AddressSet, Arrow, PortSet, Rule, RuleProtocol};
use super::classification::Classification;
use super::diagnostic::{nearest, shortened};
use super::finding::{Finding, Findings};
use super::list;
use super::options;
use super::reference::References;
use super::source::{LogicalLine, RuleSource, Span};
use super::variables::Variables;
use super::vocabulary::{ACTIONS, ACTIONS_OF_OTHERS, APP_PROTOCOLS, PROTOCOLS, RuleAction};

/// What the words of a rule refer to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) variables: &'a Variables,
    pub(super) classification: &'a Classification,
    pub(super) references: &'a References,
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
            let known = (header.protocol, header.direction);
            options::options(text, at, known, context, findings)
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
    let mut options = options?;
    let action = match header.action? {
        RuleAction::Acts(action) => action,
        // It does what its keyword says, and reports nothing.
        RuleAction::Config => {
            options.no_alert = true;
            Action::Alert
        }
    };
    let start = line.file_span(Span { start: 0, end: 1 }).start;
    Some(Rule {
        action,
        protocol: header.protocol?,
        source: header.source?,
        source_ports: header.source_ports?,
        direction: header.direction?,
        destination: header.destination?,
        destination_ports: header.destination_ports?,
        excludes_addresses: header.excludes_addresses,
        options,
        file: source.name().to_owned(),
        line: source.line_of(start),
    })
}

/// What could be understood of a header.
#[derive(Default)]
struct Header {
    action: Option<RuleAction>,
    protocol: Option<RuleProtocol>,
    source: Option<AddressSet>,
    source_ports: Option<PortSet>,
    direction: Option<Arrow>,
    destination: Option<AddressSet>,
    destination_ports: Option<PortSet>,
    excludes_addresses: bool,
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
    let is_arrow = |word: &[u8]| word == b"->" || word == b"<>" || word == b"=>";
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
) -> Header {
    let text_of = |span: Span, findings: &mut Findings| match std::str::from_utf8(
        &header[span.start..span.end],
    ) {
        Ok(text) => Some(text),
        Err(_) => {
            let help = "headers have ASCII letters, digits and signs only";
            findings.error(span, "not UTF-8", Some(help.into()));
            None
        }
    };
    let action = words.first().and_then(|&span| {
        let word = text_of(span, findings)?;
        action(word, span, findings)
    });
    let protocol = words.get(1).and_then(|&span| {
        let word = text_of(span, findings)?;
        protocol(word, span, findings)
    });
    let mut read = Header {
        action,
        protocol,
        ..Header::default()
    };
    if words.len() != PARTS.len() {
        let Finding {
            span,
            message,
            help,
        } = wrong_parts(header, words);
        findings.error(span, message, help);
        return read;
    }
    read.direction =
        text_of(words[4], findings).and_then(|word| direction(word, words[4], findings));
    let addresses = |span: Span, findings: &mut Findings| {
        let text = text_of(span, findings)?;
        let help = "an address, a network 192.0.2.0/24, a range a-b, $VARIABLE or a list [a,!b]";
        list::addresses(text, context.variables)
            .map_err(|finding| findings.error_at(span.start, finding.or_help(help)))
            .ok()
    };
    let excludes = |span: Span| {
        std::str::from_utf8(&header[span.start..span.end])
            .is_ok_and(|text| list::excludes(text, context.variables))
    };
    read.excludes_addresses = excludes(words[2]) || excludes(words[5]);
    read.source = addresses(words[2], findings);
    read.destination = addresses(words[5], findings);
    let ports = |span: Span, findings: &mut Findings| {
        let text = text_of(span, findings)?;
        let help = "a port 0 to 65535, a range low:high, $VARIABLE or a list [a,!b]";
        list::ports(text, context.variables)
            .map_err(|finding| findings.error_at(span.start, finding.or_help(help)))
            .ok()
    };
    read.source_ports = ports(words[3], findings);
    read.destination_ports = ports(words[6], findings);
    read
}

fn direction(word: &str, span: Span, findings: &mut Findings) -> Option<Arrow> {
    let help = match word {
        "->" => return Some(Arrow::Toward),
        "<>" => return Some(Arrow::Either),
        "=>" => return Some(Arrow::Transaction),
        "<-" => "exchange the two sides and write `->`",
        _ => "`->`, `<>` for either way, `=>` for both directions of a transaction",
    };
    findings.error(
        span,
        format!("`{}` is not a direction", shortened(word)),
        Some(help.into()),
    );
    None
}

fn action(word: &str, span: Span, findings: &mut Findings) -> Option<RuleAction> {
    let known = ACTIONS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(word));
    if let Some((_, action)) = known {
        return Some(*action);
    }
    let bare = word.split_once(':').map_or(word, |(action, _)| action);
    let other = ACTIONS_OF_OTHERS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(bare));
    if let Some((name, reason)) = other {
        findings.unsupported(name, reason, span);
        return None;
    }
    let names = ACTIONS.iter().map(|(name, _)| *name);
    unknown("action", word, span, names, findings);
    None
}

fn protocol(word: &str, span: Span, findings: &mut Findings) -> Option<RuleProtocol> {
    let known = PROTOCOLS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(word));
    if let Some((_, protocol)) = known {
        return Some(*protocol);
    }
    let find_app = |word: &str| {
        APP_PROTOCOLS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word))
    };
    if let Some((_, name)) = find_app(word) {
        return Some(RuleProtocol::App(name));
    }
    if let Some((before, _)) = word.split_once(':')
        && (find_app(before).is_some() || PROTOCOLS.iter().any(|(name, _)| *name == before))
    {
        let reason = "rules at one state of a protocol are of the firewall mode";
        findings.unsupported("hook", reason, span);
        return None;
    }
    let names = PROTOCOLS
        .iter()
        .map(|(name, _)| *name)
        .chain(APP_PROTOCOLS.iter().map(|(name, _)| *name));
    unknown("protocol", word, span, names, findings);
    None
}

fn unknown<'a>(
    what: &str,
    word: &str,
    span: Span,
    names: impl Iterator<Item = &'a str> + Clone,
    findings: &mut Findings,
) {
    let help = match nearest(word, names.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let some: Vec<&str> = names.take(7).collect();
            format!("for example {}", some.join(", "))
        }
    };
    findings.error(
        span,
        format!("unknown {what} `{}`", shortened(word)),
        Some(help),
    );
}
