//! A run's record as a host lays it down, by the contract alone: for tests of workers, in which no host takes part.

use std::process::Command;

use cloudknot_runtime::codec::Codec;
use cloudknot_runtime::contract::{ENV_DESCRIBE, ENV_TASK, InputLayout, Part, RunKeys, StoreAt, Task, Types};
use cloudknot_runtime::frame;
use cloudknot_runtime::store::Store;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::counterparts::run;

/// A run that is recorded, and nothing of it done. All of its items belong to one child, and are stored as one part.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The keys of the run.
    pub keys: RunKeys,
    /// What a worker is to be told.
    pub task: Task,
}

impl Recorded {
    /// A run of this function over these inputs. `run` tells it from others in the store.
    ///
    /// # Panics
    /// If an input cannot be carried, or the store fails.
    pub async fn new<I: Serialize>(store: &dyn Store, at: StoreAt, types: &Types, run: &str, inputs: &[I]) -> Self {
        let (mut object, mut ends) = (Vec::new(), vec![0]);
        for input in inputs {
            frame::encode(Codec::Bincode, types.fingerprint, input, &mut object).expect("an input can be carried");
            ends.push(object.len() as u64);
        }
        let sizes: Vec<u64> = ends.windows(2).map(|ends| ends[1] - ends[0]).collect();
        let layout = if sizes.iter().all(|size| *size == sizes[0]) {
            InputLayout::Uniform(sizes[0])
        } else {
            let at = object.len() as u64;
            object.extend(ends.iter().flat_map(|end| end.to_le_bytes()));
            InputLayout::Offsets(at)
        };
        let keys = RunKeys::new("tests", run);
        store.put(&keys.inputs(), object.into()).await.expect("the inputs are stored");
        let items = inputs.len() as u64;
        let task = Task {
            store: at,
            knot: "tests".into(),
            run: run.into(),
            round: 1,
            function: types.function.clone(),
            fingerprint: types.fingerprint,
            items,
            inputs: layout,
            chunk: items,
            first_child: 0,
            parallel: 1,
            retries: 0,
            timeout_ms: None,
            vcpus: None,
            fresh: true,
        };
        Self { keys, task }
    }

    /// What a worker finds in its environment: the name and the value.
    ///
    /// # Panics
    /// Never: a task is texts and numbers.
    pub fn env(&self) -> (&'static str, String) {
        (ENV_TASK, serde_json::to_string(&self.task).expect("a task is texts and numbers"))
    }

    /// The values in the store, in order.
    ///
    /// # Panics
    /// Unless every item has one.
    pub async fn values<V: DeserializeOwned>(&self, store: &dyn Store) -> Vec<V> {
        let key = self.keys.part(Part { first: 0, last: self.task.items - 1 });
        let bytes = store.get(&key).await.expect("the store works").expect("all values are stored");
        let (mut rest, mut values) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let length = usize::try_from(frame::frame_length(rest).expect("a frame")).expect("it is in memory");
            let (frame, after) = rest.split_at(length);
            values.push(frame::decode(Codec::Bincode, self.task.fingerprint, frame).expect("a value"));
            rest = after;
        }
        values
    }
}

/// What a worker says of the function with this name; `start` is how the worker is started.
///
/// # Panics
/// If it has no such function, or does not say.
pub fn types_of(start: &mut Command, function: &str) -> Types {
    let said = run(start.env(ENV_DESCRIBE, "1"));
    let all: Vec<Types> = serde_json::from_str(&said).expect("the worker says its types");
    let named = |types: &Types| types.function.rsplit("::").next() == Some(function);
    all.into_iter().find(named).expect("the function is there")
}
