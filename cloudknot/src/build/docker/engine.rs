//! Requests to a Docker engine.

pub(crate) mod container;
mod context;
mod export;
mod froms;

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

pub(super) use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::errors::Error as EngineError;
use bollard::query_parameters::{
    BuildImageOptionsBuilder, CreateImageOptionsBuilder, ImportImageOptions, RemoveImageOptions, TagImageOptionsBuilder,
};
use docker_credential::DockerCredential;
use futures_util::TryStreamExt;

use super::{Base, DockerError, Engine, Operation};
use crate::build::image::{Architecture, Image, ImageOptions};
use crate::build::registry::client::stored;

pub(super) async fn connect() -> Result<Engine, DockerError> {
    let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()).or_else(rootless);
    connect_to(host.as_deref()).await
}

pub(super) async fn connect_to(host: Option<&str>) -> Result<Engine, DockerError> {
    let failed = |source| DockerError::new(Operation::Connect, source);
    let docker = match host {
        Some(host) => Docker::connect_with_host(host),
        None => Docker::connect_with_local_defaults(),
    };
    // An engine rejects an API version newer than its own, so the version is negotiated.
    let docker = docker.map_err(failed)?.negotiate_version().await.map_err(failed)?;
    Ok(Engine { docker, logins: None })
}

pub(super) async fn load(engine: &Engine, image: &Image, names: &[String]) -> Result<(), DockerError> {
    let failed = |source| DockerError::new(Operation::Load, source);
    let tar = bollard::body_full(image.tar(names));
    let load = engine.docker.import_image(ImportImageOptions::default(), tar, None).try_collect::<Vec<_>>();
    load.await.map(drop).map_err(failed)
}

pub(super) async fn tag(engine: &Engine, image: &str, name: &str) -> Result<(), DockerError> {
    let (repo, tag) = split(name);
    let options = TagImageOptionsBuilder::default().repo(repo).tag(tag).build();
    let failed = |source| DockerError::new(Operation::Tag(image.to_owned()), source);
    engine.docker.tag_image(image, Some(options)).await.map_err(failed)
}

pub(super) async fn id_of(engine: &Engine, name: &str) -> Result<Option<String>, DockerError> {
    match engine.docker.inspect_image(name).await {
        Ok(image) => Ok(image.id),
        Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(source) => Err(DockerError::new(Operation::Inspect(name.to_owned()), source)),
    }
}

pub(super) async fn remove(engine: &Engine, name: &str) -> Result<bool, DockerError> {
    match engine.docker.remove_image(name, None::<RemoveImageOptions>, None).await {
        Ok(_) => Ok(true),
        Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
        Err(source) => Err(DockerError::new(Operation::Remove(name.to_owned()), source)),
    }
}

pub(super) async fn assemble(
    engine: &Engine,
    base: &Base,
    worker: &[u8],
    options: &ImageOptions,
) -> Result<Image, DockerError> {
    let image_failed = |source| DockerError { operation: Operation::Assemble, source: Box::new(source) };
    let architecture = Architecture::of(worker).map_err(image_failed)?;
    let name = match base {
        Base::Image(name) => engine.pull(name, architecture).await?,
        Base::Dockerfile(path) => engine.build(path, architecture).await?,
    };
    let base = engine.export(&name).await?;
    Image::assemble_on(base, worker, options).map_err(image_failed)
}

impl Engine {
    /// Loads the image of this archive into the engine, under the names in the archive.
    pub(crate) async fn load_archive(&self, path: &Path) -> Result<(), DockerError> {
        let operation = || Operation::LoadArchive(path.to_owned());
        let tar =
            std::fs::read(path).map_err(|source| DockerError { operation: operation(), source: source.into() })?;
        let load = self.docker.import_image(ImportImageOptions::default(), bollard::body_full(tar.into()), None);
        load.try_collect::<Vec<_>>().await.map_err(|source| DockerError::new(operation(), source))?;
        Ok(())
    }

    /// Pulls the image for this architecture, unless the engine has it. Returns its name.
    async fn pull(&self, name: &str, architecture: Architecture) -> Result<String, DockerError> {
        let present = self.docker.inspect_image(name).await;
        if present.is_ok_and(|image| image.architecture.as_deref() == Some(architecture.docker())) {
            return Ok(name.to_owned());
        }
        let (from, tag) = split(name);
        let platform = format!("linux/{}", architecture.docker());
        let options = CreateImageOptionsBuilder::default().from_image(from).tag(tag).platform(&platform).build();
        let failed = |source| {
            let missing_helper = stored::missing_helper_of_image(self.logins.as_deref(), name);
            let missing_helper = missing_helper.map(|(helper, registry)| helper.hint(&registry));
            DockerError::new(Operation::Pull { image: name.to_owned(), missing_helper }, source)
        };
        let login = self.login(name).await.map(|(_, login)| login);
        self.docker.create_image(Some(options), None, login).try_collect::<Vec<_>>().await.map_err(failed)?;
        Ok(name.to_owned())
    }

    /// Builds a Dockerfile in the engine. Returns the ID of the image.
    async fn build(&self, dockerfile: &Path, architecture: Architecture) -> Result<String, DockerError> {
        let operation = || Operation::Build(dockerfile.to_owned());
        let tar =
            context::tar(dockerfile).map_err(|source| DockerError { operation: operation(), source: source.into() })?;
        let platform = format!("linux/{}", architecture.docker());
        let options =
            BuildImageOptionsBuilder::default().dockerfile(context::DOCKERFILE).platform(&platform).rm(true).build();
        let text = std::fs::read(dockerfile)
            .map_err(|source| DockerError { operation: operation(), source: source.into() })?;
        let mut logins = HashMap::new();
        for image in froms::images(&String::from_utf8_lossy(&text)) {
            logins.extend(self.login(&image).await);
        }
        let mut output = String::new();
        let mut id = None;
        let tar = bollard::body_try_stream(tar);
        let mut lines = std::pin::pin!(self.docker.build_image(options, Some(logins), Some(tar)));
        loop {
            match lines.try_next().await {
                Ok(Some(line)) => {
                    output.extend(line.stream);
                    id = line.aux.and_then(|image| image.id).or(id);
                }
                Ok(None) => break,
                // The engine's error names the step that failed; the output of that step contains the reason.
                Err(source) => {
                    return Err(DockerError {
                        operation: operation(),
                        source: Box::new(BuildFailure { source, output: last_lines(&output) }),
                    });
                }
            }
        }
        id.ok_or_else(|| DockerError {
            operation: operation(),
            source: "the engine did not report the ID of the image".into(),
        })
    }

    /// Returns the stored credentials for the registry of an image, with the name under which the engine expects them.
    /// Credentials that cannot be read count as none, as in Docker: most images need none.
    async fn login(&self, image: &str) -> Option<(String, DockerCredentials)> {
        let found = stored::of_image(self.logins.as_deref(), image).await;
        let (registry, found) = found
            .inspect_err(|error| tracing::warn!(image, ?error, "the engine is given no login for the image"))
            .ok()??;
        // bollard encodes the credentials in the standard base64 alphabet, and the engine decodes the URL-safe one. The two
        // differ only for `?`, `>` and `~` in some positions: a password with one of them may be rejected, and the hint
        // of that error has a workaround.
        let mut login = DockerCredentials { serveraddress: Some(registry.clone()), ..DockerCredentials::default() };
        match found {
            DockerCredential::UsernamePassword(user, password) => {
                (login.username, login.password) = (Some(user), Some(password));
            }
            DockerCredential::IdentityToken(token) => login.identitytoken = Some(token),
        }
        Some((registry, login))
    }

    async fn export(&self, name: &str) -> Result<Image, DockerError> {
        let failed = |source: Box<dyn Error + Send + Sync>| DockerError {
            operation: Operation::Export(name.to_owned()),
            source,
        };
        let mut file = tempfile::tempfile().map_err(|error| failed(error.into()))?;
        let mut chunks = std::pin::pin!(self.docker.export_image(name));
        while let Some(chunk) = chunks.try_next().await.map_err(|error| failed(error.into()))? {
            std::io::Write::write_all(&mut file, &chunk).map_err(|error| failed(error.into()))?;
        }
        // Compressing a large base takes many seconds and must not block other tasks.
        let read = tokio::task::spawn_blocking(move || export::read(file));
        read.await.expect("reading an export does not panic").map_err(failed)
    }
}

impl DockerError {
    fn new(operation: Operation, source: EngineError) -> Self {
        // bollard's message contains the status but not the image; the engine's message is more useful.
        let source: Box<dyn Error + Send + Sync> = match source {
            EngineError::DockerResponseServerError { message, .. } => message.into(),
            EngineError::DockerStreamError { error } => error.into(),
            source => source.into(),
        };
        Self { operation, source }
    }
}

/// Returns the socket of a rootless engine, if there is one and no other engine's socket.
fn rootless() -> Option<String> {
    let socket = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?).join("docker.sock");
    let is_only_socket = socket.exists() && !Path::new("/var/run/docker.sock").exists();
    is_only_socket.then(|| format!("unix://{}", socket.display()))
}

/// Splits a name into repository and tag. A colon before a slash belongs to a port, and a name with a digest needs no tag.
fn split(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        _ if name.contains('@') => (name, ""),
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Failed step of a Dockerfile, and its output.
#[derive(Debug)]
struct BuildFailure {
    source: EngineError,
    output: String,
}

impl fmt::Display for BuildFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            EngineError::DockerStreamError { error: message }
            | EngineError::DockerResponseServerError { message, .. } => f.write_str(message)?,
            source => write!(f, "{source}")?,
        }
        if !self.output.is_empty() {
            write!(f, "\n{}", self.output)?;
        }
        Ok(())
    }
}

impl Error for BuildFailure {}
