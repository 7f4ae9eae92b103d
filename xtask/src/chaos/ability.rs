//! Which faults the program under test has an answer to, asked of the program itself.

use anyhow::{Context, Result, ensure};

use super::plan::Kind;
use crate::stage::Stage;
use crate::stage::processes;

/// What was found.
#[derive(Debug)]
pub(super) struct Abilities {
    subcommands: Vec<String>,
    keys: String,
    processes: Vec<String>,
    status: String,
    prlimit: Option<String>,
}

impl Abilities {
    /// Asks the running instance and its program.
    pub(super) fn probe(stage: &Stage) -> Result<Self> {
        let help = printed(stage.program().arg("--help"))?;
        let members = processes::of(stage.lab.gateway())?;
        Ok(Self {
            subcommands: subcommands(&help),
            keys: printed(stage.program().args(["config", "--defaults"]))?,
            processes: members.into_iter().map(|member| member.name).collect(),
            status: printed(stage.command("status").arg("--json"))?,
            prlimit: sluice_tests::requirement::missing_program("prlimit"),
        })
    }

    /// Why a kind has to be left out; `None` when it has not.
    pub(super) fn missing(&self, kind: Kind) -> Option<String> {
        let subcommand = |name: &str| {
            let known = self.subcommands.iter().any(|known| known == name);
            (!known).then(|| format!("the program has no `sluice {name}`"))
        };
        let process = |name: &str| {
            let runs = self.processes.iter().any(|known| known.contains(name));
            (!runs).then(|| format!("the instance has no process {name:?}"))
        };
        match kind {
            Kind::Reload | Kind::BadReload => subcommand("reload"),
            Kind::Scale => subcommand("scale"),
            Kind::Drain => subcommand("drain").or_else(|| subcommand("resume")),
            Kind::Upgrade => subcommand("upgrade"),
            // One that can replace it shows how often it had to.
            Kind::KillLauncher => process("launcher").or_else(|| {
                let shown = self.status.contains("launcher");
                (!shown).then(|| "the program's status says nothing of its launcher".to_owned())
            }),
            Kind::KillRejecter => process("reject"),
            Kind::Pressure => self.prlimit.clone(),
            Kind::Stop => (!self.keys.contains("hang_"))
                .then(|| "the program has no bound for a hang (`hang_…`)".to_owned()),
            _ => None,
        }
    }
}

fn printed(command: &mut std::process::Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The names that `--help` lists under its commands.
fn subcommands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "Inline.\n\nUsage: sluice <COMMAND>\n\nCommands:\n  run     Inspect\n  \
                        status  Show\n\nOptions:\n  -h, --help  Print help\n";

    #[test]
    fn a_command_is_known_when_the_help_lists_it() {
        assert_eq!(subcommands(HELP), ["run", "status"]);
        let abilities = Abilities {
            subcommands: subcommands(HELP),
            keys: "stale_ms = 200".to_owned(),
            processes: vec!["sluice-launcher".to_owned()],
            status: "{}".to_owned(),
            prlimit: None,
        };
        assert!(abilities.missing(Kind::Reload).is_some());
        assert!(abilities.missing(Kind::Stop).is_some());
        assert!(abilities.missing(Kind::KillRejecter).is_some());
        assert!(abilities.missing(Kind::KillLauncher).is_some());
        assert_eq!(abilities.missing(Kind::Kill), None);
    }
}
