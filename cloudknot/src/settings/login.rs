//! Who we are to a registry, as the user says it. Does not know how a registry is asked.

use std::fmt;
use std::path::PathBuf;

/// How to log in to a registry.
#[derive(Clone, Default)]
pub struct Login(pub(crate) LoginKind);

#[derive(Clone, Default)]
#[cfg_attr(cloudknot_worker, allow(dead_code, reason = "a worker logs in nowhere"))]
pub(crate) enum LoginKind {
    #[default]
    Stored,
    StoredIn(PathBuf),
    Password(String, String),
    Token(String),
    Anonymous,
}

impl Login {
    /// As `docker login` has stored it, credential helpers included; not at all where nothing is stored.
    pub fn stored() -> Self {
        Self(LoginKind::Stored)
    }

    /// As [`Login::stored`], but from this folder instead of `$DOCKER_CONFIG` or `~/.docker`.
    pub fn stored_in(folder: impl Into<PathBuf>) -> Self {
        Self(LoginKind::StoredIn(folder.into()))
    }

    /// By name and password. A registry of ECR takes the name `AWS` and a token that its API hands out.
    pub fn password(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self(LoginKind::Password(user.into(), password.into()))
    }

    /// By a token that the registry takes as it is (a bearer token).
    pub fn token(token: impl Into<String>) -> Self {
        Self(LoginKind::Token(token.into()))
    }

    /// Not at all.
    pub fn anonymous() -> Self {
        Self(LoginKind::Anonymous)
    }
}

// Never with the secret.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            LoginKind::Stored => f.write_str("Login(stored)"),
            LoginKind::StoredIn(folder) => write!(f, "Login(stored in `{}`)", folder.display()),
            LoginKind::Password(user, _) => write!(f, "Login(password of `{user}`)"),
            LoginKind::Token(_) => f.write_str("Login(token)"),
            LoginKind::Anonymous => f.write_str("Login(anonymous)"),
        }
    }
}
