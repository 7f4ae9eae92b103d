//! What a section of a rule says about the bytes of its buffer.
//!
//! The steps of a [`Program`] are taken in the order written. Those that find something move the
//! point from which later ones count; where a later one counts from a `content` or `pcre`, every
//! occurrence of that is tried. Reference:
//! <https://docs.suricata.io/en/suricata-8.0.3/rules/payload-keywords.html>.

use crate::rules::Unsupported;
use crate::rules::ast::{
    Asn1, Base64Mode, Buffer, ByteExtract, ByteJump, ByteMath, ByteTest, CaptureScope, Compare,
    Content, DatasetCommand, Encoding, Field, IsDataAt, Match, Pcre, Position, Section, Value,
    Variable,
};

mod asn1;
mod base64;
mod content;
mod numbers;
pub(crate) mod pcre;
#[cfg(test)]
mod tests;
pub(crate) mod transform;

use content::Literal;
use pcre::{Pattern, Patterns, Searched};

use super::names::NameId;

/// Most steps for one rule in one buffer, if the settings do not say. Trying every occurrence of
/// every content is exponential in their number; Suricata's `inspection-recursion-limit` bounds
/// the same.
pub(crate) const MAX_STEPS: u32 = 3000;

/// Longest value that a group of a `pcre` leaves in a variable.
const MAX_CAPTURED: usize = 1024;

/// Values that a rule has read from the bytes.
#[derive(Debug, Default)]
pub(crate) struct Variables(Vec<u64>);

impl Variables {
    /// Makes room for so many.
    pub(crate) fn reserve(&mut self, count: usize) {
        if self.0.len() < count {
            self.0.resize(count, 0);
        }
    }

    fn get(&self, variable: Variable) -> u64 {
        self.0.get(usize::from(variable.0)).copied().unwrap_or(0)
    }

    fn set(&mut self, variable: Variable, value: u64) {
        if let Some(slot) = self.0.get_mut(usize::from(variable.0)) {
            *slot = value;
        }
    }

    fn of_u32(&self, value: Value<u32>) -> usize {
        match value {
            Value::Literal(value) => value as usize,
            Value::Variable(variable) => self.get(variable).min(u64::from(u32::MAX)) as usize,
        }
    }

    fn of_i32(&self, value: Value<i32>) -> i64 {
        match value {
            Value::Literal(value) => i64::from(value),
            Value::Variable(variable) => self.get(variable).min(u64::from(u32::MAX)) as i64,
        }
    }
}

/// What may be spent on one packet, so that no pattern stalls a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Steps left for the rule in hand.
    steps: u32,
    /// Steps for each.
    each: u32,
    /// Bytes that may still be looked at for the packet.
    bytes: u64,
}

/// Bytes that rules may look at for one packet: some ten milliseconds of work.
const PACKET_BYTES: u64 = 64 << 20;
/// What one step costs besides what it looks at.
const STEP_BYTES: u64 = 64;
/// What one step of a backtracking search costs.
const SEARCH_STEP_BYTES: u64 = 64;

impl Budget {
    /// For a packet.
    pub(crate) const fn of_packet(steps: u32) -> Self {
        Self {
            steps,
            each: steps,
            bytes: PACKET_BYTES,
        }
    }

    /// Whether anything is left for the packet.
    pub(crate) fn is_spent(&self) -> bool {
        self.bytes == 0
    }

    /// For the next rule.
    fn renew(&mut self) {
        self.steps = self.each;
    }

    fn step(&mut self) -> bool {
        if self.steps == 0 || self.bytes == 0 {
            return false;
        }
        self.steps -= 1;
        self.look(0);
        true
    }

    fn look(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(STEP_BYTES + bytes as u64);
    }

    /// Searches in so many bytes: `search` is given how many steps of backtracking may be taken,
    /// and takes off what it took.
    pub(crate) fn search<T>(&mut self, bytes: usize, search: impl FnOnce(&mut u32) -> T) -> T {
        self.look(bytes);
        let allowed = u32::try_from(self.bytes / SEARCH_STEP_BYTES).unwrap_or(u32::MAX);
        let mut left = allowed;
        let found = search(&mut left);
        let taken = u64::from(allowed - left) * SEARCH_STEP_BYTES;
        self.bytes = self.bytes.saturating_sub(taken);
        found
    }
}

/// What a rule looks up and changes in sets while it looks at bytes.
pub(crate) trait Sets {
    /// Does what the keyword says to the set of this number, and says whether it matches.
    fn dataset(&mut self, set: u32, command: DatasetCommand, value: &[u8]) -> bool;
}

/// Bytes noted while matching, taken back when the match fails.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    bytes: Vec<u8>,
    /// Values of groups.
    captures: Vec<(CaptureScope, NameId, u32, u32)>,
    /// Places in the payload, and what shall stand there.
    replacements: Vec<(u32, u32, u32)>,
}

/// How much is noted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotedUpTo(usize, usize, usize);

impl Noted {
    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.captures.clear();
        self.replacements.clear();
    }

    /// To come back to with [`Noted::back_to`].
    pub(crate) fn now(&self) -> NotedUpTo {
        NotedUpTo(
            self.bytes.len(),
            self.captures.len(),
            self.replacements.len(),
        )
    }

    /// Forgets what was noted since.
    pub(crate) fn back_to(&mut self, then: NotedUpTo) {
        self.bytes.truncate(then.0);
        self.captures.truncate(then.1);
        self.replacements.truncate(then.2);
    }

    /// Forgets the replacements that were noted since.
    pub(crate) fn replace_nothing(&mut self, since: NotedUpTo) {
        self.replacements.truncate(since.2);
    }

    fn add(&mut self, bytes: &[u8]) -> (u32, u32) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        (start, self.bytes.len() as u32)
    }

    /// Values of groups noted since.
    pub(crate) fn captures(
        &self,
        since: NotedUpTo,
    ) -> impl Iterator<Item = (CaptureScope, NameId, &[u8])> {
        self.captures[since.1..]
            .iter()
            .map(|&(scope, name, start, end)| {
                (scope, name, &self.bytes[start as usize..end as usize])
            })
    }

    /// Offsets into the payload, with what shall stand there.
    pub(crate) fn replacements(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.replacements
            .iter()
            .map(|&(at, start, end)| (at as usize, &self.bytes[start as usize..end as usize]))
    }

    /// Whether anything is to be replaced.
    pub(crate) fn replaces(&self) -> bool {
        !self.replacements.is_empty()
    }
}

/// What matching needs besides the bytes.
pub(crate) struct Tools<'a> {
    pub(crate) sources: &'a [Pattern],
    pub(crate) patterns: &'a mut Patterns,
    pub(crate) variables: &'a mut Variables,
    pub(crate) noted: &'a mut Noted,
    pub(crate) decoded: &'a mut Vec<u8>,
    pub(crate) sets: &'a mut dyn Sets,
    pub(crate) budget: &'a mut Budget,
}

/// How an inspection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Match,
    NoMatch,
    /// Given up: it took too long.
    GaveUp,
}

/// A compiled `pcre`.
#[derive(Clone, Debug)]
struct Expression {
    pattern: u32,
    negated: bool,
    relative: bool,
    revisited: bool,
    captures: Box<[(CaptureScope, NameId)]>,
}

#[derive(Clone, Debug)]
enum Step {
    Content(Literal),
    Pcre(Expression),
    IsDataAt(IsDataAt),
    Asn1(Asn1),
    ByteTest(ByteTest),
    ByteJump(ByteJump),
    ByteExtract(ByteExtract),
    ByteMath(ByteMath),
    Size(Compare<u64>),
    Base64 {
        bytes: Option<u32>,
        offset: u32,
        relative: bool,
        /// What must hold of the result.
        programs: Box<[Program]>,
    },
    Dataset {
        set: u32,
        command: DatasetCommand,
    },
    Entropy {
        bytes: u32,
        offset: u32,
        compare: Compare<u64>,
    },
}

impl Step {
    /// Whether it counts from the match before.
    fn is_relative(&self) -> bool {
        match self {
            Self::Content(literal) => literal.is_relative(),
            Self::Pcre(expression) => expression.relative,
            Self::IsDataAt(is) => is.relative,
            Self::Asn1(asn1) => asn1.relative,
            Self::ByteTest(test) => test.field.relative,
            Self::ByteJump(jump) => jump.field.relative,
            Self::ByteExtract(extract) => extract.field.relative,
            Self::ByteMath(math) => math.field.relative,
            Self::Base64 { relative, .. } => *relative,
            Self::Size(_) | Self::Dataset { .. } | Self::Entropy { .. } => false,
        }
    }
}

/// Where numbers come from that the caller keeps: sets by their definition, names.
pub(crate) trait Surroundings {
    /// The number of a set.
    ///
    /// # Errors
    /// When it is wrong.
    fn set(&mut self, dataset: &crate::rules::ast::Dataset) -> Result<u32, Unsupported>;
    /// The id of a variable's name.
    fn name(&mut self, name: &str) -> NameId;
    /// The number of an expression.
    fn pattern(&mut self, pattern: Pattern) -> u32;
}

/// The steps of a section.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    steps: Box<[Step]>,
    /// Where only contents move the point, and nothing else is read from the bytes, an area
    /// without an end of its own only shrinks while occurrences before it are tried from left to
    /// right: what is not in it will not be. This keeps payloads made of repetitions from costing
    /// a search for every pair of positions.
    monotone: bool,
}

/// What of a rule's matches moves the point.
fn moves(found: &Match) -> bool {
    match found {
        Match::Content(content) => !content.negated,
        Match::Pcre(pcre) => !pcre.negated,
        Match::ByteJump(_) | Match::ByteExtract(_) | Match::ByteMath(_) => true,
        _ => false,
    }
}

fn uses_variable<T: Copy>(value: Value<T>) -> bool {
    matches!(value, Value::Variable(_))
}

/// Whether a match depends on where the one before was found: on the point or on a variable.
fn depends(found: &Match) -> bool {
    let field =
        |field: &Field| field.relative || uses_variable(field.offset) || uses_variable(field.bytes);
    match found {
        Match::Content(content) => match content.position {
            Position::Relative { .. } => true,
            Position::Absolute { offset, depth } => {
                uses_variable(offset) || depth.is_some_and(uses_variable)
            }
        },
        Match::Pcre(pcre) => pcre.relative,
        Match::Asn1(asn1) => asn1.relative,
        Match::IsDataAt(is) => is.relative || uses_variable(is.position),
        Match::ByteTest(test) => field(&test.field) || uses_variable(test.value),
        Match::ByteJump(jump) => field(&jump.field) || uses_variable(jump.post_offset),
        Match::ByteExtract(extract) => field(&extract.field),
        Match::ByteMath(math) => field(&math.field) || uses_variable(math.operand),
        Match::Base64Decode { relative, .. } => *relative,
        Match::Size(_) | Match::Absent { .. } | Match::Dataset(_) | Match::Entropy { .. } => false,
    }
}

/// Whether something later depends on where the match before `later` was found.
fn is_referred_to(later: &[Match]) -> bool {
    for found in later {
        if depends(found) {
            return true;
        }
        if moves(found) {
            // The point is elsewhere from here on. What it has left in variables it has left.
            return false;
        }
    }
    false
}

impl Program {
    /// Compiles a section. `base64` are the sections of what it decodes.
    ///
    /// # Errors
    /// Names the keyword that is wrong, or for which there is nothing yet.
    pub(crate) fn compile(
        section: &Section,
        base64: &[&Section],
        around: &mut impl Surroundings,
    ) -> Result<Self, Unsupported> {
        let matches = &section.matches;
        let only_contents = |found: &Match| match found {
            Match::Content(_) => !depends_on_variable(found),
            Match::IsDataAt(is) => !is.relative && !uses_variable(is.position),
            Match::Size(_) | Match::Absent { .. } => true,
            _ => false,
        };
        let monotone = matches.iter().all(only_contents);
        let mut steps = Vec::with_capacity(matches.len());
        for (index, found) in matches.iter().enumerate() {
            let later = &matches[index + 1..];
            if let Some(step) = step(section, found, later, monotone, base64, around)? {
                steps.push(step);
            }
        }
        Ok(Self {
            steps: steps.into(),
            monotone,
        })
    }

    /// Whether the bytes fulfil it.
    pub(crate) fn inspect(&self, bytes: &[u8], tools: &mut Tools<'_>) -> Outcome {
        tools.budget.renew();
        let mut search = Search {
            bytes,
            monotone: self.monotone,
            tools,
        };
        match search.run(&self.steps, 0) {
            Progress::Found => Outcome::Match,
            Progress::Retry | Progress::Hopeless => Outcome::NoMatch,
            Progress::GaveUp => Outcome::GaveUp,
        }
    }
}

fn depends_on_variable(found: &Match) -> bool {
    let Match::Content(Content { position, .. }) = found else {
        return false;
    };
    match *position {
        Position::Absolute { offset, depth } => {
            uses_variable(offset) || depth.is_some_and(uses_variable)
        }
        Position::Relative { distance, within } => {
            uses_variable(distance) || within.is_some_and(uses_variable)
        }
    }
}

fn dce(encoding: Encoding) -> Result<(), Unsupported> {
    match encoding {
        Encoding::Dce => Err(Unsupported::new("dce", "needs the DCERPC layer")),
        _ => Ok(()),
    }
}

/// `None` for what is dealt with elsewhere.
fn step(
    section: &Section,
    found: &Match,
    later: &[Match],
    monotone: bool,
    base64: &[&Section],
    around: &mut impl Surroundings,
) -> Result<Option<Step>, Unsupported> {
    let revisited = moves(found) && is_referred_to(later);
    Ok(Some(match found {
        Match::Content(content) => {
            if content.replacement.is_some() && section.buffer != Buffer::Payload {
                return Err(Unsupported::new("replace", "of the payload only"));
            }
            let final_if_absent = match content.position {
                Position::Absolute { .. } => !depends_on_variable(found),
                Position::Relative { within, .. } => within.is_none() && monotone,
            };
            Step::Content(Literal::new(content, revisited, final_if_absent))
        }
        Match::Pcre(pcre) => Step::Pcre(expression(
            pcre,
            revisited || !later.is_empty(),
            revisited,
            around,
        )?),
        Match::IsDataAt(is) => Step::IsDataAt(*is),
        Match::ByteTest(test) => {
            dce(test.field.encoding)?;
            Step::ByteTest(*test)
        }
        Match::ByteJump(jump) => {
            dce(jump.field.encoding)?;
            Step::ByteJump(*jump)
        }
        Match::ByteExtract(extract) => {
            dce(extract.field.encoding)?;
            Step::ByteExtract(*extract)
        }
        Match::ByteMath(math) => {
            dce(math.field.encoding)?;
            Step::ByteMath(*math)
        }
        Match::Asn1(asn1) => Step::Asn1(*asn1),
        Match::Size(compare) => Step::Size(*compare),
        // The section's own: it is asked before there are bytes.
        Match::Absent { .. } => return Ok(None),
        Match::Base64Decode {
            bytes,
            offset,
            relative,
        } => Step::Base64 {
            bytes: *bytes,
            offset: *offset,
            relative: *relative,
            programs: base64
                .iter()
                .map(|section| Program::compile(section, &[], around))
                .collect::<Result<_, _>>()?,
        },
        Match::Dataset(dataset) => Step::Dataset {
            set: around.set(dataset)?,
            command: dataset.command,
        },
        Match::Entropy {
            bytes,
            offset,
            compare,
        } => Step::Entropy {
            bytes: *bytes,
            offset: *offset,
            compare: *compare,
        },
    }))
}

fn expression(
    pcre: &Pcre,
    end_matters: bool,
    revisited: bool,
    around: &mut impl Surroundings,
) -> Result<Expression, Unsupported> {
    let pattern =
        Pattern::new(pcre, end_matters).map_err(|reason| Unsupported::new("pcre", reason))?;
    let captures = pcre.captures.iter();
    Ok(Expression {
        captures: captures
            .map(|capture| (capture.scope, around.name(&capture.name)))
            .collect(),
        pattern: around.pattern(pattern),
        negated: pcre.negated,
        relative: pcre.relative,
        revisited,
    })
}

/// What came of a step and all after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Found,
    /// Not here, but perhaps after another occurrence of what was found before.
    Retry,
    /// Not after any further occurrence of anything before.
    Hopeless,
    /// Out of steps.
    GaveUp,
}

struct Search<'a, 't> {
    bytes: &'a [u8],
    monotone: bool,
    tools: &'a mut Tools<'t>,
}

impl Search<'_, '_> {
    /// Takes the steps from the point `at` on. Recursive only where occurrences are tried, so as
    /// deep as there are steps allowed.
    fn run(&mut self, mut steps: &[Step], mut at: usize) -> Progress {
        while let Some((step, rest)) = steps.split_first() {
            if !self.tools.budget.step() {
                return Progress::GaveUp;
            }
            let held = match step {
                Step::Content(literal) if literal.revisited => {
                    return self.every_content(literal, rest, at);
                }
                Step::Content(literal) => match self.content(literal, at) {
                    Ok(end) => {
                        at = end;
                        true
                    }
                    Err(found) => return found,
                },
                Step::Pcre(expression) if expression.revisited => {
                    return self.every_pcre(expression, rest, at);
                }
                Step::Pcre(expression) => match self.pcre(expression, at) {
                    Ok(end) => {
                        at = end;
                        true
                    }
                    Err(found) => return found,
                },
                Step::Base64 {
                    bytes,
                    offset,
                    programs,
                    relative,
                } => {
                    let from = if *relative { at } else { 0 };
                    match self.base64(from, *bytes, *offset, programs) {
                        Outcome::Match => true,
                        Outcome::NoMatch => false,
                        Outcome::GaveUp => return Progress::GaveUp,
                    }
                }
                other => match self.simple(other, at) {
                    Some(point) => {
                        at = point;
                        true
                    }
                    None => false,
                },
            };
            if !held {
                return match self.monotone && !step.is_relative() {
                    true => Progress::Hopeless,
                    false => Progress::Retry,
                };
            }
            steps = rest;
        }
        Progress::Found
    }

    /// The point after a step that is not searched for, if it holds.
    fn simple(&mut self, step: &Step, at: usize) -> Option<usize> {
        let bytes = self.bytes;
        let variables = &mut *self.tools.variables;
        let holds = match step {
            Step::IsDataAt(is) => numbers::is_data_at(bytes, at, is, variables),
            Step::Asn1(asn1) => asn1::holds(bytes, at, asn1),
            Step::ByteTest(test) => numbers::test(bytes, at, test, variables),
            Step::ByteJump(jump) => return numbers::jump(bytes, at, jump, variables),
            Step::ByteExtract(extract) => {
                let (value, end) = numbers::extract(bytes, at, extract, variables)?;
                variables.set(extract.result, value);
                return Some(end);
            }
            Step::ByteMath(math) => {
                let (value, end) = numbers::math(bytes, at, math, variables)?;
                variables.set(math.result, value);
                return Some(end);
            }
            Step::Size(compare) => compare.holds(bytes.len() as u64),
            Step::Dataset { set, command } => {
                self.tools.budget.look(bytes.len());
                self.tools.sets.dataset(*set, *command, bytes)
            }
            Step::Entropy {
                bytes: count,
                offset,
                compare,
            } => {
                self.tools.budget.look(bytes.len());
                numbers::entropy(bytes, *count, *offset).is_some_and(|value| compare.holds(value))
            }
            Step::Content(_) | Step::Pcre(_) | Step::Base64 { .. } => false,
        };
        holds.then_some(at)
    }

    /// The first occurrence of a content from `from` on.
    fn find(&mut self, literal: &Literal, from: usize, to: usize) -> Option<usize> {
        let area = self.bytes.get(from..to)?;
        let (found, looked_at) = literal.find(area);
        self.tools.budget.look(looked_at);
        found.map(|at| from + at)
    }

    /// A content of which one occurrence is as good as any other: the point after it.
    fn content(&mut self, literal: &Literal, at: usize) -> Result<usize, Progress> {
        let area = literal.area(self.bytes.len(), at, self.tools.variables);
        let found = area.and_then(|(from, to)| self.find(literal, from, to));
        match found {
            None if literal.negated => Ok(at),
            None => Err(absent(literal)),
            // What must not be there is, and with an area of its own will be.
            Some(_) if literal.negated => Err(match literal.is_relative() {
                true => Progress::Retry,
                false if literal.final_if_absent => Progress::Hopeless,
                false => Progress::Retry,
            }),
            Some(start) => {
                self.note_replacement(literal, start);
                Ok(start + literal.len())
            }
        }
    }

    fn note_replacement(&mut self, literal: &Literal, start: usize) {
        if let Some(replacement) = &literal.replacement {
            let noted = &mut *self.tools.noted;
            let (from, to) = noted.add(replacement);
            noted.replacements.push((start as u32, from, to));
        }
    }

    /// A content that later steps count from.
    fn every_content(&mut self, literal: &Literal, rest: &[Step], at: usize) -> Progress {
        let Some((mut from, to)) = literal.area(self.bytes.len(), at, self.tools.variables) else {
            return absent(literal);
        };
        let noted = self.tools.noted.now();
        let mut any = false;
        loop {
            let Some(start) = self.find(literal, from, to) else {
                // What failed behind its occurrences may have depended on what was read before.
                return match any && !self.monotone {
                    true => Progress::Retry,
                    false => absent(literal),
                };
            };
            any = true;
            self.note_replacement(literal, start);
            match self.run(rest, start + literal.len()) {
                Progress::Retry => {}
                decided => return decided,
            }
            self.tools.noted.back_to(noted);
            if !self.tools.budget.step() {
                return Progress::GaveUp;
            }
            from = start + 1;
        }
    }

    fn search(&mut self, expression: &Expression, from: usize, start: usize) -> Searched {
        let number = expression.pattern as usize;
        let (Some(subject), Some(source)) =
            (self.bytes.get(from..), self.tools.sources.get(number))
        else {
            return Searched::Nowhere;
        };
        let patterns = &mut *self.tools.patterns;
        self.tools.budget.search(subject.len(), |steps| {
            patterns.find(number, source, subject, start, steps)
        })
    }

    fn note_captures(&mut self, expression: &Expression, from: usize) {
        for (group, &(scope, name)) in (1..).zip(&expression.captures) {
            let place = self
                .tools
                .patterns
                .group(expression.pattern as usize, group);
            let Some((start, end)) = place else { continue };
            let Some(value) = self.bytes.get(from + start..from + end) else {
                continue;
            };
            let noted = &mut *self.tools.noted;
            let (start, end) = noted.add(&value[..value.len().min(MAX_CAPTURED)]);
            noted.captures.push((scope, name, start, end));
        }
    }

    /// An expression of which the first match is as good as any other: the point after it.
    fn pcre(&mut self, expression: &Expression, at: usize) -> Result<usize, Progress> {
        let from = if expression.relative { at } else { 0 };
        let elsewhere = match expression.relative {
            true => Progress::Retry,
            false => Progress::Hopeless,
        };
        match self.search(expression, from, 0) {
            Searched::GaveUp => Err(Progress::GaveUp),
            Searched::Nowhere if expression.negated => Ok(at),
            Searched::Nowhere => Err(elsewhere),
            Searched::Found(_) if expression.negated => Err(elsewhere),
            Searched::Found(found) => {
                self.note_captures(expression, from);
                Ok(from + found.end)
            }
        }
    }

    /// An expression that later steps count from.
    fn every_pcre(&mut self, expression: &Expression, rest: &[Step], at: usize) -> Progress {
        let from = if expression.relative { at } else { 0 };
        let elsewhere = match expression.relative {
            true => Progress::Retry,
            false => Progress::Hopeless,
        };
        let noted = self.tools.noted.now();
        let mut start = 0;
        let mut any = false;
        loop {
            let found = match self.search(expression, from, start) {
                Searched::GaveUp => return Progress::GaveUp,
                Searched::Nowhere if any => return Progress::Retry,
                Searched::Nowhere => return elsewhere,
                Searched::Found(found) => found,
            };
            any = true;
            self.note_captures(expression, from);
            match self.run(rest, from + found.end) {
                Progress::Retry => {}
                decided => return decided,
            }
            self.tools.noted.back_to(noted);
            if !self.tools.budget.step() {
                return Progress::GaveUp;
            }
            start = found.start + 1;
        }
    }

    /// Decodes, and looks at the result.
    fn base64(
        &mut self,
        from: usize,
        count: Option<u32>,
        offset: u32,
        programs: &[Program],
    ) -> Outcome {
        let Some(text) = self.bytes.get(from.saturating_add(offset as usize)..) else {
            return Outcome::NoMatch;
        };
        let count = count.map_or(text.len(), |count| count as usize);
        let mut decoded = std::mem::take(self.tools.decoded);
        decoded.clear();
        base64::decode(
            &text[..text.len().min(count)],
            Base64Mode::Rfc4648,
            &mut decoded,
        );
        self.tools.budget.look(text.len().min(count));
        let mut outcome = match decoded.is_empty() {
            true => Outcome::NoMatch,
            false => Outcome::Match,
        };
        for program in programs {
            if outcome != Outcome::Match {
                break;
            }
            let mut search = Search {
                bytes: &decoded,
                monotone: program.monotone,
                tools: self.tools,
            };
            outcome = match search.run(&program.steps, 0) {
                Progress::Found => Outcome::Match,
                Progress::Retry | Progress::Hopeless => Outcome::NoMatch,
                Progress::GaveUp => Outcome::GaveUp,
            };
        }
        *self.tools.decoded = decoded;
        outcome
    }
}

/// A content is not there, or has no occurrence left.
fn absent(literal: &Literal) -> Progress {
    match literal.final_if_absent {
        true => Progress::Hopeless,
        false => Progress::Retry,
    }
}

/// Decodes what must be base64 throughout.
pub(crate) fn base64_decode(text: &[u8], out: &mut Vec<u8>) -> bool {
    base64::decode(text, Base64Mode::Strict, out)
}
