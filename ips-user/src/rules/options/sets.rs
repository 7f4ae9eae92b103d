//! Matches against lists that are kept elsewhere: `dataset`, `datarep`, `iprep`, `geoip`.

use super::super::ast::{
    Compare, Condition, DATASET_KINDS, Dataset, DatasetCommand, DatasetFormat, DatasetKind,
    GeoSide, Match, ReputationSide,
};
use super::super::finding::Finding;
use super::super::item::Item;
use super::super::text::Text;
use super::number::{compare_parts, number, ranged};
use super::sections::Pending;
use super::{Builder, Handler};

pub(super) const KEYWORDS: &[(&str, Handler)] = &[
    ("dataset", dataset),
    ("datarep", datarep),
    ("iprep", iprep),
    ("geoip", geoip),
];

type Done = Result<(), Finding>;

fn push(builder: &mut Builder<'_>, item: &Item<'_>, set: Dataset) -> Done {
    builder.needs_sticky(item)?;
    let section = builder.layout.here(item.name_span);
    let found = Pending::Done(Match::Dataset(set));
    builder.layout.push(section, found, item.name_span);
    Ok(())
}

fn set_name(text: Option<Text<'_>>, whole: Text<'_>, shape: &str) -> Result<String, Finding> {
    /// Longest name of a set.
    const LONGEST: usize = 63;
    let text = text.filter(|text| !text.is_empty());
    let Some(text) = text else {
        return Err(whole.fail("the name of the set is missing", shape));
    };
    if text.as_str().len() > LONGEST || text.as_str().contains(char::is_whitespace) {
        return Err(text.fail(
            "this is not the name of a set",
            format!("up to {LONGEST} letters without spaces"),
        ));
    }
    Ok(text.as_str().to_owned())
}

/// The options behind command and name.
fn options<'a>(
    set: &mut Dataset,
    parts: impl Iterator<Item = Text<'a>>,
    reputation: bool,
) -> Result<Option<Text<'a>>, Finding> {
    let known = [
        "type",
        "load",
        "save",
        "state",
        "memcap",
        "hashsize",
        "format",
        "enrichment_key",
        "context_key",
        "value_key",
        "array_key",
        "remove_key",
        "timeout",
    ];
    let mut kind = None;
    let mut state = None;
    for part in parts {
        let (word, value) = part.first_word();
        let text = || value.as_str().to_owned();
        if value.is_empty() && word.as_str() != "remove_key" {
            return Err(word.fail(
                format!("`{}` needs a value", word.as_str()),
                format!("{} …", word.as_str()),
            ));
        }
        match word.as_str() {
            "type" => {
                set.kind = value.choose("a type of set", &DATASET_KINDS)?;
                kind = Some(part);
            }
            "load" => set.load = Some(text()),
            "save" if !reputation => set.save = Some(text()),
            "state" if !reputation => state = Some((text(), part)),
            "memcap" => set.memcap = Some(number(value)?),
            "hashsize" => set.hash_size = Some(ranged(value, 1, u32::MAX)?),
            "timeout" => set.timeout = Some(number(value)?),
            "format" => {
                let formats = [
                    ("csv", DatasetFormat::Csv),
                    ("json", DatasetFormat::Json),
                    ("jsonline", DatasetFormat::NdJson),
                    ("ndjson", DatasetFormat::NdJson),
                ];
                set.format = value.choose("a format", &formats)?;
            }
            "enrichment_key" | "context_key" => set.context_key = Some(text()),
            "value_key" => set.value_key = Some(text()),
            "array_key" => set.array_key = Some(text()),
            "remove_key" => set.remove_key = true,
            _ => return Err(word.not_one_of("an option of a set", &known)),
        }
    }
    if let Some((file, part)) = state {
        if set.load.is_some() || set.save.is_some() {
            return Err(part.fail(
                "`state` stands for both load and save",
                "either state, or load and save",
            ));
        }
        set.load = Some(file.clone());
        set.save = Some(file);
    }
    Ok(kind)
}

fn empty_set(command: DatasetCommand, name: String) -> Dataset {
    Dataset {
        command,
        name,
        kind: DatasetKind::String,
        load: None,
        save: None,
        memcap: None,
        hash_size: None,
        timeout: None,
        format: DatasetFormat::Csv,
        value_key: None,
        array_key: None,
        context_key: None,
        remove_key: false,
    }
}

fn dataset(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    const SHAPE: &str = "dataset:isset, name, type string, load name.lst;";
    let commands = [
        ("isset", DatasetCommand::IsSet),
        ("isnotset", DatasetCommand::IsNotSet),
        ("set", DatasetCommand::Set),
        ("unset", DatasetCommand::Unset),
    ];
    let text = item.text()?;
    let mut parts = text.split(',');
    let command = parts
        .next()
        .unwrap_or(text)
        .choose("a command of dataset", &commands)?;
    let mut set = empty_set(command, set_name(parts.next(), text, SHAPE)?);
    let kind = options(&mut set, parts, false)?;
    if kind.is_none() && (set.load.is_some() || set.save.is_some()) {
        return Err(text.fail("the type of the set is missing", SHAPE));
    }
    if set.format != DatasetFormat::Csv
        && !matches!(command, DatasetCommand::IsSet | DatasetCommand::IsNotSet)
    {
        return Err(text.fail("a set from JSON can only be asked", "isset or isnotset"));
    }
    push(builder, item, set)
}

fn datarep(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    const SHAPE: &str = "datarep:name, >, 200, load name.rep, type string;";
    let text = item.text()?;
    let mut parts = text.split(',');
    let name = set_name(parts.next(), text, SHAPE)?;
    let (Some(operator), Some(value)) = (parts.next(), parts.next()) else {
        return Err(text.fail("operator and reputation are missing", SHAPE));
    };
    let command = DatasetCommand::Reputation(compare_parts(operator, value)?);
    let mut set = empty_set(command, name);
    options(&mut set, parts, true)?;
    push(builder, item, set)
}

fn iprep(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    const SHAPE: &str = "iprep:src, category, >, 30; or iprep:src, category, isset;";
    /// Largest score of a reputation.
    const LARGEST: u8 = 127;
    let text = item.text()?;
    let parts: Vec<Text<'_>> = text.split(',').collect();
    let sides = [
        ("src", ReputationSide::Source),
        ("dst", ReputationSide::Destination),
        ("any", ReputationSide::Any),
        ("both", ReputationSide::Both),
    ];
    let (side, category, compare) = match parts.as_slice() {
        [side, category, asked] => {
            let asks = [
                ("isset", Compare::Greater(0)),
                ("isnotset", Compare::Equal(0)),
            ];
            (side, category, asked.choose("what is asked", &asks)?)
        }
        [side, category, operator, value] => {
            ranged(*value, 0, LARGEST)?;
            (side, category, compare_parts(*operator, *value)?)
        }
        _ => return Err(text.fail("iprep has three or four values", SHAPE)),
    };
    if category.is_empty() {
        return Err(category.fail("the category is missing", SHAPE));
    }
    let condition = Condition::Reputation {
        side: side.choose("a side", &sides)?,
        category: category.as_str().to_owned(),
        compare,
    };
    builder.condition(item, condition);
    Ok(())
}

fn geoip(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    const SHAPE: &str = "geoip:src,DE,FR; or any,!US;";
    let sides = [
        ("src", GeoSide::Source),
        ("dst", GeoSide::Destination),
        ("dest", GeoSide::Destination),
        ("any", GeoSide::Any),
        ("both", GeoSide::Both),
    ];
    let text = item.text()?;
    let mut parts = text.split(',').peekable();
    let mut side = GeoSide::Any;
    if let Some(first) = parts.peek()
        && let Some((_, named)) = sides.iter().find(|(word, _)| *word == first.as_str())
    {
        side = *named;
        parts.next();
    }
    let mut negated = false;
    let mut countries = Vec::new();
    for (index, part) in parts.enumerate() {
        let (not, code) = part.negation();
        negated |= not && index == 0;
        let letters = code.as_str().len() == 2
            && code.as_str().bytes().all(|byte| byte.is_ascii_alphabetic());
        if !letters || (not && index > 0) {
            return Err(part.fail(
                format!("`{}` is not the code of a country", part.as_str()),
                "two letters (ISO 3166-1); `!` stands before the first one and means all",
            ));
        }
        countries.push(code.as_str().to_ascii_uppercase());
    }
    if countries.is_empty() {
        return Err(text.fail("the countries are missing", SHAPE));
    }
    let condition = Condition::GeoIp {
        side,
        countries,
        negated,
    };
    builder.condition(item, condition);
    Ok(())
}
