//! A manifest for tests.

use std::collections::BTreeMap;

use cloudknot_runtime::codec::Codec;
use cloudknot_runtime::contract::{InputLayout, Manifest, Provenance, Resources};
use cloudknot_runtime::fingerprint::Fingerprint;

/// Returns the manifest of a run on this machine, of this number of items.
pub(crate) fn manifest(items: u64) -> Manifest {
    Manifest {
        version: Manifest::VERSION,
        run: "20260101-000000000-abcdef".into(),
        knot: "sweep".into(),
        backend: "local".into(),
        function: "sweep:sweep::f".into(),
        signature: String::new(),
        fingerprint: Fingerprint(7),
        schema: String::new(),
        types: None,
        codec: Codec::Bincode,
        items,
        inputs: InputLayout::Uniform(33),
        inputs_hash: None,
        chunk: 1,
        parallel: 1,
        retries: 0,
        timeout_ms: None,
        recycle: None,
        max_failures: None,
        env: BTreeMap::new(),
        tags: BTreeMap::new(),
        resources: Resources::default(),
        attribute: Resources::default(),
        batch: None,
        submitted_ms: 0,
        name: None,
        parent: None,
        provenance: Provenance::default(),
    }
}
