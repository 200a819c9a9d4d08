//! Compiles a resolved program to a worker.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::build::Build;
use super::executable::{self, Executable};
use super::{BuildContext, allocator, flags};
use crate::build::compile::error::{CompileError, io};
use crate::build::compile::{Program, Worker};

pub(crate) fn compile(program: &Program) -> Result<Worker, CompileError> {
    program.warn()?;
    let selected = program.selected();
    let BuildContext { metadata, platform, .. } = &program.cargo;
    let (allocator, warning) = allocator::choose(program.settings.compile.allocator, &program.cargo, &selected)?;
    if let Some(warning) = warning {
        (program.compile.report)(&warning);
    }
    let what = format!("the worker of `{}` ({})", program.package, program.target.option());
    (program.compile.report)(&format!("compiling {what} for {}", platform.triple));

    // Dynamic workers use a separate folder: in a shared one, cargo would compile everything again at each change between
    // the two kinds.
    let kind = if program.dynamic { "cloudknot-dynamic" } else { "cloudknot" };
    let target_folder = metadata.target_directory.join(kind).into_std_path_buf();
    fs::create_dir_all(&target_folder).map_err(io("create the folder", &target_folder))?;
    // Held until the executable is read, since another build of the same target would replace it.
    let _lock = program.lock(&target_folder)?;
    let build = Build { program, selected: &selected, target_folder, allocator };
    let (path, up_to_date) = build.run()?;
    let bytes = fs::read(&path).map_err(io("read", &path))?;
    let executable = Executable::read(&bytes)?;
    build.check(&executable)?;
    program.warn_of_paths(&bytes, &build.target_folder)?;
    Ok(Worker {
        path,
        bytes,
        arch: program.arch,
        target: platform.triple.clone(),
        cargo_target: program.target.clone(),
        package: program.package.clone(),
        version: program.version.clone(),
        package_folder: program.package_folder.clone(),
        functions: executable.functions,
        settings: program.settings.clone(),
        up_to_date,
    })
}

impl Program {
    fn warn(&self) -> Result<(), CompileError> {
        let BuildContext { toolchain, platform, .. } = &self.cargo;
        let settings = &self.settings;
        let user = toolchain.configuration(&platform.triple)?.rustflags;
        if flags::selects_native_cpu(&user) && settings.compile.target_cpu.is_none() {
            (self.compile.report)(
                "warning: the rustflags in cargo's configuration select this machine's CPU (target-cpu=native); the worker \
                 crashes on a machine that lacks a feature of this CPU. Set `target-cpu` in [package.metadata.cloudknot]",
            );
        }
        if platform.triple.ends_with("-musl") && settings.compile.allocator.is_none() && !platform.compiles_c {
            (self.compile.report)(
                "warning: the worker uses musl's allocator, which is slow with threads: no C compiler for musl was found",
            );
        }
        Ok(())
    }

    /// Reports the folders of this machine that the code of the worker refers to. The locations in panics are remapped, and
    /// contain none.
    fn warn_of_paths(&self, worker: &[u8], target_folder: &Path) -> Result<(), CompileError> {
        let metadata = &self.cargo.metadata;
        let packages = super::packages_in_folders(metadata).map(super::folder_of);
        let root = metadata.workspace_root.clone().into_std_path_buf();
        let mut folders: Vec<PathBuf> = packages.chain([root, target_folder.to_owned()]).collect();
        // A package's folder is named in place of that of its workspace.
        folders.sort_by_key(|folder| Reverse(folder.as_os_str().len()));
        if let Some(folder) = executable::first_contained(worker, &folders)? {
            (self.compile.report)(&format!(
                "warning: the worker contains the path `{}` of this machine, for example from `env!(\"CARGO_MANIFEST_DIR\")` or \
                 `env!(\"OUT_DIR\")`, which does not exist where the worker runs. To read files there, compile them in with \
                 `include_bytes!`, or name them in `include` in [package.metadata.cloudknot] and find them with `cloudknot::data`",
                folder.display()
            ));
        }
        Ok(())
    }

    fn lock(&self, target_folder: &Path) -> Result<File, CompileError> {
        let path = target_folder.join(".lock");
        let file = File::create(&path).map_err(io("create", &path))?;
        if file.try_lock().is_err() {
            (self.compile.report)("waiting for another build of a worker in this workspace");
            file.lock().map_err(io("lock", &path))?;
        }
        Ok(file)
    }
}
