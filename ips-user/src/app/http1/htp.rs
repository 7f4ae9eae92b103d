//! The only place that calls `suricata-htp`, whose interface is that of a C library: a connection's
//! parser, and views of its transactions.

use std::cell::{RefCell, RefMut};
use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use suricata_htp::HtpStatus;
use suricata_htp::bstr::Bstr;
use suricata_htp::c_api::bstr::{bstr_len, bstr_ptr};
use suricata_htp::c_api::config as set;
use suricata_htp::c_api::connection::htp_conn_next_log;
use suricata_htp::c_api::connection_parser as parser;
use suricata_htp::c_api::header::{
    htp_header_name_len, htp_header_name_ptr, htp_header_value_len, htp_header_value_ptr,
    htp_headers_get_index, htp_headers_size,
};
use suricata_htp::c_api::log::{htp_log_code, htp_log_free};
use suricata_htp::c_api::transaction as tx;
use suricata_htp::config::{Config, HtpServerPersonality};
use suricata_htp::connection_parser::{ConnectionParser, HtpStreamState};
use suricata_htp::log::HtpLogCode;
use suricata_htp::transaction::{
    Data, Headers, HtpRequestProgress, HtpResponseProgress, Transaction,
};

use super::gathered::Gathered;
use crate::app::options::HttpOptions;
use crate::bounded::heap;
use crate::config::settings::Personality;
use crate::flow::PacketDirection;

/// What a piece of data is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    RequestHeaders,
    RequestBody,
    ResponseHeaders,
    ResponseBody,
}

impl Of {
    pub(super) const fn direction(self) -> PacketDirection {
        match self {
            Self::RequestHeaders | Self::RequestBody => PacketDirection::ToServer,
            Self::ResponseHeaders | Self::ResponseBody => PacketDirection::ToClient,
        }
    }
}

/// Data of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece<'a> {
    Bytes(&'a [u8]),
    /// So many bytes are missing.
    Gap(u64),
}

/// How far the parser got with what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// It has taken so many bytes, and wants those of the other direction before it takes more.
    Waits(usize),
    /// It has taken everything.
    On,
    /// It cannot go on.
    Stopped,
    /// What follows is no HTTP: a tunnel.
    Tunnel,
}

/// Bytes that a parser takes without its transactions.
pub(super) const CONNECTION: usize =
    heap(size_of::<ConnectionParser>()) + heap(size_of::<Gathered>());
/// Bytes that a transaction takes without what it says.
pub(super) const TRANSACTION: usize = heap(size_of::<Transaction>());

/// The parser of a connection.
pub(super) struct Htp {
    parser: *mut ConnectionParser,
    /// Where the parser's callbacks put what they are given: it has this pointer as well. It comes
    /// from a box, which is this one's.
    gathered: *mut RefCell<Gathered>,
}

impl std::fmt::Debug for Htp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Htp").finish_non_exhaustive()
    }
}

/// A configuration is made once and never changed or freed.
struct Shared(*const Config);

// SAFETY: nothing writes to it once it is made, and parsers read it only.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// The library's configuration for these options. Each is made once and kept: after a reload
/// connections go on with the one that they have begun with.
fn configuration(options: &HttpOptions) -> *const Config {
    static MADE: Mutex<Vec<(HttpOptions, Shared)>> = Mutex::new(Vec::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, known)) = made.iter().find(|(of, _)| of == options) {
        return known.0;
    }
    let config = make(options);
    made.push((options.clone(), Shared(config)));
    config
}

fn make(options: &HttpOptions) -> *const Config {
    let config = set::htp_config_create();
    let layers = i32::from(options.layers);
    // SAFETY: `config` was just made, and the callbacks live as long as the program.
    unsafe {
        set::htp_config_set_server_personality(config, personality(options.personality));
        set::htp_config_set_plusspace_decode(config, 0);
        set::htp_config_set_allow_space_uri(config, true);
        set::htp_config_set_request_decompression(config, 1);
        set::htp_config_set_decompression_layer_limit(config, layers);
        set::htp_config_set_lzma_memlimit(config, options.lzma);
        set::htp_config_set_compression_bomb_limit(config, options.bomb_limit);
        set::htp_config_set_compression_time_limit(config, options.time_limit_us);
        set::htp_config_set_double_decode_normalized_path(config, options.double_decode_path);
        set::htp_config_set_double_decode_normalized_query(config, options.double_decode_query);
        set::htp_config_set_field_limit(config, options.field_limit);
        set::htp_config_set_max_tx(config, options.max_transactions);
        set::htp_config_set_number_headers_limit(config, options.headers);
        set::htp_config_register_request_header_data(config, request_headers);
        set::htp_config_register_request_trailer_data(config, request_headers);
        set::htp_config_register_request_body_data(config, request_body);
        set::htp_config_register_response_header_data(config, response_headers);
        set::htp_config_register_response_trailer_data(config, response_headers);
        set::htp_config_register_response_body_data(config, response_body);
        set::htp_config_register_request_complete(config, request_complete);
        set::htp_config_register_response_complete(config, response_complete);
    }
    config
}

const fn personality(of: Personality) -> HtpServerPersonality {
    match of {
        Personality::Minimal => HtpServerPersonality::MINIMAL,
        Personality::Generic => HtpServerPersonality::GENERIC,
        Personality::Ids => HtpServerPersonality::IDS,
        Personality::Iis40 => HtpServerPersonality::IIS_4_0,
        Personality::Iis50 => HtpServerPersonality::IIS_5_0,
        Personality::Iis51 => HtpServerPersonality::IIS_5_1,
        Personality::Iis60 => HtpServerPersonality::IIS_6_0,
        Personality::Iis70 => HtpServerPersonality::IIS_7_0,
        Personality::Iis75 => HtpServerPersonality::IIS_7_5,
        Personality::Apache2 => HtpServerPersonality::APACHE_2,
    }
}

unsafe extern "C" fn request_headers(p: *const ConnectionParser, data: *mut Data<'_>) -> HtpStatus {
    // SAFETY: the library calls it with what `collect` asks for.
    unsafe { collect(p, data, Of::RequestHeaders) }
}

unsafe extern "C" fn request_body(p: *const ConnectionParser, data: *mut Data<'_>) -> HtpStatus {
    // SAFETY: as above.
    unsafe { collect(p, data, Of::RequestBody) }
}

unsafe extern "C" fn response_headers(
    p: *const ConnectionParser,
    data: *mut Data<'_>,
) -> HtpStatus {
    // SAFETY: as above.
    unsafe { collect(p, data, Of::ResponseHeaders) }
}

unsafe extern "C" fn response_body(p: *const ConnectionParser, data: *mut Data<'_>) -> HtpStatus {
    // SAFETY: as above.
    unsafe { collect(p, data, Of::ResponseBody) }
}

unsafe extern "C" fn request_complete(
    p: *const ConnectionParser,
    transaction: *mut Transaction,
) -> HtpStatus {
    // SAFETY: as above, of `complete`.
    unsafe { complete(p, transaction, PacketDirection::ToServer) }
}

unsafe extern "C" fn response_complete(
    p: *const ConnectionParser,
    transaction: *mut Transaction,
) -> HtpStatus {
    // SAFETY: as above, of `complete`.
    unsafe { complete(p, transaction, PacketDirection::ToClient) }
}

/// # Safety
/// `p` is what the library calls back with, during a call of [`Htp`].
unsafe fn gathered<'a>(p: *const ConnectionParser) -> Option<&'a RefCell<Gathered>> {
    // SAFETY: the user data of a parser is the cell that `Htp::new` gave it, which lives as long as
    // the parser.
    unsafe {
        parser::htp_connp_user_data(p)
            .cast::<RefCell<Gathered>>()
            .as_ref()
    }
}

/// # Safety
/// `p` and `data` are what the library calls back with, during a call of [`Htp`].
unsafe fn collect(p: *const ConnectionParser, data: *const Data<'_>, of: Of) -> HtpStatus {
    // SAFETY: by the contract they are valid until this returns.
    let (cell, view, piece) = unsafe {
        let view = tx::htp_tx_data_tx(data).as_ref().map(View);
        let (start, len) = (tx::htp_tx_data_data(data), tx::htp_tx_data_len(data));
        let piece = match usize::try_from(len) {
            Ok(0) | Err(_) => return HtpStatus::OK,
            Ok(len) if start.is_null() => Piece::Gap(len as u64),
            Ok(len) => Piece::Bytes(std::slice::from_raw_parts(start, len)),
        };
        (gathered(p), view, piece)
    };
    if let (Some(cell), Some(view)) = (cell, view)
        && let Ok(mut gathered) = cell.try_borrow_mut()
    {
        gathered.piece(view, of, piece);
    }
    HtpStatus::OK
}

/// # Safety
/// As that of `collect`.
unsafe fn complete(
    p: *const ConnectionParser,
    transaction: *const Transaction,
    direction: PacketDirection,
) -> HtpStatus {
    // SAFETY: by the contract they are valid until this returns.
    let (cell, number) = unsafe { (gathered(p), tx::htp_tx_index(transaction)) };
    if let Some(cell) = cell
        && let Ok(mut gathered) = cell.try_borrow_mut()
    {
        // What was found until now is about this message, and what follows is about another.
        // SAFETY: the parser is valid.
        while let Some(code) = unsafe { next_remark(p) } {
            gathered.remark(number, direction, code);
        }
        gathered.completed(number, direction);
    }
    HtpStatus::OK
}

/// The next thing that the parser found remarkable.
///
/// # Safety
/// The parser is valid.
unsafe fn next_remark(p: *const ConnectionParser) -> Option<HtpLogCode> {
    // SAFETY: by the contract; a message is freed once.
    unsafe {
        let log = htp_conn_next_log(parser::htp_connp_connection(p));
        if log.is_null() {
            return None;
        }
        let code = htp_log_code(log);
        htp_log_free(log);
        Some(code)
    }
}

impl Htp {
    pub(super) fn new(ports: (u16, u16), options: &HttpOptions, gathered: Gathered) -> Self {
        let gathered = Box::into_raw(Box::new(RefCell::new(gathered)));
        // SAFETY: the configuration is never freed; the cell lives as long as the parser; no
        // address and no time are given.
        let parser = unsafe {
            let parser = parser::htp_connp_create(configuration(options));
            parser::htp_connp_set_user_data(parser, gathered.cast::<c_void>());
            parser::htp_connp_open(
                parser,
                ptr::null(),
                ports.0.into(),
                ptr::null(),
                ports.1.into(),
                ptr::null(),
            );
            parser
        };
        Self { parser, gathered }
    }

    /// Gives it data of a direction.
    pub(super) fn data(&mut self, direction: PacketDirection, bytes: &[u8]) -> Went {
        if bytes.is_empty() {
            return Went::On;
        }
        let (start, len) = (bytes.as_ptr().cast::<c_void>(), bytes.len());
        // SAFETY: the parser is valid, the bytes are borrowed for the call, no time is given.
        let (state, consumed) = unsafe {
            match direction {
                PacketDirection::ToServer => (
                    parser::htp_connp_request_data(self.parser, ptr::null(), start, len),
                    parser::htp_connp_request_data_consumed(self.parser),
                ),
                PacketDirection::ToClient => (
                    parser::htp_connp_response_data(self.parser, ptr::null(), start, len),
                    parser::htp_connp_response_data_consumed(self.parser),
                ),
            }
        };
        match state {
            HtpStreamState::ERROR | HtpStreamState::STOP => Went::Stopped,
            HtpStreamState::TUNNEL => Went::Tunnel,
            HtpStreamState::DATA_OTHER => {
                Went::Waits(usize::try_from(consumed).unwrap_or(0).min(len))
            }
            _ => Went::On,
        }
    }

    /// So many bytes of a direction are missing. Whether it can go on.
    pub(super) fn gap(&mut self, direction: PacketDirection, len: u64) -> bool {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        // SAFETY: the parser is valid; no data with a length is how the library is told of a gap.
        let state = unsafe {
            match direction {
                PacketDirection::ToServer => {
                    parser::htp_connp_request_data(self.parser, ptr::null(), ptr::null(), len)
                }
                PacketDirection::ToClient => {
                    parser::htp_connp_response_data(self.parser, ptr::null(), ptr::null(), len)
                }
            }
        };
        !matches!(
            state,
            HtpStreamState::ERROR | HtpStreamState::STOP | HtpStreamState::CLOSED
        )
    }

    /// Nothing more comes of a direction.
    pub(super) fn end(&mut self, direction: PacketDirection) {
        // SAFETY: the parser is valid, no time is given.
        unsafe {
            match direction {
                PacketDirection::ToServer => {
                    parser::htp_connp_request_close(self.parser, ptr::null());
                }
                PacketDirection::ToClient => parser::htp_connp_close(self.parser, ptr::null()),
            }
        }
    }

    /// What the callbacks add to. Not to be kept while the parser is given something.
    pub(super) fn gathered(&mut self) -> RefMut<'_, Gathered> {
        // SAFETY: it is valid, and read and written nowhere else but in a call of the parser.
        unsafe { &*self.gathered }.borrow_mut()
    }

    /// How many transactions there have been.
    pub(super) fn count(&self) -> usize {
        // SAFETY: the parser is valid.
        let count = unsafe { parser::htp_connp_tx_size(self.parser) };
        usize::try_from(count).unwrap_or(0)
    }

    /// A transaction by its number.
    pub(super) fn transaction(&self, number: usize) -> Option<View<'_>> {
        // SAFETY: the parser is valid, and not changed while the view borrows it.
        unsafe { parser::htp_connp_tx(self.parser, number).as_ref() }.map(View)
    }

    /// Lets go of a transaction.
    pub(super) fn forget(&mut self, number: usize) {
        // SAFETY: the parser is valid, and no view borrows it.
        unsafe { tx::htp_tx_destroy(self.parser, number) };
    }

    /// The next thing that the parser found remarkable.
    pub(super) fn next_remark(&mut self) -> Option<HtpLogCode> {
        // SAFETY: the parser is valid.
        unsafe { next_remark(self.parser) }
    }
}

impl Drop for Htp {
    fn drop(&mut self) {
        // SAFETY: the parser is valid and not used afterwards, and with it nobody has the other
        // pointer any more.
        unsafe {
            parser::htp_connp_destroy_all(self.parser);
            drop(Box::from_raw(self.gathered));
        }
    }
}

/// A transaction as the parser has it.
#[derive(Clone, Copy)]
pub(super) struct View<'a>(&'a Transaction);

/// The bytes of a string; none when there is no string.
///
/// # Safety
/// The string is valid for `'a`, or null.
unsafe fn bytes<'a>(string: *const Bstr) -> Option<&'a [u8]> {
    if string.is_null() {
        return None;
    }
    // SAFETY: by the contract.
    unsafe {
        let (start, len) = (bstr_ptr(string), bstr_len(string));
        Some(match len {
            0 => &[],
            len => std::slice::from_raw_parts(start, len),
        })
    }
}

macro_rules! strings {
    ($($name:ident $call:ident;)*) => {
        $(pub(super) fn $name(self) -> Option<&'a [u8]> {
            // SAFETY: the string belongs to the transaction, which is borrowed for `'a`.
            unsafe { bytes(tx::$call(self.0)) }
        })*
    };
}

impl<'a> View<'a> {
    /// Its number among those of the parser.
    pub(super) fn number(self) -> usize {
        // SAFETY: the transaction is valid.
        unsafe { tx::htp_tx_index(self.0) }
    }

    /// The value of a header of a direction.
    pub(super) fn header(self, direction: PacketDirection, name: &[u8]) -> Option<&'a [u8]> {
        let mut headers = self.headers(direction);
        headers
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    strings! {
        request_line htp_tx_request_line;
        method htp_tx_request_method;
        uri htp_tx_request_uri;
        normalized_uri htp_tx_normalized_uri;
        request_protocol htp_tx_request_protocol;
        host htp_tx_request_hostname;
        response_line htp_tx_response_line;
        response_protocol htp_tx_response_protocol;
        status htp_tx_response_status;
        status_message htp_tx_response_message;
    }

    pub(super) fn request_progress(self) -> HtpRequestProgress {
        // SAFETY: the transaction is valid.
        unsafe { tx::htp_tx_request_progress(self.0) }
    }

    pub(super) fn response_progress(self) -> HtpResponseProgress {
        // SAFETY: the transaction is valid.
        unsafe { tx::htp_tx_response_progress(self.0) }
    }

    /// Bytes of the response's body as they came, before any encoding is undone.
    pub(super) fn response_len(self) -> u64 {
        // SAFETY: the transaction is valid.
        let len = unsafe { tx::htp_tx_response_message_len(self.0) };
        u64::try_from(len).unwrap_or(0)
    }

    /// Names and values of the headers of a direction.
    pub(super) fn headers(
        self,
        direction: PacketDirection,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        // SAFETY: the transaction is valid, and its headers live as long as it.
        let headers: *const Headers = unsafe {
            match direction {
                PacketDirection::ToServer => tx::htp_tx_request_headers(self.0),
                PacketDirection::ToClient => tx::htp_tx_response_headers(self.0),
            }
        };
        // SAFETY: as above, or null, which the library takes.
        let count = usize::try_from(unsafe { htp_headers_size(headers) }).unwrap_or(0);
        (0..count).filter_map(move |number| {
            // SAFETY: the header belongs to the transaction, which is borrowed for `'a`.
            unsafe {
                let header = htp_headers_get_index(headers, number).as_ref()?;
                let name_len = usize::try_from(htp_header_name_len(header)).ok()?;
                let value_len = htp_header_value_len(header);
                let of = |start: *const u8, len: usize| match len {
                    0 => &[][..],
                    len => std::slice::from_raw_parts(start, len),
                };
                Some((
                    of(htp_header_name_ptr(header), name_len),
                    of(htp_header_value_ptr(header), value_len),
                ))
            }
        })
    }
}
