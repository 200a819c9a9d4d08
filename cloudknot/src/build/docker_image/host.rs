//! [`DockerImage`](super::DockerImage) on the host: an assembled image, with access to the registry and the engine.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Base, DockerImageBuilder};
#[cfg(feature = "docker")]
use crate::build::docker::{self, Engine};
use crate::build::image::{Image, ImageOptions};
use crate::build::registry::{Progress, Repository};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{self, Event};
use crate::settings::login::Login;

#[derive(Debug)]
pub(super) struct Inside {
    image: Image,
    ca_bundles: Vec<PathBuf>,
}

impl Inside {
    pub(super) async fn build(builder: &DockerImageBuilder) -> Result<Self> {
        Self::check_name(&builder.name)?;
        let worker = std::fs::read(&builder.worker).map_err(|source| {
            let message = format!("cannot read the worker `{}`", builder.worker.display());
            Error::new(ErrorKind::Image, message).with_source(source)
        })?;
        let mut options = ImageOptions::new(&builder.title, &builder.version).functions(&builder.functions);
        options = builder.labels.iter().fold(options, |options, (key, value)| options.label(key, value));
        options = builder.ca_bundles.iter().fold(options, ImageOptions::ca_bundle);
        let image = assemble(builder.base.clone(), worker, options).await?;
        Ok(Self { image, ca_bundles: builder.ca_bundles.clone() })
    }

    pub(super) fn check_name(name: &str) -> Result<()> {
        if Repository::is_name(name) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Image, format!("invalid image name `{name}`"))
            .with_hint("a name is like `my-crate` or `lab/my-crate`, in lower case, and a tag has no spaces"))
    }

    pub(super) fn digest(&self) -> &str {
        self.image.digest()
    }

    pub(super) fn compressed_bytes(&self) -> u64 {
        self.image.compressed_bytes()
    }

    pub(super) fn worker_bytes(&self) -> u64 {
        self.image.worker_bytes()
    }

    pub(super) fn layers(&self) -> Vec<(String, u64)> {
        self.image.layers().map(|(digest, bytes)| (digest.to_owned(), bytes.len() as u64)).collect()
    }

    pub(super) fn save(&self, path: &Path, names: &[String]) -> Result<()> {
        Ok(self.image.save_tar(path, names)?)
    }

    pub(super) async fn push(&self, repository: &str, login: &Login, tags: &[String]) -> Result<String> {
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let told = self.repository(repository, login)?.on_progress(reporter(repository, self.compressed_bytes()));
        let pushed = told.push(&self.image, &tags).await;
        let sent = pushed.as_ref().ok().map(|pushed| pushed.sent_bytes);
        event::report(&Event::PushFinished { repository, sent });
        Ok(pushed?.reference)
    }

    pub(super) async fn remove_pushed(&self, repository: &str, login: &Login) -> Result<()> {
        self.repository(repository, login)?.delete(self.image.digest()).await?;
        Ok(())
    }

    fn repository(&self, name: &str, login: &Login) -> Result<Repository> {
        let repository = Repository::new(name)?.login(login.clone());
        Ok(self.ca_bundles.iter().fold(repository, Repository::ca_bundle))
    }

    #[cfg(feature = "docker")]
    pub(super) async fn load(&self, names: &[String]) -> Result<()> {
        Ok(Engine::connect().await?.load(&self.image, names).await?)
    }

    /// Removes the image from the local engine. Without an engine, there is nothing to remove.
    #[cfg(feature = "docker")]
    pub(super) async fn remove_local(&self, names: &[String]) -> Result<()> {
        let engine = match Engine::connect().await {
            Ok(engine) => engine,
            Err(error) if error.is_no_engine() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for name in names {
            if engine.id_of(name).await?.as_deref() == Some(self.image.id()) {
                engine.remove(name).await?;
            }
        }
        Ok(())
    }

    #[cfg(not(feature = "docker"))]
    #[expect(clippy::unused_async, reason = "with an engine it has to wait")]
    pub(super) async fn remove_local(&self, _: &[String]) -> Result<()> {
        Ok(())
    }
}

/// Converts the progress of each blob to the progress of the whole image.
fn reporter(repository: &str, bytes: u64) -> impl Fn(&Progress<'_>) + Send + Sync + 'static {
    let (repository, settled) = (repository.to_owned(), AtomicU64::new(0));
    move |progress| {
        let report = |sent| event::report(&Event::Pushing { repository: &repository, sent, bytes });
        match *progress {
            Progress::Sending { sent, .. } => report(settled.load(Ordering::Relaxed) + sent),
            Progress::Present { bytes, .. } | Progress::Sent { bytes, .. } => {
                report(settled.fetch_add(bytes, Ordering::Relaxed) + bytes);
            }
            Progress::Retrying { doing, reason, wait, .. } => event::report(&Event::Retrying { doing, reason, wait }),
            Progress::Tagged { .. } => {}
        }
    }
}

async fn assemble(base: Option<Base>, worker: Vec<u8>, options: ImageOptions) -> Result<Image> {
    #[cfg(feature = "docker")]
    if let Some(base) = base {
        let base = match base {
            Base::Image(name) => docker::Base::Image(name),
            Base::Dockerfile(path) => docker::Base::Dockerfile(path),
        };
        return Ok(Engine::connect().await?.assemble(&base, &worker, &options).await?);
    }
    #[cfg(not(feature = "docker"))]
    if base.is_some() {
        return Err(Error::new(
            ErrorKind::Image,
            "cannot add the worker to its base image: this needs a Docker engine",
        )
        .with_hint("build cloudknot with the feature `docker`"));
    }
    // Compressing takes a considerable part of a second and must not block other tasks.
    let assembled = tokio::task::spawn_blocking(move || Image::assemble(&worker, &options)).await;
    Ok(assembled.expect("assembling an image does not panic")?)
}
