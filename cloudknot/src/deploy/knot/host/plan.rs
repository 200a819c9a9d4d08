//! The plan of a Knot: its templates and its tags. Pure data, computed from what was resolved and built.

use std::collections::BTreeMap;

use cloudknot_runtime::contract::FunctionDescription;
use serde_json::json;

use super::resolve::{KnotProgram, ResolvedKnot};
use super::stack::{read_note, stack_name};
use super::values::{DesiredKnot, Responses};
use crate::aws::cloudformation::Stack;
use crate::build::pipeline::BuildArtifacts;
use crate::deploy::knot::Deployed;
use crate::deploy::pars::Pars;
use crate::deploy::stack_note::{StackNote, digest};
use crate::deploy::template::{self, render};
use crate::error::Result;

/// Environment variable with a registry in front of the account's own, such as an institution's proxy. Images are
/// pushed to it and pulled from it.
const ENV_REGISTRY: &str = "CLOUDKNOT_REGISTRY";

/// A Knot as it will be deployed.
pub(super) struct KnotPlan {
    /// Name of the stack.
    pub(super) stack: String,
    /// Template of the repository alone, which the image is pushed to.
    pub(super) repository: String,
    pub(super) template: String,
    pub(super) tags: Vec<(String, String)>,
}

impl KnotPlan {
    /// Creates a plan. With `from_template`, the user creates the stack from the printed template.
    pub(super) fn new(
        resolved: &ResolvedKnot,
        artifacts: &BuildArtifacts,
        pars: &Pars,
        from_template: bool,
    ) -> Result<Self> {
        let ResolvedKnot { knot, state, .. } = resolved;
        let responses = resolved.responses();
        let desired = desired(knot, artifacts);
        let deployed = Deployed { machines: responses.machines.clone(), ..deployed(knot, artifacts) };
        let note = |content: String| {
            let note = StackNote { content, settings: deployed.clone(), from_template };
            serde_json::to_string(&note).expect("settings serialize to JSON")
        };
        let responses = Responses {
            has_environment: state.has_environment() && !from_template,
            image_uri: pulled_from(knot, responses),
            ..responses.clone()
        };
        let cloudknot_tags = [("cloudknot:pars", &pars.name), ("cloudknot:knot", &knot.name)];
        let cloudknot_tags = cloudknot_tags.map(|(key, value)| (key.to_owned(), value.clone()));
        let content = content(knot, artifacts, pars);
        Ok(Self {
            stack: stack_name(&knot.name),
            repository: render("knot.yaml", &desired.values(pars, &responses, &note(String::new()), false)?),
            template: render("knot.yaml", &desired.values(pars, &responses, &note(content), true)?),
            tags: cloudknot_tags.into_iter().chain(knot.settings.tags.clone()).collect(),
        })
    }
}

/// Returns the desired Knot, with its functions and its image.
pub(super) fn desired<'a>(knot: &'a KnotProgram, artifacts: &'a BuildArtifacts) -> DesiredKnot<'a> {
    let functions = &artifacts.worker.functions;
    DesiredKnot {
        functions,
        ids: functions.iter().map(FunctionDescription::id).collect(),
        gpus_in_sources: None,
        arch: artifacts.worker.arch,
        digest: artifacts.image.digest(),
        ..knot.desired()
    }
}

/// Returns whether the stack is as this deploy would leave it.
pub(super) fn is_unchanged(knot: &KnotProgram, artifacts: &BuildArtifacts, pars: &Pars, stack: &Stack) -> bool {
    let is_same = read_note(stack).is_ok_and(|note| note.content == content(knot, artifacts, pars));
    stack.is_complete() && is_same && stack.outputs.contains_key("ImageDigest")
}

fn deployed(knot: &KnotProgram, artifacts: &BuildArtifacts) -> Deployed {
    let types = artifacts.built.types.iter().flatten();
    Deployed {
        functions: desired(knot, artifacts).job_definitions(),
        types: types.map(|types| (types.function.clone(), types.fingerprint.0)).collect(),
        ..knot.deployed()
    }
}

/// Returns a digest of everything that the stack depends on. If it is unchanged, the stack needs no change.
fn content(knot: &KnotProgram, artifacts: &BuildArtifacts, pars: &Pars) -> String {
    // The types are a property of the image, and not every machine can run the image to read them.
    let deployed = Deployed { types: BTreeMap::new(), ..deployed(knot, artifacts) };
    let all = json!([
        template::source("knot.yaml"),
        template::source("policies/job-role.json.j2"),
        deployed,
        artifacts.worker.functions,
        artifacts.image.digest(),
        pars.outputs,
        registry(),
    ]);
    digest(all.to_string())
}

/// Returns the location that the image is pulled from, if it is not the repository's own host.
fn pulled_from(knot: &KnotProgram, responses: &Responses) -> Option<String> {
    let host = registry()?;
    let shared = responses.repository.as_ref().map(|shared| shared.uri.clone());
    let uri = shared.unwrap_or_else(|| format!("-/cloudknot/{}", knot.name.to_lowercase()));
    Some(with_host(&uri, &host)).filter(|pulled_from| *pulled_from != uri)
}

/// Returns the location that an image of this repository is pushed to.
pub(super) fn pushed_to(uri: &str) -> String {
    registry().map_or_else(|| uri.to_owned(), |host| with_host(uri, &host))
}

fn registry() -> Option<String> {
    std::env::var(ENV_REGISTRY).ok().filter(|host| !host.is_empty())
}

fn with_host(uri: &str, host: &str) -> String {
    let path = uri.split_once('/').map_or(uri, |(_, path)| path);
    format!("{}/{path}", host.trim_end_matches('/'))
}
