//! Findings about this machine: the tools that compile workers, and the Docker engine.

use crate::build::compile::{Arch, Machine};
use crate::deploy::doctor::{Finding, State, in_one_line};
use crate::error::Result;

/// Timeout for an answer of the Docker engine, which normally takes milliseconds.
const ENGINE_ANSWERS: std::time::Duration = std::time::Duration::from_secs(5);

/// Checks the tools that compile workers.
pub(super) fn tools(machine: Result<Machine>, needs_arm64: bool) -> Vec<Finding> {
    let machine = match machine {
        Ok(machine) => machine,
        Err(error) => {
            let finding = Finding::failed("Rust", State::Bad, &error);
            let install = "install Rust (https://rustup.rs)".to_owned();
            return vec![Finding { remedy: finding.remedy.clone().or(Some(install)), ..finding }];
        }
    };
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    let rust = format!("rustc {} for {}", machine.rustc, machine.host);
    let mut found = vec![if is_older(&machine.rustc, oldest) {
        Finding::bad("Rust", format!("{rust}; cloudknot needs {oldest} or newer")).remedy("rustup update stable")
    } else {
        Finding::good("Rust", rust)
    }];
    found.push(match machine.c_compiler {
        Some(name) => Finding::good("C compiler", format!("`{name}`")),
        None => Finding::doubtful("C compiler", "none was found; Rust links with it, and the AWS SDK contains C")
            .remedy("install one: `sudo apt-get install gcc`, or `xcode-select --install`"),
    });
    for target in machine.workers {
        let (name, wanted) = match target.arch {
            Arch::X86_64 => ("x86-64", !needs_arm64),
            Arch::Arm64 => ("64-bit ARM", needs_arm64),
        };
        let about = format!("workers for {name}");
        let lacking = if wanted { State::Bad } else { State::Doubtful };
        let finding = match (target.triple, target.compiles_c) {
            (Some(triple), true) => Finding::good(about, format!("static, as {triple}")),
            (Some(triple), false) => {
                Finding::new(about, lacking, format!("as {triple}, but without C, which a worker needs to use S3"))
            }
            (None, _) => Finding::new(about, lacking, "this machine cannot compile them"),
        };
        found.push(Finding { remedy: target.remedy, ..finding });
    }
    found
}

/// Returns whether a version is older than another. The part after a `-` (nightly, beta) is ignored.
fn is_older(version: &str, than: &str) -> bool {
    let parts = |version: &str| -> Vec<u32> {
        version.split('-').next().unwrap_or_default().split('.').map_while(|part| part.parse().ok()).collect()
    };
    parts(version) < parts(than)
}

/// Checks the Docker engine, which most users do not need.
pub(super) async fn docker() -> Finding {
    let about = "Docker";
    let remedy =
        "needed only to try images on this machine (CLOUDKNOT_BACKEND=docker) and for a `base-image` or `dockerfile`";
    match tokio::time::timeout(ENGINE_ANSWERS, crate::build::docker::Engine::connect()).await {
        Ok(Ok(_)) => Finding::good(about, "an engine answers"),
        Ok(Err(error)) => {
            let hint = error.hint().map_or_else(String::new, |hint| format!("; {hint}"));
            Finding::doubtful(about, in_one_line(&error)).remedy(format!("{remedy}{hint}"))
        }
        Err(_) => Finding::doubtful(about, "the engine does not answer").remedy(format!("restart it; {remedy}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let check = |version: &str, older: bool| assert_eq!(is_older(version, "1.94.1"), older, "{version}");
        check("1.94.1", false);
        check("1.95.0-nightly", false);
        check("1.100.0", false);
        check("2.0.0", false);
        check("1.94.0", true);
        check("1.9.5", true);
    }

    #[test]
    fn a_machine_that_lacks_the_other_architecture_is_only_doubtful() {
        let states = |needs_arm64| {
            let machine = Machine::here().map_err(Error::from);
            let mut machine = machine.expect("the machine that runs this test has a toolchain");
            for target in &mut machine.workers {
                target.triple = None;
                target.compiles_c = false;
                target.remedy = Some("install it".to_owned());
            }
            let found = tools(Ok(machine), needs_arm64);
            let of =
                |name: &str| found.iter().find(|finding| finding.about.ends_with(name)).map(|finding| finding.state);
            (of("x86-64"), of("ARM"))
        };
        assert_eq!(states(false), (Some(State::Bad), Some(State::Doubtful)));
        assert_eq!(states(true), (Some(State::Doubtful), Some(State::Bad)));
    }
}
