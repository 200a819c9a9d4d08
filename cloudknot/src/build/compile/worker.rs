//! Compiles a resolved program to a worker.

use std::fs::{self, File};
use std::path::Path;

use super::build::Build;
use super::error::{CompileError, io};
use super::executable::Executable;
use super::{Program, Worker, flags, folder_of};

impl Program {
    /// Compiles the worker and reads the result. Blocks until cargo has finished.
    ///
    /// # Errors
    /// See [`CompileErrorKind`](super::CompileErrorKind).
    pub fn compile(self) -> Result<Worker, CompileError> {
        self.warn()?;
        let selected = self.selected();
        let what = format!("the worker of `{}` ({})", selected.package.name, selected.kind.option());
        (self.compile.report)(&format!("compiling {what} for {}", self.platform.triple));

        // Dynamic workers use a separate folder: in a shared one, cargo would compile everything again at each change between
        // the two kinds.
        let kind = if self.dynamic { "cloudknot-dynamic" } else { "cloudknot" };
        let target_folder = self.metadata.target_directory.join(kind).into_std_path_buf();
        fs::create_dir_all(&target_folder).map_err(io("create the folder", &target_folder))?;
        // Held until the executable is read, since another build of the same target would replace it.
        let _lock = self.lock(&target_folder)?;
        let build = Build { program: &self, selected: &selected, target_folder };
        let (path, fresh) = build.run()?;
        let bytes = fs::read(&path).map_err(io("read", &path))?;
        let executable = Executable::read(&bytes)?;
        build.check(&executable)?;
        Ok(Worker {
            path,
            bytes,
            arch: self.arch,
            target: self.platform.triple.clone(),
            made_of: selected.kind.clone(),
            package: selected.package.name.to_string(),
            version: selected.package.version.to_string(),
            package_folder: folder_of(selected.package),
            functions: executable.functions,
            settings: self.settings.clone(),
            fresh,
        })
    }

    fn warn(&self) -> Result<(), CompileError> {
        let Self { toolchain, platform, settings, .. } = self;
        let user = flags::of_the_user(toolchain, &platform.triple)?;
        if flags::asks_for_this_machine(&user) && settings.target_cpu.is_none() {
            (self.compile.report)(
                "warning: the rustflags of cargo's configuration select this machine's CPU (target-cpu=native); the worker \
                 crashes on a machine that lacks a feature of this CPU. Set `target-cpu` in [package.metadata.cloudknot]",
            );
        }
        if platform.triple.ends_with("-musl") && settings.allocator.is_none() && !platform.compiles_c {
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
