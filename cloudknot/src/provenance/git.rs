//! The git revision of the program's package. git is asked once in a program, at its first submission: what was compiled is
//! closer to that than to later ones.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use cloudknot_runtime::engine;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::home;

/// Maximum time that a submission waits for git. A later submission finds what git has said meanwhile.
const MAX_WAIT: Duration = Duration::from_millis(200);
/// Maximum time of one command.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of bytes that are read of an answer. The longest that is needed is an ID.
const MAX_ANSWER_LEN: u64 = 128;

/// Revision of a repository, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Revision {
    pub(super) id: Option<String>,
    pub(super) is_clean: Option<bool>,
}

static REVISION: LazyLock<watch::Receiver<Revision>> = LazyLock::new(|| {
    let (sender, receiver) = watch::channel(Revision::default());
    engine::spawn(async move {
        if let Some(folder) = home::crate_folder() {
            ask(&folder, |revision| _ = sender.send(revision)).await;
        }
        // The sender is dropped: nothing more becomes known.
    });
    receiver
});

/// Begins to ask git, if that was not done before.
pub(super) fn begin() {
    LazyLock::force(&REVISION);
}

/// Returns the revision of the program's package. Waits a moment for git, and returns what is known then.
pub(super) async fn revision() -> Revision {
    let mut known = REVISION.clone();
    _ = timeout(MAX_WAIT, async { while known.changed().await.is_ok() {} }).await;
    REVISION.borrow().clone()
}

/// Reports the revision of the repository that contains this folder, and then also whether it is clean.
async fn ask(folder: &Path, mut report: impl FnMut(Revision)) {
    let Some(id) = answer(folder, &["rev-parse", "--verify", "HEAD"]).await else { return };
    let mut revision = Revision { id: Some(id.trim().to_owned()), is_clean: None };
    report(revision.clone());
    revision.is_clean = answer(folder, &["status", "--porcelain"]).await.map(|changes| changes.is_empty());
    report(revision);
}

/// Returns the beginning of the output of a git command; `None` if it fails, or takes too long. git asks nobody, connects to
/// nothing and writes nothing.
async fn answer(folder: &Path, arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    git.args(["--no-optional-locks", "-c", "core.fsmonitor=false"]).args(arguments).current_dir(folder);
    git.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    git.env("GIT_TERMINAL_PROMPT", "0").env("GIT_NO_LAZY_FETCH", "1");
    // Set if this program was started by a hook, maybe of another repository.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        git.env_remove(name);
    }
    let answered = async {
        let mut child = git.spawn().ok()?;
        let mut output = Vec::new();
        child.stdout.take()?.take(MAX_ANSWER_LEN).read_to_end(&mut output).await.ok()?;
        // git may still be writing a longer answer, which nobody reads.
        let is_cut = output.len() as u64 == MAX_ANSWER_LEN;
        let is_valid = is_cut || child.wait().await.as_ref().is_ok_and(ExitStatus::success);
        is_valid.then(|| String::from_utf8_lossy(&output).into_owned())
    };
    timeout(TIMEOUT, answered).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository with one file.
    struct Repository(tempfile::TempDir);

    impl Repository {
        fn new() -> Self {
            let repository = Self(tempfile::tempdir().expect("a folder can be created"));
            repository.git(&["init", "--quiet"]);
            repository.write("src.rs", "1");
            repository
        }

        fn path(&self) -> &Path {
            self.0.path()
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.path().join(name), text).expect("a file can be written");
        }

        #[track_caller]
        fn git(&self, arguments: &[&str]) {
            let identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"];
            let mut git = std::process::Command::new("git");
            let status = git.current_dir(self.path()).args(identity).args(arguments).status();
            assert!(status.expect("git can be started").success(), "{arguments:?}");
        }

        fn commit(&self) {
            self.git(&["add", "."]);
            self.git(&["commit", "--quiet", "-m", "first"]);
        }

        /// Returns the revisions that are reported for a folder of the repository.
        fn reported(&self) -> Vec<Revision> {
            let mut reported = Vec::new();
            engine::block_on(ask(self.path(), |revision| reported.push(revision)));
            reported
        }

        #[track_caller]
        fn check(&self, is_clean: bool) {
            let reported = self.reported();
            let [first, last] = &reported[..] else { panic!("{reported:?}") };
            assert_eq!((first.is_clean, last.is_clean), (None, Some(is_clean)));
            assert_eq!(first.id, last.id);
            assert!(
                last.id.as_ref().is_some_and(|id| id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
            );
        }
    }

    #[test]
    fn revision_and_cleanliness_are_reported() {
        let repository = Repository::new();
        assert_eq!(repository.reported(), [], "no revision before the first commit");
        repository.commit();
        repository.check(true);
        repository.write("src.rs", "2");
        repository.check(false);
        repository.commit();
        repository.check(true);
        for number in 0..100 {
            repository.write(&format!("new-{number}.rs"), "");
        }
        repository.check(false);
    }

    #[test]
    fn folder_outside_of_a_repository_has_no_revision() {
        let folder = tempfile::tempdir().expect("a folder can be created");
        engine::block_on(ask(folder.path(), |revision| panic!("{revision:?}")));
        engine::block_on(ask(Path::new("/no/such/folder"), |revision| panic!("{revision:?}")));
    }
}
