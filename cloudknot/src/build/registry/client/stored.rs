//! Credentials for a registry: given by the caller, or stored by `docker login`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::secrets::RegistryAuth;
use serde_json::Value;

use crate::build::programs::on_path;
use crate::build::registry::RegistryError;
use crate::settings::login::{Login, LoginKind};

impl Login {
    /// Returns whether the caller passed the credentials, so that a refusal concerns them.
    pub(super) fn is_explicit(&self) -> bool {
        matches!(self.0, LoginKind::Password(..) | LoginKind::Token(_))
    }

    pub(super) async fn resolve(&self, registry: &str) -> Result<RegistryAuth, RegistryError> {
        let folder = match &self.0 {
            LoginKind::Password(user, password) => return Ok(RegistryAuth::Basic(user.clone(), password.clone())),
            LoginKind::Token(token) => return Ok(RegistryAuth::Bearer(token.clone())),
            LoginKind::Stored | LoginKind::StoredIn(_) | LoginKind::Anonymous => self.folder(),
        };
        match look_up(folder.clone(), registry).await? {
            Some(DockerCredential::UsernamePassword(user, password)) => Ok(RegistryAuth::Basic(user, password)),
            Some(DockerCredential::IdentityToken(_)) => {
                Err(RegistryError::identity_token(registry, &config_in(&folder.unwrap_or_default())))
            }
            None => Ok(RegistryAuth::Anonymous),
        }
    }

    /// Returns the missing helper that keeps the login for this registry, if there is one. Without it, the registry is used
    /// anonymously.
    pub(super) fn missing_helper(&self, registry: &str) -> Option<MissingHelper> {
        missing_helper(&self.folder()?, registry)
    }

    /// Returns the folder of stored credentials, if they are used.
    fn folder(&self) -> Option<PathBuf> {
        match &self.0 {
            LoginKind::Stored => default_folder(),
            LoginKind::StoredIn(folder) => Some(folder.clone()),
            LoginKind::Password(..) | LoginKind::Token(_) | LoginKind::Anonymous => None,
        }
    }
}

/// Credential helper that Docker's configuration names, and that is not installed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MissingHelper {
    program: String,
    /// Key of the configuration that names it.
    key: String,
    path: PathBuf,
}

impl MissingHelper {
    /// Returns a hint for a registry that requires a login.
    pub(crate) fn hint(&self, registry: &str) -> String {
        let Self { program, key, path } = self;
        format!(
            "`{program}`, which {key} in `{}` names, is not installed: install it, or remove {key} from the file; then run \
             `docker login {registry}`",
            path.display()
        )
    }
}

/// Returns the missing helper that keeps the login for the registry of this image, and the name of that registry.
pub(crate) fn missing_helper_of_image(folder: Option<&Path>, image: &str) -> Option<(MissingHelper, String)> {
    let registry = image.parse::<oci_client::Reference>().ok()?.registry().to_owned();
    let folder = folder.map(Path::to_owned).or_else(default_folder)?;
    Some((missing_helper(&folder, &registry)?, registry))
}

fn missing_helper(folder: &Path, registry: &str) -> Option<MissingHelper> {
    let path = config_in(folder);
    let config: Value = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
    let key = key_of(registry);
    let of_registry = config["credHelpers"][key].as_str();
    let (helper, key) = match of_registry {
        Some(helper) => (helper, format!("the entry `{key}` of `credHelpers`")),
        None if config["auths"][key]["auth"].is_string() => return None,
        None => (config["credsStore"].as_str()?, "`credsStore`".to_owned()),
    };
    let program = format!("docker-credential-{helper}");
    on_path(&program).is_none().then_some(MissingHelper { program, key, path })
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
        // A registry may need no login. If it does, the error of the refusal names the helper.
        Err(CredentialRetrievalError::HelperCommunicationError) if missing_helper(folder, registry).is_some() => {
            Ok(None)
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_helper_is_named_and_counts_as_no_login() {
        let folder = tempfile::tempdir().expect("a folder can be created");
        let config =
            |text: &str| std::fs::write(folder.path().join("config.json"), text).expect("a file can be written");
        let check = |registry: &str, expected: Option<(&str, &str)>| {
            let found = missing_helper(folder.path(), registry);
            let found = found.as_ref().map(|missing| (missing.program.as_str(), missing.key.as_str()));
            assert_eq!(found, expected, "{registry}");
            assert_eq!(stored(folder.path(), registry).expect("no error"), None);
        };
        check("ghcr.io", None);
        config(r#"{"auths": {}, "credsStore": "no-such-store"}"#);
        check("ghcr.io", Some(("docker-credential-no-such-store", "`credsStore`")));
        config(r#"{"auths": {}, "credHelpers": {"ghcr.io": "no-such-helper"}}"#);
        check("ghcr.io", Some(("docker-credential-no-such-helper", "the entry `ghcr.io` of `credHelpers`")));
        check("quay.io", None);
        config(r#"{"credsStore": "no-such-store", "credHelpers": {"docker.io": "no-such-helper"}}"#);
        check("docker.io", Some(("docker-credential-no-such-store", "`credsStore`")));
    }
}
