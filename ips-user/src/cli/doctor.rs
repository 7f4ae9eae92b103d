//! `sluice doctor`
