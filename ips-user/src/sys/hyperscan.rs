//! libhs: Hyperscan, or Vectorscan on other processors. Block mode only.
//!
//! A database lives in memory of ours, deserialised into it, so that it can be cloned into an
//! image and dropped like any other value; the library only ever reads it.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

/// Functions and constants of hs.h 5.2 and later.
mod ffi {
    use super::{c_char, c_int, c_uint, c_ulonglong, c_void};

    pub(super) const SUCCESS: c_int = 0;
    pub(super) const MODE_BLOCK: c_uint = 1;
    pub(super) const FLAG_CASELESS: c_uint = 1;
    pub(super) const FLAG_DOTALL: c_uint = 2;
    pub(super) const FLAG_SINGLEMATCH: c_uint = 8;

    #[repr(C)]
    pub(super) struct CompileError {
        pub(super) message: *mut c_char,
        pub(super) expression: c_int,
    }

    pub(super) type Handler =
        extern "C" fn(c_uint, c_ulonglong, c_ulonglong, c_uint, *mut c_void) -> c_int;

    unsafe extern "C" {
        pub(super) fn hs_version() -> *const c_char;
        pub(super) fn hs_compile_lit_multi(
            expressions: *const *const c_char,
            flags: *const c_uint,
            ids: *const c_uint,
            lens: *const usize,
            elements: c_uint,
            mode: c_uint,
            platform: *const c_void,
            db: *mut *mut c_void,
            error: *mut *mut CompileError,
        ) -> c_int;
        pub(super) fn hs_compile_multi(
            expressions: *const *const c_char,
            flags: *const c_uint,
            ids: *const c_uint,
            elements: c_uint,
            mode: c_uint,
            platform: *const c_void,
            db: *mut *mut c_void,
            error: *mut *mut CompileError,
        ) -> c_int;
        pub(super) fn hs_free_compile_error(error: *mut CompileError) -> c_int;
        pub(super) fn hs_free_database(db: *mut c_void) -> c_int;
        pub(super) fn hs_serialize_database(
            db: *const c_void,
            bytes: *mut *mut c_char,
            length: *mut usize,
        ) -> c_int;
        pub(super) fn hs_serialized_database_size(
            bytes: *const c_char,
            length: usize,
            size: *mut usize,
        ) -> c_int;
        pub(super) fn hs_deserialize_database_at(
            bytes: *const c_char,
            length: usize,
            db: *mut c_void,
        ) -> c_int;
        pub(super) fn hs_alloc_scratch(db: *const c_void, scratch: *mut *mut c_void) -> c_int;
        pub(super) fn hs_free_scratch(scratch: *mut c_void) -> c_int;
        pub(super) fn hs_scan(
            db: *const c_void,
            data: *const c_char,
            length: c_uint,
            flags: c_uint,
            scratch: *mut c_void,
            handler: Handler,
            context: *mut c_void,
        ) -> c_int;
    }
}

/// A literal for [`Database::compile`]; its number is its place in the list.
#[derive(Clone, Copy, Debug)]
pub struct Literal<'a> {
    /// The bytes, at least one.
    pub bytes: &'a [u8],
    /// ASCII letters match in either case.
    pub nocase: bool,
    /// What is reported.
    pub id: u32,
}

/// What the library says when it refuses.
fn refusal(code: c_int) -> String {
    match code {
        -2 => "out of memory".into(),
        -5 => "made by another version of libhs".into(),
        -6 => "made for another processor".into(),
        code => format!("libhs error {code}"),
    }
}

/// Version of the library, with its date.
pub fn version() -> String {
    // SAFETY: returns a constant string.
    let text = unsafe { CStr::from_ptr(ffi::hs_version()) };
    text.to_string_lossy().into_owned()
}

/// The library aligns what is in a database to cache lines.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A compiled database.
pub struct Database {
    memory: Vec<Line>,
}

/// The library's copy of a database, on its way into ours.
struct Theirs(*mut c_void);

impl Drop for Theirs {
    fn drop(&mut self) {
        // SAFETY: made by the library and not freed yet.
        unsafe { ffi::hs_free_database(self.0) };
    }
}

impl Database {
    /// Compiles literals. Those that begin with a zero byte must stand in lists of their own:
    /// the library's interface for literals takes them for empty ones.
    ///
    /// # Errors
    /// What the library says.
    pub fn compile(literals: &[Literal<'_>]) -> Result<Self, String> {
        let escaped = literals
            .iter()
            .any(|literal| literal.bytes.first() == Some(&0));
        let texts: Vec<Vec<u8>> = literals
            .iter()
            .map(|literal| match escaped {
                false => literal.bytes.iter().copied().chain([0]).collect(),
                true => literal
                    .bytes
                    .iter()
                    .flat_map(|byte| format!("\\x{byte:02x}").into_bytes())
                    .chain([0])
                    .collect(),
            })
            .collect();
        let pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr().cast()).collect();
        let lengths: Vec<usize> = literals.iter().map(|literal| literal.bytes.len()).collect();
        let ids: Vec<c_uint> = literals.iter().map(|literal| literal.id).collect();
        let flags: Vec<c_uint> = literals
            .iter()
            .map(|literal| match (literal.nocase, escaped) {
                (true, _) => ffi::FLAG_SINGLEMATCH | ffi::FLAG_CASELESS,
                (false, _) => ffi::FLAG_SINGLEMATCH,
            })
            .map(|flags| {
                if escaped {
                    flags | ffi::FLAG_DOTALL
                } else {
                    flags
                }
            })
            .collect();
        let mut db = ptr::null_mut();
        let mut error = ptr::null_mut();
        let count = c_uint::try_from(literals.len()).map_err(|_| "too many literals")?;
        // SAFETY: all arrays have `count` elements; the texts are alive, of these lengths, and
        // end with a zero byte besides.
        let code = unsafe {
            match escaped {
                false => ffi::hs_compile_lit_multi(
                    pointers.as_ptr(),
                    flags.as_ptr(),
                    ids.as_ptr(),
                    lengths.as_ptr(),
                    count,
                    ffi::MODE_BLOCK,
                    ptr::null(),
                    &mut db,
                    &mut error,
                ),
                true => ffi::hs_compile_multi(
                    pointers.as_ptr(),
                    flags.as_ptr(),
                    ids.as_ptr(),
                    count,
                    ffi::MODE_BLOCK,
                    ptr::null(),
                    &mut db,
                    &mut error,
                ),
            }
        };
        if code != ffi::SUCCESS {
            let message = match NonNull::new(error) {
                None => refusal(code),
                Some(error) => {
                    // SAFETY: the library has filled it in; freed here once.
                    unsafe {
                        let message = error.as_ref().message;
                        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
                        ffi::hs_free_compile_error(error.as_ptr());
                        text
                    }
                }
            };
            return Err(message);
        }
        let theirs = Theirs(db);
        let bytes = serialized(theirs.0)?;
        Self::deserialize(&bytes)
    }

    /// As bytes for [`Database::deserialize`] with the same version and kind of processor.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn serialize(&self) -> Result<Vec<u8>, String> {
        serialized(self.as_ptr().cast_mut())
    }

    /// Makes a database of bytes that [`Database::serialize`] has made. That they are of this
    /// version and kind of processor is checked; that they are undamaged is for the caller to see
    /// to.
    ///
    /// # Errors
    /// When they are none, or made by another version or for another processor.
    pub fn deserialize(bytes: &[u8]) -> Result<Self, String> {
        let mut size = 0;
        // SAFETY: the bytes are alive; `size` is written.
        let code = unsafe {
            ffi::hs_serialized_database_size(bytes.as_ptr().cast(), bytes.len(), &mut size)
        };
        if code != ffi::SUCCESS {
            return Err(refusal(code));
        }
        // The size is read from the bytes: not more than a serialised one can stand for.
        if size > bytes.len() + 4096 {
            return Err("not a database".into());
        }
        let mut memory = vec![Line([0; 64]); size.div_ceil(64)];
        // SAFETY: the memory has at least `size` bytes and is aligned to more than the eight that
        // are asked for.
        let code = unsafe {
            ffi::hs_deserialize_database_at(
                bytes.as_ptr().cast(),
                bytes.len(),
                memory.as_mut_ptr().cast(),
            )
        };
        if code != ffi::SUCCESS {
            return Err(refusal(code));
        }
        Ok(Self { memory })
    }

    /// Bytes of memory that it takes.
    pub fn heap_bytes(&self) -> usize {
        self.memory.len() * size_of::<Line>()
    }

    /// Reports every literal that occurs in `data`, once each.
    pub fn scan(&self, data: &[u8], scratch: &mut Scratch, hit: &mut dyn FnMut(u32)) {
        let Some(scratch) = scratch.0 else { return };
        let mut context = Context { hit, panic: None };
        let length = c_uint::try_from(data.len()).unwrap_or(c_uint::MAX);
        // SAFETY: the database is valid, `deserialize` has seen to it; the scratch space was
        // allocated for it by `Scratch::reserve` and is used by nobody else meanwhile; `length`
        // is not more than there is; the context outlives the call.
        unsafe {
            ffi::hs_scan(
                self.as_ptr(),
                data.as_ptr().cast(),
                length,
                0,
                scratch.as_ptr(),
                on_match,
                ptr::from_mut(&mut context).cast(),
            )
        };
        if let Some(panic) = context.panic {
            std::panic::resume_unwind(panic);
        }
    }

    fn as_ptr(&self) -> *const c_void {
        self.memory.as_ptr().cast()
    }
}

struct Context<'a> {
    hit: &'a mut dyn FnMut(u32),
    panic: Option<Box<dyn std::any::Any + Send>>,
}

/// A panic must not go through the library's frames.
extern "C" fn on_match(
    id: c_uint,
    _from: c_ulonglong,
    _to: c_ulonglong,
    _flags: c_uint,
    context: *mut c_void,
) -> c_int {
    // SAFETY: `Database::scan` passes its context, which nobody else uses until it returns.
    let context = unsafe { &mut *context.cast::<Context<'_>>() };
    match catch_unwind(AssertUnwindSafe(|| (context.hit)(id))) {
        Ok(()) => 0,
        Err(panic) => {
            context.panic = Some(panic);
            1
        }
    }
}

fn serialized(db: *mut c_void) -> Result<Vec<u8>, String> {
    let mut bytes = ptr::null_mut();
    let mut length = 0;
    // SAFETY: a valid database; both results are written.
    let code = unsafe { ffi::hs_serialize_database(db, &mut bytes, &mut length) };
    if code != ffi::SUCCESS {
        return Err(refusal(code));
    }
    // SAFETY: `length` bytes, allocated with malloc(3), the library's default; freed here once.
    unsafe {
        let copy = std::slice::from_raw_parts(bytes.cast::<u8>(), length).to_vec();
        libc::free(bytes.cast());
        Ok(copy)
    }
}

/// Not a copy of the memory: what is in it may depend on where it is.
impl Clone for Database {
    fn clone(&self) -> Self {
        let copied = self.serialize().and_then(|bytes| Self::deserialize(&bytes));
        // What was deserialised once can be again, unless memory runs out.
        copied.unwrap_or_else(|error| panic!("a database cannot be copied: {error}"))
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hs_database({} bytes)", self.heap_bytes())
    }
}

/// Working memory for scans, of one worker.
#[derive(Debug, Default)]
pub struct Scratch(Option<NonNull<c_void>>);

// SAFETY: memory without ties to a thread.
unsafe impl Send for Scratch {}

impl Scratch {
    /// Makes it large enough for a database, too.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn reserve(&mut self, database: &Database) -> Result<(), String> {
        let mut scratch = self.0.map_or(ptr::null_mut(), NonNull::as_ptr);
        // SAFETY: a valid database, and no scratch space or one that is not in use.
        let code = unsafe { ffi::hs_alloc_scratch(database.as_ptr(), &mut scratch) };
        if code != ffi::SUCCESS {
            return Err(refusal(code));
        }
        self.0 = NonNull::new(scratch);
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(scratch) = self.0 {
            // SAFETY: allocated by `reserve`, not freed yet, not in use.
            unsafe { ffi::hs_free_scratch(scratch.as_ptr()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(bytes: &[u8], id: u32) -> Literal<'_> {
        Literal {
            bytes,
            nocase: false,
            id,
        }
    }

    #[test]
    fn bytes_that_are_no_database_are_refused() {
        let database = Database::compile(&[literal(b"abc", 1)]).unwrap();
        let bytes = database.serialize().unwrap();
        Database::deserialize(&bytes).unwrap();
        Database::deserialize(b"").unwrap_err();
        Database::deserialize(&bytes[..bytes.len() / 2]).unwrap_err();
        Database::deserialize(&[0xff; 4096]).unwrap_err();
    }

    #[test]
    fn a_panic_comes_out_of_a_scan() {
        let database = Database::compile(&[literal(b"abc", 1)]).unwrap();
        let mut scratch = Scratch::default();
        scratch.reserve(&database).unwrap();
        let scan = catch_unwind(AssertUnwindSafe(|| {
            database.scan(b"xabcx", &mut scratch, &mut |_| panic!("on purpose"));
        }));
        assert!(scan.is_err());
        let mut seen = Vec::new();
        database
            .clone()
            .scan(b"abcabc", &mut scratch, &mut |id| seen.push(id));
        assert_eq!(seen, [1]);
    }
}
