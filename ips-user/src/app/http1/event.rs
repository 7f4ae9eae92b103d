//! What is remarkable about an exchange, by the names that rules have for it.

use suricata_htp::log::HtpLogCode as Code;

/// The library's findings, and the names of their events.
const NAMES: &[(Code, &str)] = &[
    (Code::UNKNOWN, "unknown_error"),
    (Code::GZIP_DECOMPRESSION_FAILED, "gzip_decompression_failed"),
    (
        Code::REQUEST_FIELD_MISSING_COLON,
        "request_field_missing_colon",
    ),
    (
        Code::RESPONSE_FIELD_MISSING_COLON,
        "response_field_missing_colon",
    ),
    (Code::INVALID_REQUEST_CHUNK_LEN, "invalid_request_chunk_len"),
    (
        Code::INVALID_RESPONSE_CHUNK_LEN,
        "invalid_response_chunk_len",
    ),
    (Code::REQUEST_CHUNK_EXTENSION, "request_chunk_extension"),
    (Code::RESPONSE_CHUNK_EXTENSION, "response_chunk_extension"),
    (Code::REQUEST_TOO_MANY_HEADERS, "request_too_many_headers"),
    (Code::RESPONSE_TOO_MANY_HEADERS, "response_too_many_headers"),
    (
        Code::INVALID_TRANSFER_ENCODING_VALUE_IN_REQUEST,
        "invalid_transfer_encoding_value_in_request",
    ),
    (
        Code::INVALID_TRANSFER_ENCODING_VALUE_IN_RESPONSE,
        "invalid_transfer_encoding_value_in_response",
    ),
    (
        Code::INVALID_CONTENT_LENGTH_FIELD_IN_REQUEST,
        "invalid_content_length_field_in_request",
    ),
    (
        Code::INVALID_CONTENT_LENGTH_FIELD_IN_RESPONSE,
        "invalid_content_length_field_in_response",
    ),
    (
        Code::DUPLICATE_CONTENT_LENGTH_FIELD_IN_REQUEST,
        "duplicate_content_length_field_in_request",
    ),
    (
        Code::DUPLICATE_CONTENT_LENGTH_FIELD_IN_RESPONSE,
        "duplicate_content_length_field_in_response",
    ),
    (Code::CONTINUE_ALREADY_SEEN, "100_continue_already_seen"),
    (
        Code::UNABLE_TO_MATCH_RESPONSE_TO_REQUEST,
        "unable_to_match_response_to_request",
    ),
    (
        Code::INVALID_SERVER_PORT_IN_REQUEST,
        "invalid_server_port_in_request",
    ),
    (Code::INVALID_AUTHORITY_PORT, "invalid_authority_port"),
    (Code::REQUEST_HEADER_INVALID, "request_header_invalid"),
    (Code::RESPONSE_HEADER_INVALID, "response_header_invalid"),
    (Code::MISSING_HOST_HEADER, "missing_host_header"),
    (Code::HOST_HEADER_AMBIGUOUS, "host_header_ambiguous"),
    (
        Code::INVALID_REQUEST_FIELD_FOLDING,
        "invalid_request_field_folding",
    ),
    (
        Code::INVALID_RESPONSE_FIELD_FOLDING,
        "invalid_response_field_folding",
    ),
    (Code::REQUEST_FIELD_TOO_LONG, "request_field_too_long"),
    (Code::RESPONSE_FIELD_TOO_LONG, "response_field_too_long"),
    (
        Code::REQUEST_SERVER_PORT_TCP_PORT_MISMATCH,
        "request_server_port_tcp_port_mismatch",
    ),
    (Code::URI_HOST_INVALID, "request_uri_host_invalid"),
    (Code::HEADER_HOST_INVALID, "request_header_host_invalid"),
    (
        Code::METHOD_DELIM_NON_COMPLIANT,
        "method_delim_non_compliant",
    ),
    (Code::URI_DELIM_NON_COMPLIANT, "uri_delim_non_compliant"),
    (
        Code::REQUEST_LINE_LEADING_WHITESPACE,
        "request_line_leading_whitespace",
    ),
    (
        Code::RESPONSE_TOO_MANY_LZMA_LAYERS,
        "response_too_many_lzma_layers",
    ),
    (
        Code::REQUEST_TOO_MANY_LZMA_LAYERS,
        "request_too_many_lzma_layers",
    ),
    (Code::TOO_MANY_ENCODING_LAYERS, "too_many_encoding_layers"),
    (Code::ABNORMAL_CE_HEADER, "abnormal_ce_header"),
    (Code::AUTH_UNRECOGNIZED, "request_auth_unrecognized"),
    (Code::REQUEST_HEADER_REPETITION, "request_header_repetition"),
    (
        Code::RESPONSE_HEADER_REPETITION,
        "response_header_repetition",
    ),
    (
        Code::RESPONSE_MULTIPART_BYTERANGES,
        "response_multipart_byteranges",
    ),
    (
        Code::RESPONSE_ABNORMAL_TRANSFER_ENCODING,
        "response_abnormal_transfer_encoding",
    ),
    (
        Code::RESPONSE_CHUNKED_OLD_PROTO,
        "response_chunked_old_proto",
    ),
    (Code::RESPONSE_INVALID_PROTOCOL, "response_invalid_protocol"),
    (Code::RESPONSE_INVALID_STATUS, "response_invalid_status"),
    (Code::REQUEST_LINE_INCOMPLETE, "request_line_incomplete"),
    (Code::DOUBLE_ENCODED_URI, "double_encoded_uri"),
    (Code::REQUEST_LINE_INVALID, "request_line_invalid"),
    (Code::REQUEST_BODY_UNEXPECTED, "request_body_unexpected"),
    (Code::LZMA_MEMLIMIT_REACHED, "lzma_memlimit_reached"),
    (Code::COMPRESSION_BOMB, "compression_bomb"),
    (
        Code::COMPRESSION_BOMB_LIMIT_REACHED,
        "compression_bomb_limit_reached",
    ),
    (
        Code::REQUEST_LINE_NO_PROTOCOL,
        "request_line_missing_protocol",
    ),
];

/// Whether it says that something is not decompressed any further.
pub(super) fn is_limit(code: Code) -> bool {
    matches!(
        code,
        Code::COMPRESSION_BOMB
            | Code::COMPRESSION_BOMB_LIMIT_REACHED
            | Code::LZMA_MEMLIMIT_REACHED
            | Code::TOO_MANY_ENCODING_LAYERS
            | Code::REQUEST_TOO_MANY_LZMA_LAYERS
            | Code::RESPONSE_TOO_MANY_LZMA_LAYERS
    )
}

/// The event for a finding; `None` for one that says nothing of the traffic.
pub(super) fn name(code: Code) -> Option<&'static str> {
    let found = NAMES.iter().find(|(of, _)| *of == code);
    found.map(|(_, name)| *name)
}

/// The event that rules call this.
pub(in crate::app) fn known(wanted: &str) -> Option<&'static str> {
    NAMES.iter().map(|(_, name)| *name).find(|it| *it == wanted)
}
