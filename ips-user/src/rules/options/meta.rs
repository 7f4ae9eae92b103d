//! Keywords that say what a rule is, and what happens when it matches; not what it looks for.

use super::super::ast::{Class, Effect, Reference, Target};
use super::super::diagnostic::nearest;
use super::super::finding::Finding;
use super::super::item::Item;
use super::super::text::Text;
use super::number::{number, ranged};
use super::{Builder, Handler};

/// Priority of a rule that has neither `priority` nor `classtype`.
pub(super) const DEFAULT_PRIORITY: u8 = 3;

pub(super) const KEYWORDS: &[(&str, Handler)] = &[
    ("msg", message),
    ("sid", sid),
    ("gid", gid),
    ("rev", rev),
    ("priority", priority),
    ("classtype", classtype),
    ("reference", reference),
    ("metadata", metadata),
    ("target", target),
    ("noalert", no_alert),
    ("alert", alert),
    ("requires", already_met),
    ("config", config),
    ("filestore", filestore),
    ("tls.store", tls_store),
    ("tls_store", tls_store),
    ("nfq_set_mark", nfq_set_mark),
];

type Done = Result<(), Finding>;

/// What a rule says about itself.
#[derive(Debug, Default)]
pub(super) struct Meta {
    pub(super) signature_id: Option<u32>,
    /// A sid was written, right or wrong.
    pub(super) has_sid: bool,
    pub(super) group_id: Option<u32>,
    pub(super) revision: Option<u32>,
    pub(super) message: Option<String>,
    pub(super) class: Option<Class>,
    pub(super) priority: Option<u8>,
    pub(super) target: Option<Target>,
    pub(super) references: Vec<Reference>,
    pub(super) metadata: Vec<(String, String)>,
}

fn set_once<T>(item: &Item<'_>, field: &mut Option<T>, value: T) -> Done {
    if field.is_some() {
        return Err(Finding::with_help(
            item.name_span,
            format!("`{}` twice", item.name),
            "take one of them away",
        ));
    }
    *field = Some(value);
    Ok(())
}

fn message(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.quoted_text()?;
    set_once(item, &mut builder.meta.message, text)
}

fn sid(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    builder.meta.has_sid = true;
    let number = ranged(item.text()?.unquoted(), 1, u32::MAX)?;
    set_once(item, &mut builder.meta.signature_id, number)
}

fn gid(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let number = number(item.text()?.unquoted())?;
    set_once(item, &mut builder.meta.group_id, number)
}

fn rev(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let number = number(item.text()?.unquoted())?;
    set_once(item, &mut builder.meta.revision, number)
}

fn priority(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let number = ranged(item.text()?.unquoted(), 1, 255u8)?;
    set_once(item, &mut builder.meta.priority, number)
}

fn classtype(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?.unquoted();
    let classes = builder.context.classification;
    let class = match classes.get(text.as_str()) {
        Some(class) => class.clone(),
        None => {
            let help = match nearest(text.as_str(), classes.names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "define it in classification.config".into(),
            };
            builder.findings.warning(text.fail(
                format!(
                    "unknown classtype `{}`, priority {DEFAULT_PRIORITY} is used",
                    text.as_str()
                ),
                help,
            ));
            Class {
                name: text.as_str().to_owned(),
                description: text.as_str().to_owned(),
                priority: DEFAULT_PRIORITY,
            }
        }
    };
    set_once(item, &mut builder.meta.class, class)
}

fn reference(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?;
    match text.split_once(",") {
        Some((system, id)) if !system.is_empty() && !id.is_empty() => {
            let (system, id) = (system.as_str(), id.as_str());
            let url = builder
                .context
                .references
                .prefix(system)
                .map(|prefix| format!("{prefix}{id}"));
            builder.meta.references.push(Reference {
                system: system.to_owned(),
                id: id.to_owned(),
                url,
            });
            Ok(())
        }
        _ => Err(text.fail(
            "a reference is a system and an id",
            "reference:cve,2021-44228;",
        )),
    }
}

fn metadata(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let Some(text) = item.optional_text()? else {
        return Ok(());
    };
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.first_word();
        builder
            .meta
            .metadata
            .push((key.as_str().to_owned(), value.as_str().to_owned()));
    }
    Ok(())
}

fn target(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let ends = [("src_ip", Target::Source), ("dest_ip", Target::Destination)];
    let end = item.text()?.choose("a target", &ends)?;
    set_once(item, &mut builder.meta.target, end)
}

fn no_alert(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    item.no_value()?;
    builder.no_alert = true;
    Ok(())
}

fn alert(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    item.no_value()?;
    builder.alert = true;
    Ok(())
}

/// It was looked at before everything else: see `requires`.
fn already_met(_: &mut Builder<'_>, _: &Item<'_>) -> Done {
    Ok(())
}

fn config(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?;
    let parts: Vec<Text<'_>> = text.split(',').collect();
    let shape = "config: logging disable, type tx, scope tx;";
    let words: Vec<Vec<&str>> = parts
        .iter()
        .map(|part| part.as_str().split_whitespace().collect())
        .collect();
    let known = match words.as_slice() {
        [what, kind, scope] => {
            matches!(what.as_slice(), ["logging" | "tracking", "disable"])
                && matches!(kind.as_slice(), ["type", "tx" | "flow"])
                && matches!(scope.as_slice(), ["scope", "tx" | "packet" | "flow"])
        }
        _ => false,
    };
    if !known {
        return Err(text.fail("this is nothing that `config` can change", shape));
    }
    builder.effect(Effect::Config {
        options: text.as_str().to_owned(),
    });
    Ok(())
}

fn filestore(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let options = item
        .optional_text()?
        .map(|text| text.as_str().to_owned())
        .unwrap_or_default();
    builder.effect(Effect::FileStore { options });
    Ok(())
}

fn tls_store(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    item.no_value()?;
    builder.effect(Effect::TlsStore);
    Ok(())
}

fn nfq_set_mark(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?;
    let (value, mask) = match text.split_once("/") {
        Some((value, mask)) => (number(value)?, number(mask)?),
        None => (number(text)?, u32::MAX),
    };
    builder.effect(Effect::SetMark { value, mask });
    Ok(())
}
