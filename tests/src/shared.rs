//! Programs and counterparts that the program `counterparts` builds and starts once for a whole run of the tests, and
//! hands over in a file. A test that runs alone has no such file, and builds and starts its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Name of the variable with the path of the file.
pub const ENV: &str = "CLOUDKNOT_TESTS_SHARED";

/// Content of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shared {
    /// Folder with the programs of this workspace.
    pub programs: PathBuf,
    /// Note of the trial's image, if it was built; see [`crate::workspaces::trial_image`].
    pub trial_image: Option<PathBuf>,
    /// Docker engine, which has that image; `None` if no engine is available.
    pub engine: Option<Engine>,
    /// Simulated AWS; `None` if it is not available.
    pub cloud: Option<Cloud>,
    /// Socket from which empty moto servers are forked; see [`crate::moto::Forks`].
    pub moto_forks: Option<PathBuf>,
}

/// Docker engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Engine {
    /// Address of the engine, as in `DOCKER_HOST`; `None` for the default one.
    pub host: Option<String>,
    /// `true` if the tests have started the engine. They alone then use the images in it.
    pub started_by_tests: bool,
}

/// Moto server and S3 server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cloud {
    /// Address of moto.
    pub moto: SocketAddr,
    /// File that moto logs to.
    pub moto_log: PathBuf,
    /// S3 server.
    pub s3: S3,
    /// Resources that a deploy would have created.
    pub resources: BatchResources,
}

/// S3 server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct S3 {
    /// Address of the server.
    pub address: SocketAddr,
    /// Folder in which buckets are folders, and their objects are files.
    pub folder: PathBuf,
    /// File with a line for each request: method, path and query.
    pub requests: PathBuf,
}

impl S3 {
    /// Returns the value for `AWS_ENDPOINT_URL_S3`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the requests so far that contain this string in their path or query.
    ///
    /// # Panics
    /// If the file cannot be read.
    pub fn requests_of(&self, part: &str) -> Vec<String> {
        let all = fs::read_to_string(&self.requests).expect("the server's file can be read");
        all.lines().filter(|request| request.contains(part)).map(str::to_owned).collect()
    }
}

/// Queue, and job definitions of the trial's functions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BatchResources {
    /// ARN of the queue.
    pub queue: Value,
    /// ARN of each function's job definition for jobs that are containers.
    pub containers: Value,
    /// ARN of each function's job definition for jobs that are child processes of moto.
    pub processes: Value,
    /// Types of the functions.
    pub types: Value,
    /// Name of the image.
    pub image: String,
}

/// Returns the programs and counterparts of this run; `None` for a test that runs alone.
///
/// # Panics
/// If the file was not written by `counterparts`.
pub fn shared() -> Option<&'static Shared> {
    static SHARED: LazyLock<Option<Shared>> = LazyLock::new(|| {
        let file = std::env::var_os(ENV)?;
        let text = fs::read(&file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
        Some(serde_json::from_slice(&text).expect("the program `counterparts` has written the file"))
    });
    SHARED.as_ref()
}

/// Returns the value that the tests of this process share, or creates it. It is dropped with its last user.
pub(crate) fn shared_in_process<T>(cached: &Mutex<Weak<T>>, create: impl FnOnce() -> Option<T>) -> Option<Arc<T>> {
    let mut cached = cached.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(value) = cached.upgrade() {
        return Some(value);
    }
    let value = Arc::new(create()?);
    *cached = Arc::downgrade(&value);
    Some(value)
}

/// Waits until no other process holds the lock of this name. The lock is held until the file is dropped.
///
/// # Panics
/// If the lock file cannot be created.
pub fn lock(name: &str) -> File {
    let path = lock_folder().join(format!("{name}.lock"));
    let file = File::create(&path).unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()));
    file.lock().expect("a file of a temporary folder can be locked");
    file
}

fn lock_folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = std::env::temp_dir().join(format!("cloudknot-tests-locks-{}", rustix::process::getuid().as_raw()));
        fs::create_dir_all(&folder).expect("the temporary folder can be written to");
        folder
    });
    &FOLDER
}
