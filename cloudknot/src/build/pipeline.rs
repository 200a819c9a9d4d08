//! The way of a program from its source to an image: compile, assemble, keep. It exists once, for every verb.

use std::path::PathBuf;

use cloudknot_runtime::engine;

use super::compile::{AwsFeature, CompileError, Program, Worker};
use super::docker_image::{Base, DockerImage, DockerImageBuilder};
use super::image::authorities;
use crate::error::{Error, ErrorKind, Result};
use crate::home::built::Built;

/// A program on its way to an image.
///
/// ```no_run
/// # async fn example() -> cloudknot::Result<()> {
/// use cloudknot::Pipeline;
/// use cloudknot::compile::{Compile, Selection};
///
/// let program = Compile::new(Selection::default()).resolve()?;
/// let artifacts = Pipeline::new(program).run(|digest| digest[..12].to_owned()).await?;
/// println!("{} bytes", artifacts.image.compressed_bytes());
/// artifacts.keep()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Pipeline {
    program: Program,
    ca_bundles: Vec<PathBuf>,
    base: Option<Base>,
}

/// A compiled worker and its image.
#[derive(Debug)]
#[non_exhaustive]
pub struct BuildArtifacts {
    /// The worker.
    pub worker: Worker,
    /// Its image.
    pub image: DockerImage,
    /// Their description, as it is kept.
    pub built: Built,
}

impl Pipeline {
    /// The way of this program, with what its package's settings say of the image.
    pub fn new(program: Program) -> Self {
        Self { program, ca_bundles: Vec::new(), base: None }
    }

    /// Adds a PEM file with certificate authorities that are trusted besides the public ones and those of the settings.
    #[must_use]
    pub fn ca_bundle(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_bundles.push(path.into());
        self
    }

    /// Puts the worker onto this image, in place of what the settings say. The local Docker engine fetches it.
    ///
    /// The program has to be resolved with [`Compile::dynamic`](super::compile::Compile::dynamic).
    #[cfg(feature = "docker")]
    #[must_use]
    pub fn base_image(self, name: impl Into<String>) -> Self {
        self.on(Some(Base::Image(name.into())))
    }

    /// Puts the worker onto what this Dockerfile describes, in place of what the settings say. The local Docker engine builds it
    /// in the folder where it is.
    ///
    /// The program has to be resolved with [`Compile::dynamic`](super::compile::Compile::dynamic).
    #[cfg(feature = "docker")]
    #[must_use]
    pub fn dockerfile(self, path: impl Into<PathBuf>) -> Self {
        self.on(Some(Base::Dockerfile(path.into())))
    }

    pub(crate) fn on(mut self, base: Option<Base>) -> Self {
        self.base = base.or(self.base);
        self
    }

    /// Turns the feature `aws` of cloudknot on; see [`Program::with_aws_feature`].
    pub(crate) fn with_aws_feature(self, feature: &AwsFeature) -> Result<Self, CompileError> {
        Ok(Self { program: self.program.with_aws_feature(feature)?, ..self })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Checks the files that the image is made of, before anything is compiled.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn check(&self) -> Result<()> {
        let settings = self.program.settings();
        for path in settings.ca_bundle.iter().chain(&self.ca_bundles) {
            authorities::read(path)?;
        }
        let of_settings = settings.dockerfile.as_ref().filter(|_| self.base.is_none());
        let dockerfile = match &self.base {
            Some(Base::Dockerfile(path)) => Some(path),
            _ => of_settings,
        };
        match dockerfile.filter(|path| !path.is_file()) {
            None => Ok(()),
            Some(path) => Err(Error::new(ErrorKind::Image, format!("cannot find the Dockerfile `{}`", path.display()))
                .with_hint("paths in Cargo.toml are relative to the package's folder, options to the current one")),
        }
    }

    /// Compiles the worker and assembles its image, with the tag that follows from the image's digest (64 hexadecimal digits).
    ///
    /// # Errors
    /// If the program does not compile or cannot be a worker, a file cannot be read, or the base cannot be had.
    pub async fn run(self, tag: impl FnOnce(&str) -> String) -> Result<BuildArtifacts> {
        self.check()?;
        let Self { program, ca_bundles, base } = self;
        // cargo is waited for, and so not on a thread that others need.
        let compiled = engine::inside(Box::pin(tokio::task::spawn_blocking(move || program.compile())));
        let worker = compiled.await.expect("the compilation does not panic")?;
        let builder = DockerImageBuilder::of_worker(Built::repository(&worker.package), &worker).on(base);
        let mut image = ca_bundles.into_iter().fold(builder, DockerImageBuilder::ca_bundle).build().await?;
        let tag = tag(image.digest().trim_start_matches("sha256:"));
        image.tag(tag)?;
        let built = Built::of(&image, &worker);
        Ok(BuildArtifacts { worker, image, built })
    }
}

impl BuildArtifacts {
    /// Keeps the image as the one that stands for the program: saves it, and notes it beside the crate.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn keep(&self) -> Result<()> {
        self.built.keep(&self.image, &self.worker)
    }
}
