//! Builds and starts the counterparts that the tests share (`cloudknot_tests::shared`) once, and runs a command that
//! uses them. They end with the command.
//!
//! `counterparts [--programs] cargo nextest run …`; with `--programs`, only the programs of this workspace are handed
//! over.

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use cloudknot_tests::cloud::Cloud;
use cloudknot_tests::counterparts::Docker;
use cloudknot_tests::moto::Forks;
use cloudknot_tests::shared::{ENV, Shared};
use cloudknot_tests::workspaces::{cargo_knot, trial_image};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Process ID of the command, once it runs.
static COMMAND: AtomicI32 = AtomicI32::new(0);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let programs_only = arguments.next_if(|argument| argument == "--programs").is_some();
    let program = arguments.next().expect("the arguments are a command");
    let _signals = pass_signals_on();
    let programs = cargo_knot().parent().expect("a program is in a folder").to_owned();
    let trial_image = (!programs_only).then(|| trial_image().to_owned());
    let docker: Option<Arc<Docker>> = if programs_only { None } else { Docker::get() };
    let moto_forks = if programs_only { None } else { Forks::get() };
    let cloud = if programs_only { None } else { Cloud::start() };
    let shared = Shared {
        programs,
        trial_image,
        engine: docker.as_ref().map(|docker| docker.engine().clone()),
        cloud: cloud.as_ref().map(Cloud::endpoints),
        moto_forks: moto_forks.as_ref().map(|forks| forks.socket().to_owned()),
    };
    let file = tempfile::NamedTempFile::new().expect("a temporary folder can be created");
    std::fs::write(file.path(), serde_json::to_vec(&shared).expect("the paths are UTF-8"))
        .expect("a new file can be written");
    let mut child = Command::new(&program).args(arguments).env(ENV, file.path()).spawn().unwrap_or_else(|error| {
        panic!("cannot start {}: {error}", program.display());
    });
    COMMAND.store(child.id().try_into().expect("a process id is a small number"), Ordering::Relaxed);
    let status = child.wait().expect("a child can be waited for");
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Makes signals end the command instead of this program, which then ends the counterparts.
fn pass_signals_on() -> Runtime {
    let runtime = Runtime::new().expect("a process may start a few threads");
    let entered = runtime.enter();
    let listen = |kind| signal(kind).expect("a signal can be listened for");
    let mut interrupt = listen(SignalKind::interrupt());
    let (mut terminate, mut hangup) = (listen(SignalKind::terminate()), listen(SignalKind::hangup()));
    drop(entered);
    runtime.spawn(async move {
        loop {
            tokio::select! {
                // The terminal has sent the signal to the command as well.
                _ = interrupt.recv() => continue,
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            match COMMAND.load(Ordering::Relaxed) {
                // The command has not been started, and will not be.
                0 => std::process::exit(1),
                command => cloudknot_tests::trial::kill(command, rustix::process::Signal::TERM),
            }
        }
    });
    runtime
}
