//! The pipeline from a program's source to an image: compile, assemble, keep. All commands share it.

use cloudknot_runtime::engine;

use super::compile::{AwsFeature, CompileError, Program, Worker};
use super::docker_image::{DockerImage, DockerImageBuilder};
use super::image;
use crate::error::{Error, ErrorKind, Result};
use crate::home::built::Built;
use crate::settings::image::ImageSettings;

/// Pipeline from a program to its image.
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
    image: ImageSettings,
}

/// Compiled worker and its image.
#[derive(Debug)]
#[non_exhaustive]
pub struct BuildArtifacts {
    /// Compiled worker.
    pub worker: Worker,
    /// Image of the worker.
    pub image: DockerImage,
    /// Description of both, as it is kept.
    pub built: Built,
}

impl Pipeline {
    /// Creates the pipeline of this program, with the image settings of its package.
    pub fn new(program: Program) -> Self {
        Self { program, image: ImageSettings::default() }
    }

    /// Sets the settings of the image, in place of those that were set before. They extend those of the package:
    /// CA bundles and included files are added, and a base image replaces the package's.
    ///
    /// With a base, the program must be resolved with [`Compile::dynamic`](super::compile::Compile::dynamic).
    #[must_use]
    pub fn image(mut self, settings: ImageSettings) -> Self {
        self.image = settings;
        self
    }

    /// Enables the feature `aws` of cloudknot; see [`Program::with_aws_feature`].
    pub(crate) fn with_aws_feature(self, feature: &AwsFeature) -> Result<Self, CompileError> {
        Ok(Self { program: self.program.with_aws_feature(feature)?, ..self })
    }

    /// Returns the program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Returns whether the image has a base.
    pub(crate) fn has_base(&self) -> bool {
        self.settings().has_base()
    }

    fn settings(&self) -> ImageSettings {
        self.image.clone().or(&self.program.settings().image)
    }

    /// Checks the files that the image is built from, before anything is compiled.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub fn check(&self) -> Result<()> {
        let settings = self.settings();
        settings.check()?;
        for path in &settings.ca_bundle {
            image::check_ca_bundle(path)?;
        }
        image::check_include(self.program.package_folder(), &settings.include)?;
        match settings.dockerfile.filter(|path| !path.is_file()) {
            None => Ok(()),
            Some(path) => Err(Error::new(ErrorKind::Image, format!("cannot find the Dockerfile `{}`", path.display()))
                .with_hint(
                    "paths in Cargo.toml are relative to the package's folder, paths in options to the current folder",
                )),
        }
    }

    /// Compiles the worker and assembles its image, with the tag that `tag` derives from the image's digest (64 hexadecimal
    /// digits).
    ///
    /// # Errors
    /// Returns an error if the program does not compile or cannot be a worker, a file cannot be read, or the base image is not
    /// available.
    pub async fn run(self, tag: impl FnOnce(&str) -> String) -> Result<BuildArtifacts> {
        self.check()?;
        let settings = self.settings();
        let program = self.program;
        let worker = blocking(move || program.compile()).await?;
        let builder = DockerImageBuilder::of_worker(Built::repository(&worker.package), &worker);
        let mut image = builder.image(settings).build().await?;
        let tag = tag(image.digest().trim_start_matches("sha256:"));
        image.tag(tag)?;
        let built = Built::of(&image, &worker)?;
        Ok(BuildArtifacts { worker, image, built })
    }
}

impl BuildArtifacts {
    /// Keeps the image as the program's current one: saves its archive, and writes a note of it beside the crate.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn keep(&self) -> Result<()> {
        self.built.keep(&self.image, &self.worker)
    }
}

/// Waits for cargo on a thread of its own, so that no thread is blocked that other tasks need.
pub(crate) async fn blocking<T: Send + 'static>(wait: impl FnOnce() -> T + Send + 'static) -> T {
    let waiting = async move { tokio::task::spawn_blocking(wait).await };
    engine::inside(Box::pin(waiting)).await.expect("waiting for cargo does not panic")
}
