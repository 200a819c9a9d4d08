//! `cargo knot prune`: lists and deletes resources without an owner.

use std::time::Duration;

use clap::Args;
use cloudknot::prune::{Orphan, Prune as Search};
use serde_json::{Value, json};

use crate::aws::AwsArgs;
use crate::failure::Failure;
use crate::output::{self, table};

/// Options of `cargo knot prune`. Without `--yes`, nothing is deleted.
#[derive(Args)]
pub(crate) struct Prune {
    /// Delete the listed resources, except those with runs
    #[arg(long)]
    yes: bool,
    /// Also delete resources with runs; their results cannot be restored
    #[arg(long, requires = "yes")]
    runs: bool,
    /// Ignore images and incomplete Knots younger than this, such as "1h": a deploy may be in progress
    #[arg(long, value_name = "AGE", default_value = "1d", value_parser = humantime::parse_duration)]
    older_than: Duration,
    #[command(flatten)]
    aws: AwsArgs,
    /// Print one JSON array instead of text
    #[arg(long)]
    json: bool,
}

impl Prune {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let mut search = Search::new().min_age(self.older_than);
        search = self.aws.profile().into_iter().fold(search, Search::profile);
        search = self.aws.region().into_iter().fold(search, Search::region);
        let found = search.find().await?;
        let is_selected = |orphan: &Orphan| self.yes && (self.runs || !orphan.has_runs);
        let (mut rows, mut objects, mut kept) = (Vec::new(), Vec::new(), 0);
        let mut failed: Option<Failure> = None;
        for orphan in found {
            let (row, mut object) = (row(&orphan), json!(orphan));
            let mut deleted = is_selected(&orphan);
            if deleted && let Err(error) = orphan.delete().await {
                deleted = false;
                // A failed deletion does not stop the others.
                if let Some(previous) = failed.replace(error.into()) {
                    previous.report(self.json);
                }
            }
            kept += usize::from(!deleted);
            object["deleted"] = json!(deleted);
            rows.push(row);
            objects.push(object);
        }
        if self.json {
            output::json(&Value::from(objects))?;
        } else {
            table(&["KIND", "NAME", "DELETES", "REASON"], &rows)?;
            self.print_summary(rows.len(), kept);
        }
        failed.map_or(Ok(()), Err)
    }

    fn print_summary(&self, found: usize, kept: usize) {
        output::note(&match (found, kept) {
            (0, _) => "found no resources without an owner".to_owned(),
            (_, 0) => format!("{found} deleted"),
            _ if self.yes => format!("{} of {found} deleted; runs are deleted only with --runs", found - kept),
            _ => "nothing was deleted: --yes deletes these, and --runs includes runs".to_owned(),
        });
    }
}

fn row(orphan: &Orphan) -> Vec<String> {
    [orphan.kind.name(), &orphan.name, &orphan.deletes, &orphan.reason].map(str::to_owned).to_vec()
}
