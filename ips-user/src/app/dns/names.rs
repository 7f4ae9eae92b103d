//! Names of types and response codes, as IANA's registries of DNS parameters have them.

use std::borrow::Cow;

const KINDS: [(u16, &str); 62] = [
    (1, "A"),
    (2, "NS"),
    (3, "MD"),
    (4, "MF"),
    (5, "CNAME"),
    (6, "SOA"),
    (7, "MB"),
    (8, "MG"),
    (9, "MR"),
    (10, "NULL"),
    (11, "WKS"),
    (12, "PTR"),
    (13, "HINFO"),
    (14, "MINFO"),
    (15, "MX"),
    (16, "TXT"),
    (17, "RP"),
    (18, "AFSDB"),
    (19, "X25"),
    (20, "ISDN"),
    (21, "RT"),
    (22, "NSAP"),
    (23, "NSAPPTR"),
    (24, "SIG"),
    (25, "KEY"),
    (26, "PX"),
    (27, "GPOS"),
    (28, "AAAA"),
    (29, "LOC"),
    (30, "NXT"),
    (33, "SRV"),
    (34, "ATMA"),
    (35, "NAPTR"),
    (36, "KX"),
    (37, "CERT"),
    (38, "A6"),
    (39, "DNAME"),
    (41, "OPT"),
    (42, "APL"),
    (43, "DS"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (49, "DHCID"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (55, "HIP"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (249, "TKEY"),
    (250, "TSIG"),
    (252, "AXFR"),
    (253, "MAILB"),
    (254, "MAILA"),
    (255, "ANY"),
    (256, "URI"),
];

const RCODES: [(u16, &str); 20] = [
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (6, "YXDOMAIN"),
    (7, "YXRRSET"),
    (8, "NXRRSET"),
    (9, "NOTAUTH"),
    (10, "NOTZONE"),
    (11, "DSOTYPENI"),
    (16, "BADVERS"),
    (17, "BADKEY"),
    (18, "BADTIME"),
    (19, "BADMODE"),
    (20, "BADNAME"),
    (21, "BADALG"),
    (22, "BADTRUNC"),
    (23, "BADCOOKIE"),
];

fn name(list: &'static [(u16, &'static str)], number: u16) -> Option<&'static str> {
    let found = list.iter().find(|(known, _)| *known == number);
    found.map(|(_, name)| *name)
}

fn number(list: &[(u16, &str)], wanted: &str) -> Option<u16> {
    let found = list
        .iter()
        .find(|(_, name)| name.eq_ignore_ascii_case(wanted));
    found.map(|(number, _)| *number)
}

/// The name of a type; its number where it has none.
pub(super) fn kind(number: u16) -> Cow<'static, str> {
    name(&KINDS, number).map_or_else(|| Cow::Owned(number.to_string()), Cow::Borrowed)
}

/// The name of a response code; its number where it has none.
pub(super) fn rcode(number: u16) -> Cow<'static, str> {
    name(&RCODES, number).map_or_else(|| Cow::Owned(number.to_string()), Cow::Borrowed)
}

/// The number of a type.
pub(in crate::app) fn kind_named(name: &str) -> Option<u16> {
    number(&KINDS, name)
}

/// The number of a response code.
pub(in crate::app) fn rcode_named(name: &str) -> Option<u16> {
    number(&RCODES, name)
}
