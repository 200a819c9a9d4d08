//! Starts the real counterparts that the tests speak to: a Docker engine, a registry. None of them is ours.
//!
//! A counterpart that cannot be had makes its tests say `skipped: …` and pass, or fail where
//! `CLOUDKNOT_TESTS_REQUIRE=1` asks for all of them. One that was handed over is not started again.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::authority::Authority;
use crate::shared::{Engine, lock, one_of_this_process, shared};
use crate::skip::skipped;

const PATIENCE: Duration = Duration::from_mins(5);

/// Whether this program can be started, whatever it then thinks of being asked for its version.
pub fn has(program: &str) -> bool {
    let tried = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    tried.is_ok()
}

/// Runs a command to its end.
///
/// # Panics
/// If it cannot be started or fails; with what it said.
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().expect("the program can be started");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?} ended with {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// Runs a command to its end, which has this code, and says all of this on its standard error.
///
/// # Panics
/// If it cannot be started, or does not.
#[track_caller]
pub fn check(command: &mut Command, code: i32, says: &[&str]) -> Output {
    let output = command.output().expect("the program can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    for part in says {
        assert!(errors.contains(part), "`{part}` is not in:\n{errors}");
    }
    output
}

/// A process that ends with its owner, and its folder after it.
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

    /// Waits until it is ready; tells why not, if it ends first or takes too long.
    pub(crate) fn wait(&mut self, ready: impl Fn() -> bool) -> Result<(), String> {
        let start = Instant::now();
        while !ready() {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(format!("it ended with {status}: {}", self.log()));
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("it was not ready in time: {}", self.log()));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Asked first: a Docker engine has mounts and processes of its own to clear away.
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
    /// An engine leaves a mount behind, for which its folder cannot be removed.
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

/// A port of this machine at which nobody listens: one that only root may take, for a protocol of 1988.
pub const CLOSED_PORT: u16 = 1;

/// A Docker engine: one that runs already, or one of our own.
#[derive(Debug)]
pub struct Docker {
    engine: Engine,
    daemon: Option<Daemon>,
    /// Each process that has to start its own waits for its turn.
    _turn: Option<File>,
}

static DOCKER: Mutex<Weak<Docker>> = Mutex::new(Weak::new());

impl Docker {
    /// The engine that the tests of this process share; it ends with the last of them. None if there can be none here.
    ///
    /// # Panics
    /// If it can neither be had nor be skipped.
    pub fn get() -> Option<Arc<Self>> {
        one_of_this_process(&DOCKER, || {
            let found = match shared() {
                Some(shared) => match shared.engine.clone() {
                    Some(engine) => Ok(Self { engine, daemon: None, _turn: None }),
                    None => Err("none was started for this run".to_owned()),
                },
                None => Self::start(),
            };
            found.inspect_err(|why| skipped("what needs a Docker engine", why)).ok()
        })
    }

    fn start() -> Result<Self, String> {
        if !has("docker") {
            return Err("there is no `docker` command".to_owned());
        }
        if answers(None) {
            let engine = Engine { host: std::env::var("DOCKER_HOST").ok(), is_our_own: false };
            return Ok(Self { engine, daemon: None, _turn: None });
        }
        if !has("dockerd") {
            return Err("none runs, and there is no `dockerd` to start one".to_owned());
        }
        let turn = lock("engine");
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let place = |name: &str| folder.path().join(name);
        let host = format!("unix://{}", place("socket").display());
        let mut command = Command::new("dockerd");
        command.arg("--data-root").arg(place("data")).arg("--exec-root").arg(place("exec"));
        command.arg("--pidfile").arg(place("pid")).arg("-H").arg(&host);
        // Nothing of the machine's own network is touched. Containers have `none` and `host` to choose from.
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
        let mut daemon = Daemon::start(&mut command, folder);
        daemon.wait(|| answers(Some(&host)))?;
        Ok(Self { engine: Engine { host: Some(host), is_our_own: true }, daemon: Some(daemon), _turn: Some(turn) })
    }

    /// Returns the description by which other processes reach it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Its address, as in `DOCKER_HOST`; none for the usual one.
    pub fn host(&self) -> Option<&str> {
        self.engine.host.as_deref()
    }

    /// Whether it is one of our own: it ends with the tests, and the images in it are nobody else's.
    pub fn is_our_own(&self) -> bool {
        self.engine.is_our_own
    }

    /// The `docker` command, speaking to it.
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

fn answers(host: Option<&str>) -> bool {
    let info = docker_at(host).args(["info", "--format", "{{.ServerVersion}}"]).output();
    info.is_ok_and(|info| info.status.success() && !info.stdout.trim_ascii().is_empty())
}

/// An address of this machine that is not its loopback; none where it has no network.
pub fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: this only finds the way. The address is one that documentation uses.
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_unspecified())
}

/// A registry (CNCF distribution), which wants a login.
pub struct Registry {
    address: SocketAddr,
    daemon: Daemon,
}

impl Registry {
    /// Who may use it, and by which password.
    pub const USER: &str = "AWS";
    /// See [`Registry::USER`]. It is the one that moto's ECR hands out.
    pub const PASSWORD: &str = "123456789012-auth-token";

    /// A new and empty one. None if there can be none here.
    ///
    /// # Panics
    /// If it can neither be had nor be skipped.
    pub fn start() -> Option<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), None)
    }

    /// The same over TLS, at the address that this authority's certificate is for.
    ///
    /// # Panics
    /// As [`Registry::start`].
    pub fn start_tls(address: IpAddr, authority: &Authority) -> Option<Self> {
        Self::start_at(address, Some(authority))
    }

    fn start_at(address: IpAddr, authority: Option<&Authority>) -> Option<Self> {
        for program in ["docker-registry", "htpasswd"] {
            if !has(program) {
                skipped("what needs a registry", &format!("there is no `{program}`"));
                return None;
            }
        }
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        // It takes a port that is free and says which: one that was free before it started may be somebody's by now.
        let config = configure(folder.path(), SocketAddr::new(address, 0), authority);
        let mut daemon = Daemon::start(Command::new("docker-registry").arg("serve").arg(config), folder);
        let log = daemon.log_file();
        let listens = || listens_at(&fs::read_to_string(&log).unwrap_or_default());
        let ready = daemon.wait(|| listens().is_some_and(|address| TcpStream::connect(address).is_ok()));
        ready.unwrap_or_else(|why| panic!("the registry did not start: {why}"));
        Some(Self { address: listens().expect("it has said so"), daemon })
    }

    /// Where it is: a host and a port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The requests so far that begin like this, such as `PUT /v2/`; each with its status.
    pub fn requests(&self, beginning: &str) -> Vec<String> {
        let log = self.daemon.log();
        let requests = log.lines().filter_map(|line| line.split('"').nth(1).zip(line.split('"').nth(2)));
        let requests = requests.map(|(request, rest)| format!("{request} {}", rest.split(' ').nth(1).unwrap_or("")));
        requests.filter(|request| request.starts_with(beginning)).collect()
    }
}

/// The address in the line with which a registry says where it listens.
fn listens_at(log: &str) -> Option<SocketAddr> {
    let (_, after) = log.split_once("listening on ")?;
    let address = after.split_once(['"', ','])?.0;
    address.parse().ok()
}

fn configure(folder: &Path, address: SocketAddr, authority: Option<&Authority>) -> PathBuf {
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
    let text = format!(
        "version: 0.1\n\
         log: {{ level: info, accesslog: {{ disabled: false }} }}\n\
         storage: {{ filesystem: {{ rootdirectory: \"{data}\" }}, delete: {{ enabled: true }} }}\n\
         auth: {{ htpasswd: {{ realm: tests, path: \"{users}\" }} }}\n\
         http: {{ addr: \"{address}\"{tls} }}\n",
        data = folder.join("data").display(),
        users = users.display(),
    );
    write("config.yml", &text)
}
