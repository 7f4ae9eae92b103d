//! What only the whole rule shows: parts that contradict each other, matches that can never be,
//! and marks that stand twice.

use super::super::ast::{
    Arrow, Buffer, Compare, Condition, Match, Options, PrefilterBy, RuleProtocol, Section,
};
use super::super::diagnostic::Severity;
use super::super::finding::Finding;
use super::super::source::Span;
use super::meta::DEFAULT_PRIORITY;
use super::sections::{Pending, SectionDraft};
use super::{Builder, Use};

/// Most buffers of one rule.
pub(super) const MAX_SECTIONS: usize = 64;

impl Builder<'_> {
    /// Checks the whole and makes the options; `None` when there is no sid.
    pub(super) fn finish(mut self, open: Span) -> Option<Options> {
        if let Err(finding) = self.layout.close()
            && !self.findings.skips_rule()
        {
            self.fail(finding);
        }
        self.fast_patterns();
        self.sizes();
        self.protocols();
        self.directions();
        let dubious = self.relations();
        if self.alert && self.no_alert {
            self.fail(Finding::with_help(
                open,
                "`alert` and `noalert` contradict each other",
                "one of them",
            ));
        }
        if self.layout.sections.len() > MAX_SECTIONS {
            self.fail(Finding::with_help(
                open,
                "too many buffers in one rule",
                format!("at most {MAX_SECTIONS}"),
            ));
        }
        let (sections, selected) = self.sections();
        // What is wrong comes first, and is enough.
        if !self.findings.skips_rule() {
            for finding in dubious {
                self.findings.warning(finding);
            }
        }
        let meta = self.meta;
        let Some(signature_id) = meta.signature_id else {
            if !meta.has_sid && !self.findings.skips_rule() {
                self.findings.error(
                    open,
                    "no sid",
                    Some("every rule needs a number of its own: `sid:1000001;`".into()),
                );
            }
            return None;
        };
        Some(Options {
            signature_id,
            group_id: meta.group_id.unwrap_or(1),
            revision: meta.revision.unwrap_or(0),
            message: meta.message.unwrap_or_default(),
            priority: meta
                .priority
                .or(meta.class.as_ref().map(|class| class.priority))
                .unwrap_or(DEFAULT_PRIORITY),
            class: meta.class,
            references: meta.references,
            metadata: meta.metadata,
            target: meta.target,
            conditions: self.conditions,
            sections,
            prefilter: self.prefilter.map(PrefilterBy::Condition).or(selected),
            effects: self.effects,
            threshold: self.threshold,
            no_alert: self.no_alert,
            alert: self.alert,
        })
    }

    fn fail(&mut self, finding: Finding) {
        self.findings.add(Severity::Error, finding);
    }

    /// The sections as they will be searched, and the match that `prefilter` marks.
    fn sections(&mut self) -> (Vec<Section>, Option<PrefilterBy>) {
        let mut selected = None;
        let mut sections: Vec<Section> = Vec::new();
        for draft in std::mem::take(&mut self.layout.sections) {
            let mut matches = Vec::with_capacity(draft.slots.len());
            for slot in draft.slots {
                let found = match slot.pending {
                    Pending::Done(found) => found,
                    // Was reported where it stands.
                    Pending::Content(content) if content.pattern.is_empty() => continue,
                    Pending::Content(content) => match content.finish() {
                        Ok(content) => Match::Content(content),
                        Err(finding) => {
                            self.findings.add(Severity::Error, finding);
                            continue;
                        }
                    },
                };
                if slot.prefilter {
                    selected = Some(PrefilterBy::Match {
                        section: sections.len(),
                        index: matches.len(),
                    });
                }
                matches.push(found);
            }
            // All of its contents may have been moved to other buffers.
            if !matches.is_empty() {
                sections.push(Section {
                    buffer: draft.buffer,
                    transforms: draft.transforms,
                    to_server: draft.to_server,
                    matches,
                });
            }
        }
        (sections, selected)
    }

    /// One content of a rule is looked for first; one each way in a rule about a transaction.
    fn fast_patterns(&mut self) {
        let mut marked = 0;
        let allowed = match self.arrow {
            Some(Arrow::Transaction) => 2,
            _ => 1,
        };
        let mut wrong = Vec::new();
        for section in &self.layout.sections {
            for slot in &section.slots {
                let Pending::Content(draft) = &slot.pending else {
                    continue;
                };
                let Some((_, span)) = draft.fast_pattern else {
                    continue;
                };
                marked += 1;
                if section.buffer == Buffer::Base64Data {
                    wrong.push(Finding::with_help(
                        span,
                        "`base64_data` cannot be searched first: it is made by the rule itself",
                        "fast_pattern at a content in another buffer",
                    ));
                } else if marked > allowed {
                    wrong.push(Finding::with_help(
                        span,
                        "`fast_pattern` twice in one rule",
                        "one content is looked for first: take the mark of the others away",
                    ));
                }
            }
        }
        for finding in wrong {
            self.fail(finding);
        }
    }

    /// Sizes of buffers and packets against the contents in them.
    fn sizes(&mut self) {
        let mut wrong = Vec::new();
        for section in &self.layout.sections {
            for slot in &section.slots {
                if let Pending::Done(Match::Size(size)) = &slot.pending {
                    let most = largest(size, u64::MAX);
                    wrong.extend(too_small(section, most, "bsize", slot.span));
                    wrong.extend(not_all_of_it(section, size, slot.span));
                }
            }
        }
        if let Some((size, span)) = &self.dsize {
            let most = largest(size, u16::MAX).into();
            let payload = self
                .layout
                .sections
                .iter()
                .find(|section| section.buffer == Buffer::Payload);
            if let Some(payload) = payload {
                wrong.extend(too_small(payload, most, "dsize", *span));
            }
            if let Some(app) = self
                .layout
                .sections
                .iter()
                .find(|section| matches!(section.buffer, Buffer::App(_)))
            {
                wrong.push(Finding::with_help(
                    *span,
                    format!(
                        "`dsize` is about one packet, `{}` about a stream of them",
                        app.buffer.name()
                    ),
                    "bsize behind the buffer, or a rule without the buffer",
                ));
            }
        }
        for finding in wrong {
            self.fail(finding);
        }
    }

    /// Keywords of different application protocols, or of another than the header names.
    fn protocols(&mut self) {
        let of_header = match self.protocol {
            Some(RuleProtocol::App(name)) => Some(name),
            _ => None,
        };
        let mut first: Option<&Use> = None;
        let mut wrong = None;
        for this in self.uses.iter().filter(|this| this.protocol != "any") {
            if let Some(header) = of_header
                && !same_protocol(header, this.protocol)
            {
                wrong = Some(Finding::with_help(
                    this.span,
                    format!(
                        "`{}` is about {}, the rule about {header}",
                        this.keyword, this.protocol
                    ),
                    format!("alert {} …", this.protocol),
                ));
                break;
            }
            match first {
                Some(other) if !same_protocol(other.protocol, this.protocol) => {
                    wrong = Some(Finding::with_help(
                        this.span,
                        format!(
                            "`{}` is about {}, `{}` about {}",
                            this.keyword, this.protocol, other.keyword, other.protocol
                        ),
                        "a flow has one application protocol: write two rules",
                    ));
                    break;
                }
                Some(_) => {}
                None => first = Some(this),
            }
        }
        if let Some(finding) = wrong {
            self.fail(finding);
        }
    }

    /// Buffers of both directions, or of another than `flow` asks for.
    fn directions(&mut self) {
        if self.arrow == Some(Arrow::Transaction) {
            if let Some((Some(flow), span)) = self.flow
                && flow.to_server.is_some()
            {
                self.fail(Finding::with_help(
                    span,
                    "a rule about both directions of a transaction has no direction",
                    "take to_server or to_client away",
                ));
            }
            return;
        }
        let asked = match self.flow {
            Some((Some(flow), _)) => flow.to_server,
            _ => None,
        };
        let name = |to_server: bool| {
            if to_server {
                "to the server"
            } else {
                "to the client"
            }
        };
        let mut first: Option<(bool, &Use)> = None;
        let mut wrong = None;
        for this in &self.uses {
            let Some(to_server) = this.to_server else {
                continue;
            };
            if let Some(asked) = asked
                && asked != to_server
            {
                wrong = Some(Finding::with_help(
                    this.span,
                    format!(
                        "`{}` is sent {}, but `flow` asks for what is sent {}",
                        this.keyword,
                        name(to_server),
                        name(asked)
                    ),
                    if to_server {
                        "flow:to_server"
                    } else {
                        "flow:to_client"
                    },
                ));
                break;
            }
            match first {
                Some((other_way, other)) if other_way != to_server => {
                    wrong = Some(Finding::with_help(
                        this.span,
                        format!(
                            "`{}` is sent {}, `{}` {}",
                            this.keyword,
                            name(to_server),
                            other.keyword,
                            name(other_way)
                        ),
                        "two rules and a flowbit, or `=>` for both directions of a transaction",
                    ));
                    break;
                }
                Some(_) => {}
                None => first = Some((to_server, this)),
            }
        }
        if let Some(finding) = wrong {
            self.fail(finding);
        }
    }

    /// What is relative to nothing, and keywords that only work together.
    fn relations(&self) -> Vec<Finding> {
        let mut dubious = Vec::new();
        let mut decodes = None;
        let mut reads_decoded = None;
        for section in &self.layout.sections {
            if let Some(first) = section.slots.first()
                && first.pending.is_relative()
            {
                dubious.push(Finding::with_help(
                    first.span,
                    "relative, but nothing was matched before it in this buffer",
                    "it counts from the start of the buffer",
                ));
            }
            if section.buffer == Buffer::Base64Data {
                reads_decoded = Some(section.span);
            }
            for slot in &section.slots {
                if let Pending::Done(Match::Base64Decode { .. }) = slot.pending {
                    decodes = Some(slot.span);
                }
            }
        }
        match (decodes, reads_decoded) {
            (Some(span), None) => dubious.push(Finding::with_help(
                span,
                "nothing reads what is decoded here",
                "base64_data; content:\"…\";",
            )),
            (None, Some(span)) => dubious.push(Finding::with_help(
                span,
                "`base64_data` without `base64_decode` is always empty",
                "base64_decode before it",
            )),
            _ => {}
        }
        dubious.extend(self.other_transport());
        dubious
    }

    /// A condition about another transport than the rule's never holds.
    fn other_transport(&self) -> Option<Finding> {
        let (span, header) = match self.protocol {
            Some(RuleProtocol::Udp) => ("udp", RuleProtocol::Udp),
            Some(RuleProtocol::Icmp) => ("icmp", RuleProtocol::Icmp),
            Some(RuleProtocol::Tcp) => ("tcp", RuleProtocol::Tcp),
            _ => return None,
        };
        let of = |condition: &Condition| match condition {
            Condition::TcpFlags(_)
            | Condition::Seq(_)
            | Condition::Ack(_)
            | Condition::Window { .. }
            | Condition::TcpMss(_)
            | Condition::TcpWscale(_)
            | Condition::StreamSize { .. } => Some(RuleProtocol::Tcp),
            Condition::IcmpType(_)
            | Condition::IcmpCode(_)
            | Condition::IcmpId(_)
            | Condition::IcmpSeq(_)
            | Condition::Icmpv6Mtu(_) => Some(RuleProtocol::Icmp),
            _ => None,
        };
        let condition = self
            .conditions
            .iter()
            .find(|condition| of(condition).is_some_and(|other| other != header))?;
        let place = self
            .flow
            .map_or(Span { start: 0, end: 1 }, |(_, place)| place);
        Some(Finding::with_help(
            place,
            format!(
                "`{}` never holds in a rule about {span}",
                condition.keyword()
            ),
            "another protocol in the header",
        ))
    }
}

/// The largest number that a comparison lets through.
fn largest<N>(compare: &Compare<N>, most: N) -> N
where
    N: Copy + std::ops::Sub<Output = N> + From<u8>,
{
    match *compare {
        Compare::Equal(n) | Compare::AtMost(n) => n,
        Compare::Less(n) | Compare::Between(_, n) => n - N::from(1),
        _ => most,
    }
}

/// A content that is longer than its buffer may be.
fn too_small(section: &SectionDraft, most: u64, keyword: &str, span: Span) -> Option<Finding> {
    section.slots.iter().find_map(|slot| {
        let Pending::Content(draft) = &slot.pending else {
            return None;
        };
        let offset = match draft.offset {
            Some((super::super::ast::Value::Literal(offset), _)) => u64::from(offset),
            _ => 0,
        };
        let needed = offset + draft.pattern.len() as u64;
        (!draft.negated && !draft.pattern.is_empty() && needed > most).then(|| {
            Finding::with_help(
                span,
                format!(
                    "{keyword} lets at most {most} bytes through, but a content needs {needed}: \
                     the rule never matches"
                ),
                format!("at least {needed}"),
            )
        })
    })
}

/// A content that has to be all of its buffer, which has to have another size.
fn not_all_of_it(section: &SectionDraft, size: &Compare<u64>, span: Span) -> Option<Finding> {
    let Compare::Equal(size) = *size else {
        return None;
    };
    section.slots.iter().find_map(|slot| match &slot.pending {
        Pending::Content(draft)
            if draft.starts.is_some()
                && draft.ends.is_some()
                && !draft.negated
                && draft.pattern.len() as u64 != size
                && !draft.pattern.is_empty() =>
        {
            let length = draft.pattern.len();
            Some(Finding::with_help(
                span,
                format!("a content of {length} bytes cannot be all of a buffer of {size}"),
                format!("bsize:{length};"),
            ))
        }
        _ => None,
    })
}

/// Whether a flow can be of both.
fn same_protocol(one: &str, other: &str) -> bool {
    /// Protocols that share keywords, or run inside each other.
    const FAMILIES: [&[&str]; 6] = [
        &["http", "http1", "http2", "doh2"],
        &["dns", "doh2"],
        &["smb", "dcerpc"],
        &["ftp", "ftp-data"],
        &["sip", "sdp"],
        &["tls", "quic"],
    ];
    one == other
        || one == "any"
        || other == "any"
        || FAMILIES
            .iter()
            .any(|family| family.contains(&one) && family.contains(&other))
}
