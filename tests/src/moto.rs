//! Starts moto, which simulates AWS: Batch, stacks, roles, registries, networks, S3 and CloudWatch Logs.
//!
//! It is started by `tests/moto/server.py`, which describes its corrections to moto's Batch. `tests/moto/install.sh`
//! creates the Python environment that it needs; `CLOUDKNOT_MOTO` selects another one.

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
use crate::shared::{shared, shared_in_process};
use crate::skip::skipped;

/// Account that owns everything in moto.
pub const ACCOUNT: &str = "123456789012";
/// Region that [`environment`] sets. As in AWS, a resource exists only in its region.
pub const REGION: &str = "eu-west-1";

/// Name of the model that moto uses for the states of a job.
const JOBS: &str = "batch::job";

/// Returns the folder of this package with the scripts for moto.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("moto")
}

/// Returns the Python that has moto and botocore; `None` if it is not installed.
pub fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is in a workspace");
    let target = || root.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())).join("moto");
    let python = std::env::var_os("CLOUDKNOT_MOTO").map_or_else(target, PathBuf::from).join("bin/python");
    python.is_file().then_some(python)
}

/// Returns the environment that makes a program use only the AWS at this address, with dummy
/// credentials.
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

/// Moto server. Its content is lost when it is dropped.
#[derive(Debug)]
pub struct Moto {
    address: SocketAddr,
    log: PathBuf,
    /// `None` if another program has started the server and handed it over.
    _fork: Option<Fork>,
}

static MOTO: Mutex<Weak<Moto>> = Mutex::new(Weak::new());
static FORKS: Mutex<Weak<Forks>> = Mutex::new(Weak::new());

/// Moto, started once but not yet serving. Servers that are forked from it start immediately, whereas Python and moto
/// take two seconds of CPU to start.
#[derive(Debug)]
pub struct Forks {
    socket: PathBuf,
    /// `None` if another program has started moto and handed it over.
    _daemon: Option<Daemon>,
}

impl Forks {
    /// Returns the instance that was handed over, or else the one that the servers of this process share, which ends
    /// with the last of them. Returns `None` if moto is not available.
    ///
    /// # Panics
    /// If moto does not start, or if it is not available and `CLOUDKNOT_TESTS_REQUIRE=1` is set.
    pub fn get() -> Option<Arc<Self>> {
        shared_in_process(&FORKS, || {
            let found = match shared() {
                Some(shared) => shared.moto_forks.clone().map(|socket| Self { socket, _daemon: None }),
                None => python().map(Self::start),
            };
            if found.is_none() {
                skipped("tests that need moto", "moto is not installed; tests/run.sh installs it");
            }
            found
        })
    }

    /// Starts Python and moto.
    fn start(python: PathBuf) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        let socket = folder.path().join("socket");
        let mut command = Command::new(python);
        command.arg("-B").arg(scripts().join("server.py")).arg("--forks").arg(&socket);
        command.env("MOTO_IAM_LOAD_MANAGED_POLICIES", "true");
        // The tests do not use AMIs, and each reset would create a thousand of them.
        command.env("MOTO_EC2_LOAD_DEFAULT_AMIS", "false");
        // The tests alone determine what moto passes to containers and what it reads from the environment.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("AWS_")) {
                command.env_remove(name);
            }
        }
        let mut daemon = Daemon::start(&mut command, folder);
        let ready = daemon.wait(|| UnixStream::connect(&socket).is_ok());
        ready.unwrap_or_else(|reason| panic!("moto did not start: {reason}"));
        Self { socket, _daemon: Some(daemon) }
    }

    /// Returns the Unix socket at which moto listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Forked server. It ends when this value is dropped, or when this process ends.
#[derive(Debug)]
struct Fork {
    connection: UnixStream,
    folder: TempDir,
    _forks: Arc<Forks>,
}

impl Fork {
    /// Forks a server with these variables in its environment, and without those that are `None`. Returns the
    /// server and the address at which it listens.
    fn new(forks: Arc<Forks>, environment: &BTreeMap<&str, Option<String>>) -> (Self, SocketAddr) {
        let connection = UnixStream::connect(&forks.socket).expect("moto accepts connections");
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        let mut fork = Self { connection, folder, _forks: forks };
        let request = json!({ "environment": environment, "log": fork.log_file() });
        writeln!(fork.connection, "{request}").expect("moto reads the request");
        let mut port = String::new();
        BufReader::new(&fork.connection).read_line(&mut port).expect("moto prints its port");
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
        // The server closes its end of the connection after it has cleaned up its jobs.
        let _ = self.connection.set_read_timeout(Some(Duration::from_secs(10)));
        let _ = self.connection.shutdown(Shutdown::Write);
        let _ = self.connection.read(&mut [0]);
    }
}

impl Moto {
    /// Starts an empty server without containers: a submitted job fails, unless it is a child process, or
    /// [`Moto::config`] lets jobs succeed at once. Returns `None` if moto is not available.
    ///
    /// # Panics
    /// If moto is not available and `CLOUDKNOT_TESTS_REQUIRE=1` is set.
    pub fn start() -> Option<Self> {
        // This server must not use an engine, even if there is one.
        Self::start_with([("DOCKER_HOST", Some("unix:///nonexistent".to_owned()))])
    }

    /// Returns the server that the tests of this process share, for tests whose resources have unique names. It ends
    /// with the last of them.
    ///
    /// # Panics
    /// Same as for [`Moto::start`].
    pub fn get() -> Option<Arc<Self>> {
        shared_in_process(&MOTO, Self::start)
    }

    /// Starts an empty server whose jobs are containers of this engine, on the network of this machine. `config` is the
    /// folder with the credentials for pulls, as in `DOCKER_CONFIG`.
    ///
    /// # Panics
    /// Same as for [`Moto::start`].
    pub fn start_with_docker(docker: &Docker, config: &Path) -> Option<Self> {
        Self::start_with([("DOCKER_CONFIG", Some(path_string(config)))].into_iter().chain(jobs_in(docker)))
    }

    /// Like [`Moto::start_with_docker`], with containers that find this server and credentials for it, as on AWS.
    ///
    /// # Panics
    /// Same as for [`Moto::start`].
    pub fn start_as_account(docker: &Docker, config: &Path) -> Option<Self> {
        let variables = [("DOCKER_CONFIG", path_string(config)), ("CLOUDKNOT_TESTS_ACCOUNT", "1".to_owned())];
        Self::start_with(variables.map(|(name, value)| (name, Some(value))).into_iter().chain(jobs_in(docker)))
    }

    /// Like [`Moto::start_with_docker`], with containers that share this folder of this machine. Without an engine,
    /// jobs can only be processes.
    ///
    /// # Panics
    /// Same as for [`Moto::start`].
    pub fn start_with_folder(docker: Option<&Docker>, folder: &Path) -> Option<Self> {
        let Some(docker) = docker else { return Self::start() };
        Self::start_with([("CLOUDKNOT_TESTS_FOLDER", Some(path_string(folder)))].into_iter().chain(jobs_in(docker)))
    }

    /// Ends all jobs of a queue whose names have this prefix.
    pub fn end_jobs(&self, queue: &str, prefix: &str) {
        // If the server does not respond, a test has failed and is about to report it.
        let post = |path: &str, body: &Value| send(self.address, "POST", path, &body.to_string()).unwrap_or_default();
        for status in ["SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING"] {
            let listed = post("/v1/listjobs", &json!({"jobQueue": queue, "jobStatus": status}));
            let body = listed.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
            let jobs: Value = serde_json::from_str(&body).unwrap_or_default();
            for job in jobs["jobSummaryList"].as_array().into_iter().flatten() {
                if job["jobName"].as_str().is_some_and(|name| name.starts_with(prefix)) {
                    post("/v1/terminatejob", &json!({"jobId": job["jobId"], "reason": "the test is over"}));
                }
            }
        }
    }

    fn start_with(environment: impl IntoIterator<Item = (&'static str, Option<String>)>) -> Option<Self> {
        let (fork, address) = Fork::new(Forks::get()?, &environment.into_iter().collect());
        Some(Self { address, log: fork.log_file(), _fork: Some(fork) })
    }

    /// Returns a handle to a server that is already running, and logs to this file.
    pub(crate) fn at(address: SocketAddr, log: PathBuf) -> Self {
        Self { address, log, _fork: None }
    }

    /// Returns the address at which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the file that the server logs to.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Returns the URL of the server, for `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the log of the server: a line for each request, and the reasons why jobs failed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Deletes everything that was created in the server, and restores its settings: IAM checks are off, jobs are
    /// containers, and none is slow.
    ///
    /// # Panics
    /// If the server rejects a request.
    pub fn reset(&self) {
        self.post("/moto-api/reset-auth", "inf");
        self.post("/moto-api/state-manager/unset-transition", &json!({ "model_name": JOBS }).to_string());
        self.config(&json!({ "batch": { "use_docker": true } }));
        self.post("/moto-api/reset", "");
    }

    /// Sets moto's configuration. For example, with `{"batch": {"use_docker": false}}` jobs succeed at once, without
    /// containers.
    ///
    /// # Panics
    /// If the server rejects the request.
    pub fn config(&self, config: &Value) {
        self.post("/moto-api/config", &config.to_string());
    }

    /// From now on, keeps a job for this time in each of the states before RUNNING.
    ///
    /// # Panics
    /// If the server rejects the request.
    pub fn slow_jobs(&self, seconds: u32) {
        let transition = json!({ "progression": "time", "seconds": seconds });
        let body = json!({ "model_name": JOBS, "transition": transition });
        self.post("/moto-api/state-manager/set-transition", &body.to_string());
    }

    /// From now on, checks signatures and policies. For S3 the checks equal AWS's; for Batch only `batch:*`
    /// matches.
    ///
    /// # Panics
    /// If the server rejects the request.
    pub fn turn_on_iam(&self) {
        self.post("/moto-api/reset-auth", "0");
    }

    fn post(&self, path: &str, body: &str) {
        let response =
            send(self.address, "POST", path, body).unwrap_or_else(|error| panic!("moto: POST {path}: {error}"));
        let status = response.split(' ').nth(1).unwrap_or_default();
        assert!(status.starts_with('2'), "moto: POST {path} {body}: {response}");
    }
}

/// Returns the environment of a server whose jobs are containers of this engine, on the network of this machine.
fn jobs_in(docker: &Docker) -> [(&'static str, Option<String>); 2] {
    [("DOCKER_HOST", docker.host().map(str::to_owned)), ("MOTO_DOCKER_NETWORK_MODE", Some("host".to_owned()))]
}

fn path_string(path: &Path) -> String {
    path.to_str().expect("the paths of the tests are UTF-8").to_owned()
}

/// Sends a request, and returns the response, including its status line and headers.
fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}
