//! What records say about a message. Reference: "Event type: DNS" in the EVE chapter of Suricata's
//! user guide.

use serde_json::{Map, Value, json};

use super::message::{Message, Name, Question, Rdata, Record};
use super::names;

/// The object `dns` of a record in the second version of its format: a request has one for each
/// question.
pub(crate) fn fields_2(message: &Message, transaction: u64) -> Vec<Value> {
    let mut out = match fields(message, transaction) {
        Value::Object(out) => out,
        _ => Map::new(),
    };
    let answer = message.is_response();
    out.insert("version".into(), 2.into());
    out.insert(
        "type".into(),
        if answer { "answer" } else { "query" }.into(),
    );
    out.remove("queries");
    if !answer {
        // Each question has a record, and none repeats what belongs to an answer.
        for name in ["rcode", "answers", "authorities", "additionals", "grouped"] {
            out.remove(name);
        }
    }
    let with = |question: &Question| {
        let mut out = out.clone();
        put_name(&mut out, "rrname", &question.name);
        out.insert("rrtype".into(), names::kind(question.kind).into());
        Value::from(out)
    };
    match (answer, &message.questions[..]) {
        (_, []) => vec![out.clone().into()],
        (true, [first, ..]) => vec![with(first)],
        (false, questions) => questions.iter().take(MOST_QUESTIONS).map(with).collect(),
    }
}

/// The object `dns` of a record, in the third version of its format.
pub(crate) fn fields(message: &Message, transaction: u64) -> Value {
    let mut out = Map::new();
    let kind = if message.is_response() {
        "response"
    } else {
        "request"
    };
    out.insert("version".into(), 3.into());
    out.insert("type".into(), kind.into());
    out.insert("tx_id".into(), transaction.into());
    out.insert("id".into(), message.id.into());
    out.insert("flags".into(), format!("{:x}", message.flags).into());
    for (name, bit) in [
        ("qr", 0x8000),
        ("aa", 0x0400),
        ("tc", 0x0200),
        ("rd", 0x0100),
        ("ra", 0x0080),
        ("z", 0x0040),
    ] {
        if message.flags & bit != 0 {
            out.insert(name.into(), true.into());
        }
    }
    out.insert("opcode".into(), message.opcode().into());
    out.insert("rcode".into(), names::rcode(message.rcode()).into());
    if !message.questions.is_empty() {
        let questions = message.questions.iter().map(question);
        out.insert("queries".into(), questions.collect());
    }
    let mut room = MOST_SHOWN;
    let (mut left_out, mut answers) = (0, 0);
    for (name, records) in [
        ("answers", &message.answers),
        ("authorities", &message.authorities),
        ("additionals", &message.additionals),
    ] {
        let fits = |it: &&Record| {
            let fits = room.checked_sub(length(it));
            room = fits.unwrap_or_default();
            fits.is_some()
        };
        let shown: Vec<_> = records.iter().take_while(fits).map(record).collect();
        left_out += records.len() - shown.len();
        if name == "answers" {
            answers = shown.len();
        }
        if !shown.is_empty() {
            out.insert(name.into(), shown.into());
        }
    }
    let grouped = grouped(&message.answers[..answers]);
    if !grouped.is_empty() {
        out.insert("grouped".into(), grouped.into());
    }
    if left_out > 0 {
        out.insert("records_left_out".into(), left_out.into());
    }
    out.into()
}

/// Most bytes of what one record says about a message, about: beyond, its records are counted.
const MOST_SHOWN: usize = 64 << 10;
/// Most questions of a message that have records of their own.
const MOST_QUESTIONS: usize = 64;

/// Bytes that a record takes where it is shown, about.
fn length(record: &Record) -> usize {
    const FIELDS: usize = 64;
    let said = match &record.data {
        Rdata::Name(name) | Rdata::Srv { target: name, .. } => name.bytes.len(),
        Rdata::Texts(texts) => texts.iter().map(Vec::len).sum(),
        Rdata::Soa(soa) => soa.server.bytes.len() + soa.mailbox.bytes.len(),
        Rdata::KeyPrint { print, .. } => 3 * print.len(),
        Rdata::V4(_) | Rdata::V6(_) | Rdata::Other(_) => 0,
    };
    FIELDS + record.name.bytes.len() + said
}

fn text(bytes: &[u8]) -> Value {
    String::from_utf8_lossy(bytes).into()
}

fn put_name(out: &mut Map<String, Value>, key: &str, name: &Name) {
    out.insert(key.into(), text(&name.bytes));
    if name.truncated {
        out.insert(format!("{key}_truncated"), true.into());
    }
}

fn question(question: &Question) -> Value {
    let mut out = Map::new();
    put_name(&mut out, "rrname", &question.name);
    out.insert("rrtype".into(), names::kind(question.kind).into());
    out.into()
}

fn record(record: &Record) -> Value {
    let mut out = Map::new();
    put_name(&mut out, "rrname", &record.name);
    out.insert("rrtype".into(), names::kind(record.kind).into());
    out.insert("ttl".into(), record.ttl.into());
    match &record.data {
        Rdata::Soa(_) => {
            out.insert("soa".into(), said(&record.data).unwrap_or_default());
        }
        Rdata::Srv { .. } => {
            out.insert("srv".into(), said(&record.data).unwrap_or_default());
        }
        Rdata::KeyPrint { .. } => {
            out.insert("sshfp".into(), said(&record.data).unwrap_or_default());
        }
        Rdata::Name(name) => put_name(&mut out, "rdata", name),
        Rdata::Texts(texts) => {
            out.insert("rdata".into(), text(&texts.concat()));
        }
        Rdata::V4(_) | Rdata::V6(_) => {
            out.insert("rdata".into(), said(&record.data).unwrap_or_default());
        }
        Rdata::Other(_) => {}
    }
    out.into()
}

/// What a record says; `None` for those of which that is not shown.
fn said(data: &Rdata) -> Option<Value> {
    Some(match data {
        Rdata::V4(address) => address.to_string().into(),
        Rdata::V6(address) => {
            // With all its digits, as addresses of packets are written.
            let words = address.segments().map(|word| format!("{word:04x}"));
            words.join(":").into()
        }
        Rdata::Name(name) => text(&name.bytes),
        Rdata::Texts(texts) => text(&texts.concat()),
        Rdata::Soa(soa) => {
            let [serial, refresh, retry, expire, minimum] = soa.numbers;
            json!({
                "mname": text(&soa.server.bytes),
                "rname": text(&soa.mailbox.bytes),
                "serial": serial,
                "refresh": refresh,
                "retry": retry,
                "expire": expire,
                "minimum": minimum,
            })
        }
        Rdata::Srv {
            priority,
            weight,
            port,
            target,
        } => json!({
            "priority": priority,
            "weight": weight,
            "port": port,
            "name": text(&target.bytes),
        }),
        Rdata::KeyPrint {
            algorithm,
            kind,
            print,
        } => {
            let digits = print.iter().map(|byte| format!("{byte:02x}"));
            let print = digits.collect::<Vec<_>>().join(":");
            json!({ "fingerprint": print, "algo": algorithm, "type": kind })
        }
        Rdata::Other(_) => return None,
    })
}

/// Answers by their type.
fn grouped(answers: &[Record]) -> Map<String, Value> {
    let mut out = Map::new();
    for record in answers {
        let Some(said) = said(&record.data) else {
            continue;
        };
        let key = names::kind(record.kind).into_owned();
        if let Value::Array(list) = out.entry(key).or_insert_with(|| Value::Array(Vec::new())) {
            list.push(said);
        }
    }
    out
}
