//! CA certificates that an image trusts, in PEM format: the public ones, and those of the user.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::build::image::ImageError;

/// Returns the public CA certificates (Mozilla's list, as pinned by the lock file), followed by those of the files.
pub(crate) fn bundle(files: &[PathBuf]) -> Result<String, ImageError> {
    let mut certificates = webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec();
    for file in files {
        certificates.extend(read(file)?);
    }
    let mut pem = String::new();
    for certificate in &certificates {
        write_pem(certificate, &mut pem);
    }
    Ok(pem)
}

/// Reads the certificates of a PEM file. They are extracted one by one, so that a private key in the same file is left out.
pub(crate) fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, ImageError> {
    let failed = |source| ImageError::CaBundle { path: path.to_owned(), source };
    let text = std::fs::read(path).map_err(|error| failed(error.into()))?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(failed("the file contains no certificate".into())),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(failed(error.into())),
    }
}

fn write_pem(certificate: &[u8], pem: &mut String) {
    let text = STANDARD.encode(certificate);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
}
