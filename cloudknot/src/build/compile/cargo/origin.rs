//! Source of a package, as cargo's metadata describes it.

use cargo_metadata::Package;
use cargo_metadata::camino::Utf8Path;

/// Source of a package.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Origin<'a> {
    /// A folder, which contains the manifest.
    Folder(&'a Utf8Path),
    CratesIo,
    /// Another registry, by the URL of its index.
    Registry(&'a str),
    /// A repository: the key and the value that select the revision (`branch`, `tag` or `rev`), if the manifest has one, and the
    /// revision in the lock file.
    Git {
        url: &'a str,
        reference: Option<(&'a str, &'a str)>,
        revision: &'a str,
    },
    /// A source that this version does not support.
    Other(&'a str),
}

impl<'a> Origin<'a> {
    pub(super) fn of(package: &'a Package) -> Self {
        match &package.source {
            None => Self::Folder(package.manifest_path.parent().expect("a manifest is in a folder")),
            Some(source) if source.is_crates_io() => Self::CratesIo,
            Some(source) => Self::parse(&source.repr),
        }
    }

    fn parse(source: &'a str) -> Self {
        // `git+<url>[?<key>=<value>]#<revision>`. Nothing is escaped, and a branch may contain `#`.
        if let Some(repository) = source.strip_prefix("git+") {
            let (address, revision) = repository.rsplit_once('#').unwrap_or((repository, ""));
            let (url, reference) = address.split_once('?').unwrap_or((address, ""));
            return Self::Git { url, reference: reference.split_once('='), revision };
        }
        match source.strip_prefix("registry+") {
            Some(index) => Self::Registry(index),
            None if source.starts_with("sparse+") => Self::Registry(source),
            None => Self::Other(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_parsed() {
        let git = |reference| Origin::Git { url: "https://forge.example/lab", reference, revision: "0a1b" };
        assert_eq!(Origin::parse("git+https://forge.example/lab#0a1b"), git(None));
        for branch in ["main", "next/0.2", "fix-#7", "a&b=c%23"] {
            let source = format!("git+https://forge.example/lab?branch={branch}#0a1b");
            assert_eq!(Origin::parse(&source), git(Some(("branch", branch))));
        }
        assert_eq!(Origin::parse("registry+https://index.example/lab"), Origin::Registry("https://index.example/lab"));
        let sparse = "sparse+https://index.example/lab/";
        assert_eq!(Origin::parse(sparse), Origin::Registry(sparse));
        assert_eq!(Origin::parse("directory+file:///vendor"), Origin::Other("directory+file:///vendor"));
    }
}
