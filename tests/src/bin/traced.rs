//! Program whose types misbehave when they are built from values that nobody made, as they are when they are traced. Its
//! arguments are a verb and the name of a function: `map` prints the value of one item, `schema` the structure of the types.

use std::fmt::{self, Debug};
use std::io::Write as _;
use std::marker::PhantomData;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cloudknot_runtime::function;
use rustix::process::{Pid, Signal, kill_process};
use serde::de::{Deserialize, Deserializer, Error};
use serde::{Deserialize as DeriveDeserialize, Serialize};

/// Removes its folder when it is dropped, as a scratch folder does.
#[derive(Debug, Serialize, DeriveDeserialize)]
struct Scratch {
    folder: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// An absolute path. Records it when it is dropped, and would rather remove it.
#[derive(Debug, Clone, Serialize, DeriveDeserialize)]
#[serde(try_from = "PathBuf")]
struct Absolute(PathBuf);

impl TryFrom<PathBuf> for Absolute {
    type Error = String;

    fn try_from(path: PathBuf) -> Result<Self, String> {
        if path.is_absolute() { Ok(Self(path)) } else { Err("a relative path".into()) }
    }
}

impl Drop for Absolute {
    fn drop(&mut self) {
        let record = std::fs::OpenOptions::new().append(true).create(true).open(folder().join("dropped"));
        record.and_then(|mut record| writeln!(record, "{}", self.0.display())).expect("the record can be written");
    }
}

/// A number that is large. The assertion is for a person who builds one.
#[derive(Debug, Clone, Serialize, DeriveDeserialize)]
#[serde(from = "f64")]
struct Large(f64);

impl From<f64> for Large {
    fn from(number: f64) -> Self {
        assert!(number >= 1000.0, "{number} is not large");
        Self(number)
    }
}

/// Value that a person made. All others misbehave.
const MADE: u64 = 77_777;

/// What a type does with a value that nobody made.
trait Conduct {
    fn act<E: Error>() -> Result<(), E>;
}

/// A number with a hand-written `Deserialize`.
#[derive(Serialize)]
#[serde(transparent)]
struct Number<C>(u64, #[serde(skip)] PhantomData<C>);

impl<C> Number<C> {
    const MADE: Self = Self(MADE, PhantomData);
}

impl<'de, C: Conduct> Deserialize<'de> for Number<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        if number != MADE {
            C::act::<D::Error>()?;
        }
        Ok(Self(number, PhantomData))
    }
}

impl<C> Debug for Number<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A text that refuses what it is offered, and a type that does not bear refusals.
struct Guess;

impl<'de> Deserialize<'de> for Guess {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "made" => Ok(Self),
            _ => Err(D::Error::custom("not made")),
        }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Unbearable<C>(&'static str, #[serde(skip)] PhantomData<C>);

impl<'de, C: Conduct> Deserialize<'de> for Unbearable<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if Guess::deserialize(deserializer).is_err() {
            C::act::<D::Error>()?;
        }
        Ok(Self("made", PhantomData))
    }
}

impl<C> Debug for Unbearable<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

macro_rules! conducts {
    ($($name:ident $act:expr;)*) => {
        $(
            struct $name;

            impl Conduct for $name {
                fn act<E: Error>() -> Result<(), E> {
                    $act
                }
            }
        )*
    };
}

conducts! {
    Panics panic!("nobody made this number");
    Aborts std::process::abort();
    Exits std::process::exit(0);
    Overflows { overflow(1); Ok(()) };
    Loops loop { std::thread::sleep(Duration::from_secs(1)); };
    Prints { print!("a line that is no result"); eprintln!("nor is this one"); Ok(()) };
    Acts act().map_err(E::custom);
}

#[allow(unconditional_recursion)]
fn overflow(depth: u64) -> u64 {
    std::hint::black_box(depth + overflow(std::hint::black_box(depth + 1)))
}

fn folder() -> PathBuf {
    std::env::var_os("FOLDER").expect("the test sets the folder").into()
}

fn number(name: &str) -> i32 {
    std::env::var(name).expect("the test sets the variable").parse().expect("it is a number")
}

/// Does whatever a `Deserialize` should not, and goes on if it cannot.
fn act() -> Result<(), String> {
    let folder = folder();
    let kept = folder.join("kept");
    let _ = std::fs::remove_file(&kept);
    let _ = std::fs::rename(&kept, folder.join("renamed"));
    let _ = std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o777));
    let _ = std::fs::write(&kept, "overwritten");
    let _ = std::fs::File::options().write(true).open(&kept).and_then(|file| file.set_len(0));
    let _ = std::fs::hard_link(&kept, folder.join("linked"));
    let _ = symlink(&kept, folder.join("symlinked"));
    let _ = std::fs::create_dir(folder.join("folder"));
    let _ = Command::new("touch").arg(folder.join("touched")).status();
    let _ = TcpStream::connect(("127.0.0.1", u16::try_from(number("TCP")).unwrap_or_default()));
    let _ = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", ("127.0.0.1", port("UDP"))));
    let _ = Pid::from_raw(number("SLEEPER")).map(|sleeper| kill_process(sleeper, Signal::KILL));
    // Allowed: threads, and reading.
    let read = std::thread::spawn(move || std::fs::read_to_string(kept)).join().map_err(|_| "the thread panicked")?;
    (read.map_err(|error| error.to_string())? == "kept").then_some(()).ok_or_else(|| "the file was changed".into())
}

fn port(name: &str) -> u16 {
    u16::try_from(number(name)).expect("it is a port")
}

/// A structure with a type at many places.
#[derive(Debug, Serialize, DeriveDeserialize)]
struct Holder<T> {
    before: u8,
    value: T,
    list: Vec<T>,
    choice: Choice<T>,
    pair: (String, T),
    next: Option<Box<Holder<T>>>,
    after: f64,
}

#[derive(Debug, Serialize, DeriveDeserialize)]
enum Choice<T> {
    One(T),
    Two { a: u8, b: T },
    Three(f64),
}

impl<T> Holder<T> {
    fn of(value: impl Fn() -> T) -> Self {
        let choice = Choice::Two { a: 1, b: value() };
        let pair = (String::new(), value());
        Self { before: 1, value: value(), list: vec![value()], choice, pair, next: None, after: 1.0 }
    }
}

macro_rules! functions {
    ($($name:ident $type:ty = $value:expr;)*) => {
        $(
            #[cloudknot::remote]
            fn $name(value: $type) -> $type {
                value
            }
        )*

        /// Maps one value, and prints the result.
        async fn map(name: &str) -> cloudknot::Result<()> {
            match name {
                $(stringify!($name) => println!("{:?}", $name.map([$value]).await?),)*
                other => panic!("there is no function `{other}`"),
            }
            Ok(())
        }
    };
}

functions! {
    scratch Scratch = Scratch { folder: folder().join("of the item") };
    absolute Absolute = Absolute(Path::new("/of/the/item").into());
    large Large = Large(1000.0);
    panics Number<Panics> = Number::MADE;
    aborts Number<Aborts> = Number::MADE;
    exits Number<Exits> = Number::MADE;
    loops Number<Loops> = Number::MADE;
    prints Number<Prints> = Number::MADE;
    acts Number<Acts> = Number::MADE;
    holds_panics Holder<Number<Panics>> = Holder::of(|| Number::MADE);
    holds_aborts Holder<Number<Aborts>> = Holder::of(|| Number::MADE);
    holds_exits Holder<Number<Exits>> = Holder::of(|| Number::MADE);
    holds_overflows Holder<Number<Overflows>> = Holder::of(|| Number::MADE);
    holds_unbearable_panics Holder<Unbearable<Panics>> = Holder::of(|| Unbearable("made", PhantomData));
    holds_unbearable_aborts Holder<Unbearable<Aborts>> = Holder::of(|| Unbearable("made", PhantomData));
}

#[cloudknot::main]
async fn main() -> cloudknot::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [verb, name] = &arguments[..] else { panic!("a verb and the name of a function") };
    if verb == "map" {
        return map(name).await;
    }
    let function = function::all().find(|function| function.id.name == name).expect("the function is registered");
    println!("{}", function.schema().expect("the types are traced").text);
    Ok(())
}
