//! Stands between a program and moto: writes down every request, and does to it what networks and busy services do.
//!
//! The program is given [`Recorder::url`] as `AWS_ENDPOINT_URL`. What it sends reaches moto unchanged, unless the test has
//! said otherwise. [`Recorder::validate`] then holds all of it against AWS's own models.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::sync::{Notify, oneshot};

use crate::moto;
use crate::random::Random;

mod answers;
mod drops;
mod serve;

pub use drops::{DropAt, drop_at};

const PATIENCE: Duration = Duration::from_mins(5);

/// The recorder; it stops when it is dropped, and its file is gone then.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    folder: TempDir,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the test and the requests have in common.
#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    plan: Mutex<Plan>,
    /// Another request is held or let through, or one of them is at its end.
    changed: Condvar,
    /// Another request is held.
    held: Notify,
    /// Those that are held may go on.
    go_on: Notify,
    file: Mutex<File>,
}

/// What is to happen to the requests that come.
#[derive(Default)]
struct Plan {
    arrived: u64,
    instead: Option<Arc<Script>>,
    mishaps: VecDeque<Mishap>,
    delay: Duration,
    weather: Option<Weather>,
    /// How many more are let through, if there is a limit; the others are held.
    left: Option<u64>,
    held: usize,
    /// Nothing is let through any more.
    is_cut_off: bool,
    /// The numbers of requests that were let through, and of those among them that have not ended.
    passed: u64,
    passing: usize,
}

/// The decision on a request that has arrived.
enum Admission {
    Pass,
    Hold,
    CutOff,
}

/// What the program is told, in place of what moto says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instead {
    /// The request does not reach moto, and is answered with this status and body.
    Answer(u16, String),
    /// The request reaches moto, and wherever its answer has the first text, the program gets the second.
    Change(String, String),
}

type Script = dyn Fn(&Seen) -> Option<Instead> + Send + Sync;

/// What happens to one request, in place of what should.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mishap {
    Instead(Instead),
    /// It does not reach moto, and is answered with this status and error code.
    Answer(u16, String),
    /// It reaches moto, but the connection ends before the answer.
    Cut,
}

/// A request as it stands in the file: a line of JSON each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    /// Counted from 1, as they arrived.
    pub number: u64,
    /// Such as `POST`.
    pub method: String,
    /// Still percent-encoded.
    pub path: String,
    /// What is after the question mark, still percent-encoded.
    pub query: String,
    /// Names are in lower case.
    pub headers: Vec<(String, String)>,
    /// Where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Where it is not, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_hex: Option<String>,
    /// As it signs itself, such as `batch`; empty for a request that is not signed.
    pub service: String,
    /// What the program was answered, or would have been, had the connection not been cut. None if it never came so far.
    pub status: Option<u16>,
    /// The mishap that it met: `held`, `cut`, `cut off`, `answered 503 SlowDown`.
    pub mishap: Option<String>,
}

impl Seen {
    /// What was asked for: the service and the operation, such as `cloudformation CreateStack`; where the request does
    /// not name one, its method and path.
    pub fn operation(&self) -> String {
        let header = self.headers.iter().find(|(name, _)| name == "x-amz-target").map(|(_, value)| value.as_str());
        let target = header.and_then(|value| value.rsplit('.').next());
        let body = self.body.as_deref().unwrap_or_default();
        let field = |text: &str, name: &str| {
            let mut pairs = text.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        let named = target.map(str::to_owned).or_else(|| field(&self.query, "x-id"));
        let named = named.or_else(|| field(&self.query, "Action")).or_else(|| field(body, "Action"));
        format!("{} {}", self.service, named.unwrap_or_else(|| format!("{} {}", self.method, self.path)))
    }
}

impl Recorder {
    /// A recorder in front of what is at this address, such as [`crate::moto::Moto::url`].
    ///
    /// # Panics
    /// If the address is not `http://` with an IP address and a port, or there is no free port.
    pub fn before(url: &str) -> Self {
        let upstream = url.strip_prefix("http://").and_then(|address| address.parse().ok());
        let upstream = upstream.unwrap_or_else(|| panic!("`{url}` is not http:// with an IP address and a port"));
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        let file = File::create(folder.path().join("requests.jsonl")).expect("a new folder can be written to");
        let state = Arc::new(State {
            upstream,
            plan: Mutex::default(),
            changed: Condvar::new(),
            held: Notify::new(),
            go_on: Notify::new(),
            file: Mutex::new(file),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        // A thread of its own: a test that waits for a process holds up none of its requests.
        let thread = thread::spawn(move || serve::run(listener, shared, stopped));
        Self { address, folder, state, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it is, as in `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The file with a line for each request that has ended; those that are held are not in it yet.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("requests.jsonl")
    }

    /// The requests that have ended, in the order in which they came.
    ///
    /// # Panics
    /// If the file cannot be read.
    pub fn requests(&self) -> Vec<Seen> {
        // No line is half written while this is held.
        let _file = lock(&self.state.file);
        let text = fs::read_to_string(self.file()).expect("the recorder's file can be read");
        let read = |line| serde_json::from_str(line).expect("the recorder has written a request");
        let mut requests: Vec<Seen> = text.lines().map(read).collect();
        requests.sort_by_key(|request| request.number);
        requests
    }

    /// [`Seen::operation`] of each of them.
    ///
    /// # Panics
    /// If the file cannot be read.
    pub fn operations(&self) -> Vec<String> {
        self.requests().iter().map(Seen::operation).collect()
    }

    /// The next requests do not reach moto, but are answered with this status and this error code, in the words of the
    /// service that was asked. Comes after what was asked for before.
    pub fn fail_next(&self, requests: usize, status: u16, code: &str) {
        let mishap = Mishap::Answer(status, code.to_owned());
        self.plan().mishaps.extend(std::iter::repeat_n(mishap, requests));
    }

    /// The next requests reach moto, but the connection ends before the answer. Comes after what was asked for before.
    pub fn cut_next(&self, requests: usize) {
        self.plan().mishaps.extend(std::iter::repeat_n(Mishap::Cut, requests));
    }

    /// From now on the program is told what this says, for the requests of which it says something: what moto cannot be
    /// brought to say. In place of what was asked for in this way before.
    pub fn instead(&self, script: impl Fn(&Seen) -> Option<Instead> + Send + Sync + 'static) {
        self.plan().instead = Some(Arc::new(script));
    }

    /// From now on the program is told what moto says.
    pub fn as_it_is(&self) {
        self.plan().instead = None;
    }

    /// From now on every request waits for so long before it goes on to moto.
    pub fn delay(&self, delay: Duration) {
        self.plan().delay = delay;
    }

    /// From now on so many in a hundred requests are answered 429, 500 or 503 or have their answer cut off. The seed
    /// decides which: the same for the same order of requests. With 0 the weather is fine again.
    pub fn weather(&self, seed: u64, percent: u64) {
        self.plan().weather = (percent > 0).then(|| Weather { random: Random::new(seed), percent });
    }

    /// Lets so many requests through, and holds those that come after them, without an answer, until [`Recorder::go_on`].
    /// One whose program dies meanwhile never reaches moto.
    pub fn stop_after(&self, requests: u64) {
        self.plan().left = Some(requests);
        // What is held may be let through by the new limit.
        self.state.go_on.notify_waiters();
    }

    /// Lets through what is held and all that comes.
    pub fn go_on(&self) {
        self.plan().left = None;
        self.state.go_on.notify_waiters();
    }

    /// Lets nothing more through: a request that is held, and each that comes, has its connection cut and never reaches moto.
    /// Returns when those that were let through before are at their end, so that nothing changes in moto after that.
    ///
    /// # Panics
    /// If moto does not answer one of those for minutes.
    pub fn cut_off(&self) {
        self.plan().is_cut_off = true;
        self.state.go_on.notify_waiters();
        let waited = self.state.changed.wait_timeout_while(self.plan(), PATIENCE, |plan| plan.passing > 0);
        let (plan, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert_eq!(plan.passing, 0, "moto did not answer what it was asked");
    }

    /// The number of requests so far that were neither held nor cut off.
    pub fn passed(&self) -> u64 {
        self.plan().passed
    }

    /// Waits until a request is held.
    ///
    /// # Panics
    /// If none is within minutes.
    pub fn wait_until_held(&self) {
        let nothing = |plan: &mut Plan| plan.held == 0;
        let waited = self.state.changed.wait_timeout_while(self.plan(), PATIENCE, nothing);
        let (plan, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(plan.held > 0, "no request came that could be held");
    }

    /// Waits until a request is held, and says `true`; or until this process has ended, and says `false`.
    ///
    /// # Panics
    /// If neither is so within minutes, or the process cannot be looked at.
    pub fn is_held_before_the_end_of(&self, process: &mut Child) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.plan().held > 0 {
                return true;
            }
            if process.try_wait().expect("a child can be waited for").is_some() {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the process neither ended nor sent a request that could be held");
    }

    /// Checks every request so far, member by member, against the services' own models. Returns what there was to say of
    /// them: warnings, and how many they were.
    ///
    /// # Panics
    /// If there is one that the models do not allow; with what is wrong. If there was none at all. If moto is not
    /// installed.
    pub fn validate(&self) -> String {
        assert!(!self.requests().is_empty(), "no request came to the recorder");
        let python = moto::python().expect("moto is installed where it has been started");
        let mut command = Command::new(python);
        command.arg("-B").arg(moto::scripts().join("validate.py")).arg(self.file());
        let Output { status, stdout, stderr } = command.output().expect("Python can be started");
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "AWS would not take what was sent:\n{stdout}{stderr}");
        stdout.into_owned()
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        lock(&self.state.plan)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say that would still matter.
            let _ = thread.join();
        }
    }
}

impl State {
    /// The number of a request that has arrived.
    fn arrives(&self) -> u64 {
        let mut plan = lock(&self.plan);
        plan.arrived += 1;
        plan.arrived
    }

    /// Waits for as long as the request is held and delayed, and returns what is to happen to it then; `None` if it is cut
    /// off. It counts as passing until the guard is dropped.
    async fn admit(self: &Arc<Self>, seen: &Seen) -> Option<(Passing, Option<Mishap>)> {
        let mut held = None;
        let passing = loop {
            // Before the plan is looked at: what changes after that is then not missed.
            let changed = self.go_on.notified();
            let admission = lock(&self.plan).admit();
            match admission {
                Admission::Pass => break Passing(Arc::clone(self)),
                Admission::CutOff => return None,
                Admission::Hold => {}
            }
            held.get_or_insert_with(|| Held::new(self));
            changed.await;
        };
        drop(held);
        let (delay, mishap) = {
            let mut plan = lock(&self.plan);
            (plan.delay, plan.mishap(seen))
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Some((passing, mishap))
    }

    fn write(&self, seen: &Seen) {
        let mut line = serde_json::to_string(seen).expect("a request is texts and numbers");
        line.push('\n');
        // The folder is there for as long as the recorder is, and nobody asks after that.
        let _ = lock(&self.file).write_all(line.as_bytes());
    }
}

impl Plan {
    fn admit(&mut self) -> Admission {
        if self.is_cut_off {
            return Admission::CutOff;
        }
        match &mut self.left {
            Some(0) => return Admission::Hold,
            Some(left) => *left -= 1,
            None => {}
        }
        self.passed += 1;
        self.passing += 1;
        Admission::Pass
    }

    fn mishap(&mut self, seen: &Seen) -> Option<Mishap> {
        let mishap = self.mishaps.pop_front().or_else(|| self.weather.as_mut()?.strikes(&seen.service));
        mishap.or_else(|| self.instead.as_ref()?(seen).map(Mishap::Instead))
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("arrived", &self.arrived).field("held", &self.held).finish_non_exhaustive()
    }
}

/// Counts a request as held, for as long as it is: the program at its other end may die meanwhile.
struct Held<'a>(&'a State);

impl<'a> Held<'a> {
    fn new(state: &'a State) -> Self {
        lock(&state.plan).held += 1;
        state.changed.notify_all();
        state.held.notify_waiters();
        Self(state)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        lock(&self.0.plan).held -= 1;
        self.0.changed.notify_all();
    }
}

/// Counts a request as passing that was let through, until it is at its end.
#[derive(Debug)]
struct Passing(Arc<State>);

impl Drop for Passing {
    fn drop(&mut self) {
        lock(&self.0.plan).passing -= 1;
        self.0.changed.notify_all();
    }
}

/// Requests that go wrong by chance, and yet the same ones each time.
#[derive(Debug)]
struct Weather {
    random: Random,
    percent: u64,
}

impl Weather {
    fn strikes(&mut self, service: &str) -> Option<Mishap> {
        if self.random.below(100) >= self.percent {
            return None;
        }
        let answer = |status, code: &str| Some(Mishap::Answer(status, code.to_owned()));
        match (self.random.below(4), service) {
            (0 | 1, "s3") => answer(503, "SlowDown"),
            (0, _) => answer(429, "TooManyRequestsException"),
            (1, _) => answer(503, "ServiceUnavailable"),
            (2, _) => answer(500, "InternalError"),
            _ => Some(Mishap::Cut),
        }
    }
}

/// A test that panicked leaves a state that is whole: each change to it is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
