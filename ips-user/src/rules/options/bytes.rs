//! Numbers in the bytes: `byte_test`, `byte_jump`, `byte_extract`, `byte_math`, and
//! `isdataat`.

use super::super::ast::{
    ByteExtract, ByteJump, ByteMath, ByteTest, Encoding, Field, IsDataAt, JumpFrom, Match,
    MathOperator, TestOperator, Value,
};
use super::super::finding::Finding;
use super::super::item::Item;
use super::super::text::Text;
use super::number::{number, ranged, signed};
use super::sections::Pending;
use super::{Builder, Handler};

pub(super) const KEYWORDS: &[(&str, Handler)] = &[
    ("byte_test", byte_test),
    ("byte_jump", byte_jump),
    ("byte_extract", byte_extract),
    ("byte_math", byte_math),
    ("isdataat", isdataat),
];

/// Most bytes of a number in binary.
const MAX_BINARY: u32 = 8;
/// Most digits of a number in text: octal, 64 bits.
const MAX_DIGITS: u32 = 23;
const MAX_OFFSET: i64 = 65_535;

/// What may stand behind the fixed parts of all of them, in any order.
#[derive(Default)]
struct Extras<'a> {
    relative: bool,
    string: Option<Text<'a>>,
    base: Option<(Encoding, Text<'a>)>,
    order: Option<(Encoding, Text<'a>)>,
    bitmask: Option<u32>,
}

const BASES: [(&str, Encoding); 3] = [
    ("dec", Encoding::Decimal),
    ("hex", Encoding::Hexadecimal),
    ("oct", Encoding::Octal),
];

const ORDERS: [(&str, Encoding); 3] = [
    ("big", Encoding::BigEndian),
    ("little", Encoding::LittleEndian),
    ("dce", Encoding::Dce),
];

fn of<T: Copy>(table: &[(&str, T)], word: &str) -> Option<T> {
    table
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, value)| *value)
}

impl<'a> Extras<'a> {
    /// Takes one of the options that all have; false if it is another.
    fn take(&mut self, text: Text<'a>) -> Result<bool, Finding> {
        let (word, rest) = text.first_word();
        match word.as_str() {
            "relative" => self.relative = true,
            "string" => {
                self.string = Some(text);
                if !rest.is_empty() {
                    self.base = Some((rest.choose("a base", &BASES)?, rest));
                }
            }
            "endian" => self.order = Some((rest.choose("a byte order", &ORDERS)?, rest)),
            "bitmask" => self.bitmask = Some(mask(rest)?),
            other => {
                if let Some(base) = of(&BASES, other) {
                    self.base = Some((base, text));
                } else if let Some(order) = of(&ORDERS, other) {
                    self.order = Some((order, text));
                } else {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// How the number is written.
    fn encoding(&self) -> Result<Encoding, Finding> {
        match (self.string, self.base, self.order) {
            (Some(_), _, Some((_, order))) => Err(order.fail(
                "a number in text has no byte order",
                "take `string` or the byte order away",
            )),
            (None, Some((_, base)), _) => Err(base.fail(
                format!("`{}` without `string`", base.as_str()),
                format!("string,{}", base.as_str()),
            )),
            (Some(_), base, None) => Ok(base.map_or(Encoding::Decimal, |(base, _)| base)),
            (None, None, order) => Ok(order.map_or(Encoding::BigEndian, |(order, _)| order)),
        }
    }

    fn field(self, bytes: (Value<u32>, Text<'a>), offset: Value<i32>) -> Result<Field, Finding> {
        let encoding = self.encoding()?;
        let most = match encoding {
            Encoding::Decimal => 20,
            Encoding::Hexadecimal => 14,
            Encoding::Octal => MAX_DIGITS,
            _ => MAX_BINARY,
        };
        if let (Value::Literal(bytes), text) = bytes
            && bytes > most
        {
            let kind = if self.string.is_some() {
                "digits"
            } else {
                "bytes"
            };
            return Err(text.fail(
                format!("a number of {bytes} {kind} is too large"),
                format!("at most {most} {kind}"),
            ));
        }
        Ok(Field {
            bytes: bytes.0,
            offset,
            relative: self.relative,
            encoding,
            bitmask: self.bitmask,
        })
    }
}

/// A mask: hexadecimal, with or without `0x`.
fn mask(text: Text<'_>) -> Result<u32, Finding> {
    let written = text.as_str();
    let digits = written
        .strip_prefix("0x")
        .or(written.strip_prefix("0X"))
        .unwrap_or(written);
    let hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mask = hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten();
    mask.filter(|&mask| mask != 0).ok_or_else(|| {
        text.fail(
            format!("`{written}` is not a mask of up to 32 bits"),
            "bitmask 0x0f",
        )
    })
}

/// The parts between commas.
fn parts<'a>(item: &Item<'a>, least: usize, shape: &str) -> Result<Vec<Text<'a>>, Finding> {
    let text = item.text()?;
    let parts: Vec<Text<'a>> = text.split(',').collect();
    if parts.len() < least {
        return Err(text.fail(
            format!("`{}` needs at least {least} values", item.name),
            shape,
        ));
    }
    if let Some(empty) = parts.iter().find(|part| part.is_empty()) {
        return Err(empty.fail("nothing between two commas", shape));
    }
    Ok(parts)
}

fn unknown(item: &Item<'_>, text: Text<'_>, more: &[&str]) -> Finding {
    let mut words = vec![
        "relative", "big", "little", "string", "dec", "hex", "oct", "dce", "bitmask",
    ];
    words.extend(more);
    text.not_one_of(&format!("an option of {}", item.name), &words)
}

impl Builder<'_> {
    fn byte_count(&self, text: Text<'_>) -> Result<Value<u32>, Finding> {
        self.names.value(text, |text| ranged(text, 0, MAX_DIGITS))
    }

    fn byte_offset(&self, text: Text<'_>) -> Result<Value<i32>, Finding> {
        self.names.value(text, |text| {
            signed(text, -MAX_OFFSET, MAX_OFFSET).map(|number| number as i32)
        })
    }

    fn push_bytes(&mut self, item: &Item<'_>, found: Match, relative: bool) {
        let span = item.value.map_or(item.name_span, |value| value.span);
        let section = if relative {
            self.layout.relative(span)
        } else {
            self.layout.here(span)
        };
        self.layout.push(section, Pending::Done(found), span);
    }
}

fn no_zero_bytes(bytes: Value<u32>, text: Text<'_>) -> Result<(), Finding> {
    if bytes == Value::Literal(0) {
        return Err(text.fail("a number of no bytes", "at least 1 byte"));
    }
    Ok(())
}

const TEST_SHAPE: &str = "byte_test:bytes, operator, value, offset[, relative][, little]…;";

fn byte_test(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    let parts = parts(item, 4, TEST_SHAPE)?;
    let bytes = builder.byte_count(parts[0])?;
    let (negated, symbol) = parts[1].negation();
    let operator = match symbol.as_str() {
        "<" => TestOperator::Less,
        "<=" => TestOperator::AtMost,
        ">" => TestOperator::Greater,
        ">=" => TestOperator::AtLeast,
        "=" => TestOperator::Equal,
        "" if negated => TestOperator::Equal,
        "&" => TestOperator::And,
        "^" => TestOperator::Xor,
        _ => {
            return Err(parts[1].fail(
                format!("`{}` is not an operator of byte_test", symbol.as_str()),
                "one of <, <=, >, >=, =, &, ^, each perhaps with ! before it",
            ));
        }
    };
    let value = builder.names.value(parts[2], number::<u64>)?;
    let offset = builder.byte_offset(parts[3])?;
    let mut extras = Extras::default();
    for &text in &parts[4..] {
        if !extras.take(text)? {
            return Err(unknown(item, text, &[]));
        }
    }
    // In text, 0 stands for as many digits as there are.
    if extras.string.is_none() {
        no_zero_bytes(bytes, parts[0])?;
    }
    let relative = extras.relative;
    let test = ByteTest {
        field: extras.field((bytes, parts[0]), offset)?,
        negated,
        operator,
        value,
    };
    fits(&test, parts[2])?;
    builder.push_bytes(item, Match::ByteTest(test), relative);
    Ok(())
}

/// A number of so few bytes can never have that value.
fn fits(test: &ByteTest, text: Text<'_>) -> Result<(), Finding> {
    let binary = matches!(
        test.field.encoding,
        Encoding::BigEndian | Encoding::LittleEndian | Encoding::Dce
    );
    let (Value::Literal(bytes), Value::Literal(value), true, false) =
        (test.field.bytes, test.value, binary, test.negated)
    else {
        return Ok(());
    };
    let largest = match bytes {
        1..8 => (1u64 << (8 * bytes)) - 1,
        _ => return Ok(()),
    };
    let never = match test.operator {
        TestOperator::Equal | TestOperator::AtLeast => value > largest,
        TestOperator::Greater => value >= largest,
        TestOperator::Less => value == 0,
        _ => false,
    };
    if never {
        return Err(text.fail(
            format!("no number of {bytes} bytes fulfils this: the largest is {largest}"),
            "more bytes, or another value",
        ));
    }
    Ok(())
}

const JUMP_SHAPE: &str = "byte_jump:bytes, offset[, relative][, multiplier n][, align]…;";

fn byte_jump(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    let parts = parts(item, 2, JUMP_SHAPE)?;
    let bytes = builder.byte_count(parts[0])?;
    let offset = builder.byte_offset(parts[1])?;
    let mut extras = Extras::default();
    let mut from = JumpFrom::Field;
    let mut align = false;
    let mut multiplier = 1;
    let mut post_offset = Value::Literal(0);
    for &text in &parts[2..] {
        if extras.take(text)? {
            continue;
        }
        let (word, rest) = text.first_word();
        match word.as_str() {
            "align" => align = true,
            "from_beginning" | "from_end" if from != JumpFrom::Field => {
                return Err(text.fail(
                    "a jump begins at one place only",
                    "either from_beginning or from_end",
                ));
            }
            "from_beginning" => from = JumpFrom::Beginning,
            "from_end" => from = JumpFrom::End,
            "multiplier" => multiplier = ranged(rest, 1, 65_535)?,
            "post_offset" => post_offset = builder.byte_offset(rest)?,
            _ => {
                let more = [
                    "align",
                    "from_beginning",
                    "from_end",
                    "multiplier",
                    "post_offset",
                ];
                return Err(unknown(item, word, &more));
            }
        }
    }
    let relative = extras.relative;
    let jump = ByteJump {
        field: extras.field((bytes, parts[0]), offset)?,
        multiplier,
        align,
        from,
        post_offset,
    };
    builder.push_bytes(item, Match::ByteJump(jump), relative);
    Ok(())
}

const EXTRACT_SHAPE: &str = "byte_extract:bytes, offset, name[, relative][, multiplier n]…;";

fn byte_extract(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    let parts = parts(item, 3, EXTRACT_SHAPE)?;
    let bytes = builder.byte_count(parts[0])?;
    no_zero_bytes(bytes, parts[0])?;
    let offset = builder.byte_offset(parts[1])?;
    // Named even if the rest is wrong: what uses it is right.
    let result = builder.names.define(parts[2])?;
    let mut extras = Extras::default();
    let mut multiplier = 1;
    let mut align = None;
    for &text in &parts[3..] {
        if extras.take(text)? {
            continue;
        }
        let (word, rest) = text.first_word();
        match word.as_str() {
            "multiplier" => multiplier = ranged(rest, 1, 65_535)?,
            "align" => align = Some(rest.choose("2 or 4", &[("2", 2), ("4", 4)])?),
            _ => return Err(unknown(item, word, &["multiplier", "align"])),
        }
    }
    let relative = extras.relative;
    let extract = ByteExtract {
        field: extras.field((bytes, parts[0]), offset)?,
        multiplier,
        align,
        result,
    };
    builder.push_bytes(item, Match::ByteExtract(extract), relative);
    Ok(())
}

const MATH_SHAPE: &str = "byte_math:bytes n, offset n, oper +, rvalue n, result name[, relative]…;";

fn byte_math(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    let parts = parts(item, 5, MATH_SHAPE)?;
    let mut extras = Extras::default();
    let (mut bytes, mut offset, mut operator, mut operand, mut result) =
        (None, None, None, None, None);
    for &text in &parts {
        let (word, rest) = text.first_word();
        match word.as_str() {
            "bytes" => bytes = Some((builder.byte_count(rest)?, rest)),
            "offset" => offset = Some(builder.byte_offset(rest)?),
            "oper" => {
                operator = Some(match rest.as_str() {
                    "+" => MathOperator::Add,
                    "-" => MathOperator::Subtract,
                    "*" => MathOperator::Multiply,
                    "/" => MathOperator::Divide,
                    "<<" => MathOperator::ShiftLeft,
                    ">>" => MathOperator::ShiftRight,
                    _ => {
                        let operators = ["+", "-", "*", "/", "<<", ">>"];
                        return Err(rest.not_one_of("an operator", &operators));
                    }
                });
            }
            "rvalue" => operand = Some((builder.names.value(rest, number::<u32>)?, rest)),
            "result" => result = Some(rest),
            _ if extras.take(text)? => {}
            _ => {
                let more = ["bytes", "offset", "oper", "rvalue", "result", "endian"];
                return Err(unknown(item, word, &more));
            }
        }
    }
    let missing = |what: &str| {
        Finding::with_help(
            item.name_span,
            format!("byte_math without `{what}`"),
            MATH_SHAPE,
        )
    };
    let bytes = bytes.ok_or_else(|| missing("bytes"))?;
    no_zero_bytes(bytes.0, bytes.1)?;
    let offset = offset.ok_or_else(|| missing("offset"))?;
    let operator = operator.ok_or_else(|| missing("oper"))?;
    let (operand, operand_text) = operand.ok_or_else(|| missing("rvalue"))?;
    if operator == MathOperator::Divide && operand == Value::Literal(0) {
        return Err(operand_text.fail("division by zero never matches", "rvalue from 1"));
    }
    let result = builder
        .names
        .define(result.ok_or_else(|| missing("result"))?)?;
    let relative = extras.relative;
    let math = ByteMath {
        field: extras.field(bytes, offset)?,
        operator,
        operand,
        result,
    };
    builder.push_bytes(item, Match::ByteMath(math), relative);
    Ok(())
}

fn isdataat(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    let text = item.text()?;
    let mut parts = text.split(',');
    let first = parts.next().unwrap_or(text);
    let (negated, position) = first.negation();
    let position = builder
        .names
        .value(position, |text| ranged(text, 0, u32::from(u16::MAX)))?;
    let mut relative = false;
    for part in parts {
        match part.as_str() {
            "relative" => relative = true,
            // Buffers are as they are.
            "rawbytes" => {}
            _ => {
                let words = ["relative", "rawbytes"];
                return Err(part.not_one_of("an option of isdataat", &words));
            }
        }
    }
    let at = IsDataAt {
        position,
        negated,
        relative,
    };
    builder.push_bytes(item, Match::IsDataAt(at), relative);
    Ok(())
}
