//! `sluice doctor`
use std::process::ExitCode;
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {}
pub(super) fn run(_: &DoctorArgs) -> anyhow::Result<ExitCode> { Ok(ExitCode::SUCCESS) }
