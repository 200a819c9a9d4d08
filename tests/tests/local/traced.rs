//! Tests of types that misbehave when they are traced (finding H2). Each runs a program with such types (`traced`).

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Folder of a run of the program. It has a file, and a folder for each short name that types were once offered.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        for name in OFFERED {
            std::fs::create_dir(folder.path().join(name)).expect("a folder can be created");
            std::fs::write(folder.path().join(name).join("file"), "content").expect("a file can be written");
        }
        std::fs::write(folder.path().join("kept"), "kept").expect("a file can be written");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, verb: &str, function: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_traced"));
        command.args([verb, function]).current_dir(self.path());
        command.env("CLOUDKNOT_HOME", self.path().join("home")).env("FOLDER", self.path());
        command
    }

    /// Returns the names of the files in the folder.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).expect("the folder exists");
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = entries.map(name).filter(|name| name != "home").collect();
        names.sort();
        names
    }

    /// Checks that the folder is as it was.
    #[track_caller]
    fn check_unchanged(&self) {
        assert_eq!(self.names(), Self::new().names());
        assert_eq!(std::fs::read_to_string(self.path().join("kept")).unwrap(), "kept");
        for name in OFFERED {
            assert_eq!(std::fs::read_to_string(self.path().join(name).join("file")).unwrap(), "content");
        }
    }
}

const OFFERED: [&str; 7] = ["a", "0", "1.5", "UTC", "en", "true", "localhost"];

fn output(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

/// Returns the stdout of a program that succeeds.
#[track_caller]
fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout).expect("the program prints UTF-8")
}

/// Returns the structure of a function's types, with the name of its odd type replaced.
#[track_caller]
fn schema(function: &str, odd: &str) -> String {
    let folder = Folder::new();
    let schema = stdout(&output(&mut folder.command("schema", function))).replace(odd, "Odd");
    folder.check_unchanged();
    schema
}

#[test]
fn h2_destructors_of_traced_values_remove_nothing() {
    let folder = Folder::new();
    let mapped = output(&mut folder.command("map", "scratch"));
    assert!(stdout(&mapped).contains("of the item"), "{mapped:?}");
    folder.check_unchanged();
}

#[test]
fn only_values_of_the_user_are_dropped() {
    let folder = Folder::new();
    let mapped = output(&mut folder.command("map", "absolute"));
    assert_eq!(stdout(&mapped), "[Absolute(\"/of/the/item\")]\n");
    let dropped = std::fs::read_to_string(folder.path().join("dropped")).expect("values were dropped");
    assert!(dropped.lines().all(|path| path == "/of/the/item"), "{dropped}");
    // The type accepted a path, so its structure is known.
    assert_eq!(schema("absolute", "traced::Absolute"), "input: { value: string }\noutput: string\ncodec: bincode\n");
}

#[test]
fn h2_assertion_in_a_type_is_silent_and_accepts_good_inputs() {
    let folder = Folder::new();
    let mapped = output(&mut folder.command("map", "large"));
    assert_eq!(stdout(&mapped), "[Large(1000.0)]\n");
    let printed = String::from_utf8_lossy(&mapped.stderr);
    assert!(!printed.contains("panicked") && !printed.contains("not large"), "{printed}");
}

#[test]
fn types_that_end_the_process_accept_good_inputs() {
    for function in ["panics", "aborts", "exits"] {
        let folder = Folder::new();
        assert_eq!(stdout(&output(&mut folder.command("map", function))), "[77777]\n");
        folder.check_unchanged();
    }
}

/// The fingerprint of a worker must be that of a program that was compiled with another strategy for panics.
#[test]
fn the_structure_is_the_same_whether_a_type_panics_or_ends_the_process() {
    let panics = schema("holds_panics", "traced::Panics");
    let expected = "value: Holder";
    assert!(panics.contains(expected) && panics.contains("Three(f64)") && panics.contains("after: f64"), "{panics}");
    assert!(panics.contains("opaque traced::Number<Odd> (u64)"), "{panics}");
    for (function, odd) in
        [("holds_aborts", "traced::Aborts"), ("holds_exits", "traced::Exits"), ("holds_overflows", "traced::Overflows")]
    {
        assert_eq!(schema(function, odd), panics, "{function}");
    }
    assert_eq!(
        schema("holds_unbearable_aborts", "traced::Aborts"),
        schema("holds_unbearable_panics", "traced::Panics")
    );
}

#[test]
fn a_type_that_loops_is_described_by_its_name() {
    let folder = Folder::new();
    let mut program = folder.command("map", "loops");
    let mapped = output(&mut program);
    assert_eq!(stdout(&mapped), "[77777]\n");
    folder.check_unchanged();
    #[cfg(target_os = "linux")]
    on_linux::check_no_process_in(folder.path());
}

#[test]
fn output_of_a_traced_type_is_not_output_of_the_program() {
    let folder = Folder::new();
    let mapped = output(folder.command("map", "prints").env("CLOUDKNOT_PROGRESS", "off"));
    assert_eq!(stdout(&mapped), "[77777]\n");
    assert_eq!(String::from_utf8_lossy(&mapped.stderr), "");
}

#[cfg(target_os = "linux")]
mod on_linux {
    use std::io::ErrorKind;
    use std::net::{TcpListener, UdpSocket};
    use std::path::Path;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use super::{Folder, output, stdout};

    /// Kills a process when it is dropped.
    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A `Deserialize` that writes, removes, connects, starts and kills.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn h2_what_a_traced_type_does_has_no_effect() {
        let folder = Folder::new();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        let mut sleeper = Killed(Command::new("sleep").arg("600").spawn().expect("sleep starts"));
        let mut program = folder.command("schema", "acts");
        program.env("TCP", tcp.local_addr().unwrap().port().to_string());
        program.env("UDP", udp.local_addr().unwrap().port().to_string());
        program.env("SLEEPER", sleeper.0.id().to_string());
        // The type builds its value only if it can start a thread and read the file, so its structure shows that it can.
        assert_eq!(stdout(&output(&mut program)), "input: { value: u64 }\noutput: u64\ncodec: bincode\n");
        folder.check_unchanged();
        assert_eq!(tcp.accept().expect_err("nobody connects").kind(), ErrorKind::WouldBlock);
        assert_eq!(udp.recv(&mut [0]).expect_err("nobody sends").kind(), ErrorKind::WouldBlock);
        assert_eq!(sleeper.0.try_wait().expect("the process was started"), None);
    }

    /// Checks that no process has this folder in its environment. A process may be about to end.
    #[track_caller]
    pub(super) fn check_no_process_in(folder: &Path) {
        let variable = format!("FOLDER={}", folder.display());
        let has_variable = |entry: &std::fs::DirEntry| {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|other| other == variable.as_bytes())
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let processes: Vec<_> = std::fs::read_dir("/proc").unwrap().flatten().filter(has_variable).collect();
            if processes.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{processes:?} did not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
