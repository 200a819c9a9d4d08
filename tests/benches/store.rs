//! Transfer of a `Vec<f64>` of 8 MB in and out, through the codec and the folder store, compared with writing and
//! reading the same bytes as files. Then 8 MB of structs, whose values are compared when they are read back, beside the same
//! work without the comparison.
//!
//! `cargo bench -p cloudknot-tests --bench store`; all figures are of one run on one machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cloudknot_runtime::codec::Codec;
use cloudknot_runtime::fingerprint::{Fingerprint, Schema};
use cloudknot_runtime::frame::{decode, encode, read_back};
use cloudknot_runtime::store::{DirStore, Store};
use serde::{Deserialize, Serialize};

const NUMBERS: usize = 1_000_000;
const ROUNDS: u32 = 20;

/// A type that is compared when it is read back: lists of plain numbers are exempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sample {
    x: f64,
    y: f64,
    z: f64,
    weight: f64,
}

fn main() {
    numbers();
    structs();
}

fn numbers() {
    let folder = tempfile::tempdir().expect("a temporary folder can be created");
    let store: Arc<dyn Store> = Arc::new(DirStore::new(folder.path().join("store")));
    let fingerprint = Schema::of::<Vec<f64>, Vec<f64>>(Codec::Bincode).fingerprint;
    let values: Vec<f64> =
        (0..NUMBERS).map(|at| f64::from(u32::try_from(at).expect("the number fits into a `u32`")).sqrt()).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();

    let mut files = Duration::ZERO;
    let mut stored = Duration::ZERO;
    let mut coded = Duration::ZERO;
    for round in 0..ROUNDS {
        // Twice: as the input and as the result.
        for name in ["in", "out"] {
            let path = folder.path().join(format!("{name}-{round}"));
            files += time(|| {
                std::fs::write(&path, &bytes).expect("a file is written");
                assert_eq!(std::fs::read(&path).expect("a file is read").len(), bytes.len());
            });
            std::fs::remove_file(&path).expect("a file is removed");
        }
        let keys = [
            format!("knots/bench/runs/{round}/inputs"),
            format!("knots/bench/runs/{round}/results/000000000000-000000000000"),
        ];
        stored += time(|| input(&*store, &keys[0], fingerprint, &values));
        stored += time(|| result(&*store, &keys[1], fingerprint, &values));
        pollster::block_on(store.delete(&keys)).expect("the store deletes");
        coded += time(|| {
            let mut frame = Vec::new();
            let _ = encode(Codec::Bincode, fingerprint, &values, &mut frame).expect("numbers are encoded");
            decode::<Vec<f64>>(Codec::Bincode, fingerprint, &frame).expect("numbers are decoded")
        });
    }
    let millis = |duration: Duration| duration.as_secs_f64() * 1e3 / f64::from(ROUNDS);
    println!("8 MB of f64, in and out            ms");
    println!("the same bytes as files     {:>9.2}", millis(files));
    println!("codec and folder store      {:>9.2}", millis(stored));
    println!("the codec alone, once       {:>9.2}", millis(coded));
    println!("ratio                       {:>9.2}   (expected: at most 3)", millis(stored) / millis(files));
}

/// Measures what a host or a worker does with a value that it sends: encode it, and read it back.
fn structs() {
    let fingerprint = Schema::of::<Vec<Sample>, Vec<Sample>>(Codec::Bincode).fingerprint;
    let values = vec![Sample { x: 0.5, y: 1.5, z: 2.5, weight: 3.5 }; NUMBERS / 4];
    let config = bincode::config::standard();
    let mut compared = Duration::ZERO;
    let mut bare = Duration::ZERO;
    for _ in 0..ROUNDS {
        compared += time(|| {
            let mut frame = Vec::new();
            let written = encode(Codec::Bincode, fingerprint, &values, &mut frame).expect("structs are encoded");
            read_back::<Vec<Sample>, Vec<Sample>>(Codec::Bincode, &frame, &written).expect("structs are read back");
        });
        bare += time(|| {
            let bytes = bincode::serde::encode_to_vec(&values, config).expect("structs are encoded");
            bincode::serde::decode_from_slice::<Vec<Sample>, _>(&bytes, config).expect("structs are decoded")
        });
    }
    let millis = |duration: Duration| duration.as_secs_f64() * 1e3 / f64::from(ROUNDS);
    println!("\n8 MB of structs of four f64, encoded and read back    ms");
    println!("bincode alone, without frame and comparison    {:>9.2}", millis(bare));
    println!("with frame and comparison                      {:>9.2}", millis(compared));
    println!(
        "ratio                                          {:>9.2}   (expected: at most 3)",
        millis(compared) / millis(bare)
    );
}

/// Handles an input as a map does: encoded, read back, streamed to the store; then read by range and decoded by the
/// worker.
fn input(store: &dyn Store, key: &str, fingerprint: Fingerprint, values: &Vec<f64>) {
    let mut frame = Vec::new();
    let written = encode(Codec::Bincode, fingerprint, values, &mut frame).expect("numbers are encoded");
    read_back::<Vec<f64>, Vec<f64>>(Codec::Bincode, &frame, &written).expect("numbers are read back");
    let length = frame.len() as u64;
    let read = pollster::block_on(async {
        let mut writer = store.writer(key).await?;
        writer.write(frame.into()).await?;
        writer.finish().await?;
        store.get_range(key, 0..length).await
    });
    let read = read.expect("the store works");
    assert_eq!(decode::<Vec<f64>>(Codec::Bincode, fingerprint, &read).expect("numbers are decoded").len(), NUMBERS);
}

/// Handles a result as a worker and then the host do: encoded, read back, created; then read whole and decoded.
fn result(store: &dyn Store, key: &str, fingerprint: Fingerprint, values: &Vec<f64>) {
    let mut frame = Vec::new();
    let written = encode(Codec::Bincode, fingerprint, values, &mut frame).expect("numbers are encoded");
    read_back::<Vec<f64>, Vec<f64>>(Codec::Bincode, &frame, &written).expect("numbers are read back");
    let read = pollster::block_on(async {
        assert!(store.create(key, frame.into()).await?);
        store.get(key).await
    });
    let read = read.expect("the store works").expect("the result exists");
    assert_eq!(decode::<Vec<f64>>(Codec::Bincode, fingerprint, &read).expect("numbers are decoded").len(), NUMBERS);
}

fn time<T>(act: impl FnOnce() -> T) -> Duration {
    let began = Instant::now();
    std::hint::black_box(act());
    began.elapsed()
}
