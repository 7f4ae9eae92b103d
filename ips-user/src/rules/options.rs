//! The options of a rule: `name;` and `name:value;` in parentheses.

use super::ast::{Buffer, Class, Content, Match, Options, Reference, Section};
use super::classification::Classification;
use super::content::{self, Draft};
use super::diagnostic::{nearest, shortened};
use super::item::{Item, Items, Value};
use super::list::decimal;
use super::parse::Findings;
use super::source::Span;
use super::vocabulary::{KEYWORDS, KEYWORDS_NOT_YET};

/// Priority of a rule that has neither `priority` nor `classtype`.
const DEFAULT_PRIORITY: u8 = 3;
/// Largest distance or within, as in Suricata.
const MAX_RELATIVE: i64 = 1_048_576;

pub(super) struct OptionParser<'a, 'f> {
    items: Items<'a>,
    open: Span,
    classification: &'a Classification,
    findings: &'f mut Findings,
    signature_id: Option<u32>,
    group_id: Option<u32>,
    revision: Option<u32>,
    message: Option<String>,
    class: Option<Class>,
    priority: Option<u8>,
    references: Vec<Reference>,
    metadata: Vec<(String, String)>,
    drafts: Vec<Draft>,
    no_alert: bool,
}

impl<'a, 'f> OptionParser<'a, 'f> {
    /// Parses the options that begin at `at`, after the opening parenthesis.
    pub(super) fn new(
        text: &'a [u8],
        at: usize,
        classification: &'a Classification,
        findings: &'f mut Findings,
    ) -> Self {
        Self {
            items: Items::new(text, at),
            open: Span {
                start: at - 1,
                end: at,
            },
            classification,
            findings,
            signature_id: None,
            group_id: None,
            revision: None,
            message: None,
            class: None,
            priority: None,
            references: Vec::new(),
            metadata: Vec::new(),
            drafts: Vec::new(),
            no_alert: false,
        }
    }

    pub(super) fn parse(&mut self) -> Option<Options> {
        while let Some(item) = self.items.next(self.findings) {
            self.keyword(item);
        }
        let matches: Vec<Match> = self.contents().into_iter().map(Match::Content).collect();
        let payload = Section {
            buffer: Buffer::Payload,
            transforms: Vec::new(),
            to_server: None,
            matches,
        };
        let Some(signature_id) = self.signature_id else {
            if self.findings.graded.is_empty() {
                self.findings.error(
                    self.open,
                    "no sid",
                    Some("every rule needs a number of its own: `sid:1000001;`".into()),
                );
            }
            return None;
        };
        Some(Options {
            signature_id,
            group_id: self.group_id.unwrap_or(1),
            revision: self.revision.unwrap_or(0),
            message: self.message.take().unwrap_or_default(),
            priority: self
                .priority
                .or(self.class.as_ref().map(|class| class.priority))
                .unwrap_or(DEFAULT_PRIORITY),
            class: self.class.take(),
            references: std::mem::take(&mut self.references),
            metadata: std::mem::take(&mut self.metadata),
            target: None,
            conditions: Vec::new(),
            sections: if payload.matches.is_empty() {
                Vec::new()
            } else {
                vec![payload]
            },
            prefilter: None,
            effects: Vec::new(),
            threshold: None,
            no_alert: self.no_alert,
            alert: false,
        })
    }

    fn keyword(&mut self, item: Item<'a>) {
        match item.name {
            "msg" => {
                if let Some(text) = self.quoted_text(item) {
                    self.set_once(item, |this| &mut this.message, text);
                }
            }
            "sid" => {
                if let Some(number) = self.number(item, 1, u32::MAX) {
                    self.set_once(item, |this| &mut this.signature_id, number);
                }
            }
            "gid" => {
                if let Some(number) = self.number(item, 0, u32::MAX) {
                    self.set_once(item, |this| &mut this.group_id, number);
                }
            }
            "rev" => {
                if let Some(number) = self.number(item, 0, u32::MAX) {
                    self.set_once(item, |this| &mut this.revision, number);
                }
            }
            "priority" => {
                if let Some(number) = self.number(item, 1, 255u8) {
                    self.set_once(item, |this| &mut this.priority, number);
                }
            }
            "classtype" => self.classtype(item),
            "reference" => self.reference(item),
            "metadata" => self.metadata(item),
            "noalert" => {
                self.no_value(item);
                self.no_alert = true;
            }
            // Says which side of an alert is the victim; adds fields to records only.
            "target" => {
                self.plain_text(item);
            }
            "content" => self.content(item),
            "nocase" | "rawbytes" | "startswith" | "endswith" | "fast_pattern" | "offset"
            | "depth" | "distance" | "within" => self.modifier(item),
            name if KEYWORDS_NOT_YET.contains(&name) => {
                self.findings.unsupported(name, item.name_span);
            }
            name => {
                let words = KEYWORDS.iter().chain(KEYWORDS_NOT_YET).copied();
                let begins = name
                    .split(|c: char| c.is_ascii_whitespace() || c == '"')
                    .next();
                let help = match begins {
                    Some(begins) if begins != name && words.clone().any(|word| word == begins) => {
                        Some("`:` stands between a keyword and its value".into())
                    }
                    _ => nearest(name, words).map(|near| format!("did you mean `{near}`?")),
                };
                let message = format!("unknown keyword `{}`", shortened(name));
                self.findings.error(item.name_span, message, help);
            }
        }
    }

    fn set_once<T>(&mut self, item: Item<'_>, field: fn(&mut Self) -> &mut Option<T>, value: T) {
        let field = field(self);
        if field.is_some() {
            self.findings
                .error(item.name_span, format!("`{}` twice", item.name), None);
        } else {
            *field = Some(value);
        }
    }

    fn value(&mut self, item: Item<'a>) -> Option<Value<'a>> {
        match item.value {
            Some(value) if !value.bytes.is_empty() => Some(value),
            _ => {
                self.findings.error(
                    item.name_span,
                    format!("`{}` needs a value", item.name),
                    Some(format!("{}:…;", item.name)),
                );
                None
            }
        }
    }

    fn no_value(&mut self, item: Item<'_>) {
        if let Some(value) = item.value {
            self.findings
                .error(value.span, format!("`{}` takes no value", item.name), None);
        }
    }

    fn plain_text(&mut self, item: Item<'a>) -> Option<(String, Span)> {
        let value = self.value(item)?;
        Some((
            String::from_utf8_lossy(value.bytes).into_owned(),
            value.span,
        ))
    }

    fn number<N>(&mut self, item: Item<'a>, least: N, most: N) -> Option<N>
    where
        N: std::str::FromStr + Ord + Copy + std::fmt::Display,
    {
        let value = self.value(item)?;
        let number = std::str::from_utf8(value.bytes)
            .ok()
            .and_then(decimal::<N>)
            .filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.findings.error(
                value.span,
                format!("`{}` takes a number from {least} to {most}", item.name),
                None,
            );
        }
        number
    }

    /// Inside of a quoted value and its place.
    fn quoted(&mut self, item: Item<'a>, bytes: &'a [u8], span: Span) -> Option<(&'a [u8], usize)> {
        let inside = bytes
            .strip_prefix(b"\"")
            .and_then(|rest| rest.strip_suffix(b"\""));
        if inside.is_none() && bytes.starts_with(b"\"") && !bytes[1..].contains(&b'"') {
            self.findings.error(
                span,
                "no closing quote before the next `;`",
                Some("a `;` inside a value is written `\\;` or |3B|".into()),
            );
        } else if inside.is_none() {
            self.findings.error(
                span,
                format!("the value of `{}` stands in quotes", item.name),
                Some(format!("{}:\"…\";", item.name)),
            );
        }
        inside.map(|inside| (inside, span.start + 1))
    }

    fn quoted_text(&mut self, item: Item<'a>) -> Option<String> {
        let value = self.value(item)?;
        let (inside, base) = self.quoted(item, value.bytes, value.span)?;
        let mut text = Vec::with_capacity(inside.len());
        let mut at = 0;
        while let Some(&byte) = inside.get(at) {
            match (byte, inside.get(at + 1)) {
                (b'\\', Some(&escaped @ (b'"' | b'\\' | b';' | b':'))) => {
                    text.push(escaped);
                    at += 1;
                }
                (b'"', _) => {
                    let span = Span {
                        start: base + at,
                        end: base + at + 1,
                    };
                    self.findings.error(
                        span,
                        "quote inside a value",
                        Some("write it as \\\"".into()),
                    );
                    return None;
                }
                _ => text.push(byte),
            }
            at += 1;
        }
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    fn classtype(&mut self, item: Item<'a>) {
        let Some((name, span)) = self.plain_text(item) else {
            return;
        };
        match self.classification.get(&name) {
            Some(class) => {
                let class = class.clone();
                self.set_once(item, |this| &mut this.class, class);
            }
            None => {
                let near = nearest(&name, self.classification.names());
                let help = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "define it in classification.config".into(),
                };
                self.findings.warning(
                    span,
                    format!("unknown classtype `{name}`, priority {DEFAULT_PRIORITY} is used"),
                    Some(help),
                );
                self.class = Some(Class {
                    name: name.clone(),
                    description: name,
                    priority: DEFAULT_PRIORITY,
                });
            }
        }
    }

    fn reference(&mut self, item: Item<'a>) {
        let Some((text, span)) = self.plain_text(item) else {
            return;
        };
        match text.split_once(',') {
            Some((system, id)) if !system.trim().is_empty() && !id.trim().is_empty() => {
                self.references.push(Reference {
                    system: system.trim().to_owned(),
                    id: id.trim().to_owned(),
                    url: None,
                });
            }
            _ => self.findings.error(
                span,
                "a reference is a system and an id",
                Some("reference:cve,2021-44228;".into()),
            ),
        }
    }

    fn metadata(&mut self, item: Item<'a>) {
        let Some((text, _)) = self.plain_text(item) else {
            return;
        };
        for pair in text
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            let (key, value) = pair
                .split_once(|c: char| c.is_ascii_whitespace())
                .unwrap_or((pair, ""));
            self.metadata
                .push((key.to_owned(), value.trim().to_owned()));
        }
    }

    fn content(&mut self, item: Item<'a>) {
        let Some(value) = self.value(item) else {
            return;
        };
        let (negated, bytes) = match value.bytes.strip_prefix(b"!") {
            Some(rest) => (true, rest.trim_ascii_start()),
            None => (false, value.bytes),
        };
        let span = Span {
            start: value.span.end - bytes.len(),
            end: value.span.end,
        };
        // A stand-in keeps the modifiers that follow from being reported as homeless.
        let mut pattern = vec![0; 0];
        if let Some((inside, base)) = self.quoted(item, bytes, span) {
            match content::pattern(inside) {
                Ok(bytes) => pattern = bytes,
                Err(finding) => self.findings.error_at(base, finding),
            }
        }
        self.drafts.push(Draft::new(pattern, negated));
    }

    fn modifier(&mut self, item: Item<'a>) {
        if self.drafts.is_empty() {
            // What it modifies may be a buffer or a keyword that is not supported yet.
            if self.findings.unsupported.is_empty() {
                self.findings.error(
                    item.name_span,
                    format!("`{}` without a content before it", item.name),
                    None,
                );
            }
            return;
        }
        let twice = match item.name {
            "nocase" | "startswith" | "endswith" => {
                self.no_value(item);
                let draft = self.drafts.last_mut();
                draft.is_some_and(|draft| match item.name {
                    "nocase" => std::mem::replace(&mut draft.nocase, true),
                    "startswith" => draft.starts.replace(item.name_span).is_some(),
                    _ => std::mem::replace(&mut draft.ends, true),
                })
            }
            "rawbytes" => {
                self.no_value(item);
                false
            }
            "fast_pattern" => {
                // `only` and `offset,length` are hints to other engines' prefilters.
                let draft = self.drafts.last_mut();
                draft.is_some_and(|draft| std::mem::replace(&mut draft.fast_pattern, true))
            }
            "offset" | "depth" => {
                let Some((number, span)) = self.amount(item, 0, i64::from(u16::MAX)) else {
                    return;
                };
                let place = Some((number as usize, span));
                let draft = self.drafts.last_mut();
                draft.is_some_and(|draft| match item.name {
                    "offset" => std::mem::replace(&mut draft.offset, place).is_some(),
                    _ => std::mem::replace(&mut draft.depth, place).is_some(),
                })
            }
            _ => {
                let least = if item.name == "within" {
                    0
                } else {
                    -MAX_RELATIVE
                };
                let Some((number, span)) = self.amount(item, least, MAX_RELATIVE) else {
                    return;
                };
                let first = self.drafts.len() == 1;
                if first && item.name == "distance" && number < 0 {
                    self.findings.warning(
                        span,
                        "negative distance at the first content counts from the start of the payload",
                        None,
                    );
                }
                let draft = self.drafts.last_mut();
                draft.is_some_and(|draft| match item.name {
                    "within" => draft.within.replace((number as usize, span)).is_some(),
                    _ => draft.distance.replace((number, span)).is_some(),
                })
            }
        };
        if twice {
            self.findings.error(
                item.name_span,
                format!("`{}` twice for the same content", item.name),
                None,
            );
        }
    }

    /// A number with sign; the name of a variable of `byte_extract` is not supported yet.
    fn amount(&mut self, item: Item<'a>, least: i64, most: i64) -> Option<(i64, Span)> {
        let value = self.value(item)?;
        let text = String::from_utf8_lossy(value.bytes);
        let starts_a_name = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if starts_a_name {
            self.findings.unsupported("byte_extract", value.span);
            return None;
        }
        let magnitude = text.strip_prefix('-').unwrap_or(&text);
        let number = decimal::<i64>(magnitude)
            .map(|number| {
                if magnitude.len() < text.len() {
                    -number
                } else {
                    number
                }
            })
            .filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.findings.error(
                value.span,
                format!("`{}` takes a number from {least} to {most}", item.name),
                None,
            );
        }
        number.map(|number| (number, value.span))
    }

    fn contents(&mut self) -> Vec<Content> {
        let mut contents = Vec::with_capacity(self.drafts.len());
        for draft in std::mem::take(&mut self.drafts) {
            if draft.pattern.is_empty() {
                continue;
            }
            match draft.finish() {
                Ok(content) => contents.push(content),
                Err(finding) => self.findings.error_at(0, finding),
            }
        }
        contents
    }
}
