//! The origin of a run: who submits it, and the program with its git revision. A record is read by others, so secrets of the
//! command line are left out.

use std::path::Path;
use std::sync::OnceLock;

use cloudknot_runtime::contract::{Program, Provenance, Submitter};
use cloudknot_runtime::machine;

use crate::event;
use crate::home;

mod command;
mod git;

/// Cargo target that this program was compiled from. Only what the compiler knows of it: nothing if cargo did not start the
/// compiler.
#[derive(Debug, Clone, Copy, Default)]
pub struct Target {
    /// Name of the package.
    pub package: Option<&'static str>,
    /// Version of the package.
    pub version: Option<&'static str>,
    /// Name of the target.
    pub name: Option<&'static str>,
    /// Features of the package.
    pub features: Option<&'static [&'static str]>,
}

/// Cargo target of the program, as set by the generated main. Unset if no generated main has run.
static TARGET: OnceLock<Target> = OnceLock::new();

/// Records the cargo target that the program was compiled from.
pub(crate) fn set_target(target: Target) {
    TARGET.get_or_init(|| target);
}

/// Begins to ask git for the revision, so that it is known when the provenance is needed.
pub(crate) fn prepare() {
    git::begin();
}

/// Returns the origin of what this program submits now, for a function of this package.
pub(crate) async fn of_this_program(package: &str) -> Provenance {
    let revision = git::revision().await;
    let program = Program { revision: revision.id, is_clean: revision.is_clean, ..program(package) };
    Provenance { submitter: submitter(), program, cloudknot: env!("CARGO_PKG_VERSION").to_owned() }.bounded()
}

/// Reports that the source of this program differs from that of the program of a run, or may differ.
pub(crate) async fn report_changes(run: &str, then: &Program) {
    let revision = git::revision().await;
    let now = Program { revision: revision.id, is_clean: revision.is_clean, ..Program::default() };
    if then.revision.is_some()
        && now.revision.is_some()
        && let Some(change) = change_of_source(run, then, &now)
    {
        event::step(&change);
    }
}

/// Says that the source of a program differs from that of the program of a run, or may differ. Returns `None` if it is the same.
pub(crate) fn change_of_source(run: &str, then: &Program, now: &Program) -> Option<String> {
    let Some((from, to)) = then.revision.as_deref().zip(now.revision.as_deref()) else {
        return Some(format!(
            "the source may have changed since run {run}: its git revision then, or the one now, is not known"
        ));
    };
    let short = |id: &str| id.chars().take(10).collect::<String>();
    if from != to {
        return Some(format!(
            "the source has changed since run {run}: revision {} then, {} now",
            short(from),
            short(to)
        ));
    }
    let may_have_changed =
        |why: &str| Some(format!("the source may have changed since run {run}: {why} revision {}", short(from)));
    match [then.is_clean, now.is_clean] {
        [Some(true), Some(true)] => None,
        states if states.contains(&Some(false)) => may_have_changed("there were or are uncommitted changes of"),
        _ => may_have_changed("it is not known whether there were or are uncommitted changes of"),
    }
}

fn submitter() -> Submitter {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    Submitter {
        user: variable("USER").or_else(|| variable("LOGNAME")),
        host: Some(machine::host()).filter(|host| !host.is_empty()),
        command: command::masked(arguments),
    }
}

fn program(package: &str) -> Program {
    let target = TARGET.get().copied().unwrap_or_default();
    let built = std::env::current_exe().ok().and_then(|executable| Built::of(&executable));
    let name = target.name.map(str::to_owned);
    Program {
        // Without a generated main, the program is a test harness, usually of the package of the function.
        package: target.package.unwrap_or(package).to_owned(),
        version: target.version.unwrap_or_default().to_owned(),
        kind: built.as_ref().filter(|_| name.is_some()).map(|built| built.kind.to_owned()),
        target: name,
        profile: built.map(|built| built.profile),
        features: target.features.map(|features| features.iter().map(ToString::to_string).collect()),
        manifest: home::crate_folder().map(|folder| folder.join("Cargo.toml").to_string_lossy().into_owned()),
        ..Program::default()
    }
}

/// Kind of target and profile of an executable, according to its path in the target folder.
#[derive(Debug, PartialEq, Eq)]
struct Built {
    kind: &'static str,
    profile: String,
}

impl Built {
    /// Returns `None` if the executable is not where cargo has put it.
    fn of(executable: &Path) -> Option<Self> {
        let parent = executable.parent()?;
        let (folder, kind) = if parent.ends_with("examples") { (parent.parent()?, "example") } else { (parent, "bin") };
        // A target folder that cargo has created has a tag. cargo does not tag an existing folder, but locks each profile in it.
        let is_tagged = |folder: &Path| folder.join("CACHEDIR.TAG").is_file();
        let is_of_cargo = folder.join(".cargo-lock").is_file() || folder.ancestors().skip(1).take(2).any(is_tagged);
        let profile = folder.file_name().filter(|_| is_of_cargo)?.to_str()?;
        // cargo calls the folder of the profile `dev` differently.
        let profile = if profile == "debug" { "dev" } else { profile };
        Some(Self { kind, profile: profile.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(folder: &Path, executable: &str, expected: Option<(&'static str, &str)>) {
        let expected = expected.map(|(kind, profile)| Built { kind, profile: profile.to_owned() });
        assert_eq!(Built::of(&folder.join(executable)), expected, "{executable}");
    }

    #[test]
    fn kind_and_profile_follow_from_the_path() {
        let folder = tempfile::tempdir().expect("a folder can be created");
        let folder = folder.path();
        check(folder, "target/debug/sweep", None);
        std::fs::create_dir_all(folder.join("target/profiling")).expect("a folder can be created");
        std::fs::write(folder.join("target/profiling/.cargo-lock"), "").expect("a file can be written");
        check(folder, "target/profiling/sweep", Some(("bin", "profiling")));
        check(folder, "target/debug/sweep", None);
        std::fs::write(folder.join("target/CACHEDIR.TAG"), "").expect("a file can be written");
        check(folder, "target/debug/sweep", Some(("bin", "dev")));
        check(folder, "target/debug/examples/sweep", Some(("example", "dev")));
        check(folder, "target/x86_64-unknown-linux-musl/release/sweep", Some(("bin", "release")));
        check(folder, "target/x86_64-unknown-linux-musl/release/examples/sweep", Some(("example", "release")));
        check(folder, ".cargo/bin/sweep", None);
        check(Path::new("/"), "sweep", None);
    }
}
