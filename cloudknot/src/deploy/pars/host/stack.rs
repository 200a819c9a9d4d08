//! The stack of a Pars: its name, and its note.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::aws::cloudformation::{PARS_STACKS, Stack, Stacks};
use crate::deploy::pars::{Pars, ParsBuilder};
use crate::deploy::stack_note::{StackNote, differences, digest};
use crate::deploy::template;
use crate::error::{Error, ErrorKind, Result};
use crate::settings::account::Account;
use crate::settings::pars::ParsSettings;

/// Prefix of the names of all log groups of Pars.
const LOGS: &str = "/cloudknot/";

/// The note of a Pars in its stack: the user's settings, and the resources that existed before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Note {
    pub(super) settings: ParsSettings,
    #[serde(rename = "bucket-was-there")]
    pub(super) bucket_existed: bool,
    /// `true` if there were logs of an earlier Pars of this name. A note without this field means that there were none.
    #[serde(rename = "logs-were-there", default)]
    pub(super) logs_existed: bool,
}

/// Returns the name of the log group of this Pars.
pub(super) fn log_group(pars: &str) -> String {
    format!("{LOGS}{pars}")
}

/// Returns the name of the Pars that has this log group.
pub(crate) fn pars_of_log_group(group: &str) -> Option<&str> {
    group.strip_prefix(LOGS)
}

/// Returns the name of the stack of this Pars.
pub(crate) fn stack_name(pars: &str) -> String {
    format!("{PARS_STACKS}{pars}")
}

/// Returns a digest of the template's source, which may differ between versions of cloudknot.
pub(super) fn content() -> String {
    digest(template::source("pars.yaml"))
}

/// Returns the Pars of this name, if it exists and is complete.
pub(crate) async fn find(stacks: &Stacks, name: &str, account: &Account) -> Result<Option<Pars>> {
    let stack = stacks.find(&stack_name(name)).await?;
    // A stack that is being deleted, or was deleted in part, cannot be used.
    let stack = stack.filter(|stack| !stack.status.as_str().starts_with("DELETE_"));
    stack.filter(|stack| stack.outputs.contains_key("Settings")).map(|stack| read(&stack, account)).transpose()
}

/// Reads a Pars from its stack.
pub(crate) fn read(stack: &Stack, account: &Account) -> Result<Pars> {
    for key in template::outputs("pars.yaml").filter(|key| *key != "BucketKey") {
        stack.output(key)?;
    }
    Ok(Pars {
        name: stack.output("Pars")?.to_owned(),
        region: stack.region().to_owned(),
        stack_id: stack.id.clone(),
        settings: StackNote::<Note>::read(stack)?.settings.settings,
        outputs: stack.outputs.clone(),
        account: account.clone(),
    })
}

/// Returns whether the bucket was created with the Pars, and therefore has no other objects.
pub(crate) fn bucket_is_its_own(stack: &Stack) -> Result<bool> {
    Ok(!StackNote::<Note>::read(stack)?.settings.bucket_existed)
}

/// Checks that an existing Pars has the same settings; the error lists the differences.
pub(super) fn check_same_settings(builder: &ParsBuilder, stack: &Stack) -> Result<()> {
    let current = StackNote::<Note>::read(stack)?.settings.settings.with_defaults();
    let desired = builder.settings.clone().with_defaults();
    if current == desired {
        return Ok(());
    }
    let message = format!("cannot create the Pars `{}`: it exists with other settings", builder.name);
    Err(Error::new(ErrorKind::Exists, message)
        .with_source(differences(&json!(current), &json!(desired)).join("\n"))
        .with_hint("use these settings, choose another name, or clobber it first: `cargo knot pars clobber`"))
}
