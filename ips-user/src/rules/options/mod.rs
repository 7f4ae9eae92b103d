//! The options of a rule: `name;` and `name:value;` in parentheses.
//!
//! [`vocabulary`] finds the handler of a keyword, the handlers fill a [`Builder`], one file for
//! each kind of keyword; `finish` checks what only the whole rule shows and makes the
//! [`Options`]. A handler that fails is reported, and the next option is read.

mod app;
mod buffer;
mod bytes;
mod content;
mod finish;
mod flow;
mod meta;
pub(super) mod number;
mod packet;
mod pcre;
mod requires;
mod sections;
mod sets;
pub(super) mod threshold;
mod transforms;
pub(super) mod vocabulary;

use super::ast::{
    Arrow, Buffer, Compare, Condition, Effect, FastPattern, FlowCondition, Options, RuleProtocol,
    Threshold,
};
use super::diagnostic::{Severity, nearest, shortened};
use super::finding::{Finding, Findings};
use super::item::{Item, Items};
use super::parse::Context;
use super::source::Span;
use meta::Meta;
use number::Names;
use sections::{Layout, Pending};
use vocabulary::Word;

#[cfg(test)]
mod tests;

/// Reads one option.
type Handler = fn(&mut Builder<'_>, &Item<'_>) -> Result<(), Finding>;

/// Most conditions of one rule.
const MAX_CONDITIONS: usize = 256;

/// The last keyword, as far as `prefilter` can stand behind it.
#[derive(Clone, Copy, Debug, Default)]
enum Last {
    #[default]
    Nothing,
    Condition(usize),
    Match,
}

/// An application protocol or direction that a keyword asks for.
#[derive(Clone, Debug)]
struct Use {
    keyword: String,
    span: Span,
    protocol: &'static str,
    to_server: Option<bool>,
}

/// The options of a rule while they are read.
struct Builder<'c> {
    context: Context<'c>,
    findings: &'c mut Findings,
    protocol: Option<RuleProtocol>,
    arrow: Option<Arrow>,
    meta: Meta,
    layout: Layout,
    names: Names,
    conditions: Vec<Condition>,
    effects: Vec<Effect>,
    flow: Option<(Option<FlowCondition>, Span)>,
    dsize: Option<(Compare<u16>, Span)>,
    threshold: Option<Threshold>,
    no_alert: bool,
    alert: bool,
    last: Last,
    prefilter: Option<usize>,
    uses: Vec<Use>,
}

/// Reads the options that begin at `at`, after the opening parenthesis. `None` when the rule has
/// to be skipped; then `findings` says why.
pub(super) fn options(
    text: &[u8],
    at: usize,
    header: (Option<RuleProtocol>, Option<Arrow>),
    context: Context<'_>,
    findings: &mut Findings,
) -> Option<Options> {
    let mut items = Items::new(text, at);
    let mut all = Vec::new();
    while let Some(item) = items.next(findings) {
        all.push(item);
    }
    for item in all.iter().filter(|item| is(item, "requires")) {
        match item.text().and_then(requires::met) {
            Ok(met) => findings.unmet |= !met,
            Err(finding) => findings.add(Severity::Error, finding),
        }
    }
    if findings.unmet {
        return None;
    }
    let mut builder = Builder {
        context,
        findings,
        protocol: header.0,
        arrow: header.1,
        meta: Meta::default(),
        layout: Layout::default(),
        names: Names::default(),
        conditions: Vec::new(),
        effects: Vec::new(),
        flow: None,
        dsize: None,
        threshold: None,
        no_alert: false,
        alert: false,
        last: Last::Nothing,
        prefilter: None,
        uses: Vec::new(),
    };
    for item in &all {
        builder.read(item);
    }
    let open = Span {
        start: at - 1,
        end: at,
    };
    builder.findings.keyword.clear();
    builder.finish(open)
}

fn is(item: &Item<'_>, keyword: &str) -> bool {
    item.name.eq_ignore_ascii_case(keyword)
}

impl Builder<'_> {
    fn read(&mut self, item: &Item<'_>) {
        item.name.clone_into(&mut self.findings.keyword);
        let Some(word) = vocabulary::find(item.name) else {
            self.unknown(item);
            return;
        };
        let before = (self.conditions.len(), self.layout.pushed());
        let read = match word {
            Word::Handler(handler) => handler(self, item),
            Word::Sticky(buffer) => buffer::sticky(self, item, buffer),
            Word::Modifier(buffer) => buffer::modifier(self, item, buffer),
            Word::App(keyword, protocol, value) => {
                app::condition(self, item, keyword, protocol, value)
            }
            Word::Unsupported(reason) => {
                self.findings.unsupported(item.name, reason, item.name_span);
                Ok(())
            }
        };
        if let Err(finding) = read {
            self.findings.add(Severity::Error, finding);
        }
        if self.conditions.len() > before.0 {
            self.last = Last::Condition(before.0);
        } else if self.layout.pushed() > before.1 {
            self.last = Last::Match;
        }
    }

    fn unknown(&mut self, item: &Item<'_>) {
        let begins = item
            .name
            .split(|c: char| c.is_ascii_whitespace() || c == '"')
            .next();
        let help = match begins {
            Some(begins) if begins != item.name && vocabulary::is_known(begins) => {
                "`:` stands between a keyword and its value".into()
            }
            _ => match nearest(item.name, vocabulary::names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "neither Suricata nor Snort has it".into(),
            },
        };
        let message = format!("unknown keyword `{}`", shortened(item.name));
        self.findings.error(item.name_span, message, Some(help));
    }

    fn condition(&mut self, item: &Item<'_>, condition: Condition) {
        if self.conditions.len() < MAX_CONDITIONS {
            self.conditions.push(condition);
        } else {
            self.findings.error(
                item.name_span,
                "too many conditions in one rule",
                Some(format!("at most {MAX_CONDITIONS}")),
            );
        }
    }

    fn effect(&mut self, effect: Effect) {
        if self.effects.len() < MAX_CONDITIONS {
            self.effects.push(effect);
        }
    }

    /// The keyword is about a sticky buffer, which must stand before it.
    fn needs_sticky(&self, item: &Item<'_>) -> Result<(), Finding> {
        if self.layout.sticky().is_some() {
            return Ok(());
        }
        let help = match item.name {
            "bsize" => "for the payload of a packet: dsize".to_owned(),
            name => format!("http.uri; {name}…; and the like"),
        };
        Err(Finding::with_help(
            item.name_span,
            format!("`{}` without a sticky buffer before it", item.name),
            help,
        ))
    }

    /// Notes which protocol and direction a buffer is of.
    fn uses(
        &mut self,
        buffer: Buffer,
        to_server: Option<bool>,
        item: &Item<'_>,
    ) -> Result<(), Finding> {
        let Buffer::App(app) = buffer else {
            return Ok(());
        };
        self.note(app.protocol(), to_server.or(app.to_server()), item)
    }

    /// Notes which protocol a keyword is of.
    fn speaks(&mut self, protocol: &'static str, item: &Item<'_>) -> Result<(), Finding> {
        self.note(protocol, None, item)
    }

    fn note(
        &mut self,
        protocol: &'static str,
        to_server: Option<bool>,
        item: &Item<'_>,
    ) -> Result<(), Finding> {
        let new = Use {
            keyword: item.name.to_owned(),
            span: item.name_span,
            protocol,
            to_server,
        };
        let known = self
            .uses
            .iter()
            .any(|known| known.protocol == protocol && known.to_server == to_server);
        if !known {
            self.uses.push(new);
        }
        Ok(())
    }

    /// `prefilter`: the keyword before it selects the rule.
    fn prefilter(&mut self, item: &Item<'_>) -> Result<(), Finding> {
        let fail =
            |message: &str, help: &str| Err(Finding::with_help(item.name_span, message, help));
        match self.last {
            Last::Nothing => fail(
                "`prefilter` without a keyword before it that can select the rule",
                "ttl:1; prefilter; or content:\"…\"; prefilter;",
            ),
            Last::Condition(index) => {
                self.prefilter = Some(index);
                Ok(())
            }
            Last::Match => {
                let Some(slot) = self.layout.last_slot() else {
                    return Ok(());
                };
                match &mut slot.pending {
                    Pending::Content(draft) if draft.negated => fail(
                        "a negated content cannot select the rule",
                        "`prefilter` behind a content that is found",
                    ),
                    Pending::Content(draft) => {
                        draft
                            .fast_pattern
                            .get_or_insert((FastPattern::Whole, item.name_span));
                        slot.prefilter = true;
                        Ok(())
                    }
                    Pending::Done(found) => Err(Finding::with_help(
                        item.name_span,
                        format!("`{}` cannot select the rule", found.keyword()),
                        "contents and conditions about the packet can",
                    )),
                }
            }
        }
    }
}
