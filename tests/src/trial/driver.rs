//! Drives the trial program from a test: starts it in its own folder, and finds its runs, processes and containers.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloudknot_runtime::contract::{ENV_ITEM_PROCESS, ENV_KEEPER};

use super::{Fact, Spec, facts, files, json, run_of};
use crate::counterparts::Docker;

/// Trial program with its own run folder.
#[derive(Debug)]
pub struct Trial {
    program: PathBuf,
    folder: tempfile::TempDir,
    remote: Option<RemoteEnv>,
}

/// Environment of items that do not run in processes of this machine.
#[derive(Debug, Clone)]
pub struct RemoteEnv {
    /// Environment variables for the program.
    pub env: Vec<(String, String)>,
    /// Folder of the runs, at the path that functions use.
    pub home: PathBuf,
    /// Kind of the jobs.
    pub jobs: Jobs,
    /// Folder in which runs are stored, if it is not the trial's own.
    pub record: Option<PathBuf>,
    /// `true` if each item runs in its own container by default.
    pub is_batch: bool,
    /// Function that ends the jobs that a test leaves running.
    pub end: Option<End>,
}

/// Kind of jobs, and how to find the jobs of a run. The ID of the run replaces `{run}`.
#[derive(Debug, Clone)]
pub enum Jobs {
    /// Containers of this engine that match this filter.
    Containers(Arc<Docker>, String),
    /// Processes of this machine whose jobs would have container names with this prefix.
    Processes(String),
}

/// Name of the variable with the container name of a job, as moto passes it to processes that are jobs.
const ENV_JOB: &str = "CLOUDKNOT_TESTS_JOB";

/// Function that is called when a trial is dropped.
#[derive(Clone)]
pub struct End(pub Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("End")
    }
}

/// Returns the trial of a suite that runs on several backends: `crate::trial()`. Ends the test if there is none.
#[allow(clippy::crate_in_macro_def, reason = "each test binary defines its own trial")]
#[macro_export]
macro_rules! trial {
    () => {
        match crate::trial() {
            Some(trial) => trial,
            None => return,
        }
    };
}

/// Maximum time to wait for any expected event. Not a measure of speed: a test that waits this long has failed.
const TIMEOUT: Duration = Duration::from_mins(5);

impl Trial {
    /// Creates a trial with a new folder. The program is `env!("CARGO_BIN_EXE_trial")`.
    ///
    /// # Panics
    /// If no temporary folder can be created.
    pub fn new(program: &str) -> Self {
        Self {
            program: program.into(),
            folder: tempfile::tempdir().expect("a temporary folder can be created"),
            remote: None,
        }
    }

    /// Runs the trial's items in this environment.
    #[must_use]
    pub fn on(mut self, remote: RemoteEnv) -> Self {
        self.remote = Some(remote);
        self
    }

    /// Returns whether items run in processes of this machine.
    pub fn is_local(&self) -> bool {
        self.remote.is_none()
    }

    /// Returns whether each item runs in its own container by default.
    pub fn is_batch(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.is_batch)
    }

    /// Returns the folder of the trial's runs.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Returns the path of a file that belongs to the test.
    pub fn file(&self, name: &str) -> PathBuf {
        match self.remote {
            None => self.folder.path().join(name),
            // Functions have access to this folder only.
            Some(_) => self.home().join(name),
        }
    }

    /// Returns the path that functions use for a file of the test.
    ///
    /// # Panics
    /// If the file does not belong to the test.
    pub fn remote_path(&self, file: &Path) -> PathBuf {
        match &self.remote {
            None => file.to_owned(),
            Some(remote) => remote.home.join(file.strip_prefix(self.home()).expect("the file belongs to the test")),
        }
    }

    /// Returns the containers of this run, running or not, or the processes of its jobs; none if items run on this
    /// machine.
    pub fn containers(&self, run: &str) -> Vec<String> {
        match self.remote.as_ref().map(|remote| &remote.jobs) {
            None => Vec::new(),
            Some(Jobs::Containers(docker, filter)) => {
                let mut list = docker.command();
                list.args(["ps", "-aq", "--filter", &filter.replace("{run}", run)]);
                crate::counterparts::run(&mut list).lines().map(str::to_owned).collect()
            }
            Some(Jobs::Processes(prefix)) => {
                let prefix = format!("{ENV_JOB}={}", prefix.replace("{run}", run));
                processes_with(prefix.as_bytes()).iter().map(ToString::to_string).collect()
            }
        }
    }

    /// Sends a signal to the job of this run whose container name ends with `suffix`, as soon as the job runs.
    ///
    /// # Panics
    /// If no such job starts in time, or if items run on this machine.
    pub fn signal(&self, run: &str, suffix: &str, signal: rustix::process::Signal) {
        match &self.remote.as_ref().expect("items run in jobs").jobs {
            Jobs::Containers(docker, filter) => {
                let filter = filter.replace("{run}", run);
                let container = wait_for("the container to run", || {
                    let mut list = docker.command();
                    list.args([
                        "ps",
                        "--filter",
                        &filter,
                        "--filter",
                        "status=running",
                        "--format",
                        "{{.ID}} {{.Names}}",
                    ]);
                    let list = crate::counterparts::run(&mut list);
                    let mut containers = list.lines().filter_map(|line| line.split_once(' '));
                    containers.find(|(_, name)| name.ends_with(suffix)).map(|(id, _)| id.to_owned())
                });
                let signal = signal.as_raw().to_string();
                crate::counterparts::run(docker.command().args(["kill", "--signal", &signal, &container]));
            }
            Jobs::Processes(prefix) => {
                let prefix = format!("{ENV_JOB}={}", prefix.replace("{run}", run));
                // The job itself leads a session, like the first process of a container.
                let is_session_leader = |&pid: &i32| {
                    let pid = rustix::process::Pid::from_raw(pid);
                    pid.is_some_and(|pid| rustix::process::getsid(Some(pid)) == Ok(pid))
                };
                let is_job = |name: &[u8]| name.starts_with(prefix.as_bytes()) && name.ends_with(suffix.as_bytes());
                let process = wait_for("the process to run", || {
                    processes_where(|variables| variables.split(|&byte| byte == 0).any(is_job))
                        .into_iter()
                        .find(is_session_leader)
                });
                kill(process, signal);
            }
        }
    }

    /// Returns the stored files of all runs.
    pub fn stored_files(&self) -> Vec<PathBuf> {
        files(&self.record().join("knots"))
    }

    /// Returns the folder in which runs are stored.
    fn record(&self) -> PathBuf {
        let remote = self.remote.as_ref().and_then(|remote| remote.record.clone());
        remote.unwrap_or_else(|| self.home())
    }

    /// Returns a command that runs the program with these arguments, with its runs in the folder and without progress.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(&self.program, arguments)
    }

    /// Like [`Trial::command`], for a copy of the program.
    pub fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("CLOUDKNOT_HOME", self.home()).env("CLOUDKNOT_PROGRESS", "off");
        for name in ["CLOUDKNOT_BACKEND", "RUST_BACKTRACE", "RUST_LIB_BACKTRACE"] {
            command.env_remove(name);
        }
        command.envs(self.remote.iter().flat_map(|remote| remote.env.clone()));
        command
    }

    /// Runs the program to completion, and checks that it exits with 0.
    ///
    /// # Panics
    /// If it does not.
    pub fn facts(&self, arguments: &[&str]) -> Vec<Fact> {
        let output = self.command(arguments).output().expect("the trial starts");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        facts(&output.stdout)
    }

    /// Submits a map, and waits for the end of its run.
    pub fn map(&self, spec: &Spec) -> Vec<Fact> {
        self.facts(&["map", &json(spec)])
    }

    /// Attaches to a run, and waits for its end.
    pub fn attach(&self, run: &str) -> Vec<Fact> {
        self.facts(&["attach", run])
    }

    /// Starts the program, with its stdout and stderr redirected to files.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments), self.folder.path())
    }

    /// Returns the files in this folder of a run, such as `results` or `failures`.
    pub fn stored(&self, run: &str, subfolder: &str) -> Vec<PathBuf> {
        files(&self.run(run).join(subfolder))
    }

    /// Returns the folder of a run.
    pub fn run(&self, run: &str) -> PathBuf {
        let knots = self.record().join("knots");
        // At most one Knot exists: each trial has its own record.
        let knot = std::fs::read_dir(&knots).into_iter().flatten().flatten().next();
        knot.map_or_else(|| knots.join("cloudknot-tests"), |knot| knot.path()).join("runs").join(run)
    }

    /// Returns the items that have a value in the store.
    ///
    /// # Panics
    /// If the name of a part is invalid.
    pub fn items_with_values(&self, run: &str) -> Vec<u64> {
        let parts = self.stored(run, "results").into_iter().map(|path| {
            let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
            let (first, last) = name.split_once('-').expect("a part is called first-last");
            first.parse().expect("the first item is a number")..=last.parse().expect("the last item is a number")
        });
        let mut items: Vec<u64> = parts.flatten().collect();
        items.sort_unstable();
        items
    }

    /// Returns all processes that were started with this trial's folder: the program, its item processes and their
    /// children.
    pub fn processes(&self) -> Vec<i32> {
        processes_with(self.home().as_os_str().as_encoded_bytes())
    }

    /// Returns the item processes.
    pub fn item_processes(&self) -> Vec<i32> {
        self.started_with(|variables| !has(variables, ENV_KEEPER))
    }

    /// Returns the keepers of the item processes.
    pub fn keepers(&self) -> Vec<i32> {
        self.started_with(|variables| has(variables, ENV_KEEPER))
    }

    fn started_with(&self, matches: impl Fn(&[u8]) -> bool) -> Vec<i32> {
        let home = self.home();
        let home = home.as_os_str().as_encoded_bytes();
        let is_of_trial = |variables: &[u8]| variables.windows(home.len()).any(|window| window == home);
        processes_where(|variables| is_of_trial(variables) && has(variables, ENV_ITEM_PROCESS) && matches(variables))
    }

    /// Waits until all processes of the trial have exited. Requires `/proc`.
    ///
    /// # Panics
    /// If a process still runs after a long time.
    pub fn wait_until_exited(&self) {
        wait_for("all processes to exit", || self.processes().is_empty().then_some(()));
    }
}

impl Drop for Trial {
    /// Ensures that a failed test leaves nothing running.
    fn drop(&mut self) {
        for pid in self.processes() {
            kill(pid, rustix::process::Signal::KILL);
        }
        if let Some(End(end)) = self.remote.as_ref().and_then(|remote| remote.end.as_ref()) {
            end();
        }
    }
}

/// Returns the processes of this machine whose environment contains these bytes.
fn processes_with(part: &[u8]) -> Vec<i32> {
    processes_where(|variables| variables.windows(part.len()).any(|window| window == part))
}

/// Returns the processes of this machine whose environment at their start satisfies `matches`. The environment is a
/// sequence of variables, each followed by a zero byte.
fn processes_where(matches: impl Fn(&[u8]) -> bool) -> Vec<i32> {
    let is_match = |pid: &i32| matches(&std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default());
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_match).collect()
}

fn has(variables: &[u8], name: &str) -> bool {
    variables
        .split(|&byte| byte == 0)
        .any(|variable| variable.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"=")))
}

/// A running trial program.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Starts the command, with its output redirected to files in this folder.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(mut command: Command, folder: &Path) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| folder.join(format!("{name}-{number}")));
        let file = |path| std::fs::File::create(path).expect("the folder of the test can be written");
        command.stdin(Stdio::null()).stdout(file(&stdout)).stderr(file(&stderr));
        Self { child: command.spawn().expect("the trial starts"), stdout, stderr }
    }

    /// Returns the process ID.
    ///
    /// # Panics
    /// Never: process IDs fit into an `i32`.
    pub fn pid(&self) -> i32 {
        self.child.id().try_into().expect("a process id is a small number")
    }

    /// Returns what was printed to stdout so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// Returns the facts printed so far.
    pub fn facts(&self) -> Vec<Fact> {
        facts(&std::fs::read(&self.stdout).unwrap_or_default())
    }

    /// Waits for the run's ID, and returns it.
    pub fn wait_for_run_id(&self) -> String {
        wait_for("the run's ID", || run_of(&self.facts()))
    }

    /// Waits until the program ends.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn wait_with_output(self) -> Output {
        self.wait_with_output_within(TIMEOUT)
    }

    /// Like [`Running::wait_with_output`], with this time limit.
    ///
    /// # Panics
    /// If it does not end within this time.
    pub fn wait_with_output_within(mut self, timeout: Duration) -> Output {
        let exit_status = || self.child.try_wait().expect("a child can be waited for");
        let status = wait_within(timeout, "the trial to end", exit_status);
        let read = |path: &Path| std::fs::read(path).unwrap_or_default();
        Output { status, stdout: read(&self.stdout), stderr: read(&self.stderr) }
    }

    /// Kills the program with SIGKILL, and waits for it.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        let status = self.child.wait().expect("a child can be waited for");
        assert_eq!(status.signal(), Some(9), "the program ended before it was killed");
    }

    /// Returns whether the program still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A failed test must leave nothing running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal. A process that has already ended is ignored.
pub fn kill(pid: i32, signal: rustix::process::Signal) {
    let _ = rustix::process::Pid::from_raw(pid).map(|pid| rustix::process::kill_process(pid, signal));
}

/// Waits until `poll` returns a value.
///
/// # Panics
/// If it returns no value for a long time.
pub fn wait_for<T>(what: &str, poll: impl FnMut() -> Option<T>) -> T {
    wait_within(TIMEOUT, what, poll)
}

fn wait_within<T>(timeout: Duration, what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(began.elapsed() < timeout, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
