//! Starts the real counterparts that the tests use: a Docker engine and a registry. None of them is part of this
//! project.
//!
//! If a counterpart is not available, tests that need it print `skipped: …` and pass, or fail if
//! `CLOUDKNOT_TESTS_REQUIRE=1` requires all of them. A counterpart that was handed over is not started again.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::authority::Authority;
use crate::shared::{Engine, lock, shared, shared_in_process};
use crate::skip::skipped;

const TIMEOUT: Duration = Duration::from_mins(5);

/// Returns whether this program can be started, regardless of how it responds to `--version`.
pub fn has(program: &str) -> bool {
    let tried = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    tried.is_ok()
}

/// Runs a command to completion, and returns its stdout.
///
/// # Panics
/// If the command cannot be started or fails, with its output.
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().expect("the program can be started");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?} ended with {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// Runs a command to completion, and checks its exit code, and that its stderr contains all of the expected
/// strings. An error in JSON is also there as text.
///
/// # Panics
/// If the command cannot be started, or if a check fails.
#[track_caller]
pub fn check(command: &mut Command, code: i32, expected: &[&str]) -> Output {
    let output = command.output().expect("the program can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    let errors = format!("{errors}{}", errors.lines().filter_map(error_as_text).collect::<String>());
    for part in expected {
        assert!(errors.contains(part), "`{part}` is not in:\n{errors}");
    }
    output
}

/// Returns the text of an error that is JSON; `None` for another line.
fn error_as_text(line: &str) -> Option<String> {
    let mut printed: Value = serde_json::from_str(line).ok()?;
    let error = printed.get_mut("error")?.take();
    let causes = error["causes"].as_array()?.iter().map(|cause| format!("\n  caused by: {}", text(cause)));
    let hint = error["hint"].as_str().map(|_| format!("\n  hint: {}", text(&error["hint"])));
    Some(format!("error: {}{}{}\n", text(&error["message"]), causes.collect::<String>(), hint.unwrap_or_default()))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().replace('\n', "\n    ")
}

/// Process that ends with its owner. Its folder is removed afterwards.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Child,
    folder: TempDir,
}

impl Daemon {
    pub(crate) fn start(command: &mut Command, folder: TempDir) -> Self {
        let log = fs::File::create(folder.path().join("log")).expect("a new folder can be written to");
        let errors = log.try_clone().expect("a file can be opened twice");
        let process = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        Self { process: process.expect("the program can be started"), folder }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Waits until the process is ready. Returns the reason if it ends first or takes too long.
    pub(crate) fn wait(&mut self, ready: impl Fn() -> bool) -> Result<(), String> {
        let start = Instant::now();
        while !ready() {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(format!("the process ended with {status}: {}", self.log()));
            }
            if start.elapsed() > TIMEOUT {
                return Err(format!("the process was not ready in time: {}", self.log()));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Terminated before it is killed: a Docker engine has to clean up its mounts and processes.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if matches!(self.process.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Docker {
    /// Unmounts a mount that an engine leaves behind, because its folder cannot be removed otherwise.
    fn drop(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        let mount = daemon.folder.path().join("exec/netns/default");
        let folder = daemon.folder.path().to_owned();
        drop(daemon);
        if mount.exists() {
            let _ = Command::new("umount").arg("--lazy").arg(&mount).status();
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Port of this machine on which no process listens: a privileged port of an obsolete protocol.
pub const CLOSED_PORT: u16 = 1;

/// Docker engine that was already running, or that the tests have started.
#[derive(Debug)]
pub struct Docker {
    engine: Engine,
    daemon: Option<Daemon>,
    /// Lock that serializes the processes that start their own engine.
    _lock: Option<File>,
}

static DOCKER: Mutex<Weak<Docker>> = Mutex::new(Weak::new());

impl Docker {
    /// Returns the engine that the tests of this process share, which ends with the last of them. Returns `None` if no
    /// engine is available.
    ///
    /// # Panics
    /// If it is not available and `CLOUDKNOT_TESTS_REQUIRE=1` is set.
    pub fn get() -> Option<Arc<Self>> {
        shared_in_process(&DOCKER, || {
            let found = match shared() {
                Some(shared) => match shared.engine.clone() {
                    Some(engine) => Ok(Self { engine, daemon: None, _lock: None }),
                    None => Err("no engine was started for this run".to_owned()),
                },
                None => Self::start(),
            };
            found.inspect_err(|reason| skipped("tests that need a Docker engine", reason)).ok()
        })
    }

    fn start() -> Result<Self, String> {
        if !has("docker") {
            return Err("`docker` is not installed".to_owned());
        }
        if responds(None) {
            let engine = Engine { host: std::env::var("DOCKER_HOST").ok(), started_by_tests: false };
            return Ok(Self { engine, daemon: None, _lock: None });
        }
        if !has("dockerd") {
            return Err("no engine is running, and `dockerd` is not installed".to_owned());
        }
        let lock = lock("engine");
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = |name: &str| folder.path().join(name);
        let host = format!("unix://{}", path("socket").display());
        let mut command = Command::new("dockerd");
        command.arg("--data-root").arg(path("data")).arg("--exec-root").arg(path("exec"));
        command.arg("--pidfile").arg(path("pid")).arg("-H").arg(&host);
        // The machine's own network stays as it is. Containers can choose between `none` and `host`.
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
        let mut daemon = Daemon::start(&mut command, folder);
        daemon.wait(|| responds(Some(&host)))?;
        Ok(Self {
            engine: Engine { host: Some(host), started_by_tests: true },
            daemon: Some(daemon),
            _lock: Some(lock),
        })
    }

    /// Returns the description with which other processes reach the engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns the engine's address, as in `DOCKER_HOST`; `None` for the default one.
    pub fn host(&self) -> Option<&str> {
        self.engine.host.as_deref()
    }

    /// Returns whether the tests have started the engine: it ends with them, and they alone use the images in it.
    pub fn started_by_tests(&self) -> bool {
        self.engine.started_by_tests
    }

    /// Returns a `docker` command that uses this engine.
    pub fn command(&self) -> Command {
        docker_at(self.host())
    }
}

fn docker_at(host: Option<&str>) -> Command {
    let mut command = Command::new("docker");
    if let Some(host) = host {
        command.env("DOCKER_HOST", host);
    }
    command
}

fn responds(host: Option<&str>) -> bool {
    let info = docker_at(host).args(["info", "--format", "{{.ServerVersion}}"]).output();
    info.is_ok_and(|info| info.status.success() && !info.stdout.trim_ascii().is_empty())
}

/// Returns an address of this machine that is not its loopback; `None` if it has no network.
pub fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: this only determines the route. The address is reserved for documentation.
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_unspecified())
}

/// Registry (CNCF distribution) that requires a login.
pub struct Registry {
    address: SocketAddr,
    daemon: Daemon,
}

impl Registry {
    /// Name of the user that may log in.
    pub const USER: &str = "AWS";
    /// Password of [`Registry::USER`]. It is the one that moto's ECR issues.
    pub const PASSWORD: &str = "123456789012-auth-token";

    /// Starts an empty registry. Returns `None` if no registry is available.
    ///
    /// # Panics
    /// If it is not available and `CLOUDKNOT_TESTS_REQUIRE=1` is set.
    pub fn start() -> Option<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), None, true)
    }

    /// Like [`Registry::start`], for anyone: the registry requires no login.
    ///
    /// # Panics
    /// Same as for [`Registry::start`].
    pub fn start_open() -> Option<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), None, false)
    }

    /// Like [`Registry::start`], over TLS, at the address that this authority's certificate is for.
    ///
    /// # Panics
    /// Same as for [`Registry::start`].
    pub fn start_tls(address: IpAddr, authority: &Authority) -> Option<Self> {
        Self::start_at(address, Some(authority), true)
    }

    fn start_at(address: IpAddr, authority: Option<&Authority>, requires_login: bool) -> Option<Self> {
        for program in ["docker-registry", "htpasswd"] {
            if !has(program) {
                skipped("tests that need a registry", &format!("`{program}` is not installed"));
                return None;
            }
        }
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        // The registry chooses a free port and reports it: a port that was free before the start may be in use by now.
        let config = configure(folder.path(), SocketAddr::new(address, 0), authority, requires_login);
        let mut daemon = Daemon::start(Command::new("docker-registry").arg("serve").arg(config), folder);
        let log = daemon.log_file();
        let listens = || listens_at(&fs::read_to_string(&log).unwrap_or_default());
        let ready = daemon.wait(|| listens().is_some_and(|address| TcpStream::connect(address).is_ok()));
        ready.unwrap_or_else(|reason| panic!("the registry did not start: {reason}"));
        Some(Self { address: listens().expect("the registry is listening"), daemon })
    }

    /// Returns the host and the port of the registry.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns the requests so far with this prefix, such as `PUT /v2/`, each with its status.
    pub fn requests(&self, prefix: &str) -> Vec<String> {
        let log = self.daemon.log();
        let requests = log.lines().filter_map(|line| line.split('"').nth(1).zip(line.split('"').nth(2)));
        let requests = requests.map(|(request, rest)| format!("{request} {}", rest.split(' ').nth(1).unwrap_or("")));
        requests.filter(|request| request.starts_with(prefix)).collect()
    }
}

/// Returns the address at which a registry listens, from its log.
fn listens_at(log: &str) -> Option<SocketAddr> {
    let (_, after) = log.split_once("listening on ")?;
    let address = after.split_once(['"', ','])?.0;
    address.parse().ok()
}

fn configure(folder: &Path, address: SocketAddr, authority: Option<&Authority>, requires_login: bool) -> PathBuf {
    let users = run(Command::new("htpasswd").args(["-Bbn", Registry::USER, Registry::PASSWORD]));
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        let mut file = fs::File::create(&path).expect("a new folder can be written to");
        file.write_all(text.as_bytes()).expect("a new folder can be written to");
        path
    };
    let users = write("users", &users);
    let tls = authority.map_or_else(String::new, |authority| {
        let (certificate, key) = (authority.certificate(), authority.key());
        format!(", tls: {{ certificate: \"{}\", key: \"{}\" }}", certificate.display(), key.display())
    });
    let login = if requires_login {
        format!("auth: {{ htpasswd: {{ realm: tests, path: \"{}\" }} }}\n", users.display())
    } else {
        String::new()
    };
    let text = format!(
        "version: 0.1\n\
         log: {{ level: info, accesslog: {{ disabled: false }} }}\n\
         storage: {{ filesystem: {{ rootdirectory: \"{data}\" }}, delete: {{ enabled: true }} }}\n\
         {login}\
         http: {{ addr: \"{address}\"{tls} }}\n",
        data = folder.join("data").display(),
    );
    write("config.yml", &text)
}
