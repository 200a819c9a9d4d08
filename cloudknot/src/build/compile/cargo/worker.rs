//! Compiles a resolved program to a worker.

use std::fs::{self, File};
use std::path::Path;

use super::build::Build;
use super::executable::Executable;
use super::{BuildContext, flags};
use crate::build::compile::error::{CompileError, io};
use crate::build::compile::{Program, Worker};

pub(crate) fn compile(program: &Program) -> Result<Worker, CompileError> {
    program.warn()?;
    let selected = program.selected();
    let what = format!("the worker of `{}` ({})", program.package, program.target.option());
    (program.compile.report)(&format!("compiling {what} for {}", program.cargo.platform.triple));

    // Dynamic workers use a separate folder: in a shared one, cargo would compile everything again at each change between
    // the two kinds.
    let kind = if program.dynamic { "cloudknot-dynamic" } else { "cloudknot" };
    let target_folder = program.cargo.metadata.target_directory.join(kind).into_std_path_buf();
    fs::create_dir_all(&target_folder).map_err(io("create the folder", &target_folder))?;
    // Held until the executable is read, since another build of the same target would replace it.
    let _lock = program.lock(&target_folder)?;
    let build = Build { program, selected: &selected, target_folder };
    let (path, up_to_date) = build.run()?;
    let bytes = fs::read(&path).map_err(io("read", &path))?;
    let executable = Executable::read(&bytes)?;
    build.check(&executable)?;
    Ok(Worker {
        path,
        bytes,
        arch: program.arch,
        target: program.cargo.platform.triple.clone(),
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
        let user = flags::user_flags(toolchain, &platform.triple)?;
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
