//! `sluice check`
