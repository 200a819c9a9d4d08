//! Settings of an image, from `[package.metadata.cloudknot]`, the builders and flags.

use std::path::PathBuf;

use serde::Deserialize;

use super::checks;
use super::declare::declare;
use crate::error::{Error, ErrorKind, Result};

declare! {
    setters: image_setters for image,
    /// Settings of the image of a worker. A setting that was not given is `None` or empty.
    #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
    #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
    #[non_exhaustive]
    pub struct ImageSettings {
        /// PEM files of CA certificates that are trusted besides the public ones, by the worker and for pushes.
        #[flag("--ca-bundle FILE", "Image")]
        #[setter(ca_bundle: impl Into<PathBuf>)]
        pub ca_bundle: Vec<PathBuf>,
        /// Base image of the worker, for native libraries or files. The local Docker engine pulls it, and the worker is linked
        /// dynamically.
        #[flag("--base-image IMAGE", "Image", conflicts: dockerfile)]
        #[setter(impl Into<String>, in_place_of: dockerfile)]
        pub base_image: Option<String>,
        /// Dockerfile of the worker's base image. The local Docker engine builds it, with the Dockerfile's folder as the context,
        /// without what `.dockerignore` names, and without `target`, `.git`, `.cloudknot` and `.env`.
        #[flag("--dockerfile FILE", "Image", conflicts: base_image)]
        #[setter(impl Into<PathBuf>, in_place_of: base_image)]
        pub dockerfile: Option<PathBuf>,
        /// Files and folders of the package that are put into the image, where [`data`](crate::data()) finds them. Paths are
        /// relative to the package's folder. Left out of a folder are `.git`, `.cloudknot`, `.env`, `.env.*`, and caches (folders with
        /// a `CACHEDIR.TAG`, such as what cargo compiled).
        #[check(checks::included)]
        #[setter(include: impl Into<PathBuf>)]
        pub include: Vec<PathBuf>,
        /// `true` if the image has the time zone database of IANA, at `/usr/share/zoneinfo`. That of a base image is kept.
        #[setter(true)]
        pub timezones: Option<bool>,
    }
}

impl ImageSettings {
    /// Returns whether the worker has a base image, which provides its libraries.
    pub fn has_base(&self) -> bool {
        self.base_image.is_some() || self.dockerfile.is_some()
    }

    /// Returns these settings, completed by those of a package: the CA bundles of both are trusted, the files of both
    /// are included, and a base replaces that of the package.
    pub(crate) fn or(mut self, package: &Self) -> Self {
        self.ca_bundle.splice(0..0, package.ca_bundle.iter().cloned());
        self.include.splice(0..0, package.include.iter().cloned());
        self.timezones = self.timezones.or(package.timezones);
        if !self.has_base() {
            self.base_image.clone_from(&package.base_image);
            self.dockerfile.clone_from(&package.dockerfile);
        }
        self
    }

    /// Checks each setting, and that there is at most one base.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_each()?;
        if self.base_image.is_none() || self.dockerfile.is_none() {
            return Ok(());
        }
        let message = "invalid `base-image` with `dockerfile`: must not be used together";
        Err(Error::new(ErrorKind::Config, message).with_hint("set one of them"))
    }
}
