//! Files and folders of this user alone: created with private modes, and opened without following symbolic links, which may
//! come with a clone or from another user of a shared folder.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Mode of a created file.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Mode of a created folder.
const FOLDER_MODE: Mode = Mode::RWXU;
/// Flags of every opened file. A FIFO is opened without waiting for its other end, and then refused.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Error for a symbolic link or a special file in place of a file or a folder.
#[derive(Debug)]
pub struct WrongKind {
    name: String,
    kind: &'static str,
}

impl fmt::Display for WrongKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is {}, which is not followed or opened", self.name, self.kind)
    }
}

impl std::error::Error for WrongKind {}

/// Returns whether the error is a [`WrongKind`].
pub fn is_wrong_kind(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<WrongKind>)
}

/// Returns `true` if the error means that the file does not exist, also if a parent of the file is not a folder.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Returns `true` if the error of a lock means that the file system has no locks, as some network file systems do.
pub fn has_no_locks(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
        || matches!(Errno::from_io_error(error), Some(Errno::NOLCK | Errno::NOSYS))
}

/// Reads a whole file.
///
/// # Errors
/// Fails if the file is a symbolic link, a FIFO or another special file, or is longer than `limit` bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open_file(CWD, path, OFlags::RDONLY)?;
    let size = file.metadata()?.len();
    if size > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has {size} bytes, more than {limit}")));
    }
    read_from(file, size)
}

/// Writes a file and replaces the contents of an existing one.
///
/// # Errors
/// Fails if there is a symbolic link or a special file.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = open_file(CWD, path, OFlags::WRONLY | OFlags::CREATE)?;
    file.set_len(0)?;
    file.write_all(bytes)
}

/// Creates a folder and its missing parents. Links in the path are followed: the user has named it.
pub fn create_folders(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a folder. Links in the path are followed: the user has named it.
pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a folder in another one.
pub(crate) fn open_folder(parent: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    let parent = parent.as_fd();
    rustix::fs::openat(parent, name, OFlags::RDONLY | FOLDER, Mode::empty())
        .map_err(|errno| explain(parent, Path::new(name), errno))
}

/// Opens a folder in another one, and creates it if it does not exist.
pub(crate) fn create_folder(parent: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    match open_folder(&parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    match rustix::fs::mkdirat(&parent, name, FOLDER_MODE) {
        // Another program was faster.
        Ok(()) | Err(Errno::EXIST) => open_folder(parent, name),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a regular file in a folder.
pub(crate) fn open_file(folder: impl AsFd, name: impl AsRef<Path>, flags: OFlags) -> io::Result<File> {
    let (folder, name) = (folder.as_fd(), name.as_ref());
    let opened = rustix::fs::openat(folder, name, flags | FILE, FILE_MODE);
    let file = File::from(opened.map_err(|errno| explain(folder, name, errno))?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(wrong_kind(name, "not a regular file")) }
}

/// Reads this number of bytes of a file from its current position, or fewer if the file ends before.
pub(crate) fn read_from(file: File, size: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(size).map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
    let mut bytes = Vec::new();
    // A sparse file can be larger than the memory. `read_to_end` fills spare capacity, which need not be zeroed first.
    bytes.try_reserve_exact(length).map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
    file.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the error of an attempt to open a file. The system reports a link as a loop, or as something that is no folder.
fn explain(folder: BorrowedFd<'_>, name: &Path, errno: Errno) -> io::Error {
    let may_be_wrong = matches!(errno, Errno::LOOP | Errno::NOTDIR | Errno::NXIO);
    let found = || rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok();
    match found().filter(|_| may_be_wrong).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Some(FileType::Symlink) => wrong_kind(name, "a symbolic link"),
        Some(FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice) => {
            wrong_kind(name, "not a regular file")
        }
        _ => errno.into(),
    }
}

fn wrong_kind(name: &Path, kind: &'static str) -> io::Error {
    io::Error::other(WrongKind { name: name.display().to_string(), kind })
}
