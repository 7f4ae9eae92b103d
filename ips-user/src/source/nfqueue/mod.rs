//! The product transport.
