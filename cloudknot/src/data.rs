//! Paths of the included files: in the image, and on this machine.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use cloudknot_runtime::{contract, files};

use crate::home;

/// Folder that the included files are in.
#[derive(Debug)]
enum Folder {
    /// The folder of the image, in a worker.
    Image,
    /// The folder of the program's package; `None` if it does not exist on this machine.
    Package(Option<PathBuf>),
    /// The folder that [`contract::ENV_DATA`] names.
    Variable(PathBuf),
}

/// Returns the path of an included file or folder.
pub(crate) fn find(path: &Path) -> io::Result<PathBuf> {
    Folder::here().find(path)
}

impl Folder {
    fn here() -> Self {
        if cfg!(cloudknot_worker) {
            return Self::Image;
        }
        let variable = std::env::var_os(contract::ENV_DATA).filter(|folder| !folder.is_empty());
        variable.map_or_else(|| Self::Package(home::crate_folder()), |folder| Self::Variable(folder.into()))
    }

    fn find(&self, path: &Path) -> io::Result<PathBuf> {
        if !contract::is_included_path(path) {
            let reason = "must be as in `include`: relative to the package's folder, without `..`";
            let message = format!("invalid path of a data file `{}`: {reason}", path.display());
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        let found = self.path()?.map(|folder| folder.join(path)).ok_or_else(|| self.absent(path))?;
        match std::fs::metadata(&found) {
            Ok(_) => Ok(found),
            Err(error) if files::is_absent(&error) => Err(self.absent(path)),
            Err(error) => {
                let message = format!("cannot read the data file `{}`: {error}", found.display());
                Err(io::Error::new(error.kind(), message))
            }
        }
    }

    fn path(&self) -> io::Result<Option<&Path>> {
        match self {
            Self::Image => Ok(Some(Path::new(contract::DATA))),
            Self::Package(folder) => Ok(folder.as_deref()),
            // An item process may have another working folder than the program.
            Self::Variable(folder) if folder.is_relative() => {
                let (name, folder) = (contract::ENV_DATA, folder.display());
                Err(io::Error::new(
                    ErrorKind::InvalidInput,
                    format!("invalid {name} `{folder}`: must be an absolute path"),
                ))
            }
            Self::Variable(folder) => Ok(Some(folder)),
        }
    }

    fn absent(&self, path: &Path) -> io::Error {
        let name = contract::ENV_DATA;
        let message = match self {
            Self::Image => {
                "in the image: add it to `include` in [package.metadata.cloudknot], then deploy again".to_owned()
            }
            Self::Package(None) => format!(
                "on this machine: the folder of the program's package does not exist; set {name} to a folder with the file"
            ),
            Self::Package(Some(folder)) => format!(
                "in the package's folder `{}`: create it there, or set {name} to a folder with the file",
                folder.display()
            ),
            Self::Variable(folder) => {
                format!("in `{}`: create it there, or set {name} to a folder with the file", folder.display())
            }
        };
        io::Error::new(ErrorKind::NotFound, format!("cannot find the data file `{}` {message}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(folder: &Folder, path: &str, expected: Result<&str, (ErrorKind, &str)>) {
        let found = folder.find(Path::new(path)).map_err(|error| (error.kind(), error.to_string()));
        let expected = expected.map(PathBuf::from).map_err(|(kind, message)| (kind, message.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn included_files_are_found_in_their_folder() {
        let package = env!("CARGO_MANIFEST_DIR");
        let here = Folder::Package(Some(package.into()));
        check(&here, "src/data.rs", Ok(&format!("{package}/src/data.rs")));
        check(&Folder::Variable(package.into()), "./src/", Ok(&format!("{package}/./src/")));
    }

    #[test]
    fn absent_files_are_explained() {
        let missing = |folder: &Folder, message: &str| {
            let message = format!("cannot find the data file `grid.csv` {message}");
            check(folder, "grid.csv", Err((ErrorKind::NotFound, &message)));
        };
        missing(&Folder::Image, "in the image: add it to `include` in [package.metadata.cloudknot], then deploy again");
        missing(
            &Folder::Package(None),
            "on this machine: the folder of the program's package does not exist; set CLOUDKNOT_DATA to a folder with the file",
        );
        let hint = "create it there, or set CLOUDKNOT_DATA to a folder with the file";
        missing(&Folder::Package(Some("/proc".into())), &format!("in the package's folder `/proc`: {hint}"));
        missing(&Folder::Variable("/dev/null".into()), &format!("in `/dev/null`: {hint}"));
    }

    #[test]
    fn paths_outside_of_the_folder_are_refused() {
        for path in ["/etc/passwd", "../secret", "data/../../secret", ""] {
            let message = format!(
                "invalid path of a data file `{path}`: must be as in `include`: relative to the package's folder, without `..`"
            );
            check(&Folder::Image, path, Err((ErrorKind::InvalidInput, &message)));
        }
        let relative = "invalid CLOUDKNOT_DATA `data`: must be an absolute path";
        check(&Folder::Variable("data".into()), "x", Err((ErrorKind::InvalidInput, relative)));
    }
}
