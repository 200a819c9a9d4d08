//! Assembles the image of a compiled worker and keeps it, for all subcommands that use an image. Also `cargo knot image`,
//! which shows the image that was built last.

use std::path::PathBuf;

use clap::Args;
use cloudknot::built::Built;
use cloudknot::compile::{Compile, FunctionDescription, Selection};
use cloudknot::{BuildArtifacts, ImageSettings, Pipeline};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output;

/// Builds the program's worker and its image, and keeps the image as the current one of the program.
pub(crate) async fn build(
    settings: ImageSettings,
    compile: &Compile,
    tag: Option<&str>,
) -> Result<BuildArtifacts, Failure> {
    let pipeline = Pipeline::new(compile.resolve()?).image(settings);
    let artifacts = pipeline.run(|digest| tag.unwrap_or(&digest[..12]).to_owned()).await?;
    artifacts.keep()?;
    Ok(artifacts)
}

/// Options of `cargo knot image`.
#[derive(Args)]
pub(crate) struct Show {
    /// Package of the program
    #[arg(short, long, value_name = "SPEC")]
    package: Option<String>,
    /// Path to Cargo.toml
    #[arg(long, value_name = "PATH")]
    manifest_path: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let selection = Selection { manifest_path: self.manifest_path, package: self.package, ..Selection::default() };
        let built = Built::of_package(&Compile::new(selection).package_folder()?)?;
        show(&built, self.json)
    }
}

pub(crate) fn show(built: &Built, json: bool) -> Result<(), Failure> {
    Ok(if json { output::json(&as_json(built)) } else { output::lines(as_lines(built)) }?)
}

pub(crate) fn as_json(built: &Built) -> Value {
    let layers = built.layers.iter().map(|(digest, bytes)| json!({ "digest": digest, "bytes": bytes }));
    json!({
        "package": built.package,
        "version": built.version,
        "cargo_target": built.cargo_target,
        "target": built.target,
        "worker": built.worker,
        "worker_bytes": built.worker_bytes,
        "compressed_bytes": built.compressed_bytes,
        "digest": built.digest,
        "layers": layers.collect::<Vec<_>>(),
        "image": built.name,
        "archive": built.archive,
        "functions": built.functions,
    })
}

fn as_lines(built: &Built) -> Vec<String> {
    let mut lines = vec![
        format!("program    {} {} ({})", built.package, built.version, built.cargo_target),
        format!("worker     {}, {}, {}", megabytes(built.worker_bytes), built.target, built.worker.display()),
        format!("image      {}, {}", built.name, megabytes(built.compressed_bytes)),
        format!("digest     {}", built.digest),
    ];
    for (index, (digest, bytes)) in built.layers.iter().enumerate() {
        let heading = if index == 0 { "layers" } else { "" };
        lines.push(format!("{heading:<10} {digest}  {}", megabytes(*bytes)));
    }
    for (index, function) in built.functions.iter().enumerate() {
        let heading = if index == 0 { "functions" } else { "" };
        lines.push(format!("{heading:<10} {}  {}", function.signature, details(function)));
    }
    lines
}

fn megabytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
    let megabytes = bytes as f64 / 1e6;
    format!("{megabytes:.2} MB")
}

/// Formats the module of a function, and the resources and limits that the function declares.
fn details(function: &FunctionDescription) -> String {
    let mut details = vec![format!("in {}", function.module)];
    details.extend(function.vcpus.map(|vcpus| format!("{vcpus} vCPU")));
    details.extend(function.memory_mib.map(|memory| format!("{memory} MiB")));
    details.extend(Some(function.gpus).filter(|gpus| *gpus > 0).map(|gpus| format!("{gpus} GPU")));
    let retries = Some(function.retries).filter(|retries| *retries > 0);
    details
        .extend(retries.map(|retries| if retries == 1 { "1 retry".to_owned() } else { format!("{retries} retries") }));
    details.extend(function.timeout_seconds.map(|seconds| format!("at most {seconds} s")));
    format!("({})", details.join(", "))
}
