//! Architecture of a worker, read from the first bytes of the executable.

use std::fmt;

use super::ImageError;

/// Architecture of a worker and its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// 64-bit Intel and AMD.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl Architecture {
    /// Returns the architecture of this executable.
    ///
    /// # Errors
    /// Returns an error if it is not a 64-bit Linux executable for one of the architectures.
    pub fn of(worker: &[u8]) -> Result<Self, ImageError> {
        // Class (64 bits) and byte order (little) follow the magic; the machine's number is at offset 18.
        let machine = match worker {
            [0x7f, b'E', b'L', b'F', 2, 1, ..] => worker.get(18..20),
            [] => return Err(ImageError::NotAWorker { found: "empty" }),
            _ => return Err(ImageError::NotAWorker { found: "not a 64-bit executable for Linux" }),
        };
        match machine {
            Some([0x3e, 0]) => Ok(Self::Amd64),
            Some([0xb7, 0]) => Ok(Self::Arm64),
            _ => Err(ImageError::NotAWorker { found: "not an executable for x86_64 or aarch64" }),
        }
    }

    /// Returns Docker's name of the architecture.
    pub(crate) fn docker(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        })
    }
}
