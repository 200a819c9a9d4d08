//! Programs and counterparts that are built and started once for a whole run of the tests, by the program `counterparts`,
//! and handed over in a file. A test that is run alone finds none, and builds and starts its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The variable that names the file.
pub const ENV: &str = "CLOUDKNOT_TESTS_SHARED";

/// The content of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shared {
    /// The folder with the programs of this workspace.
    pub programs: PathBuf,
    /// The note of the trial's image, if it was built; see [`crate::workspaces::trial_image`].
    pub trial_image: Option<PathBuf>,
    /// The Docker engine, which has that image; none if there can be none here.
    pub engine: Option<Engine>,
    /// The stand-in for AWS; none if there can be none here.
    pub cloud: Option<Cloud>,
    /// The socket at which a moto is had that is empty; see [`crate::moto::Forks`].
    pub moto_forks: Option<PathBuf>,
}

/// A Docker engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Engine {
    /// Its address, as in `DOCKER_HOST`; none for the usual one.
    pub host: Option<String>,
    /// It was started for the tests, and the images in it are nobody else's.
    pub is_our_own: bool,
}

/// A moto server and an S3 server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cloud {
    /// The address of moto.
    pub moto: SocketAddr,
    /// The file that moto logs to.
    pub moto_log: PathBuf,
    /// The S3 server.
    pub s3: S3,
    /// The resources that a deploy would have made.
    pub made: Made,
}

/// An S3 server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct S3 {
    /// The address of the server.
    pub address: SocketAddr,
    /// The folder in which its buckets are folders, and their objects files.
    pub folder: PathBuf,
    /// The file with a line for each request: method, path and query.
    pub requests: PathBuf,
}

impl S3 {
    /// Returns the value for `AWS_ENDPOINT_URL_S3`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far that have this in their path or query.
    ///
    /// # Panics
    /// If the file cannot be read.
    pub fn requests_of(&self, part: &str) -> Vec<String> {
        let all = fs::read_to_string(&self.requests).expect("the server's file can be read");
        all.lines().filter(|request| request.contains(part)).map(str::to_owned).collect()
    }
}

/// A queue, and the job definitions of the trial's functions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Made {
    /// The ARN of the queue.
    pub queue: Value,
    /// The ARN of each function's job definition, whose jobs are containers.
    pub containers: Value,
    /// The same, whose jobs are child processes of moto.
    pub processes: Value,
    /// The types of the functions.
    pub types: Value,
    /// The name of the image.
    pub image: String,
}

/// Returns the programs and counterparts of this run; none for a test that is run alone.
///
/// # Panics
/// If the file is not one that `counterparts` has written.
pub fn shared() -> Option<&'static Shared> {
    static SHARED: LazyLock<Option<Shared>> = LazyLock::new(|| {
        let file = std::env::var_os(ENV)?;
        let text = fs::read(&file).unwrap_or_else(|error| panic!("failed to read {}: {error}", file.display()));
        Some(serde_json::from_slice(&text).expect("the program `counterparts` has written it"))
    });
    SHARED.as_ref()
}

/// Returns the one that the tests of this process share, or makes it. It ends with the last of them.
pub(crate) fn one_of_this_process<T>(known: &Mutex<Weak<T>>, make: impl FnOnce() -> Option<T>) -> Option<Arc<T>> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(one) = known.upgrade() {
        return Some(one);
    }
    let one = Arc::new(make()?);
    *known = Arc::downgrade(&one);
    Some(one)
}

/// Waits until no other process holds the lock of this name; held until the file is dropped.
///
/// # Panics
/// If the file of the lock cannot be made.
pub fn lock(name: &str) -> File {
    let path = lock_folder().join(format!("{name}.lock"));
    let file = File::create(&path).unwrap_or_else(|error| panic!("failed to make {}: {error}", path.display()));
    file.lock().expect("a file of a temporary folder can be locked");
    file
}

fn lock_folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = std::env::temp_dir().join(format!("cloudknot-tests-locks-{}", rustix::process::getuid().as_raw()));
        fs::create_dir_all(&folder).expect("the folder for temporary files can be written to");
        folder
    });
    &FOLDER
}
