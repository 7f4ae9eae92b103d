//! PCRE2, so that every search has a bound that is exact: the library calls back before each item
//! of the expression that it tries, and is told to give up when the steps are used up. Its own
//! bounds (`LIMIT_MATCH`) are counted anew for every place of the subject where a match may begin,
//! and say nothing about how much of them was used.
//!
//! Interpreted: see [`crate::detect::matching::pcre`].

use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};

use pcre2_sys::{
    PCRE2_AUTO_CALLOUT, PCRE2_ERROR_NOMATCH, pcre2_code_8, pcre2_code_free_8, pcre2_compile_8,
    pcre2_get_error_message_8, pcre2_get_ovector_count_8, pcre2_get_ovector_pointer_8,
    pcre2_match_8, pcre2_match_context_8, pcre2_match_context_create_8, pcre2_match_context_free_8,
    pcre2_match_data_8, pcre2_match_data_create_from_pattern_8, pcre2_match_data_free_8,
};

/// The beginning of `pcre2_callout_block`, which is the same in all versions of the library.
#[repr(C)]
struct CalloutBlock {
    version: u32,
    callout_number: u32,
    capture_top: u32,
    capture_last: u32,
    offset_vector: *mut usize,
    mark: *const u8,
    subject: *const u8,
    subject_length: usize,
    start_match: usize,
    current_position: usize,
}

type Callout = extern "C" fn(*mut CalloutBlock, *mut c_void) -> c_int;

unsafe extern "C" {
    // pcre2.h; not among what `pcre2-sys` declares.
    fn pcre2_set_callout_8(
        context: *mut pcre2_match_context_8,
        callout: Option<Callout>,
        data: *mut c_void,
    ) -> c_int;
}

/// What a callout returns to end the search; any negative number but `PCRE2_ERROR_NOMATCH`.
const STOP: c_int = -37;

/// Bytes that are passed over at the price of one step.
const BYTES_OF_STEP: usize = 32;

/// What a search may take, and where it was last seen.
struct Allowance {
    steps: u32,
    position: usize,
}

/// Called before each item that is tried.
extern "C" fn count(block: *mut CalloutBlock, data: *mut c_void) -> c_int {
    // SAFETY: `Expression::find` has given this pointer together with this function, and holds
    // the allowance for as long as it searches, without a look at it; the library hands over a
    // block that is valid during the call.
    let (allowance, position) =
        unsafe { (&mut *data.cast::<Allowance>(), (*block).current_position) };
    let passed = position.abs_diff(allowance.position) / BYTES_OF_STEP;
    allowance.position = position;
    let cost = u32::try_from(passed).unwrap_or(u32::MAX).saturating_add(1);
    match allowance.steps.checked_sub(cost) {
        Some(left) => {
            allowance.steps = left;
            0
        }
        None => {
            allowance.steps = 0;
            STOP
        }
    }
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// A match from here to there; `\K` may put the start behind the end.
    Found(usize, usize),
    /// There is none.
    Nowhere,
    /// The steps, or the library's own bounds, did not do.
    GaveUp,
}

/// A compiled expression with what a search needs; for one thread at a time.
#[derive(Debug)]
pub struct Expression {
    code: NonNull<pcre2_code_8>,
    data: NonNull<pcre2_match_data_8>,
    context: NonNull<pcre2_match_context_8>,
}

// SAFETY: all three are memory of the library that nothing else points to, and no thread is
// special to it.
unsafe impl Send for Expression {}

impl Expression {
    /// Compiles an expression, of bytes.
    ///
    /// # Errors
    /// What the library says is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let (mut error, mut offset) = (0, 0);
        // SAFETY: the text is valid for its length, and the two numbers are written to only.
        let code = unsafe {
            pcre2_compile_8(
                text.as_ptr(),
                text.len(),
                PCRE2_AUTO_CALLOUT,
                &raw mut error,
                &raw mut offset,
                ptr::null_mut(),
            )
        };
        let code = NonNull::new(code).ok_or_else(|| message(error))?;
        // SAFETY: the code was just compiled; no general context means malloc.
        let data =
            unsafe { pcre2_match_data_create_from_pattern_8(code.as_ptr(), ptr::null_mut()) };
        // SAFETY: as above.
        let context = unsafe { pcre2_match_context_create_8(ptr::null_mut()) };
        match (NonNull::new(data), NonNull::new(context)) {
            (Some(data), Some(context)) => Ok(Self {
                code,
                data,
                context,
            }),
            _ => {
                // SAFETY: all were made above and are freed once; null is nothing to free.
                unsafe {
                    pcre2_match_data_free_8(data);
                    pcre2_match_context_free_8(context);
                    pcre2_code_free_8(code.as_ptr());
                }
                Err("no memory".into())
            }
        }
    }

    /// Searches from `start` on, at most for so many steps; how many were taken is taken off.
    pub fn find(&mut self, subject: &[u8], start: usize, steps: &mut u32) -> Search {
        if start > subject.len() {
            return Search::Nowhere;
        }
        let mut allowance = Allowance {
            steps: *steps,
            position: start,
        };
        // SAFETY: code, data and context are this value's own and live; the subject is valid for
        // its length and `start` within it; the allowance outlives the search, after which the
        // context does not point to it any more.
        let result = unsafe {
            let data = (&raw mut allowance).cast();
            pcre2_set_callout_8(self.context.as_ptr(), Some(count), data);
            let result = pcre2_match_8(
                self.code.as_ptr(),
                subject.as_ptr(),
                subject.len(),
                start,
                0,
                self.data.as_ptr(),
                self.context.as_ptr(),
            );
            pcre2_set_callout_8(self.context.as_ptr(), None, ptr::null_mut());
            result
        };
        *steps = allowance.steps;
        match result {
            PCRE2_ERROR_NOMATCH => Search::Nowhere,
            0.. => match self.group(0) {
                Some((start, end)) => Search::Found(start, end),
                None => Search::Nowhere,
            },
            _ => Search::GaveUp,
        }
    }

    /// Where a group is in the match that was found last; after another end of a search that
    /// says nothing.
    pub fn group(&self, number: usize) -> Option<(usize, usize)> {
        // SAFETY: the data is this value's own; its vector has that many pairs and lives with it.
        let pairs = unsafe {
            let count = pcre2_get_ovector_count_8(self.data.as_ptr()) as usize;
            let vector = pcre2_get_ovector_pointer_8(self.data.as_ptr());
            std::slice::from_raw_parts(vector, 2 * count)
        };
        let pair = pairs.get(2 * number..)?.get(..2)?;
        // `PCRE2_UNSET`
        (pair[0] != usize::MAX).then_some((pair[0], pair[1]))
    }
}

impl Drop for Expression {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe {
            pcre2_match_data_free_8(self.data.as_ptr());
            pcre2_match_context_free_8(self.context.as_ptr());
            pcre2_code_free_8(self.code.as_ptr());
        }
    }
}

fn message(error: c_int) -> String {
    let mut text = [0u8; 256];
    // SAFETY: the buffer is valid for its length.
    let length = unsafe { pcre2_get_error_message_8(error, text.as_mut_ptr(), text.len()) };
    let length = usize::try_from(length).unwrap_or(0);
    let text = text.get(..length).unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(expression: &str, subject: &[u8], steps: u32) -> (Search, u32) {
        let mut left = steps;
        let search = Expression::new(expression)
            .expect("an expression")
            .find(subject, 0, &mut left);
        (search, steps - left)
    }

    #[test]
    fn matches_and_groups_are_told() {
        let mut expression = Expression::new("a(b)?(c+)(?!d)").expect("an expression");
        let mut steps = 1000;
        let found = expression.find(b"xxaccx", 0, &mut steps);
        assert_eq!(found, Search::Found(2, 5));
        assert_eq!(expression.group(1), None);
        assert_eq!(expression.group(2), Some((3, 5)));
        assert_eq!(expression.group(3), None);
        assert_eq!(expression.find(b"ab", 3, &mut steps), Search::Nowhere);
        assert_eq!(expression.find(b"ab", 2, &mut steps), Search::Nowhere);
        assert_eq!(
            Expression::new("(").err().as_deref(),
            Some("missing closing parenthesis")
        );
    }

    #[test]
    fn steps_are_counted_over_all_places_where_a_match_may_begin() {
        // At each of them little is to be done, too little for the library's own bounds.
        let subject = [vec![b'a'; 5000], b"c".to_vec()].concat();
        let (search, taken) = find("(*LIMIT_MATCH=200000)a.*(?=b)c", &subject, 1_000_000);
        assert_eq!((search, taken), (Search::GaveUp, 1_000_000));
        // What passes over much without a step in between pays for it.
        let (search, taken) = find("a[^b]*+(?=b)", &subject, 1_000_000);
        assert_eq!(search, Search::Nowhere);
        assert!(taken > 5000 * 5000 / 2 / BYTES_OF_STEP as u32, "{taken}");
        let (search, taken) = find("x(?!d)", &subject, 1000);
        assert_eq!((search, taken), (Search::Nowhere, 0));
    }
}
