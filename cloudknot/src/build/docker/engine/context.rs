//! Build context of a Dockerfile: the folder around it, without the files that `.dockerignore` names, and without those that
//! no image needs.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::Stream;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::{DirEntry, WalkBuilder};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Path of the Dockerfile in the context, regardless of its own name.
pub(super) const DOCKERFILE: &str = ".cloudknot.Dockerfile";

/// Files and folders beside a Dockerfile that are left out unless `.dockerignore` includes them again: what cargo compiled,
/// the history, the runs, and secrets. The engine may be on another machine.
const LEFT_OUT: [&str; 4] = ["target", ".git", ".cloudknot", ".env"];
/// Maximum number of pieces of the archive that are in memory.
const MAX_PIECES: usize = 8;
/// Length of a piece in bytes.
const PIECE_LEN: usize = 256 << 10;

/// Returns the context as a tar archive, which a thread reads from the folder while it is sent. If a file cannot be read, the
/// last item is the error.
pub(super) fn tar(dockerfile: &Path) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
    let text = std::fs::read(dockerfile)?;
    let folder = match dockerfile.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let ignored = Ignored::read(&folder)?;
    let (sender, mut pieces): (_, Receiver<io::Result<Bytes>>) = channel(MAX_PIECES);
    std::thread::Builder::new().name("cloudknot-context".into()).spawn(move || {
        let out = BufWriter::with_capacity(PIECE_LEN, Pieces(sender.clone()));
        if let Err(error) = write(&folder, &text, &ignored, out) {
            // Fails if the engine has refused the request, whose response tells why.
            let _ = sender.blocking_send(Err(error));
        }
    })?;
    Ok(futures_util::stream::poll_fn(move |context| pieces.poll_recv(context)))
}

fn write(folder: &Path, dockerfile: &[u8], ignored: &Ignored, out: impl Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    // Symbolic links are kept, and timestamps are omitted: the engine would treat them as changes.
    tar.follow_symlinks(false);
    tar.mode(tar::HeaderMode::Deterministic);
    let mut walk = WalkBuilder::new(folder);
    let (root, left_out) = (folder.to_owned(), ignored.left_out.clone());
    let is_left_out = move |entry: &DirEntry| {
        entry.path().strip_prefix(&root).is_ok_and(|name| left_out.iter().any(|left_out| name == Path::new(left_out)))
    };
    walk.standard_filters(false).sort_by_file_name(Ord::cmp).filter_entry(move |entry| !is_left_out(entry));
    for entry in walk.build() {
        let entry = entry.map_err(io::Error::other)?;
        let Ok(name) = entry.path().strip_prefix(folder) else { continue };
        let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
        // All folders are included, even if empty: a later pattern may re-include a file in an ignored folder.
        if name == Path::new("") || (!is_folder && ignored.matches(name)) {
            continue;
        }
        if is_folder {
            tar.append_dir(name, entry.path())?;
        } else {
            tar.append_path_with_name(entry.path(), name)?;
        }
    }
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(dockerfile.len() as u64);
    tar.append_data(&mut header, DOCKERFILE, dockerfile)?;
    tar.into_inner()?.flush()
}

/// Writer that sends each piece to the request.
struct Pieces(Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(Ok(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Files that the context does not have.
struct Ignored {
    patterns: Gitignore,
    /// The names of [`LEFT_OUT`] that no pattern includes again. Their content is not even listed.
    left_out: Vec<&'static str>,
}

impl Ignored {
    /// Reads the patterns of `.dockerignore`. They are git's, except that each is anchored at the folder itself.
    fn read(folder: &Path) -> io::Result<Self> {
        let text = match std::fs::read_to_string(folder.join(".dockerignore")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut patterns = GitignoreBuilder::new("");
        let mut left_out = LEFT_OUT.to_vec();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (not, pattern) = line.strip_prefix('!').map_or(("", line), |pattern| ("!", pattern));
            let pattern = pattern.trim().trim_start_matches("./").trim_start_matches('/');
            patterns.add_line(None, &format!("{not}/{pattern}")).map_err(io::Error::other)?;
            left_out.retain(|name| not.is_empty() || pattern.split('/').next() != Some(name));
        }
        Ok(Self { patterns: patterns.build().map_err(io::Error::other)?, left_out })
    }

    fn matches(&self, file: &Path) -> bool {
        self.patterns.matched_path_or_any_parents(file, false).is_ignore()
    }
}
