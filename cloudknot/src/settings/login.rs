//! Credentials for a registry, as the user gives them. Does not implement the login.

use std::fmt;
use std::path::PathBuf;

/// Credentials for a registry.
#[derive(Clone, Default)]
pub struct Login(pub(crate) LoginKind);

#[derive(Clone, Default)]
pub(crate) enum LoginKind {
    #[default]
    Stored,
    StoredIn(PathBuf),
    Password(String, String),
    Token(String),
    Anonymous,
}

impl Login {
    /// Uses the credentials that `docker login` has stored, including credential helpers; none if none are stored.
    pub fn stored() -> Self {
        Self(LoginKind::Stored)
    }

    /// Uses stored credentials as [`Login::stored`] does, from this folder instead of `$DOCKER_CONFIG` or `~/.docker`.
    pub fn stored_in(folder: impl Into<PathBuf>) -> Self {
        Self(LoginKind::StoredIn(folder.into()))
    }

    /// Uses a user name and a password. An ECR registry accepts the name `AWS` and a token from its API.
    pub fn password(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self(LoginKind::Password(user.into(), password.into()))
    }

    /// Uses a bearer token, which is sent to the registry as it is.
    pub fn token(token: impl Into<String>) -> Self {
        Self(LoginKind::Token(token.into()))
    }

    /// Uses no credentials.
    pub fn anonymous() -> Self {
        Self(LoginKind::Anonymous)
    }
}

// Never prints the secret.
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
