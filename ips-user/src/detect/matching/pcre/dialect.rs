//! Which engine an expression is for: `regex`, linear in the payload, where it says the same as
//! PCRE; PCRE2 where it does not.
//!
//! The two read most expressions alike. What `regex` does not know it refuses (look-around, back
//! references, atomic groups); what it knows and understands differently is looked for here:
//! possessive quantifiers, nested classes, word boundaries written `\<`, `\v`, a `$` before a
//! final newline, a `^` behind one.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::Look;

use crate::rules::ast::Pcre;

/// Who evaluates an expression, and how it is written for that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// The `regex` crate.
    Linear(String),
    /// PCRE2.
    Backtracking(String),
}

/// Named classes.
const NAMES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// Chooses. `end_matters`: where a match ends decides where something else begins.
pub(crate) fn choose(pcre: &Pcre, end_matters: bool) -> Dialect {
    linear(pcre, end_matters).map_or_else(
        || Dialect::Backtracking(backtracking(pcre)),
        Dialect::Linear,
    )
}

fn flags(pcre: &Pcre) -> String {
    let mut flags = String::new();
    for (set, letter) in [
        (pcre.caseless, 'i'),
        (pcre.multi_line, 'm'),
        (pcre.dot_all, 's'),
        (pcre.extended, 'x'),
        (pcre.ungreedy, 'U'),
    ] {
        if set {
            flags.push(letter);
        }
    }
    flags
}

/// As PCRE2 is given it: bounds of its own, then the flags, then the expression.
fn backtracking(pcre: &Pcre) -> String {
    let mut text = String::new();
    if !pcre.override_limits {
        text.push_str(super::LIMITS);
    }
    if pcre.anchored {
        // The beginning of the subject, not of a further search: as the other engine has it.
        text.push_str("\\A");
    }
    let flags = flags(pcre);
    if !flags.is_empty() {
        text.push_str(&format!("(?{flags})"));
    }
    // In a group, so that an alternation in it does not escape what stands before.
    let expression = match pcre.dollar_end_only && !pcre.multi_line {
        true => with_end_only(&pcre.expression),
        false => pcre.expression.clone(),
    };
    if pcre.anchored {
        // A comment to the end of the line must not hide the bracket.
        let break_ = if pcre.extended { "\n" } else { "" };
        text.push_str(&format!("(?:{expression}{break_})"));
    } else {
        text.push_str(&expression);
    }
    text
}

/// `$` as `\z`: there is no letter for this flag within an expression.
fn with_end_only(expression: &str) -> String {
    let mut text = String::with_capacity(expression.len() + 4);
    for token in tokens(expression) {
        match token {
            Token::Dollar => text.push_str("\\z"),
            Token::Escaped(letter) => text.extend(['\\', letter]),
            Token::Other(letter)
            | Token::Bracket(letter)
            | Token::InClass(letter)
            | Token::Named(letter) => text.push(letter),
        }
    }
    text
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Dollar,
    Escaped(char),
    Other(char),
    /// Begins or ends a class.
    Bracket(char),
    /// Within a class; escaped ones are [`Token::Escaped`].
    InClass(char),
    /// Part of the name of a class within a class, `[:alpha:]`, its brackets included.
    Named(char),
}

/// Where the next letter of a class stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InClass {
    /// Behind the bracket.
    First,
    /// Behind the `^` that follows the bracket.
    Negated,
    Later,
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(expression.len());
    let mut letters = expression.chars();
    let mut class = None;
    while let Some(letter) = letters.next() {
        if letter == '\\' {
            if let Some(next) = letters.next() {
                tokens.push(Token::Escaped(next));
            } else {
                tokens.push(Token::Other(letter));
            }
            class = class.map(|_| InClass::Later);
            continue;
        }
        let Some(place) = class else {
            tokens.push(match letter {
                '[' => Token::Bracket(letter),
                '$' => Token::Dollar,
                letter => Token::Other(letter),
            });
            class = (letter == '[').then_some(InClass::First);
            continue;
        };
        class = Some(InClass::Later);
        match letter {
            // One that comes first is of the class.
            ']' if place == InClass::Later => {
                tokens.push(Token::Bracket(letter));
                class = None;
            }
            '^' if place == InClass::First => {
                tokens.push(Token::InClass(letter));
                class = Some(InClass::Negated);
            }
            '[' => match name_len(letters.as_str()) {
                Some(len) => {
                    tokens.push(Token::Named(letter));
                    tokens.extend(letters.by_ref().take(len).map(Token::Named));
                }
                None => tokens.push(Token::InClass(letter)),
            },
            letter => tokens.push(Token::InClass(letter)),
        }
    }
    tokens
}

/// How many letters of what follows a bracket within a class make it a name, `:alpha:]`, as PCRE
/// sees it: the mark comes again before a bracket, and then a closing one. Otherwise the bracket
/// stands for itself.
fn name_len(rest: &str) -> Option<usize> {
    let mut letters = rest.chars();
    let mark = letters
        .next()
        .filter(|mark| matches!(mark, ':' | '.' | '='))?;
    let mut len = 1;
    while let Some(letter) = letters.next() {
        let next = letters.clone().next()?;
        len += 1;
        match letter {
            '\\' if matches!(next, ']' | '\\') => {
                letters.next();
                len += 1;
            }
            '[' if next == mark => return None,
            ']' => return None,
            letter if letter == mark && next == ']' => return Some(len + 1),
            _ => {}
        }
    }
    None
}

/// The expression for `regex`, if it means the same there.
fn linear(pcre: &Pcre, end_matters: bool) -> Option<String> {
    // Blanks within classes count in PCRE's extended syntax, and comments differ.
    if pcre.extended || !pcre.expression.is_ascii() {
        return None;
    }
    let tokens = tokens(&pcre.expression);
    let mut text = String::new();
    for (at, token) in tokens.iter().enumerate() {
        let next = tokens.get(at + 1);
        match *token {
            Token::Escaped('<' | '>') => {
                text.push(if *token == Token::Escaped('<') {
                    '<'
                } else {
                    '>'
                });
            }
            // `\v`, `\h`: classes of blanks in PCRE. `\b`: backspace within a class. `\Z`, `\G`,
            // `\K`, `\R`, `\Q`, `\E`, `\N`, `\X`, `\C`, digits and the like are refused below.
            Token::Escaped('v' | 'V' | 'p' | 'P' | 'u' | 'U') => return None,
            Token::Escaped('x') => {
                // Fewer than two digits stand for a number in PCRE.
                let digit = |ahead: usize| match tokens.get(at + ahead) {
                    Some(Token::Other(letter) | Token::InClass(letter)) => {
                        letter.is_ascii_hexdigit()
                    }
                    _ => false,
                };
                if !digit(1) || !digit(2) {
                    return None;
                }
                text.push_str("\\x");
            }
            Token::Escaped(letter) => text.extend(['\\', letter]),
            Token::Dollar if pcre.multi_line => text.push('$'),
            Token::Dollar if pcre.dollar_end_only => text.push_str("\\z"),
            Token::Dollar => {
                // Also before a newline that ends the subject. Swallowing that is the same only
                // where nothing follows.
                if end_matters || !nothing_follows(&tokens[at + 1..]) {
                    return None;
                }
                text.push_str("(?:\\n?\\z)");
            }
            Token::InClass(letter) => {
                // Operators of nested classes, and a bracket that begins one.
                let doubled = matches!(letter, '&' | '-' | '~') && next == Some(token);
                if doubled || letter == '[' {
                    return None;
                }
                text.push(letter);
            }
            Token::Named(letter) => {
                // PCRE knows no range to a class.
                let range = at > 0 && tokens[at - 1] == Token::InClass('-');
                if letter == '[' && (range || !known_name(&tokens[at + 1..])) {
                    return None;
                }
                text.push(letter);
            }
            Token::Bracket(letter) => text.push(letter),
            Token::Other(letter) => {
                let quantifier = matches!(letter, '*' | '+' | '?' | '}');
                if quantifier && next == Some(&Token::Other('+')) {
                    return None;
                }
                // `{,n}` is no quantifier in PCRE2 before 10.43.
                if letter == '{' && next == Some(&Token::Other(',')) {
                    return None;
                }
                // Flags within the expression may change what the flags above said.
                if letter == '('
                    && next == Some(&Token::Other('?'))
                    && changes_flags(&tokens[at + 2..])
                {
                    return None;
                }
                text.push(letter);
            }
        }
    }
    let flags = flags(pcre);
    let start = if pcre.anchored { "\\A" } else { "" };
    let text = match flags.is_empty() && start.is_empty() {
        true => format!("(?-u){text}"),
        false => format!("(?{flags}-u){start}(?:{text})"),
    };
    let hir = ParserBuilder::new()
        .utf8(false)
        .unicode(false)
        .build()
        .parse(&text)
        .ok()?;
    let properties = hir.properties();
    // PCRE's `^` does not match behind a newline that ends the subject: only of interest where
    // nothing has to follow it.
    if properties.look_set().contains(Look::StartLF)
        && (properties.minimum_len().unwrap_or(0) == 0
            || properties.look_set_suffix_any().contains(Look::StartLF))
    {
        return None;
    }
    Some(text)
}

/// Whether a named class begins here that both know, and alike: `:alpha:]`, `:^alpha:]`. `regex`
/// takes another one for a class within a class; PCRE refuses it, or it has a meaning of its own
/// (`[[:<:]]`).
fn known_name(tokens: &[Token]) -> bool {
    let letters = tokens.iter().map_while(|token| match token {
        Token::Named(letter) => Some(*letter),
        _ => None,
    });
    // Another may follow at once.
    let name: String = letters.take_while(|letter| *letter != ']').collect();
    let name = name
        .strip_prefix(':')
        .and_then(|name| name.strip_suffix(':'))
        .map(|name| name.strip_prefix('^').unwrap_or(name));
    name.is_some_and(|name| NAMES.contains(&name))
}

/// Whether only the ends of groups come, or another alternative of the whole expression.
fn nothing_follows(rest: &[Token]) -> bool {
    let closing = rest
        .iter()
        .take_while(|token| **token == Token::Other(')'))
        .count();
    match rest.get(closing) {
        None => true,
        // At the top level only: behind a group's alternatives something may follow.
        Some(Token::Other('|')) => depth(&rest[closing + 1..]) == 0,
        Some(_) => false,
    }
}

/// How many groups are closed that were opened before.
fn depth(rest: &[Token]) -> usize {
    let mut open = 0usize;
    let mut closed = 0;
    for token in rest {
        match token {
            Token::Other('(') => open += 1,
            Token::Other(')') if open > 0 => open -= 1,
            Token::Other(')') => closed += 1,
            _ => {}
        }
    }
    closed
}

/// Whether `(?` begins a setting of flags other than `i` and `s`, which both read alike.
fn changes_flags(rest: &[Token]) -> bool {
    for token in rest {
        match token {
            Token::Other('i' | 's' | '-') => {}
            // A group that is not captured, or one with flags; a name; look-around (refused
            // later).
            Token::Other(':' | ')' | '=' | '!' | '<' | 'P') => return false,
            _ => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sys::pcre2::{Expression, Search};

    fn pcre(expression: &str, flags: &str) -> Pcre {
        Pcre {
            expression: expression.into(),
            negated: false,
            relative: false,
            caseless: flags.contains('i'),
            multi_line: flags.contains('m'),
            dot_all: flags.contains('s'),
            extended: flags.contains('x'),
            anchored: flags.contains('A'),
            dollar_end_only: flags.contains('E'),
            ungreedy: flags.contains('G'),
            override_limits: false,
            captures: Vec::new(),
        }
    }

    #[test]
    fn expressions_that_mean_the_same_are_for_the_linear_engine() {
        let check = |expression: &str, flags: &str, expect: bool| {
            let chosen = choose(&pcre(expression, flags), false);
            let linear = matches!(chosen, Dialect::Linear(_));
            assert_eq!(linear, expect, "/{expression}/{flags}: {chosen:?}");
        };
        for same in [
            "abc",
            "^GET \\/[a-z]{3,9}\\.php\\?id=\\d+$",
            "(?:a|b)+?c",
            "[^\\r\\n]*\\x3a\\s",
            "[[:alpha:]]+x",
            "[]a]b",
            "[^[:^digit:][:word:]_]$",
            "[^^]$",
            "a\\<b",
            "(a$)|b$",
            "(?i)abc",
            "(?P<name>x)",
        ] {
            check(same, "", true);
            check(same, "is", true);
        }
        for other in [
            "a(?=b)",
            "(a)\\1",
            "(?>a+)b",
            "a++b",
            "a*+b",
            "a{2}+b",
            "[a-z&&[b]]",
            "[a[b]",
            "[[:al:a];b]",
            "[[:alpha]b]",
            "[[:alpha:][b]c]",
            "[]a[b]c]",
            "[[:<:]]a",
            "[[:none:]]",
            "[+-[:digit:]]",
            "\\vx",
            "\\Qa\\E",
            "a$b",
            "(a$|b)c",
            "a{,3}",
            "\\xa",
            "\u{e9}",
            "(?x)a b",
            "(?<=a)b",
        ] {
            check(other, "", false);
        }
        check("a b", "x", false);
        check("a$b", "m", true);
        check("^a", "m", true);
        check("^", "m", false);
        check("a\\n^", "m", false);
        check("a$b", "E", true);
    }

    #[test]
    fn a_class_ends_where_pcre_ends_it() {
        for (expression, expect) in [
            ("[[:alpha]$", "[[:alpha]\\z"),
            ("[[:alpha:]$]$", "[[:alpha:]$]\\z"),
            ("[[:a\\]:]$]$", "[[:a\\]:]$]\\z"),
            ("[[:a[:]$", "[[:a[:]\\z"),
            ("[^^]$", "[^^]\\z"),
            ("[^]$]$", "[^]$]\\z"),
            ("[[", "[["),
            ("[[:", "[[:"),
        ] {
            assert_eq!(with_end_only(expression), expect);
        }
    }

    #[test]
    fn where_the_end_matters_a_final_newline_is_not_swallowed() {
        let chosen = choose(&pcre("a$", ""), true);
        assert!(matches!(chosen, Dialect::Backtracking(_)), "{chosen:?}");
    }

    /// Both engines must agree wherever the linear one is chosen.
    #[test]
    fn both_engines_find_the_same() {
        let expressions = [
            "a",
            "a$",
            "^a",
            "(?:a|ab)(?:c|bcd)",
            "a*?b",
            "[^a]b",
            "\\s+a",
            "b\\b",
            "\\x61+",
            "(a$)|b$",
            "a.b",
            "[[:space:]]a",
            "[[:^upper:]]b",
            "[^[:upper:]]b",
            "[^[:^upper:][:punct:]]",
            "[[:al:a];l\\n]+[^y]",
            "[[:alpha]+b]",
            "[]a[b]+c]",
            "[^^]+a",
            "a\\n?$",
            "(?:^|b)a",
            "\\w+\\d",
            "a{2,3}",
            "a|b|",
        ];
        let subjects: [&[u8]; 17] = [
            b"",
            b"a",
            b"a\n",
            b"a\n\n",
            b"ba",
            b"abcd",
            b"aab",
            b"\n",
            b"a\nb",
            b"b a\xff",
            b"xaaaay",
            b"\xe4b",
            b"a1",
            b"AB\r\nab",
            b"\nab!c",
            b"x:;l\nq",
            b"aab]c]",
        ];
        for expression in expressions {
            for flags in ["", "i", "s", "m", "im", "E", "G", "A"] {
                let pcre = pcre(expression, flags);
                let Dialect::Linear(text) = choose(&pcre, false) else {
                    continue;
                };
                let linear = regex::bytes::Regex::new(&text).unwrap();
                let mut other = Expression::new(&backtracking(&pcre)).unwrap();
                for subject in subjects {
                    let one = linear.find(subject).map(|found| found.start());
                    let two = match other.find(subject, 0, &mut 1_000_000) {
                        Search::Found(start, _) => Some(start),
                        Search::Nowhere => None,
                        Search::GaveUp => panic!("/{expression}/{flags} in {subject:?}"),
                    };
                    assert_eq!(one, two, "/{expression}/{flags} in {subject:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn classes_mean_the_same_wherever_they_are_for_the_linear_engine(
            parts in prop::collection::vec(prop::sample::select(&PARTS[..]), 1..9),
            flags in prop::sample::select(&["", "i", "E"][..]),
            subject in prop::collection::vec(prop::sample::select(&b"[]^:-&aBp1;\n$\\"[..]), 0..12),
        ) {
            let expression = format!("[{}", parts.concat());
            let pcre = pcre(&expression, flags);
            if let Dialect::Linear(text) = choose(&pcre, true)
                && let Ok(linear) = regex::bytes::Regex::new(&text)
                && let Ok(mut other) = Expression::new(&backtracking(&pcre))
            {
                let one = linear.find(&subject).map(|found| (found.start(), found.end()));
                let two = match other.find(&subject, 0, &mut 1_000_000) {
                    Search::Found(start, end) => Some((start, end)),
                    Search::Nowhere => None,
                    Search::GaveUp => panic!("given up"),
                };
                prop_assert_eq!(one, two, "/{}/{} as {}", expression, flags, text);
            }
        }
    }

    const PARTS: [&str; 22] = [
        "[",
        "]",
        "^",
        ":",
        "-",
        "&",
        "a",
        "p",
        "1",
        ";",
        "$",
        "\\]",
        "\\d",
        "\\x5d",
        "[:alpha:]",
        "[:^upper:]",
        "[:punct:]",
        "[:",
        ":]",
        "]+",
        "[.",
        "[^",
    ];
}
