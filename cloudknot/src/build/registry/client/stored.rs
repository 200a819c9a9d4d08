//! Credentials for a registry: given by the caller, or stored by `docker login`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::secrets::RegistryAuth;

use crate::build::registry::RegistryError;
use crate::settings::login::{Login, LoginKind};

impl Login {
    /// Returns whether the caller passed the credentials, so that a refusal concerns them.
    pub(super) fn is_explicit(&self) -> bool {
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
        match look_up(folder.clone(), registry).await? {
            Some(DockerCredential::UsernamePassword(user, password)) => Ok(RegistryAuth::Basic(user, password)),
            Some(DockerCredential::IdentityToken(_)) => {
                Err(RegistryError::identity_token(registry, &config_in(&folder.unwrap_or_default())))
            }
            None => Ok(RegistryAuth::Anonymous),
        }
    }
}

/// Returns the credentials stored for the registry of this image (in this folder, or where Docker looks), and the name under
/// which Docker stores them.
pub(crate) async fn of_image(
    folder: Option<&Path>,
    image: &str,
) -> Result<Option<(String, DockerCredential)>, RegistryError> {
    let Ok(reference) = image.parse::<oci_client::Reference>() else { return Ok(None) };
    let registry = reference.registry();
    let folder = folder.map(Path::to_owned).or_else(default_folder);
    Ok(look_up(folder, registry).await?.map(|found| (key_of(registry).to_owned(), found)))
}

async fn look_up(folder: Option<PathBuf>, registry: &str) -> Result<Option<DockerCredential>, RegistryError> {
    let Some(folder) = folder else { return Ok(None) };
    let host = registry.to_owned();
    // A credential helper is another program, and may prompt the user.
    tokio::task::spawn_blocking(move || stored(&folder, &host)).await.expect("looking up a login does not panic")
}

fn default_folder() -> Option<PathBuf> {
    let from_env = std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    from_env.or_else(|| Some(std::env::home_dir()?.join(".docker")))
}

fn config_in(folder: &Path) -> PathBuf {
    folder.join("config.json")
}

/// Returns the key of a registry in Docker's configuration. Docker stores the login of its own registry under the address of an
/// earlier protocol.
fn key_of(registry: &str) -> &str {
    if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry }
}

fn stored(folder: &Path, registry: &str) -> Result<Option<DockerCredential>, RegistryError> {
    let path = config_in(folder);
    let failed = |why: String| RegistryError::stored_login(registry, &path, why);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    match docker_credential::get_credential_from_reader(io::BufReader::new(file), key_of(registry)) {
        Ok(found) => Ok(Some(found)),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        // By their protocol, all helpers report this if they have no login.
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
            if [&stdout, &stderr].iter().any(|text| text.contains("credentials not found")) =>
        {
            Ok(None)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, stdout, stderr }) => {
            let output = if stderr.trim().is_empty() { stdout } else { stderr };
            Err(failed(format!("the helper `docker-credential-{helper}` reported: {}", output.trim())))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}
