//! Compiles a program for this machine, as `cargo build` does, to start it with an order.

use std::fs;

use cloudknot_runtime::contract::ORDERS_VERSION;

use super::command::Cargo;
use super::executable;
use super::selection::spec_of;
use super::{build, folder_of, versions};
use crate::build::compile::error::{CompileError, CompileErrorKind, io};
use crate::build::compile::{CargoTarget, Compile, NativeProgram, Profile};

pub(crate) fn compile(compile: &Compile) -> Result<NativeProgram, CompileError> {
    let metadata = compile.metadata()?;
    let selected = compile.selection.find(&metadata)?;
    let package = selected.package;
    versions::check(&metadata, package)?;
    let (kind, name) = match &selected.kind {
        CargoTarget::Bin(name) => ("bin", name),
        CargoTarget::Example(name) => ("example", name),
        CargoTarget::Lib => {
            let message = format!("cannot start `{}`: it has no program, only a library", package.name);
            return Err(CompileError::new(CompileErrorKind::Selection, message)
                .with_hint("add a program whose `main` has #[cloudknot::main], and which uses the library"));
        }
    };
    let profile = match &compile.profile {
        Profile::Named(name) => name,
        Profile::Deploy | Profile::Fast => "dev",
    };
    (compile.report)(&format!("building {}, {kind} {name}, {profile}", package.name));
    let mut command = Cargo::of(compile)?.command();
    command.arg("build").arg("--manifest-path").arg(&package.manifest_path);
    command.args(["--package", &spec_of(package), &format!("--{kind}"), name, &format!("--profile={profile}")]);
    command.args(compile.selection.feature_options()).args(&compile.cargo_options);
    command.args(["--message-format", "json-render-diagnostics"]);
    let hint = || "the messages above are cargo's".to_owned();
    let (path, _) = build::run(command, &format!("compile `{}`", package.name), hint)?;
    let bytes = fs::read(&path).map_err(io("read", &path))?;
    match executable::orders(&bytes)? {
        Some(ORDERS_VERSION) => Ok(NativeProgram { path, package_folder: folder_of(package) }),
        other => Err(refused(&package.name, name, other)),
    }
}

fn refused(package: &str, target: &str, version: Option<u32>) -> CompileError {
    let (why, hint) = match version {
        Some(version) => (
            format!("it takes orders of version {version}, and cargo-knot gives those of version {ORDERS_VERSION}"),
            "install the cargo-knot of the same version as the program's cloudknot",
        ),
        None => (
            "its `main` lacks #[cloudknot::main], or its cloudknot is older than cargo-knot".to_owned(),
            "add #[cloudknot::main] to its `main`, or update cloudknot in Cargo.toml",
        ),
    };
    CompileError::new(
        CompileErrorKind::Worker,
        format!("cannot start `{target}` of `{package}` to run its functions: {why}"),
    )
    .with_hint(hint)
}
