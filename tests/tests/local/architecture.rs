//! Tests of the architecture. One reads the imports of each module from the sources, and compares them with the table in
//! ARCHITECTURE.md. Modules with the same parent import each other in one direction only, at every level. The other reads the walks
//! of ARCHITECTURE.md, and finds each function in its file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use cloudknot_tests::trial::files;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

#[test]
fn modules_import_what_the_table_allows() {
    let library = Crate::read("cloudknot", "lib.rs");
    let document = fs::read_to_string(workspace().join("ARCHITECTURE.md")).expect("the document exists");
    let table = table_of(&document);
    let found = library.imports(&[]);
    let mut wrong = String::new();
    let modules: BTreeSet<_> = library.children(&[]).collect();
    let listed: BTreeSet<_> = table.iter().flat_map(|row| &row.modules).map(String::as_str).collect();
    for module in modules.symmetric_difference(&listed) {
        writeln!(wrong, "`{module}` is not both a module of the library and a row of the table").unwrap();
    }
    for (above, row) in table.iter().enumerate() {
        let below: BTreeSet<_> = table[above + 1..].iter().flat_map(|row| &row.modules).collect();
        for allowed in row.may_import.difference(&below.into_iter().cloned().collect()) {
            writeln!(wrong, "the table allows {:?} to import `{allowed}`, which is not below it", row.modules).unwrap();
        }
        let imported: BTreeSet<_> =
            found.keys().filter(|(from, _)| row.modules.contains(from)).map(|(_, to)| to.clone()).collect();
        for unused in row.may_import.difference(&imported) {
            writeln!(wrong, "the table allows {:?} to import `{unused}`, which is unused", row.modules).unwrap();
        }
    }
    for ((from, to), locations) in &found {
        let row = table.iter().find(|row| row.modules.contains(from));
        if !row.is_some_and(|row| row.may_import.contains(to)) {
            writeln!(wrong, "`{from}` may not import `{to}`: {}", locations.join(", ")).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn walks_name_existing_functions() {
    let document = fs::read_to_string(workspace().join("ARCHITECTURE.md")).expect("the document exists");
    let walks: Vec<&str> = document.split("\n## ").filter(|section| section.starts_with("The way of one ")).collect();
    assert_eq!(walks.len(), 2);
    let sources: Vec<PathBuf> = ["cloudknot", "cloudknot-runtime", "cargo-knot"]
        .iter()
        .flat_map(|member| files(&workspace().join(member).join("src")))
        .collect();
    let mut wrong = String::new();
    for walk in walks {
        let mut functions = 0;
        for row in walk.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
            let paths = quoted(cells[0]);
            let is_below = |file: &Path, path: &str| {
                file.to_string_lossy().contains(&format!("/{}/", path.trim_end_matches(".rs")))
            };
            let in_row = |file: &&PathBuf| {
                let with_folders = cells[0].contains("and below");
                paths.iter().any(|path| file.ends_with(path) || (with_folders && is_below(file, path)))
            };
            let read = |file: &PathBuf| fs::read_to_string(file).expect("the file can be read");
            let texts: Vec<String> = sources.iter().filter(in_row).map(read).collect();
            for function in quoted(cells[1]) {
                let name = function.rsplit("::").next().expect("a path has a last part");
                let is_defined =
                    |text: &String| ["(", "<"].iter().any(|next| text.contains(&format!("fn {name}{next}")));
                if !texts.iter().any(is_defined) {
                    writeln!(wrong, "{} has no function `{function}`", paths.join(", ")).unwrap();
                }
                functions += 1;
            }
        }
        let counts = format!("{functions} functions in ");
        if !walk.contains(&counts) {
            writeln!(wrong, "the walk does not say `{counts}…`, which its table has").unwrap();
        }
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md does not fit the sources:\n{wrong}");
}

/// Returns the texts between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn sibling_modules_have_no_import_cycles() {
    let crates = [
        Crate::read("cargo-knot", "main.rs"),
        Crate::read("cloudknot", "lib.rs"),
        Crate::read("cloudknot-macros", "lib.rs"),
        Crate::read("cloudknot-runtime", "lib.rs"),
    ];
    for read in &crates {
        for parent in read.modules.keys() {
            if let Some(cycle) = cycle(&read.imports(parent)) {
                panic!("{}: a cycle of modules: {cycle}", read.name);
            }
        }
        let through: Vec<_> = read.through_the_root().collect();
        assert!(through.is_empty(), "{}: imports through {}: {}", read.name, read.root, through.join(", "));
    }
}

#[test]
fn one_file_prints() {
    for (read, file) in
        [(Crate::read("cloudknot", "lib.rs"), "terminal"), (Crate::read("cargo-knot", "main.rs"), "output")]
    {
        let printing = read.modules.iter().filter(|(_, module)| module.prints).map(|(path, _)| path.join("::"));
        assert_eq!(printing.collect::<Vec<_>>(), [file], "{}", read.name);
    }
}

#[test]
fn imports_are_found_in_every_form() {
    let mut read = Crate::empty("trial");
    read.add(
        &[],
        "mod a; mod b { pub(crate) use super::c::{self, Deep as Renamed}; } mod c; mod macros;".parse().unwrap(),
    );
    read.add(
        &["a"],
        "use crate::{b::Renamed, c::inner::X as Y}; fn f() { crate::macros::run!(); g::<crate::c::T>() }"
            .parse()
            .unwrap(),
    );
    read.add(&["c"], "mod inner { use super::super::b; #[cfg(test)] mod tests { use super::*; } }".parse().unwrap());
    read.add(&["macros"], "macro_rules! run { () => { $crate::a::f() } }".parse().unwrap());
    let imports = |parent: &[&str]| {
        let parent: Vec<_> = parent.iter().map(ToString::to_string).collect();
        read.imports(&parent).into_keys().map(|(from, to)| format!("{from} → {to}")).collect::<Vec<_>>()
    };
    // An item that `b` re-exports belongs to the module that defines it.
    assert_eq!(imports(&[]), ["a → c", "a → macros", "b → c", "c → b"]);
    assert_eq!(imports(&["c"]), [""; 0]);
    assert!(cycle(&read.imports(&[])).is_some_and(|cycle| cycle.starts_with("c → b → c (")));
}

/// Row of the table: one or more modules of the same layer.
struct Row {
    modules: BTreeSet<String>,
    may_import: BTreeSet<String>,
}

/// Reads the table whose last heading is "may import". Names are between backticks.
fn table_of(document: &str) -> Vec<Row> {
    let lines = document.lines().skip_while(|line| !line.trim_end().ends_with("| may import |")).skip(2);
    let names = |cell: &str| {
        let between = cell.split('`').skip(1).step_by(2);
        between.map(|name| name.trim_end_matches('/').trim_end_matches(".rs").to_owned()).collect()
    };
    let row = |line: &str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').collect();
        let [modules, _, may_import] = cells[..] else { panic!("not a row of three cells: {line}") };
        Row { modules: names(modules), may_import: names(may_import) }
    };
    let rows: Vec<_> = lines.take_while(|line| line.starts_with('|')).map(row).collect();
    assert!(!rows.is_empty(), "ARCHITECTURE.md has no table with the heading `may import`");
    rows
}

/// Modules of a crate, by their paths without the crate's name.
struct Crate {
    name: &'static str,
    root: &'static str,
    modules: BTreeMap<Vec<String>, Module>,
}

#[derive(Default)]
struct Module {
    /// Paths into this crate that the module names, from the root on.
    paths: Vec<Vec<String>>,
    /// Aliases in its `use` declarations, with the paths that they name, from the root on.
    names: BTreeMap<String, Vec<String>>,
    prints: bool,
}

impl Crate {
    fn empty(name: &'static str) -> Self {
        Self { name, root: "lib.rs", modules: BTreeMap::new() }
    }

    fn read(name: &'static str, root: &'static str) -> Self {
        let mut read = Self { name, root, modules: BTreeMap::new() };
        let folder = workspace().join(name).join("src");
        read.read_file(&folder.join(root), &folder, &[]);
        read
    }

    fn read_file(&mut self, file: &Path, folder: &Path, path: &[String]) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("`{}`: {error}", file.display()));
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("`{}`: {error}", file.display()));
        for (name, at) in declared(&tokens) {
            let (file, inside) = match at {
                // The children of such a module are in its folder, not in a folder of its name.
                Some(at) => {
                    let file = file.parent().expect("a file is in a folder").join(at);
                    let inside = file.parent().expect("a file is in a folder").to_owned();
                    (file, inside)
                }
                None => (folder.join(&name).with_extension("rs"), folder.join(&name)),
            };
            self.read_file(&file, &inside, &[path, &[name]].concat());
        }
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        self.add(&path, tokens);
    }

    /// Adds the module with these tokens. Its children must have been added already, or be inline.
    fn add(&mut self, path: &[&str], tokens: TokenStream) {
        let path: Vec<_> = path.iter().map(ToString::to_string).collect();
        self.modules.entry(path.clone()).or_default();
        for (name, _) in declared(&tokens) {
            self.modules.entry([&path[..], &[name]].concat()).or_default();
        }
        let mut inline = Vec::new();
        self.scan(&path, tokens, &mut inline);
        for (name, tokens) in inline {
            let inside: Vec<_> = path.iter().map(String::as_str).chain([name.as_str()]).collect();
            self.add(&inside, tokens);
        }
    }

    /// Records the paths in these tokens, and the inline modules.
    fn scan(&mut self, path: &[String], tokens: TokenStream, inline: &mut Vec<(String, TokenStream)>) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            let before = at.checked_sub(1).map(|before| tokens[before].to_string());
            match &tokens[at] {
                TokenTree::Group(group) => self.scan(path, group.stream(), inline),
                TokenTree::Ident(word) if *word == "mod" && is_brace(tokens.get(at + 2)) => {
                    let Some(TokenTree::Group(body)) = tokens.get(at + 2) else { unreachable!("the token is a brace") };
                    inline.push((tokens[at + 1].to_string(), body.stream()));
                    at += 2;
                }
                TokenTree::Ident(word) if *word == "use" => {
                    let end = (at..tokens.len()).find(|&end| tokens[end].to_string() == ";").unwrap_or(tokens.len());
                    self.declare(path, &[], &tokens[at + 1..end]);
                    at = end;
                }
                TokenTree::Ident(word) if is_root(word) && before.as_deref() != Some("$") => {
                    let (named, used) = path_at(&tokens[at..]);
                    if let Some(named) = self.absolute(path, &named) {
                        self.module(path).paths.push(named);
                    }
                    at += used - 1;
                }
                TokenTree::Ident(word) if is_print(&word.to_string(), tokens.get(at + 1), before.as_deref()) => {
                    self.module(path).prints = true;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Records what a `use` declaration names. `before` is the path in front of these tokens, which may be those of a
    /// group.
    fn declare(&mut self, path: &[String], before: &[String], tokens: &[TokenTree]) {
        for tree in tokens.split(|token| token.to_string() == ",").filter(|tree| !tree.is_empty()) {
            let (mut named, used) = path_at(tree);
            named.splice(0..0, before.iter().cloned());
            if let Some(TokenTree::Group(group)) = tree.get(used) {
                self.declare(path, &named, &group.stream().into_iter().collect::<Vec<_>>());
                continue;
            }
            if named.len() > 1 && named.last().is_some_and(|last| last == "self") {
                named.pop();
            }
            let renamed = match &tree[used..] {
                [keyword, name, ..] if keyword.to_string() == "as" => Some(name.to_string()),
                _ => named.last().cloned(),
            };
            let Some(named) = self.absolute(path, &named) else { continue };
            let module = self.module(path);
            module.names.extend(renamed.map(|name| (name, named.clone())));
            module.paths.push(named);
        }
    }

    fn module(&mut self, path: &[String]) -> &mut Module {
        self.modules.get_mut(path).expect("a module is added before it is scanned")
    }

    /// Returns the path from the crate's root on; `None` if it is not in the crate.
    fn absolute(&self, path: &[String], named: &[String]) -> Option<Vec<String>> {
        let first = named.first()?;
        let above = named.iter().take_while(|word| *word == "super").count();
        let (base, rest) = match first.as_str() {
            "crate" => (0, &named[1..]),
            "super" => (path.len().checked_sub(above)?, &named[above..]),
            "self" if named.get(1).is_some_and(|word| word == "super") => {
                return self.absolute(path, &named[1..]);
            }
            "self" => (path.len(), &named[1..]),
            child if self.modules.contains_key(&[path, &[child.to_owned()]].concat()) => (path.len(), named),
            _ => return None,
        };
        Some([&path[..base], rest].concat())
    }

    /// Returns the module that defines the item at this path, following re-exports, and whether the path goes through the
    /// root module.
    fn target(&self, path: &[String]) -> (Vec<String>, bool) {
        let (mut module, mut through_root) = (Vec::new(), false);
        let mut rest = path.to_vec();
        for _ in 0..32 {
            let Some(next) = rest.first().cloned() else { break };
            let child = [&module[..], std::slice::from_ref(&next)].concat();
            if self.modules.contains_key(&child) {
                module = child;
                rest.remove(0);
            } else if let Some(re_exported) = self.modules.get(&module).and_then(|module| module.names.get(&next)) {
                through_root |= module.is_empty();
                rest.splice(0..1, re_exported.iter().cloned());
                module = Vec::new();
            } else {
                through_root |= module.is_empty();
                break;
            }
        }
        (module, through_root)
    }

    fn children<'c>(&'c self, parent: &'c [String]) -> impl Iterator<Item = &'c str> {
        let below = self.modules.keys().filter(move |path| path.len() == parent.len() + 1 && path.starts_with(parent));
        below.map(|path| path.last().expect("the path of a child is not empty").as_str())
    }

    /// Returns the imports among the modules below this one, with their locations.
    fn imports(&self, parent: &[String]) -> BTreeMap<(String, String), Vec<String>> {
        let mut found: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for (from, module) in self.modules.iter().filter(|(path, _)| path.starts_with(parent)) {
            for path in &module.paths {
                let (to, _) = self.target(path);
                if !to.starts_with(parent) {
                    continue;
                }
                if let (Some(one), Some(other)) = (from.get(parent.len()), to.get(parent.len()))
                    && one != other
                {
                    let location = format!("{} names {}", from.join("::"), path.join("::"));
                    found.entry((one.clone(), other.clone())).or_default().push(location);
                }
            }
        }
        found
    }

    /// Returns the names that modules import through the root, which is the table of contents for users.
    fn through_the_root(&self) -> impl Iterator<Item = String> {
        let all = self.modules.iter().filter(|(from, _)| !from.is_empty());
        let named = all.flat_map(|(from, module)| module.paths.iter().map(move |path| (from, path)));
        let through = named.filter(|(_, path)| self.target(path).1);
        through.map(|(from, path)| format!("{} names crate::{}", from.join("::"), path.join("::")))
    }
}

/// Returns the modules that are separate files, each with the path in its `path` attribute.
fn declared(tokens: &TokenStream) -> Vec<(String, Option<String>)> {
    let tokens: Vec<_> = tokens.clone().into_iter().collect();
    let mut found = Vec::new();
    let mut at = None;
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
                let attribute = group.stream().to_string();
                if let Some(path) = attribute.strip_prefix("path = ") {
                    at = Some(path.trim_matches('"').to_owned());
                }
            }
            TokenTree::Ident(word)
                if *word == "mod" && tokens.get(index + 2).is_some_and(|end| end.to_string() == ";") =>
            {
                found.push((tokens[index + 1].to_string(), at.take()));
            }
            TokenTree::Punct(end) if end.as_char() == ';' => at = None,
            _ => {}
        }
    }
    found
}

fn is_root(word: &proc_macro2::Ident) -> bool {
    ["crate", "super", "self"].iter().any(|root| word == root)
}

fn is_brace(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace)
}

/// Returns whether this is a macro that prints, or `stdout()` or `stderr()` of the standard library. Those of a started
/// command are methods.
fn is_print(word: &str, next: Option<&TokenTree>, before: Option<&str>) -> bool {
    let followed_by = |text: &str| next.is_some_and(|next| next.to_string().starts_with(text));
    match word {
        "print" | "println" | "eprint" | "eprintln" | "dbg" => followed_by("!"),
        "stdout" | "stderr" => followed_by("(") && before != Some(".") && before != Some("fn"),
        _ => false,
    }
}

/// Returns the words of the path that these tokens begin with, and the number of its tokens. `*` and a group end it.
fn path_at(tokens: &[TokenTree]) -> (Vec<String>, usize) {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(TokenTree::Ident(word)) = tokens.get(at) {
        words.push(word.to_string());
        at += 1;
        let colons = tokens.get(at..at + 2).is_some_and(|next| next.iter().all(|token| token.to_string() == ":"));
        if !colons {
            break;
        }
        at += 2;
    }
    (words, at)
}

/// Returns a cycle among these imports, with their locations.
fn cycle(imports: &BTreeMap<(String, String), Vec<String>>) -> Option<String> {
    fn walk<'a>(
        from: &'a str,
        imports: &'a BTreeMap<(String, String), Vec<String>>,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<&'a str>> {
        if let Some(begin) = path.iter().position(|before| *before == from) {
            return Some([&path[begin..], &[from]].concat());
        }
        if !done.insert(from) {
            return None;
        }
        path.push(from);
        let mut next = imports.keys().filter(|(one, _)| one == from).map(|(_, other)| other.as_str());
        let found = next.find_map(|next| walk(next, imports, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    let path = imports.keys().find_map(|(from, _)| walk(from, imports, &mut Vec::new(), &mut done))?;
    let steps = path.windows(2).map(|pair| &imports[&(pair[0].to_owned(), pair[1].to_owned())][0]);
    Some(format!("{} ({})", path.join(" → "), steps.cloned().collect::<Vec<_>>().join("; ")))
}

pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in the workspace").to_owned()
}
