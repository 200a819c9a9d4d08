//! Snapshot tests: the expansions of the attributes, compared with the files in `snapshots/`. After an intended change,
//! run with `INSTA_UPDATE=always` and review the difference.

use proc_macro2::TokenStream;

use crate::library::Library;
use crate::{entry, expand, init};

fn tokens(source: &str) -> TokenStream {
    source.parse().expect("the case is valid Rust")
}

fn check(name: &str, expanded: TokenStream) {
    let file = syn::parse2(expanded).expect("the expansion is valid Rust");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, prettyplease::unparse(&file)));
}

fn library() -> Library {
    Library::dependency("cloudknot")
}

fn remote(name: &str, arguments: &str, item: &str) {
    check(name, expand::remote(library(), tokens(arguments), &tokens(item)));
}

fn main(name: &str, item: &str) {
    main_with(name, "", item);
}

fn main_with(name: &str, arguments: &str, item: &str) {
    check(name, entry::main(library(), tokens(arguments), &tokens(item)));
}

#[test]
fn function_without_arguments() {
    remote("no_arguments", "", "fn tick() {}");
}

#[test]
fn function_with_every_attribute_argument() {
    remote(
        "one_argument",
        r#"name = "double", vcpus = 0.5, memory = "2 GiB", gpus = 1, retries = 2, timeout = "15m", codec = "messagepack""#,
        "/// Twice.\n#[inline] #[allow(dead_code)] pub(crate) fn twice(mut x: f64) -> f64 { x *= 2.0; x }",
    );
}

#[test]
fn function_that_borrows_and_fails() {
    remote(
        "borrowed_arguments",
        "",
        "fn fit<'a>(name: &'a str, at: &Path, xs: &[f64], model: &Model) -> io::Result<Vec<f64>> { todo(name, xs) }",
    );
}

#[test]
fn function_with_lifetime_bounds() {
    remote("bounded_lifetimes", "", "fn pick<'a: 'b, 'b>(long: &'a str, short: &'b str) -> usize { 0 }");
}

#[test]
fn async_function() {
    remote("async_function", "", "async fn fetch(url: &str, tries: u8) -> Result<String, Error> { get(url).await }");
}

#[test]
fn refused_function_is_kept() {
    remote("refused", "vcpus = 0", "/// Any.\nfn any<T>(x: T, _: u8) -> T { x }");
}

#[test]
fn unknown_attribute_argument_keeps_function_remote() {
    remote("wrong_attribute", "cpus = 1", "fn tick() {}");
}

#[test]
fn sync_main() {
    main("main", "/// Runs.\nfn main() -> ExitCode { ExitCode::SUCCESS }");
}

#[test]
fn async_main() {
    main("main_async", "async fn main() -> cloudknot::Result<()> { all().await }");
}

#[test]
fn async_main_with_runtime() {
    main("main_with_runtime", "#[tokio::main(flavor = \"current_thread\")] async fn main() { all().await }");
}

#[test]
fn init_that_fails() {
    let item = "/// Reads it.\n#[cfg(unix)] pub fn read() -> io::Result<()> { model() }";
    check("init", init::init(library(), TokenStream::new(), &tokens(item)));
}

#[test]
fn path_of_cloudknot_is_that_of_the_argument() {
    let argument = r#"crate = "lab::cloudknot""#;
    remote("other_path", argument, "async fn fetch(url: &str) -> Result<String, Error> { get(url).await }");
    main_with("main_other_path", argument, "async fn main() -> u8 { 0 }");
    check("init_other_path", init::init(library(), tokens(argument), &tokens("fn prepare() {}")));
}
