//! Who we are to a registry: told by the caller, or as `docker login` has stored it.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::secrets::RegistryAuth;

use super::RegistryError;

/// How to log in to a registry.
#[derive(Clone, Default)]
pub struct Login(Kind);

#[derive(Clone, Default)]
enum Kind {
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
        Self(Kind::Stored)
    }

    /// As [`Login::stored`], but from this folder instead of `$DOCKER_CONFIG` or `~/.docker`.
    pub fn stored_in(folder: impl Into<PathBuf>) -> Self {
        Self(Kind::StoredIn(folder.into()))
    }

    /// By name and password. A registry of ECR takes the name `AWS` and a token that its API hands out.
    pub fn password(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self(Kind::Password(user.into(), password.into()))
    }

    /// By a token that the registry takes as it is (a bearer token).
    pub fn token(token: impl Into<String>) -> Self {
        Self(Kind::Token(token.into()))
    }

    /// Not at all.
    pub fn anonymous() -> Self {
        Self(Kind::Anonymous)
    }

    /// Whether the caller has said how, so that a refusal is about what was said.
    pub(super) fn is_given(&self) -> bool {
        matches!(self.0, Kind::Password(..) | Kind::Token(_))
    }

    pub(super) async fn resolve(&self, registry: &str) -> Result<RegistryAuth, RegistryError> {
        let folder = match &self.0 {
            Kind::Stored => default_folder(),
            Kind::StoredIn(folder) => Some(folder.clone()),
            Kind::Password(user, password) => return Ok(RegistryAuth::Basic(user.clone(), password.clone())),
            Kind::Token(token) => return Ok(RegistryAuth::Bearer(token.clone())),
            Kind::Anonymous => None,
        };
        let Some(folder) = folder else { return Ok(RegistryAuth::Anonymous) };
        let host = registry.to_owned();
        // A credential helper is another program, and may ask somebody.
        tokio::task::spawn_blocking(move || stored(&folder, &host)).await.expect("looking up a login does not panic")
    }
}

// Never with the secret.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Stored => f.write_str("Login(stored)"),
            Kind::StoredIn(folder) => write!(f, "Login(stored in `{}`)", folder.display()),
            Kind::Password(user, _) => write!(f, "Login(password of `{user}`)"),
            Kind::Token(_) => f.write_str("Login(token)"),
            Kind::Anonymous => f.write_str("Login(anonymous)"),
        }
    }
}

fn default_folder() -> Option<PathBuf> {
    let given = std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    given.or_else(|| Some(std::env::home_dir()?.join(".docker")))
}

fn stored(folder: &Path, registry: &str) -> Result<RegistryAuth, RegistryError> {
    let path = folder.join("config.json");
    let failed = |why: String| RegistryError::stored_login(registry, &path, why);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(RegistryAuth::Anonymous),
        Err(error) => return Err(failed(error.to_string())),
    };
    // Docker keeps the login of its own registry under the address of an earlier protocol.
    let key = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
    match docker_credential::get_credential_from_reader(io::BufReader::new(file), key) {
        Ok(DockerCredential::UsernamePassword(user, password)) => Ok(RegistryAuth::Basic(user, password)),
        Ok(DockerCredential::IdentityToken(_)) => {
            Err(failed("it holds an identity token, which can be used by Docker only".to_owned()))
        }
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(RegistryAuth::Anonymous),
        // What every helper answers, by their protocol, when it knows of no login.
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
            if [&stdout, &stderr].iter().any(|text| text.contains("credentials not found")) =>
        {
            Ok(RegistryAuth::Anonymous)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, stdout, stderr }) => {
            let said = if stderr.trim().is_empty() { stdout } else { stderr };
            Err(failed(format!("the helper `docker-credential-{helper}` said: {}", said.trim())))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}
