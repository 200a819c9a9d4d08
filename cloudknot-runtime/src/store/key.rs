//! Checks of keys: stores accept the keys that are valid both for S3 objects and for files in a folder.

use super::{Result, StoreError, StoreErrorKind};

/// Maximum length of a segment in bytes: that of a file name on the usual file systems.
const MAX_SEGMENT_LEN: usize = 255;
/// Maximum length of a key in bytes: S3 allows 1,024, including the prefix of the store.
const MAX_KEY_LEN: usize = 900;

/// Checks that every store can hold this key.
pub(super) fn check(key: &str) -> Result<()> {
    let problem = if key.len() > MAX_KEY_LEN {
        Some("the key is longer than 900 bytes")
    } else {
        key.split('/').find_map(problem)
    };
    match problem {
        None => Ok(()),
        Some(problem) => Err(StoreError::new(
            StoreErrorKind::BadKey,
            format!("use `{}` as a key", key.escape_debug()),
            Some(problem.into()),
        )),
    }
}

/// Returns the path of the folder that contains the object, which is empty for the store's own folder.
pub(super) fn folder(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Returns the last segment of a key.
pub(super) fn name(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

/// Checks the beginning of a key: its last segment may be cut off anywhere, or empty.
pub(super) fn check_prefix(prefix: &str) -> Result<()> {
    match prefix.rsplit_once('/') {
        _ if prefix.is_empty() => Ok(()),
        Some((folder, "")) => check(folder),
        _ => check(prefix),
    }
}

/// Checks the prefix of a folder, and returns the path of the folder.
pub(super) fn check_folder(prefix: &str) -> Result<&str> {
    match prefix.strip_suffix('/') {
        None if prefix.is_empty() => Ok(prefix),
        Some(folder) if check(folder).is_ok() => Ok(folder),
        _ => Err(StoreError::new(
            StoreErrorKind::BadKey,
            format!("use `{}` as a folder", prefix.escape_debug()),
            Some("it must be a key that is followed by `/`".into()),
        )),
    }
}

fn problem(segment: &str) -> Option<&'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if segment.is_empty() {
        Some("a segment is empty")
    } else if segment.starts_with('.') {
        Some("a segment begins with a dot")
    } else if segment.len() > MAX_SEGMENT_LEN {
        Some("a segment is longer than 255 bytes")
    } else if !segment.bytes().all(allowed) {
        Some("only letters, digits, `.`, `_` and `-` are allowed")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_keys_are_refused() {
        for good in ["a", "a/b", "knots/k/runs/r/results/0-9", "A-Z_0.json", "a..b"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let long = "x".repeat(256);
        let deep = "x/".repeat(500) + "x";
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", ".", ".tmp/x", "a\\b", "a b", "ä", "a\0", &long, &deep] {
            assert_eq!(check(bad).expect_err(bad).kind(), StoreErrorKind::BadKey);
        }
    }

    #[test]
    fn invalid_prefixes_are_refused() {
        for good in ["", "a", "a/", "a/b", "a/b/"] {
            assert!(check_prefix(good).is_ok(), "{good}");
        }
        for bad in ["/", "/a", "a//", "../", "a/../"] {
            assert!(check_prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_of_folders_end_with_a_slash() {
        for (prefix, folder) in [("", ""), ("a/", "a"), ("a/b/", "a/b")] {
            assert_eq!(check_folder(prefix).expect(prefix), folder);
        }
        for bad in ["a", "/", "a//", "../"] {
            assert_eq!(check_folder(bad).expect_err(bad).kind(), StoreErrorKind::BadKey);
        }
    }
}
