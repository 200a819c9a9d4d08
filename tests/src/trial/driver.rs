//! The side of the tests: starts the trial program in a folder of its own, and finds its runs, processes and containers.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Fact, Spec, facts, files, json, run_of};
use crate::counterparts::Docker;

/// Trial program with its own folder for runs.
#[derive(Debug)]
pub struct Trial {
    program: PathBuf,
    folder: tempfile::TempDir,
    elsewhere: Option<Elsewhere>,
}

/// Environment of items that do not run in processes of this machine.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    /// Environment variables for the program.
    pub env: Vec<(String, String)>,
    /// Folder of the runs, as functions see it.
    pub home: PathBuf,
    /// Kind of the jobs.
    pub jobs: Jobs,
    /// Folder in which runs are stored, if it is not the trial's own.
    pub record: Option<PathBuf>,
    /// `true` if each item runs in its own container, unless the test says otherwise.
    pub is_batch: bool,
    /// Function that ends what a test has left running.
    pub end: Option<End>,
}

/// Kind of jobs, and how to find those of a run, whose ID replaces `{run}`.
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
#[allow(clippy::crate_in_macro_def, reason = "each test binary says where its trials run")]
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
const AT_MOST: Duration = Duration::from_mins(5);

impl Trial {
    /// Creates a trial with a new folder. The program is `env!("CARGO_BIN_EXE_trial")`.
    ///
    /// # Panics
    /// If no temporary folder can be created.
    pub fn new(program: &str) -> Self {
        Self {
            program: program.into(),
            folder: tempfile::tempdir().expect("a temporary folder can be created"),
            elsewhere: None,
        }
    }

    /// Makes the trial's items run elsewhere.
    #[must_use]
    pub fn on(mut self, elsewhere: Elsewhere) -> Self {
        self.elsewhere = Some(elsewhere);
        self
    }

    /// Returns whether items run in processes of this machine.
    pub fn is_local(&self) -> bool {
        self.elsewhere.is_none()
    }

    /// Returns whether each item runs in its own container, unless the test says otherwise.
    pub fn is_batch(&self) -> bool {
        self.elsewhere.as_ref().is_some_and(|elsewhere| elsewhere.is_batch)
    }

    /// Returns the folder of the trial's runs.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Returns the path of a file that belongs to the test.
    pub fn file(&self, name: &str) -> PathBuf {
        match self.elsewhere {
            None => self.folder.path().join(name),
            // Functions see only this folder.
            Some(_) => self.home().join(name),
        }
    }

    /// Returns the path at which functions see a file of the test.
    ///
    /// # Panics
    /// If the file does not belong to the test.
    pub fn seen(&self, file: &Path) -> PathBuf {
        match &self.elsewhere {
            None => file.to_owned(),
            Some(elsewhere) => elsewhere.home.join(file.strip_prefix(self.home()).expect("a file of the test")),
        }
    }

    /// Returns the containers of this run, running or not, or the processes of its jobs; none if items run on this
    /// machine.
    pub fn containers(&self, run: &str) -> Vec<String> {
        match self.elsewhere.as_ref().map(|elsewhere| &elsewhere.jobs) {
            None => Vec::new(),
            Some(Jobs::Containers(docker, filter)) => {
                let mut list = docker.command();
                list.args(["ps", "-aq", "--filter", &filter.replace("{run}", run)]);
                crate::counterparts::run(&mut list).lines().map(str::to_owned).collect()
            }
            Some(Jobs::Processes(begins)) => {
                let begins = format!("{ENV_JOB}={}", begins.replace("{run}", run));
                processes_with(begins.as_bytes()).iter().map(ToString::to_string).collect()
            }
        }
    }

    /// Sends a signal to the job of this run whose container name ends with `end`, as soon as the job runs.
    ///
    /// # Panics
    /// If no such job starts in time, or if items run on this machine.
    pub fn signal(&self, run: &str, end: &str, signal: rustix::process::Signal) {
        match &self.elsewhere.as_ref().expect("items run in jobs").jobs {
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
                    containers.find(|(_, name)| name.ends_with(end)).map(|(id, _)| id.to_owned())
                });
                let signal = signal.as_raw().to_string();
                crate::counterparts::run(docker.command().args(["kill", "--signal", &signal, &container]));
            }
            Jobs::Processes(begins) => {
                let begins = format!("{ENV_JOB}={}", begins.replace("{run}", run));
                // The job itself leads a session, like the first process of a container.
                let leads = |&pid: &i32| {
                    let pid = rustix::process::Pid::from_raw(pid);
                    pid.is_some_and(|pid| rustix::process::getsid(Some(pid)) == Ok(pid))
                };
                let is_meant = |name: &[u8]| name.starts_with(begins.as_bytes()) && name.ends_with(end.as_bytes());
                let process = wait_for("the process to run", || {
                    processes_where(|variables| variables.split(|&byte| byte == 0).any(is_meant))
                        .into_iter()
                        .find(leads)
                });
                kill(process, signal);
            }
        }
    }

    /// Returns the stored files of all runs.
    pub fn kept(&self) -> Vec<PathBuf> {
        files(&self.record().join("knots"))
    }

    /// Returns the folder in which runs are stored.
    fn record(&self) -> PathBuf {
        let elsewhere = self.elsewhere.as_ref().and_then(|elsewhere| elsewhere.record.clone());
        elsewhere.unwrap_or_else(|| self.home())
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
        command.envs(self.elsewhere.iter().flat_map(|elsewhere| elsewhere.env.clone()));
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

    /// Maps, and waits for the end of the run.
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
    pub fn stored(&self, run: &str, what: &str) -> Vec<PathBuf> {
        files(&self.run(run).join(what))
    }

    /// Returns the folder of a run.
    pub fn run(&self, run: &str) -> PathBuf {
        let knots = self.record().join("knots");
        // There is at most one: each trial has its own record.
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
            first.parse().expect("a number")..=last.parse().expect("a number")
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

    /// Waits until none of these processes is left. Requires `/proc`.
    ///
    /// # Panics
    /// If some are still there after a long time.
    pub fn wait_until_gone(&self) {
        wait_for("all processes to be gone", || self.processes().is_empty().then_some(()));
    }
}

impl Drop for Trial {
    /// Ensures that a failed test leaves nothing running.
    fn drop(&mut self) {
        for pid in self.processes() {
            kill(pid, rustix::process::Signal::KILL);
        }
        if let Some(End(end)) = self.elsewhere.as_ref().and_then(|elsewhere| elsewhere.end.as_ref()) {
            end();
        }
    }
}

/// Returns the processes of this machine whose environment contains this.
fn processes_with(part: &[u8]) -> Vec<i32> {
    processes_where(|variables| variables.windows(part.len()).any(|window| window == part))
}

/// Returns the processes of this machine whose environment at their start satisfies `is_like`. The environment is a
/// sequence of variables, each followed by a zero byte.
fn processes_where(is_like: impl Fn(&[u8]) -> bool) -> Vec<i32> {
    let is_one = |pid: &i32| is_like(&std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default());
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}

/// Running trial program.
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

    /// Returns the facts printed so far.
    pub fn facts(&self) -> Vec<Fact> {
        facts(&std::fs::read(&self.stdout).unwrap_or_default())
    }

    /// Waits for the run's ID, and returns it.
    pub fn run(&self) -> String {
        wait_for("the run's id", || run_of(&self.facts()))
    }

    /// Waits until the program ends.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn end(self) -> Output {
        self.end_after(AT_MOST)
    }

    /// Like [`Running::end`], with this time limit.
    ///
    /// # Panics
    /// If it does not end within this time.
    pub fn end_after(mut self, at_most: Duration) -> Output {
        let end = || self.child.try_wait().expect("it can be waited for");
        let status = wait_at_most(at_most, "the trial to end", end);
        let read = |path: &Path| std::fs::read(path).unwrap_or_default();
        Output { status, stdout: read(&self.stdout), stderr: read(&self.stderr) }
    }

    /// Kills the program with SIGKILL, and waits for it.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        let status = self.child.wait().expect("it can be waited for");
        assert_eq!(status.signal(), Some(9), "it ended before it could be killed");
    }

    /// Returns whether the program still runs.
    pub fn goes_on(&mut self) -> bool {
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

/// Waits until `look` returns a value.
///
/// # Panics
/// If it returns none for a long time.
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_at_most(AT_MOST, what, look)
}

fn wait_at_most<T>(at_most: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < at_most, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
