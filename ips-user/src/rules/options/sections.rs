//! Which buffer a match belongs to: sticky buffers, modifiers that move a content, transforms.

use super::super::ast::{Buffer, Match, Transform};
use super::super::finding::Finding;
use super::super::source::Span;
use super::content::Draft;
use super::finish::MAX_SECTIONS;

/// Most transforms of one buffer.
const MAX_TRANSFORMS: usize = 16;

/// A match, and where it stands.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) pending: Pending,
    pub(super) span: Span,
    /// `prefilter` stands behind it.
    pub(super) prefilter: bool,
}

/// A content can still be modified; other matches are as they are.
#[derive(Debug)]
pub(super) enum Pending {
    Content(Draft),
    Done(Match),
}

impl Pending {
    /// Whether it counts from the match before it.
    pub(super) fn is_relative(&self) -> bool {
        match self {
            Self::Content(draft) => draft.distance.is_some() || draft.within.is_some(),
            Self::Done(found) => match found {
                Match::Pcre(pcre) => pcre.relative,
                Match::IsDataAt(at) => at.relative,
                Match::ByteTest(test) => test.field.relative,
                Match::ByteJump(jump) => jump.field.relative,
                Match::ByteExtract(extract) => extract.field.relative,
                Match::ByteMath(math) => math.field.relative,
                Match::Base64Decode { relative, .. } => *relative,
                Match::Asn1(asn1) => asn1.relative,
                _ => false,
            },
        }
    }
}

/// A section that is being filled.
#[derive(Debug)]
pub(super) struct SectionDraft {
    pub(super) buffer: Buffer,
    pub(super) transforms: Vec<Transform>,
    pub(super) to_server: Option<bool>,
    pub(super) slots: Vec<Slot>,
    /// Where it is first mentioned.
    pub(super) span: Span,
}

/// The sticky buffer that stands before what follows.
#[derive(Debug)]
struct Active {
    buffer: Buffer,
    transforms: Vec<Transform>,
    to_server: Option<bool>,
    span: Span,
    /// The section that its matches go to, once there is one.
    section: Option<usize>,
    /// Whether anything followed it at all.
    used: bool,
}

/// All sections of a rule.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) sections: Vec<SectionDraft>,
    active: Option<Active>,
    /// Section of the last match.
    last: Option<usize>,
    /// The last content: section and place in it.
    last_content: Option<(usize, usize)>,
    pushed: usize,
}

impl Layout {
    /// A sticky buffer begins.
    pub(super) fn open(
        &mut self,
        buffer: Buffer,
        to_server: Option<bool>,
        span: Span,
    ) -> Result<(), Finding> {
        let unused = self.close();
        self.active = Some(Active {
            buffer,
            transforms: Vec::new(),
            to_server,
            span,
            section: None,
            used: false,
        });
        unused
    }

    /// `pkt_data`: back to the payload; also the end of the rule.
    pub(super) fn close(&mut self) -> Result<(), Finding> {
        match self.active.take() {
            Some(active) if !active.used => Err(Finding::with_help(
                active.span,
                format!("nothing is looked for in `{}`", active.buffer.name()),
                "a content, pcre, bsize or another match follows the buffer that it is about",
            )),
            _ => Ok(()),
        }
    }

    /// The sticky buffer, if one stands before this.
    pub(super) fn sticky(&self) -> Option<Buffer> {
        self.active.as_ref().map(|active| active.buffer)
    }

    /// A transform of the sticky buffer. It may follow matches in the buffer as it is, but not
    /// those in the buffer after other transforms.
    pub(super) fn transform(&mut self, transform: Transform, span: Span) -> Result<(), Finding> {
        let name = transform.keyword();
        let Some(active) = &mut self.active else {
            return Err(Finding::with_help(
                span,
                format!("`{name}` without a sticky buffer before it"),
                format!("file.data; {name}; content:\"…\";"),
            ));
        };
        if active.section.is_some() && !active.transforms.is_empty() {
            return Err(Finding::with_help(
                span,
                format!("`{name}` after a match in the buffer that other transforms made"),
                format!(
                    "transforms follow their buffer directly: write `{};` again first",
                    active.buffer.name()
                ),
            ));
        }
        if active.transforms.len() >= MAX_TRANSFORMS {
            return Err(Finding::with_help(
                span,
                "too many transforms of one buffer",
                format!("at most {MAX_TRANSFORMS}"),
            ));
        }
        active.transforms.push(transform);
        active.section = None;
        active.used = false;
        Ok(())
    }

    /// The section that a match belongs to which stands here.
    pub(super) fn here(&mut self, span: Span) -> usize {
        let Some(active) = &mut self.active else {
            return self.section_of(Buffer::Payload, span);
        };
        active.used = true;
        if let Some(section) = active.section {
            return section;
        }
        let another = matches!(active.buffer, Buffer::App(app) if app.is_multiple());
        let found = self.sections.iter().position(|section| {
            section.buffer == active.buffer
                && section.transforms == active.transforms
                && section.to_server == active.to_server
        });
        // Beyond the limit, which is reported, no more are made.
        let full = self.sections.len() > MAX_SECTIONS;
        let section = match found {
            Some(section) if !another || full => section,
            None if full => 0,
            _ => {
                self.sections.push(SectionDraft {
                    buffer: active.buffer,
                    transforms: active.transforms.clone(),
                    to_server: active.to_server,
                    slots: Vec::new(),
                    span: active.span,
                });
                self.sections.len() - 1
            }
        };
        active.section = Some(section);
        section
    }

    /// The section of something relative: without a sticky buffer that of the match before.
    pub(super) fn relative(&mut self, span: Span) -> usize {
        match (&self.active, self.last) {
            (None, Some(last)) => last,
            _ => self.here(span),
        }
    }

    /// The untransformed section of a buffer, wherever a sticky buffer stands.
    pub(super) fn section_of(&mut self, buffer: Buffer, span: Span) -> usize {
        let found = self.sections.iter().position(|section| {
            section.buffer == buffer && section.transforms.is_empty() && section.to_server.is_none()
        });
        found.unwrap_or_else(|| {
            self.sections.push(SectionDraft {
                buffer,
                transforms: Vec::new(),
                to_server: None,
                slots: Vec::new(),
                span,
            });
            self.sections.len() - 1
        })
    }

    /// Adds a match.
    pub(super) fn push(&mut self, section: usize, pending: Pending, span: Span) {
        let slots = &mut self.sections[section].slots;
        if matches!(pending, Pending::Content(_)) {
            self.last_content = Some((section, slots.len()));
        }
        slots.push(Slot {
            pending,
            span,
            prefilter: false,
        });
        self.last = Some(section);
        self.pushed += 1;
    }

    /// How many matches were added so far.
    pub(super) fn pushed(&self) -> usize {
        self.pushed
    }

    /// The content that modifiers are about.
    pub(super) fn last_content(&mut self) -> Option<&mut Draft> {
        let (section, slot) = self.last_content?;
        match &mut self.sections[section].slots[slot].pending {
            Pending::Content(draft) => Some(draft),
            Pending::Done(_) => None,
        }
    }

    /// The match that `prefilter` is about.
    pub(super) fn last_slot(&mut self) -> Option<&mut Slot> {
        self.sections[self.last?].slots.last_mut()
    }

    /// Moves the last content to another buffer: the modifiers `http_uri` and the like.
    pub(super) fn move_last_content(&mut self, buffer: Buffer, span: Span) -> Result<(), Finding> {
        let Some((from, slot)) = self.last_content else {
            return Err(Finding::with_help(
                span,
                "this modifier follows a content, and there is none before it",
                "content:\"…\"; and then the modifier, or the sticky buffer and then the content",
            ));
        };
        if self.sections[from].buffer != Buffer::Payload {
            return Err(Finding::with_help(
                span,
                format!(
                    "the content before it is already about `{}`",
                    self.sections[from].buffer.name()
                ),
                "one buffer a content",
            ));
        }
        let taken = self.sections[from].slots.remove(slot);
        let to = self.section_of(buffer, span);
        let slots = &mut self.sections[to].slots;
        self.last_content = Some((to, slots.len()));
        slots.push(taken);
        self.last = Some(to);
        Ok(())
    }
}
