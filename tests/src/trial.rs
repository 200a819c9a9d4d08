//! The trial: a program with remote functions that do all that a function can do, and how the tests speak to it. The
//! program is `src/bin/trial.rs`; this is what both sides know. Nothing here asks cloudknot anything.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::counterparts::Docker;

/// What one item is asked to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Task {
    /// Twice this.
    Double(u64),
    /// Panics with this message.
    Panic(String),
    /// A thread that it starts panics; it joins it and unwraps.
    PanicInThread,
    /// A thread that it starts panics; it passes that on as it came, as rayon does.
    PanicPassedOn,
    /// Catches a panic of its own, and goes on.
    Caught(u64),
    /// An error with these causes, outermost first.
    Fail(Vec<String>),
    /// Aborts.
    Abort,
    /// Writes to an address that is not there.
    Segfault,
    /// Calls itself for ever.
    Overflow,
    /// Exits with this code.
    Exit(i32),
    /// Is killed with SIGKILL.
    Kill,
    /// Asks for more memory than there is.
    Allocate,
    /// Sleeps so many milliseconds, then gives the value.
    Sleep(u64, u64),
    /// Prints to stdout and to stderr, then does what follows.
    Print(String, String, Box<Self>),
    /// Appends the number to a file, sleeps so many milliseconds, and gives the number.
    Count(PathBuf, u64, u64),
    /// The same, and fails until it has been tried so often.
    Until(PathBuf, u64, usize),
    /// The number in this environment variable.
    Env(String),
    /// Leaves a process behind that holds all that it inherits, and dies.
    Fork,
    /// Starts a program that sleeps for long, and waits for it.
    Child,
    /// Ends well, and leaves a thread that ends the process when nothing runs any more.
    DieLater,
    /// Maps inside of itself: 1 if that is refused.
    Nested,
    /// How many milliseconds it still has; an error if nothing ends it.
    Deadline,
    /// Appends the number to the first file, waits until the second one is there, and gives the number.
    Wait(PathBuf, u64, PathBuf),
    /// Waits until the file is there, then does what follows.
    After(PathBuf, Box<Self>),
}

/// A map, as the tests ask for it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Spec {
    /// The inputs.
    pub tasks: Vec<Task>,
    /// `.chunk(..)`.
    pub chunk: Option<u64>,
    /// `.parallel(..)`.
    pub parallel: Option<u32>,
    /// `.retries(..)`.
    pub retries: Option<u32>,
    /// `.timeout(..)`.
    pub timeout_ms: Option<u64>,
    /// `.max_failures(..)`.
    pub max_failures: Option<u64>,
    /// `.env(..)`.
    pub env: BTreeMap<String, String>,
    /// `.tag(..)`.
    pub tags: BTreeMap<String, String>,
    /// `.vcpus(..)`.
    #[serde(default)]
    pub vcpus: Option<f64>,
    /// `.memory(..)`.
    #[serde(default)]
    pub memory: Option<String>,
    /// `.memory_on_retry(..)`.
    #[serde(default)]
    pub memory_on_retry: Option<String>,
    /// `.gpus(..)`.
    #[serde(default)]
    pub gpus: Option<u32>,
    /// `.independent()`.
    #[serde(default)]
    pub independent: bool,
}

impl Spec {
    /// A map of these tasks without options.
    pub fn of(tasks: impl IntoIterator<Item = Task>) -> Self {
        Self { tasks: tasks.into_iter().collect(), ..Self::default() }
    }
}

/// One line of what the trial prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    /// The run's id; printed as soon as it is known.
    Run(String),
    /// An item has this value.
    Value(usize, u64),
    /// An item has none.
    Failed(usize, Box<Failed>),
    /// Items: succeeded, failed, running, waiting, left; and whether the run is finished.
    Status([u64; 5], bool),
    /// An error: its kind, and what `main` would print.
    Error(String, String),
    /// Anything else that a scenario found.
    Found(String),
}

/// Why an item has no value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Failed {
    pub kind: String,
    pub message: String,
    pub chain: Vec<String>,
    pub place: Option<String>,
    pub backtrace: Option<String>,
    pub attempt: u32,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub log: String,
}

/// The trial program, with a folder of its own for its runs.
#[derive(Debug)]
pub struct Trial {
    program: PathBuf,
    folder: tempfile::TempDir,
    elsewhere: Option<Elsewhere>,
}

/// Where its items run, if not in processes of this machine.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    /// What the program is told of it.
    pub env: Vec<(String, String)>,
    /// Where a function finds the folder of the runs.
    pub home: PathBuf,
    /// The kind of its jobs.
    pub jobs: Jobs,
    /// Where runs are kept, if not in the folder.
    pub record: Option<PathBuf>,
    /// Whose each item is a container of its own, where the test does not say otherwise.
    pub is_batch: bool,
    /// Ends what a test has left running.
    pub end: Option<End>,
}

/// The kind of jobs, and the way to find those of a run: `{run}` is its id.
#[derive(Debug, Clone)]
pub enum Jobs {
    /// Containers of this engine, by this filter.
    Containers(Arc<Docker>, String),
    /// Processes of this machine, by the beginning of the name that their job's container would have.
    Processes(String),
}

/// The variable with that name, as moto gives it to processes that are jobs.
const ENV_JOB: &str = "CLOUDKNOT_TESTS_JOB";

/// What is called when a trial is over.
#[derive(Clone)]
pub struct End(pub Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("End")
    }
}

/// The trial of a suite that runs on several backends: `crate::trial()`, or the test ends where that is none.
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

/// How long anything is waited for that must come. Not a measure of speed: a test that waits so long has failed.
const AT_MOST: Duration = Duration::from_mins(5);

impl Trial {
    /// With a new folder. The program is `env!("CARGO_BIN_EXE_trial")`.
    ///
    /// # Panics
    /// Where there can be no temporary folder.
    pub fn new(program: &str) -> Self {
        Self { program: program.into(), folder: tempfile::tempdir().expect("a temporary folder"), elsewhere: None }
    }

    /// Its items run elsewhere.
    #[must_use]
    pub fn on(mut self, elsewhere: Elsewhere) -> Self {
        self.elsewhere = Some(elsewhere);
        self
    }

    /// Its items run in processes of this machine.
    pub fn is_local(&self) -> bool {
        self.elsewhere.is_none()
    }

    /// Each of its items is a container, where the test does not say otherwise.
    pub fn is_batch(&self) -> bool {
        self.elsewhere.as_ref().is_some_and(|elsewhere| elsewhere.is_batch)
    }

    /// The folder of its runs.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// A file that belongs to the test.
    pub fn file(&self, name: &str) -> PathBuf {
        match self.elsewhere {
            None => self.folder.path().join(name),
            // The one folder that functions see.
            Some(_) => self.home().join(name),
        }
    }

    /// Such a file as functions see it.
    ///
    /// # Panics
    /// Where it is not one of the test.
    pub fn seen(&self, file: &Path) -> PathBuf {
        match &self.elsewhere {
            None => file.to_owned(),
            Some(elsewhere) => elsewhere.home.join(file.strip_prefix(self.home()).expect("a file of the test")),
        }
    }

    /// The containers of this run that are there, running or not, or the processes that its jobs are; none on this machine.
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

    /// Sends a signal to the job of this run whose container's name ends like this, as soon as it runs.
    ///
    /// # Panics
    /// If there is none for long, or items run on this machine.
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
                // The job itself leads a session, as the first process of a container does.
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

    /// What is kept of all runs.
    pub fn kept(&self) -> Vec<PathBuf> {
        files(&self.record().join("knots"))
    }

    /// Where its runs are kept.
    fn record(&self) -> PathBuf {
        let elsewhere = self.elsewhere.as_ref().and_then(|elsewhere| elsewhere.record.clone());
        elsewhere.unwrap_or_else(|| self.home())
    }

    /// The program with these arguments, its runs in the folder, and without progress.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(&self.program, arguments)
    }

    /// The same for a copy of the program.
    pub fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("CLOUDKNOT_HOME", self.home()).env("CLOUDKNOT_PROGRESS", "off");
        for name in ["CLOUDKNOT_BACKEND", "RUST_BACKTRACE", "RUST_LIB_BACKTRACE"] {
            command.env_remove(name);
        }
        command.envs(self.elsewhere.iter().flat_map(|elsewhere| elsewhere.env.clone()));
        command
    }

    /// Runs it to its end, and checks that it exits with 0.
    ///
    /// # Panics
    /// Where it does not.
    pub fn facts(&self, arguments: &[&str]) -> Vec<Fact> {
        let output = self.command(arguments).output().expect("the trial starts");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        facts(&output.stdout)
    }

    /// Maps to the end.
    pub fn map(&self, spec: &Spec) -> Vec<Fact> {
        self.facts(&["map", &json(spec)])
    }

    /// Attaches to a run to the end.
    pub fn attach(&self, run: &str) -> Vec<Fact> {
        self.facts(&["attach", run])
    }

    /// Starts it; its stdout and stderr go to files.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments), self.folder.path())
    }

    /// The files of the folder with this path below a run: `results`, `failures`, …
    pub fn stored(&self, run: &str, what: &str) -> Vec<PathBuf> {
        files(&self.run(run).join(what))
    }

    /// The folder of a run.
    pub fn run(&self, run: &str) -> PathBuf {
        let knots = self.record().join("knots");
        // There is one at most: each trial has a record of its own.
        let knot = std::fs::read_dir(&knots).into_iter().flatten().flatten().next();
        knot.map_or_else(|| knots.join("cloudknot-tests"), |knot| knot.path()).join("runs").join(run)
    }

    /// The items that have a value in the store.
    ///
    /// # Panics
    /// Where a part has no name of a part.
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

    /// All processes that were started with this trial's folder: the program, its item processes and what they started.
    pub fn processes(&self) -> Vec<i32> {
        processes_with(self.home().as_os_str().as_encoded_bytes())
    }

    /// Waits until none of them is left. Only where there is `/proc`.
    ///
    /// # Panics
    /// Where some stay.
    pub fn wait_until_gone(&self) {
        wait_for("all processes to be gone", || self.processes().is_empty().then_some(()));
    }
}

impl Drop for Trial {
    /// A test that failed leaves nothing running.
    fn drop(&mut self) {
        for pid in self.processes() {
            kill(pid, rustix::process::Signal::KILL);
        }
        if let Some(End(end)) = self.elsewhere.as_ref().and_then(|elsewhere| elsewhere.end.as_ref()) {
            end();
        }
    }
}

/// The processes of this machine that have this in their environment.
fn processes_with(part: &[u8]) -> Vec<i32> {
    processes_where(|variables| variables.windows(part.len()).any(|window| window == part))
}

/// The processes of this machine whose environment, as it was when they were started, is like this: variables, each with a
/// zero behind it.
fn processes_where(is_like: impl Fn(&[u8]) -> bool) -> Vec<i32> {
    let is_one = |pid: &i32| is_like(&std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default());
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}

/// A trial that is running.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Starts the command; what it prints goes to files in this folder.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn start(mut command: Command, folder: &Path) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| folder.join(format!("{name}-{number}")));
        let file = |path| std::fs::File::create(path).expect("the folder of the test can be written");
        command.stdin(Stdio::null()).stdout(file(&stdout)).stderr(file(&stderr));
        Self { child: command.spawn().expect("the trial starts"), stdout, stderr }
    }

    /// Its process.
    ///
    /// # Panics
    /// Never: process ids are small.
    pub fn pid(&self) -> i32 {
        self.child.id().try_into().expect("a process id is a small number")
    }

    /// What it has printed so far.
    pub fn facts(&self) -> Vec<Fact> {
        facts(&std::fs::read(&self.stdout).unwrap_or_default())
    }

    /// Waits for the run's id.
    pub fn run(&self) -> String {
        wait_for("the run's id", || run_of(&self.facts()))
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// Where it does not.
    pub fn end(self) -> Output {
        self.end_after(AT_MOST)
    }

    /// The same for one that has more to do.
    ///
    /// # Panics
    /// Where it does not end in this time.
    pub fn end_after(mut self, at_most: Duration) -> Output {
        let end = || self.child.try_wait().expect("it can be waited for");
        let status = wait_at_most(at_most, "the trial to end", end);
        let read = |path: &Path| std::fs::read(path).unwrap_or_default();
        Output { status, stdout: read(&self.stdout), stderr: read(&self.stderr) }
    }

    /// Kills it with SIGKILL, and waits for it.
    ///
    /// # Panics
    /// Where it cannot be killed.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        let status = self.child.wait().expect("it can be waited for");
        assert_eq!(status.signal(), Some(9), "it ended before it could be killed");
    }

    /// Whether it goes on.
    pub fn goes_on(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed leaves nothing running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal; a process that is gone is as good.
pub fn kill(pid: i32, signal: rustix::process::Signal) {
    let _ = rustix::process::Pid::from_raw(pid).map(|pid| rustix::process::kill_process(pid, signal));
}

/// Waits until there is something.
///
/// # Panics
/// Where it does not come.
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

/// As JSON.
///
/// # Panics
/// Never: what the tests say is texts and numbers.
pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers are JSON")
}

/// The facts of what the trial printed; a line that has not ended is not one yet.
///
/// # Panics
/// Where a line is none: something else was printed on stdout.
pub fn facts(stdout: &[u8]) -> Vec<Fact> {
    let whole = stdout.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let text = std::str::from_utf8(&stdout[..whole]).expect("facts are text");
    let fact = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("`{line}` is no fact: {error}"));
    text.lines().map(fact).collect()
}

/// Prints a fact.
pub fn tell(fact: &Fact) {
    let mut stdout = std::io::stdout().lock();
    // There is nobody to tell where stdout is closed.
    let _ = writeln!(stdout, "{}", json(fact)).and_then(|()| stdout.flush());
}

/// The run's id.
pub fn run_of(facts: &[Fact]) -> Option<String> {
    facts.iter().find_map(|fact| if let Fact::Run(run) = fact { Some(run.clone()) } else { None })
}

/// The values in the order of their items; each item may be told once only.
///
/// # Panics
/// Where an item is told twice.
pub fn values(facts: &[Fact]) -> BTreeMap<usize, u64> {
    let mut values = BTreeMap::new();
    for fact in facts {
        if let Fact::Value(item, value) = fact {
            assert_eq!(values.insert(*item, *value), None, "item {item} was told twice");
        }
    }
    values
}

/// The failures in the order of their items; each item may be told once only.
///
/// # Panics
/// Where an item is told twice.
pub fn failures(facts: &[Fact]) -> BTreeMap<usize, Failed> {
    let mut failures = BTreeMap::new();
    for fact in facts {
        if let Fact::Failed(item, failed) = fact {
            assert_eq!(failures.insert(*item, (**failed).clone()), None, "item {item} was told twice");
        }
    }
    failures
}

/// The numbers that tasks appended to a file.
///
/// # Panics
/// Where it holds something else.
pub fn counted(file: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| line.parse().expect("a number")).collect()
}

/// All files below a folder, in order.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files.extend(self::files(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    files
}
