//! Expressions of rules. Where one is for the engine that is linear in the payload, PCRE2 must
//! find the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::fuzzing::detect::{Search, search};
use sluice::rules::ast::Pcre;
use sluice_fuzz::Input;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (flags, more) = (input.u8(), input.u8());
    let len = usize::from(input.u8() & 0x7f);
    let Ok(expression) = std::str::from_utf8(input.take(len)) else {
        return;
    };
    let subject = input.rest();
    let start = usize::from(more >> 4).min(subject.len());
    let end_matters = more & 1 != 0;
    let flag = |bit: u8| flags & (1 << bit) != 0;
    let pcre = Pcre {
        expression: expression.to_owned(),
        negated: false,
        relative: false,
        caseless: flag(0),
        multi_line: flag(1),
        dot_all: flag(2),
        extended: flag(3),
        anchored: flag(4),
        dollar_end_only: flag(5),
        ungreedy: flag(6),
        override_limits: false,
        captures: Vec::new(),
    };
    let (linear, Some(backtracking)) = search(&pcre, end_matters, subject, start) else {
        return;
    };
    match (linear, backtracking) {
        (Search::Refused | Search::GaveUp, _) | (_, Search::Refused | Search::GaveUp) => {}
        (Search::Found(..), Search::Found(..)) if !end_matters => {}
        _ => assert_eq!(linear, backtracking, "{pcre:?}"),
    }
});
