//! A Pars as its stack: by which name it is found, and what it notes of itself.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::aws::cloudformation::{PARS_STACKS, Stack, Stacks};
use crate::deploy::noted::{Noted, differences, digest};
use crate::deploy::pars::{Pars, ParsBuilder};
use crate::deploy::template;
use crate::error::{Error, ErrorKind, Result};
use crate::settings::account::Account;
use crate::settings::pars::ParsSettings;

/// Prefix of the names of all log groups of Pars.
const LOGS: &str = "/cloudknot/";

/// The note of a Pars in its stack: what the user said, and what of it was there before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Note {
    pub(super) settings: ParsSettings,
    pub(super) bucket_was_there: bool,
    /// An earlier Pars of this name may have left them. One that knew nothing of that had none.
    #[serde(default)]
    pub(super) logs_were_there: bool,
}

/// Returns the name of the log group of this Pars.
pub(super) fn log_group(pars: &str) -> String {
    format!("{LOGS}{pars}")
}

/// Returns the name of the Pars that has this log group.
pub(crate) fn of_log_group(group: &str) -> Option<&str> {
    group.strip_prefix(LOGS)
}

/// Returns the name of the stack of this Pars.
pub(crate) fn stack_name(pars: &str) -> String {
    format!("{PARS_STACKS}{pars}")
}

/// Returns what tells one template from another: a version of cloudknot may have another one.
pub(super) fn content() -> String {
    digest(template::source("pars.yaml"))
}

/// The Pars of this name, if it is there and complete.
pub(crate) async fn find(stacks: &Stacks, name: &str, account: &Account) -> Result<Option<Pars>> {
    let stack = stacks.find(&stack_name(name)).await?;
    // One that is being deleted, or was in part, is none to stand on.
    let stack = stack.filter(|stack| !stack.status.as_str().starts_with("DELETE_"));
    stack.filter(|stack| stack.outputs.contains_key("Settings")).map(|stack| read(&stack, account)).transpose()
}

/// What such a stack says that it is.
pub(crate) fn read(stack: &Stack, account: &Account) -> Result<Pars> {
    for key in template::outputs("pars.yaml").filter(|key| *key != "BucketKey") {
        stack.output(key)?;
    }
    Ok(Pars {
        name: stack.output("Pars")?.to_owned(),
        region: stack.region().to_owned(),
        stack_id: stack.id.clone(),
        settings: Noted::<Note>::read(stack)?.settings.settings,
        outputs: stack.outputs.clone(),
        account: account.clone(),
    })
}

/// Whether the bucket was made with the Pars, and holds nobody else's objects.
pub(crate) fn bucket_is_its_own(stack: &Stack) -> Result<bool> {
    Ok(!Noted::<Note>::read(stack)?.settings.bucket_was_there)
}

/// Whether what is there was made with the same settings; the error lists what is different.
pub(super) fn same_settings(builder: &ParsBuilder, stack: &Stack) -> Result<()> {
    let there = Noted::<Note>::read(stack)?.settings.settings;
    if there == builder.settings {
        return Ok(());
    }
    let message = format!("failed to create the Pars `{}`: it exists with other settings", builder.name);
    Err(Error::new(ErrorKind::Exists, message)
        .with_source(differences(&json!(there), &json!(builder.settings)).join("\n"))
        .with_hint("give it these settings, choose another name, or clobber it first: `cargo knot pars clobber`"))
}
