//! Keeps a built image beside the crate, as an archive with a note, and removes it, also from the Docker engine.

use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use cloudknot_runtime::contract::{self, Types};

use crate::build::compile::Worker;
use crate::build::docker::Engine;
use crate::build::docker_image::DockerImage;
use crate::error::{Error, ErrorKind, Result};
use crate::home;
use crate::home::built::{Built, FILE};

impl Built {
    /// Describes the image of this worker, as it would be kept. Runs the worker to read its types.
    pub(super) fn of(image: &DockerImage, worker: &Worker) -> Result<Self> {
        let name = image.tags().first().map_or_else(|| "latest".to_owned(), Clone::clone);
        let folder = worker.path.parent().unwrap_or(Path::new("."));
        Ok(Self {
            package: worker.package.clone(),
            version: worker.version.clone(),
            cargo_target: worker.cargo_target.option(),
            target: worker.target.clone(),
            worker: worker.path.clone(),
            worker_bytes: image.worker_bytes(),
            compressed_bytes: image.compressed_bytes(),
            digest: image.digest().to_owned(),
            layers: image.layers(),
            name: format!("{}:{name}", image.name()),
            archive: folder.join(Self::archive_name(&worker.package, image.digest())),
            functions: worker.functions.clone(),
            types: types_of(worker)?,
        })
    }

    /// Keeps the image as the program's current one: saves its archive, and writes a note of it beside the crate.
    pub(super) fn keep(&self, image: &DockerImage, worker: &Worker) -> Result<()> {
        if !self.archive.exists() {
            image.save(&self.archive)?;
        }
        self.write(&home::of_package(&worker.package_folder))
    }

    /// Removes the program's image that the note in this folder describes: from the Docker engine, along with its archive and
    /// the note. Returns whether there was a note.
    pub(crate) async fn clobber(home: &Path) -> Result<bool> {
        if !home.join(FILE).exists() {
            return Ok(false);
        }
        let built = Self::read(home)?;
        match Engine::connect().await {
            Ok(engine) => drop(engine.remove(&built.name).await?),
            Err(error) if error.is_no_engine() => {}
            Err(error) => return Err(error.into()),
        }
        for path in [built.archive, home.join(FILE)] {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                let message = format!("cannot remove `{}`", path.display());
                return Err(Error::new(ErrorKind::Image, message).with_source(error));
            }
        }
        Ok(true)
    }
}

/// Returns the types that the worker reports; `None` if it cannot run on this machine. Such a worker compares the types when
/// it runs.
fn types_of(worker: &Worker) -> Result<Option<Vec<Types>>> {
    let mut command = Command::new(&worker.path);
    let started = command.env(contract::ENV_DESCRIBE, "1").stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let Ok(output) = started else { return Ok(None) };
    let is_native = worker.target.starts_with(std::env::consts::ARCH);
    types_in(&output, is_native).map_err(|reason| {
        let message = format!("cannot read the types of the worker `{}`: {reason}", worker.path.display());
        Error::new(ErrorKind::Image, message)
            .with_hint("the worker is started to read them, and must reach the generated `main`")
    })
}

/// Exit code of the dynamic loader if this machine lacks a shared library, which the base of the image has.
const MISSING_LIBRARY: i32 = 127;

/// Finds the types in the output of a worker. Returns the reason if they are missing, although the worker runs here.
fn types_in(output: &Output, is_native: bool) -> Result<Option<Vec<Types>>, String> {
    let types = Types::find(&String::from_utf8_lossy(&output.stdout)).filter(|_| output.status.success());
    if types.is_some() || !is_native || output.status.code() == Some(MISSING_LIBRARY) {
        return Ok(types);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let error = errors.lines().find(|line| !line.trim().is_empty()).map(|line| format!(": {line}"));
    let reason = if output.status.success() { "it printed none".to_owned() } else { output.status.to_string() };
    Err(reason + &error.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use cloudknot_runtime::fingerprint::Fingerprint;

    use super::*;

    fn output(code: i32, stdout: &str, stderr: &str) -> Output {
        Output { status: ExitStatus::from_raw(code << 8), stdout: stdout.into(), stderr: stderr.into() }
    }

    // H3
    #[test]
    fn a_worker_without_types_is_an_error_unless_it_cannot_run_here() {
        let types = vec![Types { function: "a:a::f".into(), fingerprint: Fingerprint(7), schema: "input: u8".into() }];
        let described = output(0, &format!("libfast 2.1{}bye", Types::line(&types)), "");
        assert_eq!(types_in(&described, true), Ok(Some(types)));
        assert_eq!(types_in(&output(0, "libfast 2.1\n", ""), true), Err("it printed none".into()));
        assert_eq!(types_in(&output(1, "", "\nno licence\n"), true), Err("exit status: 1: no licence".into()));
        assert_eq!(types_in(&output(1, "", "no such instruction"), false), Ok(None));
        assert_eq!(types_in(&output(MISSING_LIBRARY, "", "libcuda.so"), true), Ok(None));
    }
}
