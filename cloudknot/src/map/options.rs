//! The options of one map. They are checked before anything is recorded, and then written to the manifest.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use cloudknot_runtime::contract::{self, Manifest, Parent, Provenance, Resources};
use cloudknot_runtime::function::Function;
use cloudknot_runtime::text::printable;

use super::inputs::Recording;
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::record::limits;

#[derive(Debug)]
pub(super) struct Options {
    pub(super) name: Option<String>,
    pub(super) chunk: Option<u64>,
    pub(super) parallel: Option<u32>,
    pub(super) retries: u32,
    pub(super) timeout: Option<Duration>,
    pub(super) recycle: Option<u64>,
    pub(super) max_failures: Option<u64>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) vcpus: Option<f64>,
    pub(super) memory: Option<String>,
    pub(super) memory_on_retry: Option<String>,
    pub(super) gpus: Option<u32>,
    pub(super) independent: bool,
    pub(super) resume: bool,
    pub(super) backend: Option<Backend>,
    pub(super) parent: Option<Parent>,
}

impl Options {
    /// Returns the options that the function's attribute sets.
    pub(super) fn of(function: &Function) -> Self {
        Self {
            name: None,
            chunk: None,
            parallel: None,
            retries: function.resources.retries,
            timeout: function.resources.timeout,
            recycle: function.resources.recycle.map(u64::from),
            max_failures: None,
            env: BTreeMap::new(),
            tags: BTreeMap::new(),
            vcpus: None,
            memory: None,
            memory_on_retry: None,
            gpus: None,
            independent: false,
            resume: false,
            backend: None,
            parent: None,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let parallel = self.parallel.map(u64::from);
        let counts = [
            ("chunk", self.chunk),
            ("parallel", parallel),
            ("recycle", self.recycle),
            ("max_failures", self.max_failures),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == Some(0)) {
            return Err(limits::zero(name));
        }
        self.timeout_ms()?;
        self.check_name()?;
        self.check_env()?;
        if self.vcpus.is_some_and(|vcpus| !vcpus.is_finite() || vcpus <= 0.0) {
            return Err(limits::zero("vcpus"));
        }
        self.resources().map(drop)
    }

    fn check_name(&self) -> Result<()> {
        let Some(name) = &self.name else { return Ok(()) };
        contract::check_name(name).map_err(|must| {
            Error::new(ErrorKind::Config, format!("invalid name of a run `{}`: {must}", printable(name)))
                .with_hint("a name such as `sweep 3` tells the run from others of the function")
        })
    }

    fn timeout_ms(&self) -> Result<Option<u64>> {
        self.timeout.map(|timeout| limits::timeout_ms("submit", timeout)).transpose()
    }

    fn resources(&self) -> Result<Resources> {
        let mib = |option: &str, memory: &Option<String>| {
            memory.as_deref().map(|memory| limits::memory_mib("submit", option, memory)).transpose()
        };
        Ok(Resources {
            vcpus: self.vcpus,
            memory_mib: mib("memory", &self.memory)?,
            memory_on_retry_mib: mib("memory_on_retry", &self.memory_on_retry)?,
            gpus: self.gpus,
        })
    }

    fn check_env(&self) -> Result<()> {
        match self.env.iter().find(|(name, value)| !contract::is_user_variable(name, value)) {
            None => Ok(()),
            Some((name, _)) => {
                Err(Error::new(ErrorKind::Config, format!("cannot submit: `{name}` cannot be set by .env(..)"))
                    .with_hint("use a name without `=` that starts with neither CLOUDKNOT_ nor AWS_BATCH"))
            }
        }
    }

    /// Returns the manifest of a run with these inputs. The backend fills in the rest.
    pub(super) fn manifest(
        &self,
        function: &Function,
        recording: &Recording,
        backend: &str,
        knot: &str,
    ) -> Result<Manifest> {
        let schema = function.schema()?;
        Ok(Manifest {
            version: Manifest::VERSION,
            run: recording.run.clone(),
            knot: knot.to_owned(),
            backend: backend.to_owned(),
            function: function.id.to_string(),
            signature: function.signature.to_owned(),
            fingerprint: schema.fingerprint,
            schema: schema.text.clone(),
            types: Some(schema.structure.clone()),
            codec: function.codec,
            items: recording.items,
            inputs: recording.layout(),
            inputs_hash: Some(recording.hasher.finish()),
            // Placeholders: the caller replaces them with the user's values or the backend's, which depend on the rest.
            chunk: 1,
            parallel: 1,
            retries: self.retries,
            timeout_ms: self.timeout_ms()?,
            recycle: self.recycle,
            max_failures: self.max_failures,
            env: self.env.clone(),
            tags: self.tags.clone(),
            resources: self.resources()?,
            attribute: Resources {
                vcpus: function.resources.vcpus,
                memory_mib: function.resources.memory_mib,
                memory_on_retry_mib: None,
                gpus: Some(function.resources.gpus).filter(|gpus| *gpus > 0),
            },
            batch: None,
            submitted_ms: contract::unix_ms(contract::submitted_at(&recording.run).unwrap_or_else(SystemTime::now)),
            name: self.name.clone(),
            parent: self.parent.clone(),
            // Another placeholder: git is asked meanwhile.
            provenance: Provenance::default(),
        })
    }
}
