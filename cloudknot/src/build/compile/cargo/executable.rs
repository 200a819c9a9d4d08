//! Reads a worker without running it, so that a worker for another architecture can be read too: the remote functions in its
//! section `.cloudknot`, and the libraries that it needs.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cloudknot_runtime::contract::{FunctionDescription, Orders, Start, VERSION};
use memchr::memmem;
use object::SectionKind::{Data, ReadOnlyData, ReadOnlyDataWithRel, ReadOnlyString, Text};
use object::read::elf::{ElfFile64, ElfSection64};
use object::{Endianness, Object, ObjectSection};
use serde::de::DeserializeOwned;

use crate::build::compile::error::{CompileError, CompileErrorKind};
use crate::build::elf;

/// Information read from an executable.
#[derive(Debug)]
pub(super) struct Executable {
    /// Version of the contract between `#[cloudknot::main]` and the runtime; `None` if the program has another `main`.
    pub(super) contract: Option<u32>,
    /// Remote functions, ordered by ID. Empty for another version of the contract, whose descriptions may have another form.
    pub(super) functions: Vec<FunctionDescription>,
    /// Shared libraries and loader that the executable needs; empty if it is static.
    pub(super) needs: Vec<String>,
}

impl Executable {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, CompileError> {
        let file = ElfFile64::<Endianness>::parse(bytes).map_err(|cause| unreadable().with_source(cause))?;
        let section = match file.section_by_name(".cloudknot") {
            Some(section) => section.data().map_err(|cause| unreadable().with_source(cause))?,
            None => &[],
        };
        // The linker may pad with zeros between two lines.
        let lines = section.split(|byte| matches!(byte, b'\n' | 0)).filter(|line| !line.is_empty());
        let (starts, functions): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with(b"{\"start\":"));
        let starts: Vec<Start> = read(&starts)?;
        let contract = starts.first().map(|start| start.contract);
        let is_readable = contract.is_none_or(|contract| contract == VERSION);
        let functions = if is_readable { descriptions(&functions)? } else { Vec::new() };
        let needs = elf::needs(&file).map_err(|cause| unreadable().with_source(cause))?;
        Ok(Self { contract, functions, needs })
    }
}

/// Returns the version of the orders that a program of this machine carries out; `None` if it carries out none.
pub(super) fn orders(bytes: &[u8]) -> Result<Option<u32>, CompileError> {
    let failed = |cause| unreadable().with_source(cause);
    let file = object::File::parse(bytes).map_err(failed)?;
    // On macOS, this names the section `__cloudknot`.
    let Some(section) = file.section_by_name(".cloudknot") else { return Ok(None) };
    let section = section.data().map_err(failed)?;
    let mut lines = section.split(|byte| matches!(byte, b'\n' | 0));
    Ok(lines.find_map(|line| serde_json::from_slice::<Orders>(line).ok()).map(|line| line.orders))
}

/// Returns the first of the folders whose path is in the code or the data of an executable.
pub(super) fn first_contained<'f>(bytes: &[u8], folders: &'f [PathBuf]) -> Result<Option<&'f Path>, CompileError> {
    let failed = |cause| unreadable().with_source(cause);
    let file = ElfFile64::<Endianness>::parse(bytes).map_err(failed)?;
    // Other sections, such as those for a debugger, are not used by the code.
    let is_used = |section: &ElfSection64<'_, '_>| {
        matches!(section.kind(), Text | Data | ReadOnlyData | ReadOnlyDataWithRel | ReadOnlyString)
    };
    let sections = file.sections().filter(is_used).map(|section| section.data().map_err(failed));
    let sections: Vec<&[u8]> = sections.collect::<Result<_, _>>()?;
    // A path such as `/src` is also a part of other paths.
    let is_long = |folder: &&PathBuf| folder.components().count() > 2;
    let is_contained = |folder: &&PathBuf| {
        let path = memmem::Finder::new(folder.as_os_str().as_bytes());
        sections.iter().any(|section| path.find(section).is_some())
    };
    Ok(folders.iter().filter(is_long).find(is_contained).map(PathBuf::as_path))
}

fn read<T: DeserializeOwned>(lines: &[&[u8]]) -> Result<Vec<T>, CompileError> {
    lines.iter().map(|line| serde_json::from_slice(line)).collect::<Result<_, _>>().map_err(|cause| {
        unreadable().with_source(cause).with_hint("cargo-knot and cloudknot must have the same version")
    })
}

fn descriptions(lines: &[&[u8]]) -> Result<Vec<FunctionDescription>, CompileError> {
    let mut functions: Vec<FunctionDescription> = read(lines)?;
    functions.sort_by_key(FunctionDescription::id);
    if let Some(pair) = functions.windows(2).find(|pair| pair[0].id() == pair[1].id()) {
        return Err(CompileError::new(
            CompileErrorKind::Worker,
            format!("duplicate remote function `{}`", pair[0].id()),
        )
        .with_hint("give one of them another name: #[cloudknot::remote(name = \"…\")]"));
    }
    Ok(functions)
}

fn unreadable() -> CompileError {
    CompileError::new(CompileErrorKind::Worker, "cannot read the executable that cargo built")
}
