//! The `nfq` crate as a transport.
