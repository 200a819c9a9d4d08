//! Findings about this machine: the tools that compile workers, and the Docker engine.

use crate::build::compile::{Arch, Machine};
use crate::deploy::doctor::{Finding, State, in_one_line};
use crate::error::Result;

/// Timeout for a response from the Docker engine, which normally takes milliseconds.
const ENGINE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

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
    let minimum = env!("CARGO_PKG_RUST_VERSION");
    let rust = format!("rustc {} for {}", machine.rustc, machine.host);
    let mut found = vec![if is_older(&machine.rustc, minimum) {
        Finding::bad("Rust", format!("{rust}; cloudknot requires {minimum} or newer")).remedy("rustup update stable")
    } else {
        Finding::good("Rust", rust)
    }];
    found.push(match machine.c_compiler {
        Some(name) => Finding::good("C compiler", format!("`{name}`")),
        None => Finding::doubtful("C compiler", "none was found; Rust links with it, and the AWS SDK contains C")
            .remedy("install one: `sudo apt-get install gcc`, or `xcode-select --install`"),
    });
    for target in machine.workers {
        let (name, is_required) = match target.arch {
            Arch::X86_64 => ("x86-64", !needs_arm64),
            Arch::Arm64 => ("64-bit ARM", needs_arm64),
        };
        let subject = format!("workers for {name}");
        let missing = if is_required { State::Bad } else { State::Doubtful };
        let finding = match (target.triple, target.compiles_c) {
            (Some(triple), true) => Finding::good(subject, format!("static, as {triple}")),
            (Some(triple), false) => {
                Finding::new(subject, missing, format!("as {triple}, but without C, which a worker needs to use S3"))
            }
            (None, _) => Finding::new(subject, missing, "this machine cannot compile them"),
        };
        found.push(Finding { remedy: target.remedy, ..finding });
    }
    found
}

/// Returns whether a version is older than another. The part after a `-` (nightly, beta) is ignored.
fn is_older(version: &str, other: &str) -> bool {
    let parts = |version: &str| -> Vec<u32> {
        version.split('-').next().unwrap_or_default().split('.').map_while(|part| part.parse().ok()).collect()
    };
    parts(version) < parts(other)
}

/// Checks the Docker engine, which most users do not need.
pub(super) async fn docker() -> Finding {
    let subject = "Docker";
    let remedy =
        "needed only to try images on this machine (CLOUDKNOT_BACKEND=docker) and for a `base-image` or `dockerfile`";
    match tokio::time::timeout(ENGINE_TIMEOUT, crate::build::docker::Engine::connect()).await {
        Ok(Ok(_)) => Finding::good(subject, "an engine answers"),
        Ok(Err(error)) => {
            let hint = error.hint().map_or_else(String::new, |hint| format!("; {hint}"));
            Finding::doubtful(subject, in_one_line(&error)).remedy(format!("{remedy}{hint}"))
        }
        Err(_) => Finding::doubtful(subject, "the engine does not answer").remedy(format!("restart it; {remedy}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn versions_are_compared_numerically() {
        let check = |version: &str, older: bool| assert_eq!(is_older(version, "1.94.1"), older, "{version}");
        check("1.94.1", false);
        check("1.95.0-nightly", false);
        check("1.100.0", false);
        check("2.0.0", false);
        check("1.94.0", true);
        check("1.9.5", true);
    }

    #[test]
    fn missing_tools_for_another_architecture_are_doubtful() {
        let states = |needs_arm64| {
            let machine = Machine::here().map_err(Error::from);
            let mut machine = machine.expect("the machine that runs this test has a toolchain");
            for target in &mut machine.workers {
                target.triple = None;
                target.compiles_c = false;
                target.remedy = Some("install it".to_owned());
            }
            let found = tools(Ok(machine), needs_arm64);
            let state_of =
                |name: &str| found.iter().find(|finding| finding.subject.ends_with(name)).map(|finding| finding.state);
            (state_of("x86-64"), state_of("ARM"))
        };
        assert_eq!(states(false), (Some(State::Bad), Some(State::Doubtful)));
        assert_eq!(states(true), (Some(State::Doubtful), Some(State::Bad)));
    }
}
