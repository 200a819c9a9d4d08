//! Builds and starts, once, what the tests share (`cloudknot_tests::shared`), and runs a command that finds it. All of it ends
//! with the command.
//!
//! `counterparts [--programs] cargo nextest run …`; with `--programs`, the programs of this workspace are all that it hands over.

use std::process::{Command, ExitCode};
use std::sync::Arc;

use cloudknot_tests::cloud::Cloud;
use cloudknot_tests::counterparts::Docker;
use cloudknot_tests::shared::{ENV, Shared};
use cloudknot_tests::workspaces::{cargo_knot, trial_image};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let programs_alone = arguments.next_if(|argument| argument == "--programs").is_some();
    let program = arguments.next().expect("its arguments are a command");
    let programs = cargo_knot().parent().expect("a program is in a folder").to_owned();
    let trial_image = (!programs_alone).then(|| trial_image().to_owned());
    let docker: Option<Arc<Docker>> = if programs_alone { None } else { Docker::get() };
    let cloud = if programs_alone { None } else { Cloud::start() };
    let shared = Shared {
        programs,
        trial_image,
        engine: docker.as_ref().map(|docker| docker.engine().clone()),
        cloud: cloud.as_ref().map(Cloud::place),
    };
    let file = tempfile::NamedTempFile::new().expect("there is a place for temporary files");
    std::fs::write(file.path(), serde_json::to_vec(&shared).expect("paths are text"))
        .expect("a new file can be written");
    // Ctrl-C and SIGTERM end the command, and this goes on to the end of the counterparts.
    let signals = tokio::runtime::Runtime::new().expect("a process may start a few threads");
    let mut child = Command::new(&program).args(arguments).env(ENV, file.path()).spawn().unwrap_or_else(|error| {
        panic!("failed to start {}: {error}", program.display());
    });
    let pid = child.id();
    signals.spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt()).expect("a signal can be listened for");
        let mut terminate = signal(SignalKind::terminate()).expect("a signal can be listened for");
        loop {
            tokio::select! {
                // The terminal has told the command as well.
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {
                    let pid = i32::try_from(pid).expect("a process id is a small number");
                    cloudknot_tests::trial::kill(pid, rustix::process::Signal::TERM);
                }
            }
        }
    });
    let status = child.wait().expect("a child can be waited for");
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
