//! Searches the sources of a program, before anything is compiled, for an allocator of its own and for remote functions that
//! request GPUs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::Package;
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::BuildContext;
use super::selection::{self, SelectedTarget};

/// `#[global_allocator]` in a source file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OwnAllocator {
    pub(super) file: PathBuf,
    /// `true` if a `#[cfg]` or a macro decides whether it is compiled.
    pub(super) is_conditional: bool,
}

/// Searches the sources of the program and of the libraries that it is linked with. Packages of registries are not searched: they
/// leave the allocator to the program, and what their functions request is known after compiling.
pub(super) fn search(context: &BuildContext, selected: &SelectedTarget<'_>) -> Search {
    let linked = selection::linked(&context.metadata, selected.package);
    // cloudknot's own allocator is the one to be chosen.
    let is_searched = |package: &&Package| package.source.is_none() && package.name != "cloudknot";
    let packages = linked.into_iter().filter(is_searched).filter(|package| context.tree.has(&package.name));
    let libraries =
        packages.chain([selected.package]).filter_map(|package| package.targets.iter().find(|target| target.is_lib()));
    let mut search = Search::default();
    for target in libraries.chain([selected.target]) {
        let root = target.src_path.as_std_path();
        search.file(root, root.parent().unwrap_or(root), Condition::None);
    }
    search
}

/// Condition under which an item is compiled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    None,
    Unknown,
    /// Never fulfilled in a worker.
    Never,
}

/// Search in source files, from the root of a crate along its modules.
#[derive(Default)]
pub(super) struct Search {
    allocators: Vec<OwnAllocator>,
    /// Files with remote functions that request GPUs in their attribute.
    gpus: Vec<PathBuf>,
    files: BTreeSet<PathBuf>,
}

/// Place in the modules of a crate.
#[derive(Clone, Copy)]
struct Module<'m> {
    file: &'m Path,
    /// Folder of the files of its submodules.
    folder: &'m Path,
    condition: Condition,
}

/// Attributes of an item that matter here.
struct Attributes {
    condition: Condition,
    is_allocator: bool,
    requests_gpus: bool,
    /// Value of `#[path]`.
    path: Option<String>,
}

impl Search {
    /// Returns the allocator of the program. An unconditional one takes precedence.
    pub(super) fn allocator(self) -> Option<OwnAllocator> {
        self.allocators.into_iter().min_by_key(|own| own.is_conditional)
    }

    /// Returns the first file with a remote function that requests GPUs.
    pub(super) fn gpus(self) -> Option<PathBuf> {
        self.gpus.into_iter().next()
    }

    /// Searches a file and the modules that it declares.
    fn file(&mut self, file: &Path, folder: &Path, condition: Condition) {
        // What cannot be read or parsed is reported by the compiler.
        let Ok(text) = fs::read_to_string(file) else { return };
        if condition != Condition::Never && self.files.insert(file.to_owned()) {
            let tokens: TokenStream = text.parse().unwrap_or_default();
            self.items(tokens, Module { file, folder, condition });
        }
    }

    fn items(&mut self, tokens: TokenStream, mut module: Module<'_>) {
        let mut tokens = tokens.into_iter().peekable();
        let mut attributes = Attributes::of(module);
        while let Some(token) = tokens.next() {
            if is_punct(&token, '#') {
                let is_inner = tokens.next_if(|token| is_punct(token, '!')).is_some();
                if let Some(TokenTree::Group(attribute)) = tokens.next_if(|token| matches!(token, TokenTree::Group(_)))
                {
                    attributes.add(&attribute);
                }
                if is_inner {
                    module.condition = attributes.condition;
                }
                continue;
            }
            if std::mem::take(&mut attributes.is_allocator) && attributes.condition != Condition::Never {
                let is_conditional = attributes.condition == Condition::Unknown;
                self.allocators.push(OwnAllocator { file: module.file.to_owned(), is_conditional });
            }
            // Under a condition, only the compiler knows whether the function exists.
            if std::mem::take(&mut attributes.requests_gpus) && attributes.condition == Condition::None {
                self.gpus.push(module.file.to_owned());
            }
            match token {
                TokenTree::Ident(word) if word == "mod" => {
                    let Some(TokenTree::Ident(name)) = tokens.next() else { continue };
                    self.module(&name.to_string(), tokens.peek(), &attributes, module);
                    // The content of an inline module has been searched.
                    tokens.next();
                    attributes = Attributes::of(module);
                }
                TokenTree::Group(group) => {
                    self.items(group.stream(), Module { condition: attributes.condition, ..module });
                    if group.delimiter() == Delimiter::Brace {
                        attributes = Attributes::of(module);
                    }
                }
                token if is_punct(&token, ';') => attributes = Attributes::of(module),
                // The arguments of a macro need not become code.
                token if is_punct(&token, '!') => attributes.require(Condition::Unknown),
                _ => {}
            }
        }
    }

    /// Searches the module of this name, whose declaration is followed by `next`: its content, or a semicolon.
    fn module(&mut self, name: &str, next: Option<&TokenTree>, attributes: &Attributes, parent: Module<'_>) {
        let folder = parent.folder.join(name);
        if let Some(TokenTree::Group(content)) = next {
            let module = Module { file: parent.file, folder: &folder, condition: attributes.condition };
            return self.items(content.stream(), module);
        }
        if let Some(path) = &attributes.path {
            let file = parent.file.with_file_name("").join(path);
            return self.file(&file, &file.with_file_name(""), attributes.condition);
        }
        for file in [folder.with_extension("rs"), folder.join("mod.rs")] {
            self.file(&file, &folder, attributes.condition);
        }
    }
}

impl Attributes {
    fn of(module: Module<'_>) -> Self {
        Self { condition: module.condition, is_allocator: false, requests_gpus: false, path: None }
    }

    fn require(&mut self, condition: Condition) {
        self.condition = self.condition.max(condition);
    }

    fn add(&mut self, attribute: &Group) {
        let text = attribute.stream().to_string();
        self.is_allocator |=
            text == "global_allocator" || text.starts_with("cfg_attr") && text.contains("global_allocator");
        self.requests_gpus |= requests_gpus(attribute.stream());
        self.require(condition_of(&text));
        if let Some(path) = text.strip_prefix("path = ") {
            self.path = Some(path.trim_matches('"').to_owned());
        }
    }
}

/// Returns the condition that an attribute adds to its item.
fn condition_of(attribute: &str) -> Condition {
    match attribute.replace(' ', "").as_str() {
        "cfg(test)" | "cfg(not(cloudknot_worker))" => Condition::Never,
        "cfg(cloudknot_worker)" => Condition::None,
        text if text.starts_with("cfg(all(test,") => Condition::Never,
        text if text.starts_with("cfg") => Condition::Unknown,
        _ => Condition::None,
    }
}

/// Returns whether this attribute makes a function remote that requests GPUs.
fn requests_gpus(attribute: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = attribute.into_iter().collect();
    let [.., TokenTree::Ident(name), TokenTree::Group(arguments)] = &tokens[..] else { return false };
    let arguments: Vec<TokenTree> = arguments.stream().into_iter().collect();
    let is_request = |argument: &[TokenTree]| match argument {
        [TokenTree::Ident(key), equals, TokenTree::Literal(number)] => {
            key == "gpus" && is_punct(equals, '=') && number.to_string() != "0"
        }
        _ => false,
    };
    name == "remote" && arguments.windows(3).any(is_request)
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATIC: &str = "static A: System = System;";
    const OWN: &str = "#[global_allocator]\nstatic A: System = System;";

    /// Searches the crate with these files, the first of which is its root, and returns what `read` finds.
    fn searched<T>(files: &[(&str, &str)], read: impl FnOnce(Search, &Path) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = folder.path().join(files[0].0);
        let mut search = Search::default();
        search.file(&root, root.parent().unwrap(), Condition::None);
        read(search, folder.path())
    }

    /// Returns the name of the file that has an allocator, and whether it is conditional.
    fn search(files: &[(&str, &str)]) -> Option<(String, bool)> {
        searched(files, |search, folder| {
            let own = search.allocator()?;
            Some((own.file.strip_prefix(folder).unwrap().to_str().unwrap().to_owned(), own.is_conditional))
        })
    }

    #[test]
    fn requests_for_gpus_are_found() {
        let check = |attributes: &str, expected: bool| {
            let files = [("main.rs", "mod train;"), ("train.rs", &*format!("{attributes} fn fit() {{}}"))];
            let found = searched(&files, |search, folder| search.gpus().map(|file| file == folder.join("train.rs")));
            assert_eq!(found, expected.then_some(true), "{attributes}");
        };
        check("#[cloudknot::remote(gpus = 1)]", true);
        check("#[remote(memory = \"2 GiB\", gpus = 8)]", true);
        check("/// Fits.\n#[::cloudknot::remote(gpus = 1, retries = 2)] #[inline] pub", true);
        check("#[cloudknot::remote]", false);
        check("#[cloudknot::remote(gpus = 0)]", false);
        check("#[cloudknot::remote(vcpus = 1)]", false);
        check("#[other(gpus = 1)]", false);
        check("// #[cloudknot::remote(gpus = 1)]\n", false);
        check("#[cfg(feature = \"gpu\")] #[cloudknot::remote(gpus = 1)]", false);
        check("#[cfg(test)] #[cloudknot::remote(gpus = 1)]", false);
    }

    #[test]
    fn allocators_are_found_in_a_file() {
        let check = |text: &str, expected: Option<bool>| {
            assert_eq!(search(&[("main.rs", text)]).map(|(_, is_conditional)| is_conditional), expected, "{text}");
        };
        check("fn main() { } // #[global_allocator]", None);
        check("const TEXT: &str = \"#[global_allocator]\";", None);
        check(&format!("#[global_allocator]\n{STATIC}"), Some(false));
        check(&format!("/// The allocator.\n#[global_allocator]\npub(crate) {STATIC}"), Some(false));
        check(&format!("mod memory {{ #[global_allocator] {STATIC} }}"), Some(false));
        check(&format!("fn main() {{ #[global_allocator] {STATIC} }}"), Some(false));
        check(&format!("#[cfg(cloudknot_worker)] #[global_allocator] {STATIC}"), Some(false));
        check(&format!("#[cfg(test)] #[global_allocator] {STATIC}"), None);
        check(&format!("#[global_allocator] #[cfg(not(cloudknot_worker))] {STATIC}"), None);
        check(&format!("#[cfg(test)] mod tests {{ #[global_allocator] {STATIC} }}"), None);
        check(&format!("#[cfg(test)] mod tests {{ }} #[global_allocator] {STATIC}"), Some(false));
        check(&format!("#[cfg(feature = \"fast\")] #[global_allocator] {STATIC}"), Some(true));
        check(&format!("#[cfg_attr(unix, global_allocator)] {STATIC}"), Some(true));
        check(&format!("macro_rules! own {{ () => {{ #[global_allocator] {STATIC} }} }}"), Some(true));
        check(&format!("cfg_if! {{ if #[cfg(unix)] {{ #[global_allocator] {STATIC} }} }}"), Some(true));
        check(&format!("fn code() -> Tokens {{ quote! {{ #[global_allocator] {STATIC} }} }}"), Some(true));
        check(&format!("thread_local! {{}} #[global_allocator] {STATIC}"), Some(false));
        check(&format!("#![cfg(not(cloudknot_worker))] #[global_allocator] {STATIC}"), None);
        check(&format!("#![allow(dead_code)] #[global_allocator] {STATIC}"), Some(false));
        check(&format!("#[cfg(all(test, unix))] #[global_allocator] {STATIC}"), None);
        check(&format!("#[cfg(unix)] use std::fs; #[global_allocator] {STATIC}"), Some(false));
    }

    #[test]
    fn allocators_are_found_along_modules() {
        let check = |files: &[(&str, &str)], expected: Option<(&str, bool)>| {
            let expected = expected.map(|(file, is_conditional)| (file.to_owned(), is_conditional));
            assert_eq!(search(files), expected, "{files:?}");
        };
        check(&[("main.rs", "mod memory;"), ("memory.rs", OWN)], Some(("memory.rs", false)));
        check(&[("main.rs", "pub mod a { mod b; }"), ("a/b/mod.rs", OWN)], Some(("a/b/mod.rs", false)));
        check(&[("main.rs", "mod a;"), ("a.rs", "mod b;"), ("a/b.rs", OWN)], Some(("a/b.rs", false)));
        check(&[("main.rs", "#[path = \"x/y.rs\"] mod a;"), ("x/y.rs", OWN)], Some(("x/y.rs", false)));
        check(&[("main.rs", "#[cfg(unix)] mod memory;"), ("memory.rs", OWN)], Some(("memory.rs", true)));
        check(&[("main.rs", "#[cfg(test)] mod memory;"), ("memory.rs", OWN)], None);
        check(&[("main.rs", "mod memory;"), ("memory.rs", &format!("#![cfg(test)]\n{OWN}"))], None);
        check(&[("main.rs", "fn main() {}"), ("memory.rs", OWN), ("bin/other.rs", OWN)], None);
        check(&[("main.rs", "mod main;"), ("main/mod.rs", OWN)], Some(("main/mod.rs", false)));
    }
}
