//! Record of a run as a host writes it, created from the contract alone, for tests of workers without a host.

use std::collections::BTreeMap;
use std::process::Command;

use cloudknot_runtime::codec::Codec;
use cloudknot_runtime::contract::{ENV_DESCRIBE, ENV_TASK, InputLayout, Part, PartEnd, RunKeys, StoreAt, Task, Types};
use cloudknot_runtime::frame;
use cloudknot_runtime::store::Store;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::counterparts::run;

/// Recorded run without any results. All of its items belong to one child, and are stored as one part.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Keys of the run.
    pub keys: RunKeys,
    /// Task for the worker.
    pub task: Task,
}

impl Recorded {
    /// Records a run of this function over these inputs. `run` distinguishes it from others in the store.
    ///
    /// # Panics
    /// If an input cannot be encoded, or if the store fails.
    pub async fn new<I: Serialize>(store: &dyn Store, at: StoreAt, types: &Types, run: &str, inputs: &[I]) -> Self {
        let (mut object, mut ends) = (Vec::new(), vec![0]);
        for input in inputs {
            let _ =
                frame::encode(Codec::Bincode, types.fingerprint, input, &mut object).expect("the input can be encoded");
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
            submitted_ms: 0,
            items,
            inputs: layout,
            chunk: items,
            first_child: 0,
            parallel: 1,
            retries: 0,
            timeout_ms: None,
            env: BTreeMap::new(),
            recycle: None,
            vcpus: None,
            has_no_outcomes: true,
        };
        Self { keys, task }
    }

    /// Returns the name and the value of the worker's environment variable.
    ///
    /// # Panics
    /// Never: a task serializes to JSON.
    pub fn env(&self) -> (&'static str, String) {
        (ENV_TASK, serde_json::to_string(&self.task).expect("a task serializes to JSON"))
    }

    /// Returns the values in the store, in order.
    ///
    /// # Panics
    /// If an item has no value.
    pub async fn values<V: DeserializeOwned + Send>(&self, store: &dyn Store) -> Vec<V> {
        let part = Part { first: 0, last: self.task.items - 1 };
        let bytes = store.get(&self.keys.part(part)).await.expect("the store works").expect("all values are stored");
        let frames = PartEnd::frames_len(part, &bytes).expect("the part has an end");
        let (mut rest, mut values) = (&bytes[..frames], Vec::new());
        while !rest.is_empty() {
            let length = usize::try_from(frame::frame_length(rest).expect("the value is a frame"))
                .expect("the frame is in memory");
            let (frame, after) = rest.split_at(length);
            values
                .push(frame::decode(Codec::Bincode, self.task.fingerprint, frame).expect("the frame contains a value"));
            rest = after;
        }
        values
    }
}

/// Returns the types that a worker reports for the function of this name; `start` is the command that starts the
/// worker.
///
/// # Panics
/// If the worker has no such function, or does not report its types.
pub fn types_of(start: &mut Command, function: &str) -> Types {
    let output = run(start.env(ENV_DESCRIBE, "1"));
    let all = Types::find(&output).expect("the worker describes its types");
    let named = |types: &Types| types.function.rsplit("::").next() == Some(function);
    all.into_iter().find(named).expect("the worker has the function")
}
