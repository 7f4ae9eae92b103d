//! Reputations of addresses: scores by category, for `iprep`.
//!
//! Reference: <https://docs.suricata.io/en/suricata-8.0.3/reputation/ipreputation/ip-reputation-format.html>.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::rules::{Sources, Unusable};

/// Scores of address ranges, ascending and apart from each other.
type Scores<N> = Vec<(N, N, u8)>;

#[derive(Clone, Debug, Default)]
struct Category {
    /// 1 to 59.
    number: u8,
    name: Box<str>,
    v4: Scores<u32>,
    v6: Scores<u128>,
}

/// The reputations that files give.
#[derive(Clone, Debug, Default)]
pub struct Reputation {
    categories: Vec<Category>,
    /// Lines that say nothing usable.
    pub skipped: usize,
}

/// A prefix with its length and score.
struct Entry {
    category: u8,
    address: IpAddr,
    length: u8,
    score: u8,
}

impl Reputation {
    /// Reads the file of categories and the lists.
    ///
    /// # Errors
    /// When one of them cannot be read. Lines that cannot be used are skipped and counted.
    pub fn load(categories: &Path, lists: &[PathBuf], sources: &Sources) -> Result<Self, Unusable> {
        let read = |path: &Path| {
            let bytes = sources.read(path);
            let text = bytes.and_then(|it| String::from_utf8(it).map_err(io::Error::other));
            text.map_err(|source| Unusable::file(path, source))
        };
        let texts = lists.iter().map(|path| read(path));
        let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
        Ok(Self::parse(&read(categories)?, &texts))
    }

    pub(super) fn parse(categories: &str, lists: &[String]) -> Self {
        let mut this = Self::default();
        for line in lines(categories) {
            let mut fields = line.split(',').map(str::trim);
            let number = fields.next().and_then(|number| number.parse().ok());
            let name = fields.next().filter(|name| !name.is_empty());
            match number.zip(name) {
                Some((number @ 1..60, name)) => this.categories.push(Category {
                    number,
                    name: name.into(),
                    ..Category::default()
                }),
                _ => this.skipped += 1,
            }
        }
        let mut entries = Vec::new();
        for line in lists.iter().flat_map(|list| lines(list)) {
            match entry(line) {
                Some(entry) => entries.push(entry),
                None => this.skipped += 1,
            }
        }
        for category in &mut this.categories {
            let of = |entry: &&Entry| entry.category == category.number;
            let v4 = entries
                .iter()
                .filter(of)
                .filter_map(|entry| match entry.address {
                    IpAddr::V4(address) => {
                        let size = u32::MAX.checked_shr(u32::from(entry.length)).unwrap_or(0);
                        let low = u32::from(address) & !size;
                        Some((low, low | size, entry.score))
                    }
                    IpAddr::V6(_) => None,
                });
            category.v4 = flattened(v4.collect());
            let v6 = entries
                .iter()
                .filter(of)
                .filter_map(|entry| match entry.address {
                    IpAddr::V6(address) => {
                        let size = u128::MAX.checked_shr(u32::from(entry.length)).unwrap_or(0);
                        let low = u128::from(address) & !size;
                        Some((low, low | size, entry.score))
                    }
                    IpAddr::V4(_) => None,
                });
            category.v6 = flattened(v6.collect());
        }
        this
    }

    /// The place of a category, by its short name.
    pub(super) fn category(&self, name: &str) -> Option<u8> {
        let place = self.categories.iter().position(|it| *it.name == *name)?;
        u8::try_from(place).ok()
    }

    /// The score of an address in a category; zero if it has none.
    pub(super) fn score(&self, address: IpAddr, category: u8) -> u8 {
        let Some(category) = self.categories.get(usize::from(category)) else {
            return 0;
        };
        match address {
            IpAddr::V4(v4) => find(&category.v4, u32::from(v4)),
            IpAddr::V6(v6) => find(&category.v6, u128::from(v6)),
        }
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// `address[/length],category,score`
fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split(',').map(str::trim);
    let (address, length) = match fields.next()?.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (line.split(',').next()?.trim(), None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Some(most), |length| length.parse().ok())?;
    let category = fields.next()?.parse().ok()?;
    let score = fields.next()?.parse().ok()?;
    (length <= most && score <= 127).then_some(Entry {
        category,
        address,
        length,
        score,
    })
}

/// Prefixes, one within another or apart, as ranges apart from each other: the longest prefix
/// counts, and of the same prefix the last one.
fn flattened<N>(mut prefixes: Vec<(N, N, u8)>) -> Scores<N>
where
    N: Copy + Ord + crate::rules::range_set::Number,
{
    prefixes.sort_by_key(|&(low, high, _)| (low, std::cmp::Reverse(high)));
    let mut out: Scores<N> = Vec::new();
    let mut open: Vec<(N, u8)> = Vec::new();
    // The first address that is not in `out` yet.
    let mut next: Option<N> = None;
    fn close<N: Copy + Ord + crate::rules::range_set::Number>(
        open: &mut Vec<(N, u8)>,
        out: &mut Scores<N>,
        next: &mut Option<N>,
        before: Option<N>,
    ) {
        while let Some(&(high, score)) = open.last() {
            if before.is_some_and(|before| high >= before) {
                break;
            }
            if let Some(from) = *next
                && from <= high
            {
                out.push((from, high, score));
                *next = high.next();
            }
            open.pop();
        }
    }
    for (low, high, score) in prefixes {
        close(&mut open, &mut out, &mut next, Some(low));
        if let Some(&(_, outer)) = open.last()
            && let (Some(from), Some(to)) = (next, low.previous())
            && from <= to
        {
            out.push((from, to, outer));
        }
        next = Some(low);
        open.push((high, score));
    }
    close(&mut open, &mut out, &mut next, None);
    out
}

fn find<N: Copy + Ord>(scores: &Scores<N>, address: N) -> u8 {
    let after = scores.partition_point(|&(low, ..)| low <= address);
    match after.checked_sub(1).map(|place| scores[place]) {
        Some((_, high, score)) if address <= high => score,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_tells_the_score() {
        let categories = "1,BadHosts,Known bad hosts\n2,Spam,x\n# no\nbroken\n70,Far,x\n";
        let list = "10.0.0.0/8,1,10\n10.1.0.0/16,1,20\n10.1.2.3,1,30\n10.1.2.3,2,99\n\
                    10.255.255.255,1,40\n0.0.0.0/0,2,5\n2001:db8::/32,1,50\n2001:db8::1,1,60\n\
                    10.0.0.0/40,1,1\n10.0.0.1,1,200\nx,1,1\n";
        let reputation = Reputation::parse(categories, &[list.to_owned()]);
        assert_eq!(reputation.skipped, 5);
        assert_eq!(reputation.category("Far"), None);
        let check = |address: &str, category: &str, expect: u8| {
            let category = reputation.category(category).unwrap();
            let score = reputation.score(address.parse().unwrap(), category);
            assert_eq!(score, expect, "{address}");
        };
        check("10.0.0.0", "BadHosts", 10);
        check("10.0.255.255", "BadHosts", 10);
        check("10.1.0.0", "BadHosts", 20);
        check("10.1.2.2", "BadHosts", 20);
        check("10.1.2.3", "BadHosts", 30);
        check("10.1.2.4", "BadHosts", 20);
        check("10.1.255.255", "BadHosts", 20);
        check("10.2.0.0", "BadHosts", 10);
        check("10.255.255.254", "BadHosts", 10);
        check("10.255.255.255", "BadHosts", 40);
        check("11.0.0.0", "BadHosts", 0);
        check("9.255.255.255", "BadHosts", 0);
        check("10.1.2.3", "Spam", 99);
        check("255.255.255.255", "Spam", 5);
        check("2001:db8::1", "BadHosts", 60);
        check("2001:db8::2", "BadHosts", 50);
        check("2001:db9::", "BadHosts", 0);
        check("::ffff:10.1.2.3", "BadHosts", 0);
    }
}
