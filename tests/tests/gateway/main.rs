//! The whole product on a real kernel: `sluice run` in a gateway between a client and a server,
//! and what each of them sees.
//!
//! Every test has a lab, an instance name and directories of its own, so they can run side by
//! side; those that measure times take turns ([`rig::alone`]).

mod actions;
mod caps;
mod cli;
mod datasets;
mod dead_program;
mod failover;
mod hang;
mod lifecycle;
mod load;
mod overload;
mod poison;
mod privileges;
mod reload;
mod rig;
mod scaling;
mod steering;
mod succession;
mod takeover;
mod upkeep;
mod vacancy;
