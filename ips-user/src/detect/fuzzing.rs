//! For the fuzz targets: expressions one by one, and the lists that rules look things up in.

use std::net::IpAddr;

use super::dataset::value;
use super::matching::pcre::{Pattern, Patterns, Searched};
use super::reputation::Reputation;
use crate::rules::ast::{DatasetKind, Pcre};

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// From here to there.
    Found(usize, usize),
    /// Nowhere.
    Nowhere,
    /// It took too long.
    GaveUp,
    /// The expression cannot be used.
    Refused,
}

/// Searches with the engine that the expression is for, and with PCRE2 whatever it is for.
/// `None` when it is for PCRE2 anyway.
pub fn search(
    pcre: &Pcre,
    end_matters: bool,
    subject: &[u8],
    start: usize,
) -> (Search, Option<Search>) {
    let pattern = match Pattern::new(pcre, end_matters) {
        Ok(pattern) => pattern,
        Err(_) => return (Search::Refused, None),
    };
    let chosen = run(&pattern, subject, start);
    if !pattern.is_linear() {
        return (chosen, None);
    }
    let other = Pattern::backtracking(pcre).map_or(Search::Refused, |it| run(&it, subject, start));
    (chosen, Some(other))
}

fn run(pattern: &Pattern, subject: &[u8], start: usize) -> Search {
    let mut patterns = Patterns::new(1);
    let searched = patterns.find(0, pattern, subject, start, &mut 1_000_000);
    for group in 0..10 {
        if let Some((from, to)) = patterns.group(0, group)
            && searched != Searched::Nowhere
        {
            assert!(from <= to && to <= subject.len());
        }
    }
    match searched {
        Searched::Found(found) => {
            // `\K` may put the start behind the end.
            assert!(found.end <= subject.len());
            Search::Found(found.start, found.end)
        }
        Searched::Nowhere => Search::Nowhere,
        Searched::GaveUp => Search::GaveUp,
    }
}

/// A value of a set as it is written in files and commands.
pub fn dataset_value(text: &str) -> usize {
    use DatasetKind::{Ip, Ipv4, Md5, Sha256, String};
    let kinds = [String, Md5, Sha256, Ipv4, Ip];
    kinds
        .into_iter()
        .filter_map(|kind| value::parse(text, kind))
        .count()
}

/// Lists of reputations, and the score of an address in the first category.
pub fn reputation(categories: &str, list: &str, address: IpAddr) -> u8 {
    Reputation::parse(categories, &[list.to_owned()]).score(address, 0)
}
