//! The features that the package is compiled with. cargo passes them to the compiler, in whose process a macro runs.

use proc_macro2::TokenStream;
use quote::quote;

/// Returns an expression for the features of the package that is compiled: `Some(&["aws", "default"])`, or `None` if they are
/// unknown.
pub(crate) fn of_package() -> TokenStream {
    let arguments = std::env::args_os().filter_map(|argument| argument.into_string().ok());
    let features = std::env::var("CARGO_CRATE_NAME").ok().and_then(|name| parse(&name, arguments));
    let known = features.map(|features| quote!(::core::option::Option::Some(&[#(#features),*])));
    known.unwrap_or_else(|| quote!(::core::option::Option::None))
}

/// Returns the features in the arguments of the compiler of this crate, sorted. Returns `None` for another program, such as
/// rust-analyzer, and if arguments are in a file.
fn parse(crate_name: &str, arguments: impl Iterator<Item = String>) -> Option<Vec<String>> {
    let (mut features, mut is_compiler) = (Vec::new(), false);
    let mut option = String::new();
    for argument in arguments.skip(1) {
        if argument.starts_with('@') {
            return None;
        }
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, value),
            _ => (option.as_str(), argument.as_str()),
        };
        match name {
            "--crate-name" => is_compiler |= value == crate_name,
            "--cfg" => features.extend(value.strip_prefix("feature=").map(|name| name.trim_matches('"').to_owned())),
            _ => {}
        }
        option = argument;
    }
    features.sort();
    is_compiler.then_some(features)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(arguments: &str, features: Option<&[&str]>) {
        let found = parse("sweep_2", arguments.split(' ').map(str::to_owned));
        assert_eq!(found, features.map(|features| features.iter().map(ToString::to_string).collect()));
    }

    #[test]
    fn features_are_those_of_the_compiler() {
        check(
            r#"rustc --crate-name sweep_2 src/main.rs --cfg feature="fast" --cfg feature="aws""#,
            Some(&["aws", "fast"]),
        );
        check(
            r#"rustc --cfg=feature="aws" --crate-name=sweep_2 --check-cfg cfg(feature,values("slow"))"#,
            Some(&["aws"]),
        );
        check(r#"wrapper rustc --crate-name sweep_2 --cfg unix --cfg feature="aws""#, Some(&["aws"]));
        check("rustc --crate-name sweep_2 -C opt-level=3", Some(&[]));
    }

    #[test]
    fn features_are_unknown_outside_of_the_compiler() {
        check("rust-analyzer-proc-macro-srv --format json", None);
        check("rustc @/tmp/arguments", None);
        check(r#"rustc --crate-name sweep_2 --cfg feature="aws" @more"#, None);
        check(r#"rustc --crate-name other --cfg feature="aws""#, None);
        check("", None);
    }
}
