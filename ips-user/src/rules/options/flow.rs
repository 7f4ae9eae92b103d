//! Keywords about the flow, and what rules remember there: bits and numbers.

use super::super::ast::{
    BitChange, CaptureScope, Condition, Effect, FlowCondition, FlowIntAsked, FlowIntChange,
    FlowIntOperator, FlowIntValue, StreamSide, Track,
};
use super::super::finding::Finding;
use super::super::item::Item;
use super::super::source::Span;
use super::super::text::Text;
use super::content;
use super::number::{compare, compare_parts, number, ranged};
use super::{Builder, Handler};

pub(super) const KEYWORDS: &[(&str, Handler)] = &[
    ("flow", flow),
    ("flowbits", flowbits),
    ("flowint", flowint),
    ("xbits", xbits),
    ("hostbits", hostbits),
    ("stream_size", stream_size),
    ("flow.age", flow_age),
    ("flow.pkts", flow_packets),
    ("flow.pkts_toserver", flow_packets),
    ("flow.pkts_toclient", flow_packets),
    ("flow.bytes", flow_bytes),
    ("flow.bytes_toserver", flow_bytes),
    ("flow.bytes_toclient", flow_bytes),
    ("flowvar", variable),
    ("pktvar", variable),
    ("bypass", bypass),
];

type Done = Result<(), Finding>;

/// The words of `flow`: which aspect each is about, and what it says.
const FLOW_WORDS: [(&str, (usize, bool)); 11] = [
    ("to_server", (0, true)),
    ("from_client", (0, true)),
    ("to_client", (0, false)),
    ("from_server", (0, false)),
    ("established", (1, true)),
    ("not_established", (1, false)),
    ("stateless", (2, true)),
    ("only_stream", (3, true)),
    ("no_stream", (3, false)),
    ("only_frag", (4, true)),
    ("no_frag", (4, false)),
];

fn flow(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?;
    if builder.flow.replace((None, item.name_span)).is_some() {
        return Err(Finding::with_help(
            item.name_span,
            "`flow` twice",
            "one flow keyword with all options: flow:established,to_server;",
        ));
    }
    let mut said: [Option<(bool, Text<'_>)>; 5] = [None; 5];
    for part in text.split(',') {
        let (aspect, value) = part.choose("an option of flow", &FLOW_WORDS)?;
        if let Some((_, before)) = said[aspect] {
            let message = if before.as_str() == part.as_str() {
                format!("`{}` twice", part.as_str())
            } else {
                format!("`{}` contradicts `{}`", part.as_str(), before.as_str())
            };
            return Err(part.fail(message, "one of them"));
        }
        said[aspect] = Some((value, part));
    }
    if let (Some((_, state)), Some((_, stateless))) = (said[1], said[2]) {
        return Err(stateless.fail(
            format!("`stateless` contradicts `{}`", state.as_str()),
            "one of them",
        ));
    }
    let value = |aspect: usize| said[aspect].map(|(value, _)| value);
    let flow = FlowCondition {
        to_server: value(0),
        established: value(1),
        stateless: said[2].is_some(),
        stream: value(3),
        fragment: value(4),
    };
    builder.flow = Some((Some(flow), text.span()));
    builder.condition(item, Condition::Flow(flow));
    Ok(())
}

/// What bit keywords do.
#[derive(Clone, Copy)]
enum BitCommand {
    Ask(bool),
    Change(BitChange),
}

const BIT_COMMANDS: [(&str, BitCommand); 5] = [
    ("set", BitCommand::Change(BitChange::Set)),
    ("unset", BitCommand::Change(BitChange::Unset)),
    ("toggle", BitCommand::Change(BitChange::Toggle)),
    ("isset", BitCommand::Ask(true)),
    ("isnotset", BitCommand::Ask(false)),
];

/// `noalert` as the only value, which three keywords have.
fn only_noalert(builder: &mut Builder<'_>, text: Text<'_>) -> bool {
    let only = text.as_str() == "noalert";
    builder.no_alert |= only;
    only
}

/// A name of a bit or number of a flow.
fn name(text: Option<Text<'_>>, whole: Text<'_>, shape: &str) -> Result<String, Finding> {
    match text {
        Some(text) if text.is_empty() => Err(text.fail("a name is missing", shape)),
        Some(text) if text.as_str().contains(char::is_whitespace) => {
            Err(text.fail("a name has no spaces in it", shape))
        }
        Some(text) => Ok(text.as_str().to_owned()),
        None => Err(whole.fail("a name is missing", shape)),
    }
}

fn nothing_more(text: Option<Text<'_>>, shape: &str) -> Done {
    match text {
        Some(text) => Err(text.fail("a value too many", shape)),
        None => Ok(()),
    }
}

fn flowbits(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    const SHAPE: &str = "flowbits:set,name; or isset,one|other;";
    let text = item.text()?;
    if only_noalert(builder, text) {
        return Ok(());
    }
    let mut parts = text.split(',');
    let command = parts
        .next()
        .unwrap_or(text)
        .choose("a command of flowbits", &BIT_COMMANDS)?;
    let Some(list) = parts.next() else {
        return Err(text.fail("a name is missing", SHAPE));
    };
    nothing_more(parts.next(), SHAPE)?;
    let names = list
        .split('|')
        .map(|part| name(Some(part), list, SHAPE))
        .collect::<Result<Vec<_>, _>>()?;
    match command {
        BitCommand::Ask(set) => {
            contradiction(builder, set, &names, list.span())?;
            builder.condition(item, Condition::FlowBits { set, any_of: names });
        }
        BitCommand::Change(_) if names.len() > 1 => {
            return Err(list.fail(
                "several names can be asked for, not changed",
                "one name; a `flowbits` for each",
            ));
        }
        BitCommand::Change(change) => builder.effect(Effect::FlowBits { change, names }),
    }
    Ok(())
}

/// A rule that asks a bit to be both set and not set never matches.
fn contradiction(builder: &Builder<'_>, set: bool, names: &[String], span: Span) -> Done {
    let [name] = names else { return Ok(()) };
    let contrary = builder.conditions.iter().any(|condition| {
        matches!(condition, Condition::FlowBits { set: other, any_of }
            if *other != set && any_of.as_slice() == [name.as_str()])
    });
    if contrary {
        return Err(Finding::with_help(
            span,
            format!("`{name}` cannot be both set and not set: the rule never matches"),
            "take one of the two away",
        ));
    }
    Ok(())
}

fn flowint(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    const SHAPE: &str = "flowint:name, >, 5; or name, +, 1; or name, isset;";
    let text = item.text()?;
    if only_noalert(builder, text) {
        return Ok(());
    }
    let mut parts = text.split(',');
    let name = name(parts.next(), text, SHAPE)?;
    let Some(word) = parts.next() else {
        return Err(text.fail("what to do with it is missing", SHAPE));
    };
    let ask = |asked| Condition::FlowInt {
        name: name.clone(),
        asked,
    };
    match word.as_str() {
        "isset" => {
            nothing_more(parts.next(), SHAPE)?;
            builder.condition(item, ask(FlowIntAsked::IsSet));
            return Ok(());
        }
        "notset" | "isnotset" => {
            nothing_more(parts.next(), SHAPE)?;
            builder.condition(item, ask(FlowIntAsked::IsNotSet));
            return Ok(());
        }
        _ => {}
    }
    let change = match word.as_str() {
        "=" => Some(FlowIntChange::Set),
        "+" => Some(FlowIntChange::Add),
        "-" => Some(FlowIntChange::Subtract),
        _ => None,
    };
    let operator = match word.as_str() {
        "==" => Some(FlowIntOperator::Equal),
        "!=" => Some(FlowIntOperator::NotEqual),
        "<" => Some(FlowIntOperator::Less),
        "<=" => Some(FlowIntOperator::AtMost),
        ">" => Some(FlowIntOperator::Greater),
        ">=" => Some(FlowIntOperator::AtLeast),
        _ => None,
    };
    if change.is_none() && operator.is_none() {
        return Err(word.fail(
            format!("`{}` is nothing that flowint does", word.as_str()),
            "one of =, +, -, ==, !=, <, <=, >, >=, isset, isnotset",
        ));
    }
    let Some(value) = parts.next() else {
        return Err(text.fail("a number or another flowint is missing", SHAPE));
    };
    nothing_more(parts.next(), SHAPE)?;
    let value = if value.as_str().starts_with(|c: char| c.is_ascii_digit()) {
        FlowIntValue::Literal(number(value)?)
    } else {
        FlowIntValue::Variable(self::name(Some(value), text, SHAPE)?)
    };
    if let Some(change) = change {
        builder.effect(Effect::FlowInt {
            name,
            change,
            value,
        });
    } else if let Some(operator) = operator {
        let asked = FlowIntAsked::Compare {
            operator,
            with: value,
        };
        builder.condition(item, ask(asked));
    }
    Ok(())
}

fn bits(
    builder: &mut Builder<'_>,
    item: &Item<'_>,
    command: BitCommand,
    (name, track, expire): (String, Track, Option<u32>),
) {
    match command {
        BitCommand::Ask(set) => {
            builder.condition(item, Condition::HostBits { set, name, track });
        }
        BitCommand::Change(change) => builder.effect(Effect::HostBits {
            change,
            name,
            track,
            expire,
        }),
    }
}

fn xbits(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    const SHAPE: &str = "xbits:set, name, track ip_src, expire 3600;";
    let text = item.text()?;
    if only_noalert(builder, text) {
        return Ok(());
    }
    let mut parts = text.split(',');
    let command = parts
        .next()
        .unwrap_or(text)
        .choose("a command of xbits", &BIT_COMMANDS)?;
    let name = name(parts.next(), text, SHAPE)?;
    let tracks = [
        ("ip_src", Track::Source),
        ("ip_dst", Track::Destination),
        ("ip_pair", Track::Pair),
        ("tx", Track::Transaction),
    ];
    let (mut track, mut expire) = (None, None);
    for part in parts {
        let (word, rest) = part.first_word();
        match word.as_str() {
            "track" => track = Some(rest.choose("whose bits xbits are", &tracks)?),
            "expire" => expire = Some((ranged(rest, 1, u32::MAX)?, part)),
            _ => return Err(word.not_one_of("an option of xbits", &["track", "expire"])),
        }
    }
    let Some(track) = track else {
        return Err(text.fail("whose bits these are is missing: `track`", SHAPE));
    };
    if let (BitCommand::Ask(_), Some((_, part))) = (command, expire) {
        builder.findings.warning(part.fail(
            "a question does not expire: `expire` is ignored",
            "expire goes with set, unset and toggle",
        ));
    }
    // Those of hosts last longer, if the rule does not say; the two keywords differ in that alone.
    const SECONDS: u32 = 30;
    let expire = expire.map_or(SECONDS, |(seconds, _)| seconds);
    bits(builder, item, command, (name, track, Some(expire)));
    Ok(())
}

fn hostbits(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    const SHAPE: &str = "hostbits:set, name, src, 3600;";
    let text = item.text()?;
    if only_noalert(builder, text) {
        return Ok(());
    }
    let mut parts = text.split(',');
    let command = parts
        .next()
        .unwrap_or(text)
        .choose("a command of hostbits", &BIT_COMMANDS)?;
    let name = name(parts.next(), text, SHAPE)?;
    let sides = [
        ("src", Track::Source),
        ("dst", Track::Destination),
        ("both", Track::Both),
    ];
    let track = match parts.next() {
        Some(side) => side.choose("whose bits hostbits are", &sides)?,
        None => Track::Source,
    };
    let expire = match parts.next() {
        Some(seconds) => Some(ranged(seconds, 1, u32::MAX)?),
        None => None,
    };
    nothing_more(parts.next(), SHAPE)?;
    bits(builder, item, command, (name, track, expire));
    Ok(())
}

const SIDES: [(&str, StreamSide); 4] = [
    ("client", StreamSide::Client),
    ("server", StreamSide::Server),
    ("both", StreamSide::Both),
    ("either", StreamSide::Either),
];

fn stream_size(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?;
    let parts: Vec<Text<'_>> = text.split(',').collect();
    let [side, operator, value] = parts.as_slice() else {
        return Err(text.fail("stream_size has three values", "stream_size:server,>,1000;"));
    };
    let condition = Condition::StreamSize {
        side: side.choose("a side of a stream", &SIDES)?,
        compare: compare_parts(*operator, *value)?,
    };
    builder.condition(item, condition);
    Ok(())
}

fn flow_age(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    builder.condition(item, Condition::FlowAge(compare(item.text()?)?));
    Ok(())
}

/// Which direction counts: part of the keyword, or in front of the number.
fn direction<'a>(item: &Item<'a>) -> Result<(StreamSide, Text<'a>), Finding> {
    const DIRECTIONS: [(&str, StreamSide); 4] = [
        ("toserver", StreamSide::Client),
        ("toclient", StreamSide::Server),
        ("both", StreamSide::Both),
        ("either", StreamSide::Either),
    ];
    let text = item.text()?;
    if item.name.ends_with("_toserver") {
        return Ok((StreamSide::Client, text));
    }
    if item.name.ends_with("_toclient") {
        return Ok((StreamSide::Server, text));
    }
    let Some((direction, rest)) = text.split_once(",") else {
        return Err(text.fail(
            "a direction is missing",
            format!("{}:toserver,>10;", item.name),
        ));
    };
    Ok((direction.choose("a direction", &DIRECTIONS)?, rest))
}

fn flow_packets(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let (side, text) = direction(item)?;
    let compare = compare(text)?;
    builder.condition(item, Condition::FlowPackets { side, compare });
    Ok(())
}

fn flow_bytes(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let (side, text) = direction(item)?;
    let compare = compare(text)?;
    builder.condition(item, Condition::FlowBytes { side, compare });
    Ok(())
}

fn variable(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let shape = format!("{}:name,\"value\";", item.name);
    let text = item.text()?;
    let Some((name, value)) = text.split_once(",") else {
        return Err(text.fail("name and value, with a comma between them", shape));
    };
    let name = self::name(Some(name), text, &shape)?;
    let (negated, value) = value.negation();
    let inside = value.unquoted();
    let value = content::pattern(inside.as_str().as_bytes(), inside.span().start)?;
    let scope = match item.name {
        "pktvar" => CaptureScope::Packet,
        _ => CaptureScope::Flow,
    };
    let condition = Condition::Variable {
        scope,
        name,
        negated,
        value,
    };
    builder.condition(item, condition);
    Ok(())
}

fn bypass(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    item.no_value()?;
    builder.effect(Effect::Bypass);
    Ok(())
}
