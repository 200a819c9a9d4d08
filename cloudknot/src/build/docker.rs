//! Client of the local Docker engine: loads and exports images, runs containers, and builds the base image of a worker.
//!
//! Only this module communicates with the engine. It does not depend on a registry protocol, nor on what a worker does.

#[cfg(not(cloudknot_worker))]
pub(crate) mod engine;

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::build::image::{Image, ImageError, ImageOptions};
use crate::error::{self, ABSENT, ABSENT_HINT, Absent, ErrorKind};
use crate::host::{host_await, host_type};
use crate::settings::image::ImageSettings;

/// Base of an image, for a worker that needs more than itself (a native library, a data file).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Base {
    /// An image by its name. The engine pulls the image if it is missing.
    Image(String),
    /// A Dockerfile. The engine builds it, with its folder as the context (without the files that
    /// `.dockerignore` names, and without `target`, `.git`, `.cloudknot` and `.env` unless it includes them again).
    Dockerfile(PathBuf),
}

impl Base {
    /// Returns the base that the settings of an image name.
    pub(super) fn of(settings: &ImageSettings) -> Option<Self> {
        let image = settings.base_image.clone().map(Self::Image);
        image.or_else(|| settings.dockerfile.clone().map(Self::Dockerfile))
    }
}

/// Connection to a Docker engine.
#[derive(Clone)]
pub struct Engine {
    docker: host_type!(engine::Docker),
    logins: Option<PathBuf>,
}

impl Engine {
    /// Connects to the engine in `DOCKER_HOST`, or else to this machine's own engine.
    ///
    /// # Errors
    /// Returns an error if no engine answers.
    pub async fn connect() -> Result<Self, DockerError> {
        host_await!(engine::connect())
    }

    /// Connects to the engine at this address (as in `DOCKER_HOST`), or else to this machine's own engine.
    ///
    /// # Errors
    /// Returns an error if no engine answers.
    pub async fn connect_to(host: Option<&str>) -> Result<Self, DockerError> {
        host_await!(engine::connect_to(host))
    }

    /// Sets the folder in which `docker login` has stored the credentials for the registries of base images, in place of
    /// `$DOCKER_CONFIG` or `~/.docker`.
    #[must_use]
    pub fn logins_in(mut self, folder: impl Into<PathBuf>) -> Self {
        self.logins = Some(folder.into());
        self
    }

    /// Loads the image into the engine, under these names (`my-crate:latest`).
    ///
    /// # Errors
    /// Returns an error if the engine rejects the image.
    pub async fn load(&self, image: &Image, names: &[String]) -> Result<(), DockerError> {
        host_await!(engine::load(self, image, names))
    }

    /// Gives an image in the engine another name.
    ///
    /// # Errors
    /// Returns an error if there is no such image.
    pub async fn tag(&self, image: &str, name: &str) -> Result<(), DockerError> {
        host_await!(engine::tag(self, image, name))
    }

    /// Returns the ID of the image of this name, if there is one.
    ///
    /// # Errors
    /// Returns an error if the engine does not answer.
    pub async fn id_of(&self, name: &str) -> Result<Option<String>, DockerError> {
        host_await!(engine::id_of(self, name))
    }

    /// Removes a name from the engine, and the image along with its last name. Returns whether the name existed.
    ///
    /// # Errors
    /// Returns an error if the engine rejects the request, for example because a container still uses the image.
    pub async fn remove(&self, name: &str) -> Result<bool, DockerError> {
        host_await!(engine::remove(self, name))
    }

    /// Assembles an image with this worker on top of a base image.
    ///
    /// # Errors
    /// Returns an error if the base image is not available, or the worker cannot run on it.
    pub async fn assemble(&self, base: &Base, worker: &[u8], options: &ImageOptions) -> Result<Image, DockerError> {
        host_await!(engine::assemble(self, base, worker, options))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}

/// Error of an operation with the Docker engine.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct DockerError {
    operation: Operation,
    source: Box<dyn Error + Send + Sync>,
}

/// Operation with the engine, for the message of its error.
#[derive(Debug, thiserror::Error)]
enum Operation {
    #[error("cannot use a Docker engine")]
    Absent,
    #[error("cannot reach a Docker engine")]
    Connect,
    #[error("cannot load the image into Docker")]
    Load,
    #[error("cannot load `{}` into Docker", .0.display())]
    LoadArchive(PathBuf),
    #[error("cannot look up `{0}` in Docker")]
    Inspect(String),
    #[error("cannot tag `{0}` in Docker")]
    Tag(String),
    #[error("cannot remove `{0}` from Docker")]
    Remove(String),
    #[error("cannot pull the base image `{image}`")]
    Pull {
        image: String,
        /// Hint on the credential helper that keeps the login, if it is not installed.
        missing_helper: Option<String>,
    },
    #[error("cannot build `{}`", .0.display())]
    Build(PathBuf),
    #[error("cannot export `{0}` from Docker")]
    Export(String),
    #[error("cannot add the worker to its base image")]
    Assemble,
    #[error("cannot run a container of `{0}`")]
    Run(String),
    #[error("cannot remove ended containers")]
    Sweep,
}

impl DockerError {
    /// Returns `true` if the error is that no engine answers.
    pub fn is_no_engine(&self) -> bool {
        matches!(self.operation, Operation::Connect)
    }

    /// Returns a hint on what to do next, if there is one.
    pub fn hint(&self) -> Option<String> {
        match &self.operation {
            Operation::Absent => Some(ABSENT_HINT.to_owned()),
            Operation::Connect => Some("start Docker, or set DOCKER_HOST to its address".to_owned()),
            Operation::Pull { missing_helper: Some(hint), .. } => {
                Some(format!("check the name; if it requires a login: {hint}"))
            }
            Operation::Pull { image, .. } => {
                Some(format!("check the name; if it requires a login, run `docker pull {image}` once, then try again"))
            }
            Operation::Build(path) => self.build_hint(path),
            Operation::Assemble => self.source.downcast_ref::<ImageError>().and_then(ImageError::hint),
            Operation::LoadArchive(_) => Some("run `cargo knot build` again".to_owned()),
            Operation::Load
            | Operation::Inspect(_)
            | Operation::Tag(_)
            | Operation::Remove(_)
            | Operation::Export(_)
            | Operation::Run(_)
            | Operation::Sweep => None,
        }
    }
}

impl DockerError {
    /// Returns a hint for a build that needs a login or `BuildKit`, which the engine reports only by its message.
    fn build_hint(&self, dockerfile: &Path) -> Option<String> {
        let message = self.source.to_string();
        let mentions = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
        if mentions(&["BuildKit"]) {
            let folder = dockerfile.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
            return Some(format!(
                "cloudknot builds without BuildKit; run `docker build -t my-base {}`, and use `my-base` as the base image in \
                 place of the Dockerfile",
                folder.display()
            ));
        }
        mentions(&["no basic auth credentials", "access denied", "unauthorized"]).then(|| {
            "if the FROM image of the Dockerfile needs a login, run `docker login`, or `docker pull` that image once; then \
             try again"
                .to_owned()
        })
    }
}

impl Absent for DockerError {
    fn absent() -> Self {
        Self { operation: Operation::Absent, source: ABSENT.into() }
    }
}

impl From<DockerError> for error::Error {
    fn from(error: DockerError) -> Self {
        let hint = error.hint();
        Self::wrap(ErrorKind::Docker, error, hint)
    }
}
