//! `cargo knot build`: compiles the worker, assembles its image and prints a summary of both.

use std::path::PathBuf;

use clap::Args;
use cloudknot::ImageSettings;
use cloudknot::compile::{Arch, CargoTarget, Compile, Profile, Selection};

use crate::failure::Failure;
use crate::image::{self, show};
use crate::output;
use crate::settings::SettingsArgs;

#[derive(Args)]
pub(crate) struct Build {
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    image: SettingsArgs<ImageSettings>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Options of all subcommands that compile the worker. They have cargo's names and meanings where cargo has the same option.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each bool is a command-line flag")]
pub(crate) struct CompileArgs {
    /// Package of the program
    #[arg(short, long, value_name = "SPEC", help_heading = "Target")]
    package: Option<String>,
    /// Binary target to compile
    #[arg(long, value_name = "NAME", group = "target_of_cargo", help_heading = "Target")]
    bin: Option<String>,
    /// Example target to compile
    #[arg(long, value_name = "NAME", group = "target_of_cargo", help_heading = "Target")]
    example: Option<String>,
    /// Compile only the library, with a generated `main`
    #[arg(long, group = "target_of_cargo", help_heading = "Target")]
    lib: bool,
    /// Path to Cargo.toml
    #[arg(long, value_name = "PATH", help_heading = "Target")]
    manifest_path: Option<PathBuf>,
    /// Features to activate, separated by spaces or commas
    #[arg(short = 'F', long, value_name = "FEATURES", help_heading = "Features")]
    features: Vec<String>,
    /// Activate all features
    #[arg(long, help_heading = "Features")]
    all_features: bool,
    /// Do not activate the feature `default`
    #[arg(long, help_heading = "Features")]
    no_default_features: bool,
    /// Compile for 64-bit ARM (Graviton) instead of x86-64
    #[arg(long, conflicts_with = "target", help_heading = "Compilation")]
    arm64: bool,
    /// Compile for this target instead of the default one
    #[arg(long, value_name = "TRIPLE", help_heading = "Compilation")]
    target: Option<String>,
    /// Compile with this cargo profile instead of `cloudknot` (release with fat LTO)
    #[arg(long, value_name = "NAME", conflicts_with = "fast", help_heading = "Compilation")]
    profile: Option<String>,
    /// Compile quickly, without LTO; the worker is larger
    #[arg(long, help_heading = "Compilation")]
    fast: bool,
    /// Require Cargo.lock to be up to date
    #[arg(long, help_heading = "Compilation")]
    locked: bool,
    /// Run without accessing the network
    #[arg(long, help_heading = "Compilation")]
    offline: bool,
    /// Equivalent to --locked and --offline
    #[arg(long, help_heading = "Compilation")]
    frozen: bool,
}

impl Build {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let compile = self.compile.compile(self.image.0.has_base());
        let built = image::build(self.image.0, &compile, None).await?.built;
        show(&built, self.json)
    }
}

impl CompileArgs {
    /// Returns the compilation that these options describe. The compilation reports its progress on stderr. With
    /// `on_base`, the worker is linked dynamically, against the libraries of the user's base image.
    pub(crate) fn compile(self, on_base: bool) -> Compile {
        let target = match (self.bin, self.example, self.lib) {
            (Some(name), _, _) => Some(CargoTarget::Bin(name)),
            (_, Some(name), _) => Some(CargoTarget::Example(name)),
            (_, _, lib) => lib.then_some(CargoTarget::Lib),
        };
        let mut compile = Compile::new(Selection {
            manifest_path: self.manifest_path,
            package: self.package,
            target,
            features: self.features,
            all_features: self.all_features,
            no_default_features: self.no_default_features,
        })
        .report(output::note);
        if on_base {
            compile = compile.dynamic();
        }
        if self.arm64 {
            compile = compile.arch(Arch::Arm64);
        }
        if let Some(triple) = self.target {
            compile = compile.target(triple);
        }
        if let Some(name) = self.profile {
            compile = compile.profile(Profile::Named(name));
        } else if self.fast {
            compile = compile.profile(Profile::Fast);
        }
        let options = [(self.locked, "--locked"), (self.offline, "--offline"), (self.frozen, "--frozen")];
        options.into_iter().filter(|(on, _)| *on).fold(compile, |compile, (_, option)| compile.cargo_option(option))
    }
}
