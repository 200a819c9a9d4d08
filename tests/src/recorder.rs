//! Proxy between a program and moto that records every request, and injects the faults of networks and busy services.
//!
//! The program is given [`Recorder::url`] as `AWS_ENDPOINT_URL`. Its requests reach moto unchanged, unless the test
//! injects a fault. [`Recorder::validate`] then checks all of them against AWS's own models.

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

mod drops;
mod responses;
mod serve;

pub use drops::{DropAt, drop_at};

/// Maximum time to wait for a request. Not a measure of speed: a test that waits this long has failed.
const TIMEOUT: Duration = Duration::from_mins(5);

/// Recording proxy. It stops, and its file is removed, when it is dropped.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    folder: TempDir,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// State shared by the test and the requests.
#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    plan: Mutex<Plan>,
    /// Notified when another request is held or let through, or when one of them ends.
    changed: Condvar,
    /// Notified when another request is held.
    held: Notify,
    /// Notified when held requests may continue.
    go_on: Notify,
    file: Mutex<File>,
}

/// Plan for the requests to come.
#[derive(Default)]
struct Plan {
    arrived: u64,
    response_override: Option<Arc<Script>>,
    next_faults: VecDeque<Fault>,
    delay: Duration,
    random_faults: Option<RandomFaults>,
    /// Number of requests to let through before further ones are held; `None` without a limit.
    remaining: Option<u64>,
    held: usize,
    /// `true` once no further request is let through.
    is_cut_off: bool,
    /// Number of requests that were let through.
    passed: u64,
    /// Number of requests that were let through and have not ended.
    in_flight: usize,
}

/// Decision on a request that has arrived.
enum Decision {
    Pass,
    Hold,
    CutOff,
}

/// Replacement for a response from moto.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseOverride {
    /// The request does not reach moto, and gets a response with this status and body.
    Respond(u16, String),
    /// The request reaches moto. In the response, the first string is replaced by the second.
    Change(String, String),
}

type Script = dyn Fn(&RecordedRequest) -> Option<ResponseOverride> + Send + Sync;

/// Fault injected into one request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    Override(ResponseOverride),
    /// The request does not reach moto, and gets a response with this status and error code.
    Respond(u16, String),
    /// The request reaches moto, but the connection is cut before the response.
    Cut,
}

/// Recorded request, stored as one line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordedRequest {
    /// Number of the request in the order of arrival, from 1.
    pub number: u64,
    /// HTTP method, such as `POST`.
    pub method: String,
    /// Path, still percent-encoded.
    pub path: String,
    /// Query without its question mark, still percent-encoded.
    pub query: String,
    /// Headers, with their names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Body in hexadecimal, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_hex: Option<String>,
    /// Service for which the request is signed, such as `batch`; empty if it is not signed.
    pub service: String,
    /// Status of the response, even if the connection was cut before the program received it; `None` if there was no
    /// response.
    pub status: Option<u16>,
    /// Fault that was injected, such as `held`, `cut`, `cut off` or `answered 503 SlowDown`.
    pub fault: Option<String>,
}

impl RecordedRequest {
    /// Returns the service and the operation, such as `cloudformation CreateStack`; if the request names no operation,
    /// its method and path.
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
    /// Creates a recorder in front of this address, such as [`crate::moto::Moto::url`].
    ///
    /// # Panics
    /// If the address is not `http://` with an IP address and a port, or if no port is free.
    pub fn before(url: &str) -> Self {
        let upstream = url.strip_prefix("http://").and_then(|address| address.parse().ok());
        let upstream = upstream.unwrap_or_else(|| panic!("`{url}` is not http:// with an IP address and a port"));
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        let file = File::create(folder.path().join("requests.jsonl")).expect("a new folder can be written to");
        let state = Arc::new(State {
            upstream,
            plan: Mutex::default(),
            changed: Condvar::new(),
            held: Notify::new(),
            go_on: Notify::new(),
            file: Mutex::new(file),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        // A separate thread, so that a test that waits for a process does not delay the requests.
        let thread = thread::spawn(move || serve::run(listener, shared, stopped));
        Self { address, folder, state, stop: Some(stop), thread: Some(thread) }
    }

    /// Returns the recorder's URL, for `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the file with a line for each request that has ended. Held requests are not in it yet.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("requests.jsonl")
    }

    /// Returns the requests that have ended, in the order of their arrival.
    ///
    /// # Panics
    /// If the file cannot be read.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        // No line is written partially while this lock is held.
        let _file = lock(&self.state.file);
        let text = fs::read_to_string(self.file()).expect("the recorder's file can be read");
        let read = |line| serde_json::from_str(line).expect("each line is a request");
        let mut requests: Vec<RecordedRequest> = text.lines().map(read).collect();
        requests.sort_by_key(|request| request.number);
        requests
    }

    /// Returns the [`RecordedRequest::operation`] of each request that has ended.
    ///
    /// # Panics
    /// If the file cannot be read.
    pub fn operations(&self) -> Vec<String> {
        self.requests().iter().map(RecordedRequest::operation).collect()
    }

    /// Responds to the next requests with this status and error code, in the format of the requested service, instead of
    /// passing them to moto. Takes effect after the faults that were requested before.
    pub fn fail_next(&self, requests: usize, status: u16, code: &str) {
        let fault = Fault::Respond(status, code.to_owned());
        self.plan().next_faults.extend(std::iter::repeat_n(fault, requests));
    }

    /// Passes the next requests to moto, but cuts the connection before the response. Takes effect after the faults that
    /// were requested before.
    pub fn cut_next(&self, requests: usize) {
        self.plan().next_faults.extend(std::iter::repeat_n(Fault::Cut, requests));
    }

    /// From now on, overrides the responses to the requests for which the script returns an override, to produce responses
    /// that moto cannot. Replaces the previous script.
    pub fn override_responses(
        &self,
        script: impl Fn(&RecordedRequest) -> Option<ResponseOverride> + Send + Sync + 'static,
    ) {
        self.plan().response_override = Some(Arc::new(script));
    }

    /// Removes the script, so that the program receives moto's responses again.
    pub fn clear_override(&self) {
        self.plan().response_override = None;
    }

    /// From now on, delays every request by this time before it is passed to moto.
    pub fn delay(&self, delay: Duration) {
        self.plan().delay = delay;
    }

    /// From now on, injects faults into this percentage of the requests: a response with status 429, 500 or 503, or a connection
    /// that is cut before the response. The seed determines the affected requests: the same ones for the same order of
    /// requests. 0 ends the fault injection.
    pub fn inject_faults(&self, seed: u64, percent: u64) {
        self.plan().random_faults = (percent > 0).then(|| RandomFaults { random: Random::new(seed), percent });
    }

    /// Lets this many requests through, and holds those that come after them, without a response, until
    /// [`Recorder::go_on`]. A held request whose program dies never reaches moto.
    pub fn stop_after(&self, requests: u64) {
        self.plan().remaining = Some(requests);
        // The new limit may let held requests through.
        self.state.go_on.notify_waiters();
    }

    /// Lets through all requests, including the held ones.
    pub fn go_on(&self) {
        self.plan().remaining = None;
        self.state.go_on.notify_waiters();
    }

    /// Lets no further request through: held and new requests have their connection cut, and never reach moto. Returns
    /// when the requests that were let through before have ended, so that nothing changes in moto afterwards.
    ///
    /// # Panics
    /// If moto does not respond to one of those within minutes.
    pub fn cut_off(&self) {
        self.plan().is_cut_off = true;
        self.state.go_on.notify_waiters();
        let waited = self.state.changed.wait_timeout_while(self.plan(), TIMEOUT, |plan| plan.in_flight > 0);
        let (plan, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert_eq!(plan.in_flight, 0, "moto did not respond to a request");
    }

    /// Returns the number of requests so far that were neither held nor cut off.
    pub fn passed(&self) -> u64 {
        self.plan().passed
    }

    /// Waits until a request is held.
    ///
    /// # Panics
    /// If none is held within minutes.
    pub fn wait_until_held(&self) {
        let none_held = |plan: &mut Plan| plan.held == 0;
        let waited = self.state.changed.wait_timeout_while(self.plan(), TIMEOUT, none_held);
        let (plan, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(plan.held > 0, "no request arrived that could be held");
    }

    /// Waits until a request is held, and returns `true`; or until this process has ended, and returns `false`.
    ///
    /// # Panics
    /// If neither happens within minutes, or if the process cannot be waited for.
    pub fn is_held_before_exit(&self, process: &mut Child) -> bool {
        let start = Instant::now();
        while start.elapsed() < TIMEOUT {
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

    /// Checks every request so far, member by member, against the services' own models. Returns the warnings and their
    /// number.
    ///
    /// # Panics
    /// If a request violates the models, with the reason. If no request was recorded. If moto is not installed.
    pub fn validate(&self) -> String {
        assert!(!self.requests().is_empty(), "the recorder received no request");
        let python = moto::python().expect("moto is installed if a server was started");
        let mut command = Command::new(python);
        command.arg("-B").arg(moto::scripts().join("validate.py")).arg(self.file());
        let Output { status, stdout, stderr } = command.output().expect("Python can be started");
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "AWS would reject a recorded request:\n{stdout}{stderr}");
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
            // The result of the thread does not matter any more.
            let _ = thread.join();
        }
    }
}

impl State {
    /// Counts a request that has arrived, and returns its number.
    fn arrives(&self) -> u64 {
        let mut plan = lock(&self.plan);
        plan.arrived += 1;
        plan.arrived
    }

    /// Waits while the request is held and delayed, and returns the fault to inject into it; `None` if it is cut off.
    /// The request counts as in flight until the guard is dropped.
    async fn wait_while_held(self: &Arc<Self>, request: &RecordedRequest) -> Option<(InFlight, Option<Fault>)> {
        let mut held = None;
        let in_flight = loop {
            // Registered before the plan is inspected, so that no later change is missed.
            let changed = self.go_on.notified();
            let decision = lock(&self.plan).decide();
            match decision {
                Decision::Pass => break InFlight(Arc::clone(self)),
                Decision::CutOff => return None,
                Decision::Hold => {}
            }
            held.get_or_insert_with(|| HeldRequest::new(self));
            changed.await;
        };
        drop(held);
        let (delay, fault) = {
            let mut plan = lock(&self.plan);
            (plan.delay, plan.fault_for(request))
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Some((in_flight, fault))
    }

    fn write(&self, request: &RecordedRequest) {
        let mut line = serde_json::to_string(request).expect("a request serializes to JSON");
        line.push('\n');
        // The folder exists as long as the recorder, and the file is not read afterwards.
        let _ = lock(&self.file).write_all(line.as_bytes());
    }
}

impl Plan {
    fn decide(&mut self) -> Decision {
        if self.is_cut_off {
            return Decision::CutOff;
        }
        match &mut self.remaining {
            Some(0) => return Decision::Hold,
            Some(remaining) => *remaining -= 1,
            None => {}
        }
        self.passed += 1;
        self.in_flight += 1;
        Decision::Pass
    }

    fn fault_for(&mut self, request: &RecordedRequest) -> Option<Fault> {
        let fault = self.next_faults.pop_front().or_else(|| self.random_faults.as_mut()?.fault_for(&request.service));
        fault.or_else(|| self.response_override.as_ref()?(request).map(Fault::Override))
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("arrived", &self.arrived).field("held", &self.held).finish_non_exhaustive()
    }
}

/// Counts a request as held until this value is dropped: the program at the other end may die meanwhile.
struct HeldRequest<'a>(&'a State);

impl<'a> HeldRequest<'a> {
    fn new(state: &'a State) -> Self {
        lock(&state.plan).held += 1;
        state.changed.notify_all();
        state.held.notify_waiters();
        Self(state)
    }
}

impl Drop for HeldRequest<'_> {
    fn drop(&mut self) {
        lock(&self.0.plan).held -= 1;
        self.0.changed.notify_all();
    }
}

/// Counts a request that was let through as in flight until it ends.
#[derive(Debug)]
struct InFlight(Arc<State>);

impl Drop for InFlight {
    fn drop(&mut self) {
        lock(&self.0.plan).in_flight -= 1;
        self.0.changed.notify_all();
    }
}

/// Pseudo-random fault injection: a seed always affects the same requests.
#[derive(Debug)]
struct RandomFaults {
    random: Random,
    percent: u64,
}

impl RandomFaults {
    fn fault_for(&mut self, service: &str) -> Option<Fault> {
        if self.random.below(100) >= self.percent {
            return None;
        }
        let respond = |status, code: &str| Some(Fault::Respond(status, code.to_owned()));
        match (self.random.below(4), service) {
            (0 | 1, "s3") => respond(503, "SlowDown"),
            (0, _) => respond(429, "TooManyRequestsException"),
            (1, _) => respond(503, "ServiceUnavailable"),
            (2, _) => respond(500, "InternalError"),
            _ => Some(Fault::Cut),
        }
    }
}

/// Locks a mutex even if a test panicked: each change to the state is a single step, so the state is consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
