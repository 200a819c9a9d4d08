//! Certificate authority of the tests, which only programs configured for it trust, and a certificate from it for this
//! machine. Created by `openssl`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::counterparts::{has, run};
use crate::skip::skipped;

/// A certificate authority, and a certificate for an address of this machine.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    /// Creates an authority with a certificate for this address; `None` if `openssl` is not installed.
    ///
    /// # Panics
    /// If `openssl` fails.
    pub fn new(address: IpAddr) -> Option<Self> {
        if !has("openssl") {
            skipped("tests that need a certificate authority", "`openssl` is not installed");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        let openssl = |arguments: &str| {
            run(Command::new("openssl").args(arguments.split(' ')).current_dir(&folder));
        };
        openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tests -keyout ca.key -out ca.pem");
        openssl("req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key.pem -out request.pem");
        let names = format!("subjectAltName=IP:{address}\n");
        std::fs::write(folder.path().join("names"), names).expect("a new folder can be written to");
        openssl("x509 -req -in request.pem -CA ca.pem -CAkey ca.key -days 2 -extfile names -out certificate.pem");
        Some(Self { folder })
    }

    /// Returns the path of the authority's certificate, as PEM.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Returns the path of the certificate for the address, as PEM.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// Returns the path of the certificate's private key, as PEM.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }
}
