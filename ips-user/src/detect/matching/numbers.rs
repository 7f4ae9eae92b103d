//! Numbers in the bytes: `byte_test`, `byte_jump`, `byte_extract`, `byte_math`, `isdataat`.
//!
//! All return `None` where there is nothing to read: then the keyword does not match.

use super::Variables;
use crate::rules::ast::{
    ByteExtract, ByteJump, ByteMath, ByteTest, Encoding, Field, IsDataAt, JumpFrom, MathOperator,
    TestOperator, Value,
};

/// A number that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number {
    value: u64,
    /// Where it begins.
    start: usize,
    /// Where it ends: for strings behind the last digit.
    end: usize,
}

fn read(bytes: &[u8], at: usize, field: &Field, variables: &Variables) -> Option<Number> {
    let base = if field.relative { at as i64 } else { 0 };
    let start = usize::try_from(base.checked_add(variables.of_i32(field.offset))?).ok()?;
    let count = variables.of_u32(field.bytes);
    if field.relative && start >= bytes.len() {
        return None;
    }
    let digits = bytes.get(start..start.checked_add(count)?)?;
    let (value, length) = match field.encoding {
        Encoding::Decimal => string(digits, 10)?,
        Encoding::Hexadecimal => string(digits, 16)?,
        Encoding::Octal => string(digits, 8)?,
        Encoding::BigEndian | Encoding::LittleEndian | Encoding::Dce => {
            if count > 8 {
                return None;
            }
            let add = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
            let value = match field.encoding {
                Encoding::LittleEndian => digits.iter().rev().fold(0, add),
                _ => digits.iter().fold(0, add),
            };
            (value, count)
        }
    };
    Some(Number {
        value: masked(value, field.bitmask),
        start,
        end: start + length,
    })
}

fn masked(value: u64, mask: Option<u32>) -> u64 {
    match mask {
        None | Some(0) => mask.map_or(value, |_| 0),
        Some(mask) => (value & u64::from(mask)) >> mask.trailing_zeros(),
    }
}

/// As strtoull(3): blanks, a sign, `0x` before hexadecimal digits, then as many digits as there
/// are; with what it took. `None` without a digit, or when the value does not fit.
fn string(text: &[u8], base: u32) -> Option<(u64, usize)> {
    let mut at = text
        .iter()
        .take_while(|byte| byte.is_ascii_whitespace() || **byte == 0x0b)
        .count();
    let negative = match text.get(at) {
        Some(sign @ (b'+' | b'-')) => {
            at += 1;
            *sign == b'-'
        }
        _ => false,
    };
    if base == 16
        && let [b'0', b'x' | b'X', digit, ..] = &text[at..]
        && digit.is_ascii_hexdigit()
    {
        at += 2;
    }
    let first = at;
    let mut value = 0u64;
    while let Some(digit) = text
        .get(at)
        .and_then(|byte| char::from(*byte).to_digit(base))
    {
        value = value
            .checked_mul(u64::from(base))?
            .checked_add(u64::from(digit))?;
        at += 1;
    }
    let value = if negative {
        value.wrapping_neg()
    } else {
        value
    };
    (at > first).then_some((value, at))
}

fn aligned(value: u64, to: u64) -> u64 {
    value.checked_next_multiple_of(to).unwrap_or(u64::MAX)
}

/// Whether `byte_test` holds.
pub(super) fn test(bytes: &[u8], at: usize, test: &ByteTest, variables: &Variables) -> bool {
    let Some(Number { value: number, .. }) = read(bytes, at, &test.field, variables) else {
        // Not even negated: what is not there is not compared.
        return false;
    };
    let with = match test.value {
        Value::Literal(value) => value,
        Value::Variable(variable) => variables.get(variable),
    };
    let holds = match test.operator {
        TestOperator::Less => number < with,
        TestOperator::AtMost => number <= with,
        TestOperator::Greater => number > with,
        TestOperator::AtLeast => number >= with,
        TestOperator::Equal => number == with,
        TestOperator::And => number & with != 0,
        TestOperator::Xor => number ^ with != 0,
    };
    holds != test.negated
}

/// Where `byte_jump` leads. A jump to before the buffer leads to its start; one to its end or
/// beyond leads nowhere.
pub(super) fn jump(
    bytes: &[u8],
    at: usize,
    jump: &ByteJump,
    variables: &Variables,
) -> Option<usize> {
    // Of no bytes: only what is added counts.
    let number = if jump.field.bytes == Value::Literal(0) {
        let base = if jump.field.relative { at as i64 } else { 0 };
        let start = base.checked_add(variables.of_i32(jump.field.offset))?;
        let start = usize::try_from(start)
            .ok()
            .filter(|start| *start <= bytes.len())?;
        Number {
            value: 0,
            start,
            end: start,
        }
    } else {
        read(bytes, at, &jump.field, variables)?
    };
    let mut value = number.value.wrapping_mul(u64::from(jump.multiplier));
    if jump.align {
        value = aligned(value, 4);
    }
    let from = match jump.from {
        JumpFrom::Field => number.end,
        JumpFrom::Beginning => 0,
        JumpFrom::End => bytes.len(),
    };
    let target = from as i128 + i128::from(value) + i128::from(variables.of_i32(jump.post_offset));
    let target = usize::try_from(target.max(0)).ok()?;
    (target < bytes.len()).then_some(target)
}

/// What `byte_extract` reads, and where it ends.
pub(super) fn extract(
    bytes: &[u8],
    at: usize,
    extract: &ByteExtract,
    variables: &Variables,
) -> Option<(u64, usize)> {
    let number = read(bytes, at, &extract.field, variables)?;
    let mut value = number.value.wrapping_mul(u64::from(extract.multiplier));
    if let Some(to) = extract.align {
        value = aligned(value, u64::from(to.max(1)));
    }
    Some((value, number.end))
}

/// What `byte_math` computes, and where what it reads ends. The mask is for the result.
pub(super) fn math(
    bytes: &[u8],
    at: usize,
    math: &ByteMath,
    variables: &Variables,
) -> Option<(u64, usize)> {
    let unmasked = Field {
        bitmask: None,
        ..math.field
    };
    let number = read(bytes, at, &unmasked, variables)?;
    let operand = match math.operand {
        Value::Literal(operand) => u64::from(operand),
        Value::Variable(variable) => variables.get(variable),
    };
    let value = number.value;
    let shift = u32::try_from(operand).unwrap_or(u32::MAX);
    let result = match math.operator {
        MathOperator::Add => value.wrapping_add(operand),
        MathOperator::Subtract => value.wrapping_sub(operand),
        MathOperator::Multiply => value.wrapping_mul(operand),
        MathOperator::Divide => value.checked_div(operand)?,
        MathOperator::ShiftLeft => value.checked_shl(shift).unwrap_or(0),
        MathOperator::ShiftRight => value.checked_shr(shift).unwrap_or(0),
    };
    Some((masked(result, math.field.bitmask), number.end))
}

/// Whether `isdataat` holds. Relative, a position at the very end counts as being there;
/// absolute it does not.
pub(super) fn is_data_at(bytes: &[u8], at: usize, is: &IsDataAt, variables: &Variables) -> bool {
    let position = variables.of_u32(is.position);
    let there = match is.relative {
        true => at.saturating_add(position) <= bytes.len(),
        false => position < bytes.len(),
    };
    there != is.negated
}

/// Shannon entropy in thousandths of a bit for each byte; `None` when there are no bytes.
pub(super) fn entropy(bytes: &[u8], count: u32, offset: u32) -> Option<u64> {
    let rest = bytes.get(offset as usize..)?;
    let part = match count {
        0 => rest,
        count => rest.get(..count as usize)?,
    };
    if part.is_empty() {
        return None;
    }
    let mut frequency = [0u32; 256];
    for byte in part {
        frequency[usize::from(*byte)] += 1;
    }
    let total = part.len() as f64;
    let bits: f64 = frequency
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / total;
            -share * share.log2()
        })
        .sum();
    Some((bits * 1000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::ast::Variable;

    fn field(bytes: u32, offset: i32, encoding: Encoding) -> Field {
        Field {
            bytes: Value::Literal(bytes),
            offset: Value::Literal(offset),
            relative: false,
            encoding,
            bitmask: None,
        }
    }

    fn variables() -> Variables {
        let mut variables = Variables::default();
        variables.reserve(2);
        variables.set(Variable(1), 3);
        variables
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        let check = |bytes: &[u8], field: Field, expect: Option<(u64, usize)>| {
            let number = read(bytes, 2, &field, &variables());
            let found = number.map(|number| (number.value, number.end));
            assert_eq!(found, expect, "{field:?} in {bytes:?}");
        };
        let big = |bytes, offset| field(bytes, offset, Encoding::BigEndian);
        check(b"\x01\x02\x03", big(2, 0), Some((0x0102, 2)));
        check(b"\x01\x02\x03", big(2, 1), Some((0x0203, 3)));
        check(b"\x01\x02\x03", big(2, 2), None);
        check(b"\x01\x02\x03", big(2, -1), None);
        check(
            b"\x01\x02\x03",
            field(3, 0, Encoding::LittleEndian),
            Some((0x0003_0201, 3)),
        );
        check(&[0xff; 9], big(8, 1), Some((u64::MAX, 9)));
        check(&[0xff; 9], big(9, 0), None);
        let relative = Field {
            relative: true,
            ..big(1, -1)
        };
        check(b"\x01\x02\x03", relative, Some((2, 2)));
        let at_end = Field {
            relative: true,
            ..big(1, 1)
        };
        check(b"\x01\x02\x03", at_end, None);
        let masked = Field {
            bitmask: Some(0x0ff0),
            ..big(2, 0)
        };
        check(b"\xab\xcd", masked, Some((0xbc, 2)));
        let decimal = |bytes| field(bytes, 0, Encoding::Decimal);
        check(b"1234x", decimal(5), Some((1234, 4)));
        check(b"1234", decimal(2), Some((12, 2)));
        check(b" +12 ", decimal(5), Some((12, 4)));
        check(b"x12", decimal(3), None);
        check(b"99999999999999999999999", decimal(23), None);
        let hexadecimal = |bytes| field(bytes, 0, Encoding::Hexadecimal);
        check(b"0xfF", hexadecimal(4), Some((0xff, 4)));
        check(b"0xg", hexadecimal(3), Some((0, 1)));
        check(b"beeg", hexadecimal(4), Some((0xbee, 3)));
        check(b"789", field(3, 0, Encoding::Octal), Some((7, 1)));
        let by_variable = Field {
            offset: Value::Variable(Variable(1)),
            ..big(1, 0)
        };
        check(b"\0\0\0\x09", by_variable, Some((9, 4)));
    }

    #[test]
    fn every_operator_of_byte_test_compares() {
        let check = |operator, value, expect| {
            for negated in [false, true] {
                let keyword = ByteTest {
                    field: field(1, 0, Encoding::BigEndian),
                    negated,
                    operator,
                    value: Value::Literal(value),
                };
                let holds = test(b"\x05", 0, &keyword, &variables());
                assert_eq!(holds, expect != negated, "{keyword:?}");
                let beyond = ByteTest {
                    field: field(1, 1, Encoding::BigEndian),
                    ..keyword
                };
                assert!(!test(b"\x05", 0, &beyond, &variables()));
            }
        };
        check(TestOperator::Less, 6, true);
        check(TestOperator::Less, 5, false);
        check(TestOperator::AtMost, 5, true);
        check(TestOperator::Greater, 4, true);
        check(TestOperator::Greater, 5, false);
        check(TestOperator::AtLeast, 5, true);
        check(TestOperator::Equal, 5, true);
        check(TestOperator::And, 4, true);
        check(TestOperator::And, 2, false);
        check(TestOperator::Xor, 5, false);
        check(TestOperator::Xor, 4, true);
    }

    #[test]
    fn jumps_lead_into_the_buffer_or_nowhere() {
        let keyword = ByteJump {
            field: field(1, 0, Encoding::BigEndian),
            multiplier: 1,
            align: false,
            from: JumpFrom::Field,
            post_offset: Value::Literal(0),
        };
        let check = |jump_: ByteJump, bytes: &[u8], expect| {
            assert_eq!(jump(bytes, 2, &jump_, &variables()), expect, "{jump_:?}");
        };
        let bytes = b"\x03........";
        check(keyword, bytes, Some(4));
        check(
            ByteJump {
                multiplier: 2,
                ..keyword
            },
            bytes,
            Some(7),
        );
        check(
            ByteJump {
                multiplier: 3,
                ..keyword
            },
            bytes,
            None,
        );
        check(
            ByteJump {
                align: true,
                ..keyword
            },
            bytes,
            Some(5),
        );
        check(
            ByteJump {
                from: JumpFrom::Beginning,
                ..keyword
            },
            bytes,
            Some(3),
        );
        check(
            ByteJump {
                from: JumpFrom::End,
                ..keyword
            },
            bytes,
            None,
        );
        let back = |post| ByteJump {
            post_offset: Value::Literal(post),
            ..keyword
        };
        check(back(-1), bytes, Some(3));
        check(back(-10), bytes, Some(0));
        check(back(4), bytes, Some(8));
        check(back(5), bytes, None);
        let end = ByteJump {
            field: field(0, 0, Encoding::BigEndian),
            from: JumpFrom::End,
            post_offset: Value::Literal(-2),
            ..keyword
        };
        check(end, bytes, Some(7));
        let relative = ByteJump {
            field: Field {
                relative: true,
                ..field(0, 1, Encoding::BigEndian)
            },
            ..keyword
        };
        check(relative, bytes, Some(3));
    }

    #[test]
    fn results_are_computed_and_never_panic() {
        let compute = |operator, operand, bitmask| {
            let keyword = ByteMath {
                field: Field {
                    bitmask,
                    ..field(1, 0, Encoding::BigEndian)
                },
                operator,
                operand: Value::Literal(operand),
                result: Variable(0),
            };
            math(b"\x0c", 0, &keyword, &variables()).map(|(value, _)| value)
        };
        assert_eq!(compute(MathOperator::Add, 3, None), Some(15));
        assert_eq!(compute(MathOperator::Subtract, 13, None), Some(u64::MAX));
        assert_eq!(compute(MathOperator::Multiply, 3, None), Some(36));
        assert_eq!(compute(MathOperator::Divide, 5, None), Some(2));
        assert_eq!(compute(MathOperator::Divide, 0, None), None);
        assert_eq!(compute(MathOperator::ShiftLeft, 4, None), Some(0xc0));
        assert_eq!(compute(MathOperator::ShiftRight, 2, None), Some(3));
        assert_eq!(compute(MathOperator::ShiftRight, 64, None), Some(0));
        assert_eq!(compute(MathOperator::Multiply, 3, Some(0xf0)), Some(2));
        let keyword = ByteExtract {
            field: field(1, 0, Encoding::BigEndian),
            multiplier: 3,
            align: Some(4),
            result: Variable(0),
        };
        assert_eq!(extract(b"\x03", 0, &keyword, &variables()), Some((12, 1)));
    }

    #[test]
    fn data_is_there_up_to_the_end() {
        let check = |position, relative, expect| {
            for negated in [false, true] {
                let keyword = IsDataAt {
                    position: Value::Literal(position),
                    negated,
                    relative,
                };
                let there = is_data_at(b"0123456789", 4, &keyword, &variables());
                assert_eq!(there, expect != negated, "{keyword:?}");
            }
        };
        check(9, false, true);
        check(10, false, false);
        check(6, true, true);
        check(7, true, false);
    }

    #[test]
    fn entropy_is_in_bits_for_each_byte() {
        assert_eq!(entropy(b"aaaa", 0, 0), Some(0));
        assert_eq!(entropy(b"abab", 0, 0), Some(1000));
        assert_eq!(entropy(b"xxabcd", 4, 2), Some(2000));
        assert_eq!(entropy(b"ab", 3, 0), None);
        assert_eq!(entropy(b"", 0, 0), None);
    }
}
