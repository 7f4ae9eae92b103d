//! Sluice: an inline intrusion prevention system.
//!
//! Data plane, in the order a packet goes through it: [`source`] → [`decode`] →
//! [`reassembly`] → [`flow`] → [`detect`] → [`verdict`] → [`log`]; [`worker`] is the loop that ties them together.
//! Control plane: [`cli`], [`doctor`], [`config`], [`rules`], [`loader`], [`maps`], [`netfilter`],
//! [`supervisor`], [`health`], [`metrics`], [`control`]. [`sys`] holds the remaining unsafe.

pub mod app;
mod bounded;
pub mod cli;
pub mod config;
pub mod control;
pub mod decode;
pub mod desk;
pub mod detect;
pub mod doctor;
pub mod exception;
#[cfg(feature = "fault-injection")]
pub mod fault;
pub mod flow;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod health;
pub mod inspection;
pub mod loader;
mod lock;
pub mod log;
pub mod maps;
pub mod measure;
pub mod metrics;
pub mod netfilter;
pub mod reassembly;
pub mod rejecter;
pub mod replay;
pub mod rules;
pub mod source;
pub mod supervisor;
pub mod sys;
pub mod verdict;
pub mod worker;
