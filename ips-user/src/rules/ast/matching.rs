//! What is looked for in a buffer.

use super::buffer::{Buffer, Transform};
use super::compare::Compare;

/// A buffer and what must be found in it, in the order written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Which.
    pub buffer: Buffer,
    /// What is done with its bytes before they are looked at.
    pub transforms: Vec<Transform>,
    /// The direction written behind the keyword, in rules for both directions of a transaction:
    /// `http.connection:to_client`.
    pub to_server: Option<bool>,
    /// What must be found.
    pub matches: Vec<Match>,
}

/// Number of a `byte_extract` or `byte_math` result within its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variable(pub u8);

/// A number that is written, or was read from the packet before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<T> {
    /// As written.
    Literal(T),
    /// A variable of the rule.
    Variable(Variable),
}

/// One thing that must be found in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// `content`
    Content(Content),
    /// `pcre`
    Pcre(Pcre),
    /// `isdataat`
    IsDataAt(IsDataAt),
    /// `byte_test`
    ByteTest(ByteTest),
    /// `byte_jump`
    ByteJump(ByteJump),
    /// `byte_extract`
    ByteExtract(ByteExtract),
    /// `byte_math`
    ByteMath(ByteMath),
    /// `bsize`: the length of the buffer.
    Size(Compare<u64>),
    /// `absent`: the buffer does not exist (`or_else`: or the other matches hold).
    Absent {
        /// Whether the other matches of the section may hold instead.
        or_else: bool,
    },
    /// `base64_decode`: decodes from here; a section of [`Buffer::Base64Data`] reads the result.
    Base64Decode {
        /// Most bytes to decode.
        bytes: Option<u32>,
        /// Where to begin.
        offset: u32,
        /// Whether that counts from the last match.
        relative: bool,
    },
    /// `dataset`, `datarep`
    Dataset(Dataset),
    /// `entropy`: Shannon entropy of (a part of) the buffer, in thousandths of bits a byte.
    Entropy {
        /// Part of the buffer, in bytes; the whole if zero.
        bytes: u32,
        /// Where it begins.
        offset: u32,
        /// What the value must be.
        compare: Compare<u64>,
    },
    /// `asn1`
    Asn1(Asn1),
}

/// `asn1`: any of what is asked for holds in the BER data that begins there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asn1 {
    /// `bitstring_overflow`: a bit string that says to have more unused bits than it has.
    pub bitstring_overflow: bool,
    /// `double_overflow`: a real number in ASCII that does not fit.
    pub double_overflow: bool,
    /// `oversize_length`: a length above this.
    pub oversize_length: Option<u32>,
    /// `absolute_offset`, `relative_offset`: where the data begins.
    pub offset: i32,
    /// Whether that counts from the last match.
    pub relative: bool,
}

/// `content` and its modifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The bytes looked for.
    pub pattern: Vec<u8>,
    /// `!`: must not be there.
    pub negated: bool,
    /// ASCII letters match in either case.
    pub nocase: bool,
    /// `fast_pattern`
    pub fast_pattern: Option<FastPattern>,
    /// `endswith`: the match must end where the buffer ends.
    pub at_end: bool,
    /// `startswith` was written: the same as offset 0 and a depth of the pattern's length.
    pub at_start: bool,
    /// Where it may stand.
    pub position: Position,
    /// `replace`: what takes the place of the match, of the same length.
    pub replacement: Option<Vec<u8>>,
}

/// The pattern that is looked for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastPattern {
    /// `fast_pattern`: the whole of it.
    Whole,
    /// `fast_pattern:only`: the position does not matter.
    Only,
    /// `fast_pattern:offset,length`: this part of it.
    Chop {
        /// First byte of the part.
        offset: u16,
        /// Its length.
        length: u16,
    },
}

/// Where a content may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Counted from the start of the buffer.
    Absolute {
        /// Bytes before the area searched.
        offset: Value<u32>,
        /// Length of the area searched; to the end if absent.
        depth: Option<Value<u32>>,
    },
    /// Counted from the end of the previous match.
    Relative {
        /// Bytes between that end and the area searched; may be negative.
        distance: Value<i32>,
        /// Length of the area searched; to the end if absent.
        within: Option<Value<i32>>,
    },
}

/// `pcre`. The letters that choose a buffer (`U`, `H`, `P`, …) choose the section instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pcre {
    /// The expression between the slashes.
    pub expression: String,
    /// `!`
    pub negated: bool,
    /// `R`: begins at the end of the previous match.
    pub relative: bool,
    /// `i`
    pub caseless: bool,
    /// `m`
    pub multi_line: bool,
    /// `s`
    pub dot_all: bool,
    /// `x`
    pub extended: bool,
    /// `A`
    pub anchored: bool,
    /// `E`
    pub dollar_end_only: bool,
    /// `G`
    pub ungreedy: bool,
    /// `O`: no match limits of its own.
    pub override_limits: bool,
    /// Variables that the groups set, in their order.
    pub captures: Vec<Capture>,
}

/// Where a captured group goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Whose variable it is.
    pub scope: CaptureScope,
    /// Its name.
    pub name: String,
}

/// How long a captured value lives, and where it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureScope {
    /// `flow:`
    Flow,
    /// `pkt:`
    Packet,
    /// `alert:`: in the alert record.
    Alert,
}

/// `isdataat`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsDataAt {
    /// The byte that must be there.
    pub position: Value<u32>,
    /// `!`: must not be there.
    pub negated: bool,
    /// Counted from the last match.
    pub relative: bool,
}

/// How a number stands in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Bytes, most significant first.
    BigEndian,
    /// Bytes, least significant first.
    LittleEndian,
    /// `dce`: as the DCERPC header says.
    Dce,
    /// `string,dec`
    Decimal,
    /// `string,hex`
    Hexadecimal,
    /// `string,oct`
    Octal,
}

/// A number in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Bytes that it has; 0 in text for as many digits as there are, and in `byte_jump` for
    /// none: it jumps by its other numbers.
    pub bytes: Value<u32>,
    /// Where it begins.
    pub offset: Value<i32>,
    /// Whether that counts from the last match.
    pub relative: bool,
    /// How it is written.
    pub encoding: Encoding,
    /// `bitmask`: only these bits, shifted down by the number of zeros behind them.
    pub bitmask: Option<u32>,
}

/// `byte_test`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteTest {
    /// What is read.
    pub field: Field,
    /// `!`
    pub negated: bool,
    /// How it is compared.
    pub operator: TestOperator,
    /// With what.
    pub value: Value<u64>,
}

/// How `byte_test` compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestOperator {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
    /// `=`
    Equal,
    /// `&`: a bit in common.
    And,
    /// `^`: not the same bits.
    Xor,
}

/// `byte_jump`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteJump {
    /// What is read.
    pub field: Field,
    /// `multiplier`
    pub multiplier: u32,
    /// `align`: rounded up to four bytes.
    pub align: bool,
    /// From where the jump is counted.
    pub from: JumpFrom,
    /// `post_offset`
    pub post_offset: Value<i32>,
}

/// From where a jump is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JumpFrom {
    /// The end of the number.
    Field,
    /// `from_beginning`
    Beginning,
    /// `from_end`
    End,
}

/// `byte_extract`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteExtract {
    /// What is read.
    pub field: Field,
    /// `multiplier`
    pub multiplier: u32,
    /// `align` to 2 or 4 bytes.
    pub align: Option<u8>,
    /// Where the result goes.
    pub result: Variable,
}

/// `byte_math`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteMath {
    /// What is read.
    pub field: Field,
    /// What is done with it.
    pub operator: MathOperator,
    /// And with what.
    pub operand: Value<u32>,
    /// Where the result goes.
    pub result: Variable,
}

/// What `byte_math` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MathOperator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`; by zero: no match.
    Divide,
    /// `<<`
    ShiftLeft,
    /// `>>`
    ShiftRight,
}

/// `dataset` and `datarep`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// What is done with it.
    pub command: DatasetCommand,
    /// Its name.
    pub name: String,
    /// What is in it.
    pub kind: DatasetKind,
    /// File that it is loaded from.
    pub load: Option<String>,
    /// File that it is written to at the end.
    pub save: Option<String>,
    /// Bound of its memory in bytes.
    pub memcap: Option<u64>,
    /// Buckets; kept for compatibility.
    pub hash_size: Option<u32>,
    /// Entries last so long after they were last seen, in seconds; for ever if absent.
    pub timeout: Option<u64>,
    /// Format of the file.
    pub format: DatasetFormat,
    /// For JSON formats: which key holds the value.
    pub value_key: Option<String>,
    /// For JSON formats: where the array is.
    pub array_key: Option<String>,
    /// For JSON formats: under which key of an alert the entry is shown.
    pub context_key: Option<String>,
    /// Whether the value is left out of the entry shown.
    pub remove_key: bool,
}

/// What a rule does with a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatasetCommand {
    /// `isset`
    IsSet,
    /// `isnotset`
    IsNotSet,
    /// `set`: adds; matches when it was not there.
    Set,
    /// `unset`: removes; matches when it was there.
    Unset,
    /// `datarep`: its reputation is so.
    Reputation(Compare<u16>),
}

/// What a set has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatasetKind {
    /// Bytes.
    String,
    /// MD5 sums.
    Md5,
    /// SHA-256 sums.
    Sha256,
    /// IPv4 addresses.
    Ipv4,
    /// Addresses of either family.
    Ip,
}

/// Kinds of sets by their names in rules. Of two names for one kind the first is shown.
pub const DATASET_KINDS: [(&str, DatasetKind); 6] = [
    ("string", DatasetKind::String),
    ("md5", DatasetKind::Md5),
    ("sha256", DatasetKind::Sha256),
    ("ipv4", DatasetKind::Ipv4),
    ("ip", DatasetKind::Ip),
    ("ipv6", DatasetKind::Ip),
];

/// How the file of a set is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DatasetFormat {
    /// A value a line.
    #[default]
    Csv,
    /// A JSON document.
    Json,
    /// A JSON document a line.
    NdJson,
}
