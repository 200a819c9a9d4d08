//! What a registry is told of who we are: what the caller said, or what `docker login` has stored.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::secrets::RegistryAuth;

use super::RegistryError;
use crate::login::{Login, LoginKind};

impl Login {
    /// Whether the caller has said how, so that a refusal is about what was said.
    pub(super) fn is_given(&self) -> bool {
        matches!(self.0, LoginKind::Password(..) | LoginKind::Token(_))
    }

    pub(super) async fn resolve(&self, registry: &str) -> Result<RegistryAuth, RegistryError> {
        let folder = match &self.0 {
            LoginKind::Stored => default_folder(),
            LoginKind::StoredIn(folder) => Some(folder.clone()),
            LoginKind::Password(user, password) => return Ok(RegistryAuth::Basic(user.clone(), password.clone())),
            LoginKind::Token(token) => return Ok(RegistryAuth::Bearer(token.clone())),
            LoginKind::Anonymous => None,
        };
        let Some(folder) = folder else { return Ok(RegistryAuth::Anonymous) };
        let host = registry.to_owned();
        // A credential helper is another program, and may ask somebody.
        tokio::task::spawn_blocking(move || stored(&folder, &host)).await.expect("looking up a login does not panic")
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
