//! The function that does what a function should not do.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use cloudknot_tests::trial::Misdeed;
use rustix::process::{Resource, getpgid, getppid, getrlimit, setpgid};

use crate::Oops;

pub(crate) fn commit(misdeed: Misdeed) -> Result<u64, Oops> {
    let failed = |error: std::io::Error| Oops(error.to_string(), None);
    match misdeed {
        Misdeed::Stray(text) => stray(&text),
        Misdeed::ForkAndReturn => return Ok(fork_and_return()),
        Misdeed::CloseDescriptors => close_descriptors(),
        Misdeed::LeaveGroup => {
            let group = getpgid(getppid()).expect("the parent has a group");
            setpgid(None, Some(group)).expect("a process may join a group of its session");
            sleep_forever();
        }
        Misdeed::Detach(file) => {
            detach(&file);
            sleep_forever();
        }
        Misdeed::DetachAndReturn(file) => detach(&file),
        Misdeed::Flood => loop {
            std::io::Write::write_all(&mut std::io::stderr(), &[b'x'; 16 << 10]).map_err(failed)?;
        },
        Misdeed::Lock(panics) => {
            static LOCK: Mutex<()> = Mutex::new(());
            let _locked = LOCK.lock().map_err(|error| Oops(error.to_string(), None))?;
            assert!(!panics, "while it was locked");
        }
        Misdeed::ChangeFolder(expected) => change_folder(&expected).map_err(failed)?,
        Misdeed::Leak(mebibytes) => {
            std::mem::forget(vec![1_u8; mebibytes << 20]);
            return Ok(std::process::id().into());
        }
        Misdeed::Pid => return Ok(std::process::id().into()),
        Misdeed::OpenFiles => return Ok(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)),
        Misdeed::PanicTwice => std::panic::panic_any(PanicsWhenDropped),
        Misdeed::AbortLater(milliseconds) => {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(milliseconds));
                std::process::abort();
            });
        }
        Misdeed::StartItself(text) => {
            let output = Command::new("/proc/self/exe").arg("no such scenario").output().map_err(failed)?;
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let code = output.status.code().filter(|_| stderr.contains(&text));
            return code.and_then(|code| u64::try_from(code).ok()).ok_or(Oops(stderr, None));
        }
        Misdeed::Orphans(number) => (0..number).for_each(|_| leave_an_orphan()),
        Misdeed::Zombies => return Ok(zombies()),
        Misdeed::Create(file) => std::fs::write(file, "").map_err(failed)?,
    }
    Ok(1)
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("while it was dropped");
    }
}

fn sleep_forever() -> ! {
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}

fn detach(file: &Path) {
    let script =
        format!("(setsid sh -c 'echo $$ >\"{0}.new\"; mv \"{0}.new\" \"{0}\"; exec sleep 7001' &)", file.display());
    let status = Command::new("sh").args(["-c", &script]).status().expect("a shell is installed");
    assert!(status.success());
    while !file.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn change_folder(expected: &Path) -> std::io::Result<()> {
    let here = std::env::current_dir()?;
    if here != expected {
        return Err(std::io::Error::other(format!("it began in {}", here.display())));
    }
    let scratch = tempfile::tempdir()?;
    std::env::set_current_dir(scratch.path())?;
    scratch.close()
}

/// Descriptors that a function can guess.
const DESCRIPTORS: std::ops::Range<i32> = 3..1_024;

#[allow(unsafe_code)]
fn stray(text: &str) {
    for descriptor in DESCRIPTORS {
        let is_socket = std::fs::read_link(format!("/proc/self/fd/{descriptor}"))
            .is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        if is_socket {
            // SAFETY: the buffer has this length. The effect of the write is the purpose.
            unsafe { libc::write(descriptor, text.as_ptr().cast(), text.len()) };
        }
    }
}

#[allow(unsafe_code)]
fn close_descriptors() {
    for descriptor in DESCRIPTORS {
        // SAFETY: none, as in a function that becomes a daemon; this program uses none of them afterwards.
        unsafe { libc::close(descriptor) };
    }
}

#[allow(unsafe_code)]
fn fork_and_return() -> u64 {
    // SAFETY: none, as in a function that forks; the child returns into the runtime, which must bear it.
    unsafe { libc::fork() };
    7
}

#[allow(unsafe_code)]
fn leave_an_orphan() {
    // SAFETY: the children only fork, sleep and exit, which is permitted after a fork of a multithreaded program.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            if libc::fork() == 0 {
                libc::usleep(500_000);
            }
            libc::_exit(0);
        }
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
}

fn zombies() -> u64 {
    let program = |id: &str| std::fs::read_link(format!("/proc/{id}/exe")).ok();
    let mut parents = vec![std::process::id(), std::os::unix::process::parent_id()];
    // The first process of a container is the worker.
    parents.extend((program("1").is_some() && program("1") == program("self")).then_some(1));
    let is_zombie = |stat: &str| {
        // The name in parentheses, the state, and the parent.
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let mut fields = rest.split(' ');
        fields.next() == Some("Z")
            && fields.next().is_some_and(|parent| parents.iter().any(|id| id.to_string() == parent))
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
    stats.filter(|stat| is_zombie(stat)).count() as u64
}

/// Prints to stdout before `main`, as the initializer of a library may, if the environment asks for it.
extern "C" fn banner() {
    if std::env::var_os("TRIAL_BANNER").is_some() {
        println!("libfast 2.1: using AVX2, 8 threads");
    }
}

#[cfg(target_os = "linux")]
#[used]
#[allow(unsafe_code)]
#[unsafe(link_section = ".init_array")]
static BANNER: extern "C" fn() = banner;
