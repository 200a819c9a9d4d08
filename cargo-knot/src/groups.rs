//! The groups of subcommands in `cargo knot --help`.

use clap::Command;

/// Subcommands by what they are for.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Run", &["call", "map", "replay"]),
    ("Watch", &["runs", "status", "wait", "logs", "results"]),
    ("Act", &["cancel", "retry", "clean"]),
    (
        "Cloud",
        &["deploy", "list", "show", "use", "clobber", "pars", "prune", "doctor", "policy", "template", "configure"],
    ),
    ("Image", &["build", "image", "push"]),
];

/// Shows the subcommands of `cargo knot` in groups.
pub(crate) fn with_groups(cargo: Command) -> Command {
    cargo.mut_subcommand("knot", |knot| {
        let groups: String = GROUPS.iter().map(|(title, verbs)| group(&knot, title, verbs)).collect();
        knot.help_template(format!(
            "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}Options:\n{{options}}{{after-help}}"
        ))
    })
}

fn group(knot: &Command, title: &str, verbs: &[&str]) -> String {
    let line = |verb: &&str| {
        let about = knot.find_subcommand(verb).and_then(Command::get_about).map(ToString::to_string);
        format!("  {verb:<9}  {}\n", about.unwrap_or_default())
    };
    format!("{title}:\n{}\n", verbs.iter().map(line).collect::<String>())
}
