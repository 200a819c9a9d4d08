//! Worker for the tests of images: a static program that reports the environment in which it runs.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

const PROGRAM: &str = r#"
fn main() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim().to_owned();
    println!("uid {}", field("Uid:").split('\t').next().unwrap());
    println!("capabilities {}", field("CapEff:"));
    let certificates = std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
    println!("certificates {}", certificates.matches("BEGIN CERTIFICATE").count());
    let interfaces = std::fs::read_to_string("/proc/net/dev").unwrap();
    println!("network {}", interfaces.lines().skip(2).any(|line| !line.trim_start().starts_with("lo:")));
    println!("folder {}", std::env::current_dir().unwrap().display());
    println!("root writable {}", std::fs::write("/probe", "").is_ok());
    println!("tmp writable {}", std::fs::write("/tmp/probe", "").is_ok());
    println!("arguments {:?}", std::env::args().skip(1).collect::<Vec<_>>());
    println!("base {}", std::fs::read_to_string("/base.txt").unwrap_or_default().trim());
    println!("greeting {}", std::env::var("GREETING").unwrap_or_default());
}
"#;

/// Returns the bytes of the worker.
///
/// # Panics
/// If it cannot be compiled.
pub fn worker() -> &'static [u8] {
    static WORKER: OnceLock<Vec<u8>> = OnceLock::new();
    WORKER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        let (source, worker) = (folder.path().join("worker.rs"), folder.path().join("worker"));
        fs::write(&source, PROGRAM).expect("a new folder can be written to");
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(["--edition=2024", "-Copt-level=z", "-Cstrip=symbols", "-Ctarget-feature=+crt-static", "-o"]);
        crate::counterparts::run(rustc.arg(&worker).arg(&source));
        fs::read(&worker).expect("rustc has written the worker")
    })
}
