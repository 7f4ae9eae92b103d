//! Builds, demonstrates, tests and measures Sluice.
fn main() {}
