//! Tests of the values that types are offered while they are traced, and of what becomes of the values built from them
//! (finding H2).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cloudknot_runtime::codec::Codec;
use cloudknot_runtime::fingerprint::Schema;
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde::{Deserialize, Serialize};

fn output<T: DeserializeOwned>() -> String {
    let text = Schema::of::<(), T>(Codec::Bincode).text;
    let line = text.lines().find_map(|line| line.strip_prefix("output: ")).expect("there is a line for the output");
    line.to_owned()
}

/// Counts how often values are dropped.
#[derive(Serialize, Deserialize)]
struct Counted {
    path: PathBuf,
    numbers: Vec<u8>,
}

static DROPPED: AtomicUsize = AtomicUsize::new(0);

impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn values_are_forgotten() {
    assert_eq!(output::<Counted>(), "Counted");
    assert_eq!(output::<(u8, Vec<Counted>, Option<Counted>)>(), "(u8, [Counted], Option<Counted>)");
    assert_eq!(DROPPED.load(Ordering::Relaxed), 0);
}

/// Records the texts that it is offered, and refuses all of them.
struct Recorder;

static OFFERED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

impl<'de> Deserialize<'de> for Recorder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        OFFERED.lock().unwrap().insert(String::deserialize(deserializer)?);
        Err(D::Error::custom("another one"))
    }
}

#[test]
fn offered_texts_name_nothing_that_exists() {
    assert!(output::<Recorder>().starts_with("opaque "));
    let offered = OFFERED.lock().unwrap();
    assert!(offered.len() > 20, "{offered:?}");
    for text in offered.iter() {
        // Types are traced in the root folder.
        assert!(text.is_empty() || !Path::new("/").join(text).exists(), "`{text}` is a file");
        assert!(!["a", "/", ".", "..", "~", "localhost"].contains(&text.as_str()), "`{text}`");
        let address = text.parse::<SocketAddr>().map(|socket| socket.ip()).or_else(|_| text.parse::<IpAddr>());
        assert!(address.map_or(true, is_documentation), "`{text}` may be a machine");
        assert!(!text.contains("://") || text.contains(".invalid/"), "`{text}` may be a site");
        assert!(!text.contains('@') || text.ends_with(".invalid"), "`{text}` may be a person");
    }
    assert!(offered.iter().any(|text| text.starts_with('/')), "an absolute path is offered");
}

/// Returns whether an address is reserved for documentation.
fn is_documentation(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets().starts_with(&[192, 0, 2]),
        IpAddr::V6(address) => address.segments().starts_with(&[0x2001, 0xdb8]),
    }
}

/// Never accepts a value, nor refuses one.
struct Loops;

impl<'de> Deserialize<'de> for Loops {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u8::deserialize(deserializer)?;
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

#[test]
fn a_type_that_loops_is_described_by_its_name() {
    let schema = Schema::of::<(u8, Vec<u16>), Loops>(Codec::Bincode);
    assert_eq!(schema.text, "input: (u8, [u16])\noutput: opaque values::made_up::Loops\ncodec: bincode");
}

/// Panics with a payload whose destructor panics.
struct Explosive;

struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "the payload was dropped");
    }
}

impl<'de> Deserialize<'de> for Explosive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u8::deserialize(deserializer)?;
        std::panic::panic_any(Payload)
    }
}

#[test]
fn the_payload_of_a_panic_is_forgotten() {
    assert_eq!(output::<(Option<Explosive>, u8)>(), "(Option<opaque values::made_up::Explosive (u8)>, u8)");
}
