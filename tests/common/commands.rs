//! The commands that there are, as the binary's own help lists them.

use super::deployment::{answer, binary};

/// What `--help` says to a command.
#[track_caller]
pub fn help(command: &[String]) -> String {
    answer(binary().args(command).arg("--help")).expect(0).stdout
}

/// Every command and subcommand, groups before what is in them.
#[track_caller]
pub fn all_commands() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(command) = open.pop() {
        for name in listed(&help(&command)) {
            let mut longer = command.clone();
            longer.push(name);
            open.push(longer.clone());
            found.push(longer);
        }
    }
    found.sort();
    found
}

/// Names below `Commands:`.
fn listed(help: &str) -> Vec<String> {
    let below = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = below.take_while(|line| line.starts_with("  "));
    let names =
        listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}
