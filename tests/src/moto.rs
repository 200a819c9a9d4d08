//! Starts moto, which stands in for AWS: for its Batch, its stacks, roles and registries, its networks, S3 and logs.
//!
//! It is started by `tests/moto/server.py`, which says what of Batch is mended there. `tests/moto/install.sh` makes the
//! Python environment that it needs; `CLOUDKNOT_MOTO` is another one.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::counterparts::{Daemon, Docker};
use crate::shared::{one_of_this_process, shared};
use crate::skip::skipped;

/// The account that everything in it belongs to.
pub const ACCOUNT: &str = "123456789012";
/// The region that [`environment`] sets. What is in one region is not in another, here as there.
pub const REGION: &str = "eu-west-1";

/// What moto calls the states of a job.
const JOBS: &str = "batch::job";

/// What this package has for moto, beside its sources.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("moto")
}

/// The Python that has moto and botocore; none if it is not installed.
pub fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is in a workspace");
    let target = || root.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())).join("moto");
    let python = std::env::var_os("CLOUDKNOT_MOTO").map_or_else(target, PathBuf::from).join("bin/python");
    python.is_file().then_some(python)
}

/// What a program finds in its environment, so that it speaks to the AWS at this address and to no other, as nobody else.
pub fn environment(url: &str) -> [(&'static str, String); 8] {
    [
        ("AWS_ENDPOINT_URL", url.to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_DEFAULT_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", "AKIATEST".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "a-secret".to_owned()),
        ("AWS_CONFIG_FILE", "/nonexistent".to_owned()),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ]
}

/// A moto server; all that is in it is gone with it.
#[derive(Debug)]
pub struct Moto {
    address: SocketAddr,
    log: PathBuf,
    /// None if another program has made it and handed it over.
    _fork: Option<Fork>,
}

static MOTO: Mutex<Weak<Moto>> = Mutex::new(Weak::new());
static FORKS: Mutex<Weak<Forks>> = Mutex::new(Weak::new());

/// moto, started once and not a server yet: each server that is forked from it is there in no time, where Python and moto
/// take two seconds of CPU to start.
#[derive(Debug)]
pub struct Forks {
    socket: PathBuf,
    /// None if another program has started it and handed it over.
    _daemon: Option<Daemon>,
}

impl Forks {
    /// Returns the one that was handed over, else the one that the servers of this process share; it ends with the last of them.
    /// None if there can be none here.
    ///
    /// # Panics
    /// If it does not start, or can neither be had nor be skipped.
    pub fn get() -> Option<Arc<Self>> {
        one_of_this_process(&FORKS, || {
            let found = match shared() {
                Some(shared) => shared.moto_forks.clone().map(|socket| Self { socket, _daemon: None }),
                None => python().map(Self::start),
            };
            if found.is_none() {
                skipped("what needs moto", "it is not installed; tests/run.sh installs it");
            }
            found
        })
    }

    /// Starts Python and moto.
    fn start(python: PathBuf) -> Self {
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        let socket = folder.path().join("socket");
        let mut command = Command::new(python);
        command.arg("-B").arg(scripts().join("server.py")).arg("--forks").arg(&socket);
        command.env("MOTO_IAM_LOAD_MANAGED_POLICIES", "true");
        // Nothing here asks for them, and each reset would make a thousand.
        command.env("MOTO_EC2_LOAD_DEFAULT_AMIS", "false");
        // What it tells containers of itself, and what it is itself to make of the environment, is ours to say.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("AWS_")) {
                command.env_remove(name);
            }
        }
        let mut daemon = Daemon::start(&mut command, folder);
        let ready = daemon.wait(|| UnixStream::connect(&socket).is_ok());
        ready.unwrap_or_else(|why| panic!("moto did not start: {why}"));
        Self { socket, _daemon: Some(daemon) }
    }

    /// The Unix socket at which it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// A fork, which ends when this is dropped, or when this process ends.
#[derive(Debug)]
struct Fork {
    connection: UnixStream,
    folder: TempDir,
    _forks: Arc<Forks>,
}

impl Fork {
    /// Forks a server with this in its environment, and without what is none. Returns it, and the address at which it listens.
    fn new(forks: Arc<Forks>, environment: &BTreeMap<&str, Option<String>>) -> (Self, SocketAddr) {
        let connection = UnixStream::connect(&forks.socket).expect("moto is there to be forked");
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        let mut fork = Self { connection, folder, _forks: forks };
        let asked = json!({ "environment": environment, "log": fork.log_file() });
        writeln!(fork.connection, "{asked}").expect("moto listens");
        let mut port = String::new();
        BufReader::new(&fork.connection).read_line(&mut port).expect("moto says its port");
        let log = || std::fs::read_to_string(fork.log_file()).unwrap_or_default();
        let port = port.trim().parse().unwrap_or_else(|_| panic!("moto did not start: {}", log()));
        (fork, (Ipv4Addr::LOCALHOST, port).into())
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Fork {
    fn drop(&mut self) {
        // It has cleared away what it has started when it closes its end.
        let _ = self.connection.set_read_timeout(Some(Duration::from_secs(10)));
        let _ = self.connection.shutdown(Shutdown::Write);
        let _ = self.connection.read(&mut [0]);
    }
}

impl Moto {
    /// A new and empty one, without containers: a job that is submitted fails, unless it is a child process, or
    /// [`Moto::config`] says that jobs succeed at once. None if there can be none here.
    ///
    /// # Panics
    /// If it can neither be had nor be skipped.
    pub fn start() -> Option<Self> {
        // Whatever engine there is, this one is not to use it.
        Self::start_with([("DOCKER_HOST", Some("unix:///nonexistent".to_owned()))])
    }

    /// The one that the tests of this process share, for those that name what they make as nobody else does. It ends
    /// with the last of them.
    ///
    /// # Panics
    /// As [`Moto::start`].
    pub fn get() -> Option<Arc<Self>> {
        one_of_this_process(&MOTO, Self::start)
    }

    /// A new and empty one, whose jobs are containers of this engine, on the network of this machine. `config` is the
    /// folder with the credentials for its pulls, as in `DOCKER_CONFIG`.
    ///
    /// # Panics
    /// As [`Moto::start`].
    pub fn start_with_docker(docker: &Docker, config: &Path) -> Option<Self> {
        Self::start_with([("DOCKER_CONFIG", Some(text(config)))].into_iter().chain(jobs_in(docker)))
    }

    /// The same, whose containers share this folder of this machine. Without an engine, jobs can be processes only.
    ///
    /// # Panics
    /// As [`Moto::start`].
    pub fn start_with_folder(docker: Option<&Docker>, folder: &Path) -> Option<Self> {
        let Some(docker) = docker else { return Self::start() };
        Self::start_with([("CLOUDKNOT_TESTS_FOLDER", Some(text(folder)))].into_iter().chain(jobs_in(docker)))
    }

    /// Ends all jobs of a queue whose names begin like this.
    pub fn end_jobs(&self, queue: &str, begins: &str) {
        // Where it does not answer, a test has failed that is about to say so.
        let said = |path: &str, body: &Value| ask(self.address, "POST", path, &body.to_string()).unwrap_or_default();
        for status in ["SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING"] {
            let listed = said("/v1/listjobs", &json!({"jobQueue": queue, "jobStatus": status}));
            let body = listed.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
            let jobs: Value = serde_json::from_str(&body).unwrap_or_default();
            for job in jobs["jobSummaryList"].as_array().into_iter().flatten() {
                if job["jobName"].as_str().is_some_and(|name| name.starts_with(begins)) {
                    said("/v1/terminatejob", &json!({"jobId": job["jobId"], "reason": "the test is over"}));
                }
            }
        }
    }

    fn start_with(environment: impl IntoIterator<Item = (&'static str, Option<String>)>) -> Option<Self> {
        let (fork, address) = Fork::new(Forks::get()?, &environment.into_iter().collect());
        Some(Self { address, log: fork.log_file(), _fork: Some(fork) })
    }

    /// One that runs already, and logs to this file.
    pub(crate) fn at(address: SocketAddr, log: PathBuf) -> Self {
        Self { address, log, _fork: None }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file that it logs to.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Where it is, as in `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it has written of itself: a line for each request, and why jobs failed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Forgets all that was made in it, and what it was told: IAM checks are off again, jobs are containers again, and
    /// none is slow.
    ///
    /// # Panics
    /// If it does not.
    pub fn reset(&self) {
        self.tell("/moto-api/reset-auth", "inf");
        self.tell("/moto-api/state-manager/unset-transition", &json!({ "model_name": JOBS }).to_string());
        self.config(&json!({ "batch": { "use_docker": true } }));
        self.tell("/moto-api/reset", "");
    }

    /// Sets what moto calls its configuration, such as `{"batch": {"use_docker": false}}`: jobs succeed at once, without
    /// containers.
    ///
    /// # Panics
    /// If it is not taken.
    pub fn config(&self, config: &Value) {
        self.tell("/moto-api/config", &config.to_string());
    }

    /// From now on a job stays for a time in each of the states before RUNNING.
    ///
    /// # Panics
    /// If it is not taken.
    pub fn slow_jobs(&self, seconds: u32) {
        let transition = json!({ "progression": "time", "seconds": seconds });
        let told = json!({ "model_name": JOBS, "transition": transition });
        self.tell("/moto-api/state-manager/set-transition", &told.to_string());
    }

    /// From now on signatures and policies are checked. For S3 that is as AWS does it; for Batch only `batch:*` matches.
    ///
    /// # Panics
    /// If it is not taken.
    pub fn turn_on_iam(&self) {
        self.tell("/moto-api/reset-auth", "0");
    }

    fn tell(&self, path: &str, body: &str) {
        let answer = ask(self.address, "POST", path, body).unwrap_or_else(|why| panic!("moto: POST {path}: {why}"));
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(status.starts_with('2'), "moto: POST {path} {body}: {answer}");
    }
}

/// Returns the environment of a server whose jobs are containers of this engine, on the network of this machine.
fn jobs_in(docker: &Docker) -> [(&'static str, Option<String>); 2] {
    [("DOCKER_HOST", docker.host().map(str::to_owned)), ("MOTO_DOCKER_NETWORK_MODE", Some("host".to_owned()))]
}

fn text(path: &Path) -> String {
    path.to_str().expect("the paths of the tests are text").to_owned()
}

/// The whole answer to a request, its status line and headers included.
fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
