//! The strings that users and programs can read about a remote function without running it: its signature and its
//! description, a line of JSON.

use proc_macro2::TokenStream;
use quote::quote;

use crate::arguments::{Arguments, Codec};
use crate::signature::RemoteFunction;
use crate::spaced::spaced;

/// Returns the signature in one line: `fn add(a: f64, name: &str) -> Vec<f64>`.
pub(crate) fn signature(function: &RemoteFunction) -> String {
    let arguments: Vec<_> =
        function.arguments.iter().map(|argument| format!("{}: {}", argument.name, spaced(&argument.written))).collect();
    let asyncness = if function.asyncness { "async " } else { "" };
    let name = &function.name;
    let generics = spaced(&function.generics);
    let bounds = function.generics.where_clause.as_ref().map(|bounds| format!(" {}", spaced(bounds)));
    let output =
        if function.output.explicit { format!(" -> {}", spaced(&function.output.written)) } else { String::new() };
    format!("{asyncness}fn {name}{generics}({}){output}{}", arguments.join(", "), bounds.unwrap_or_default())
}

/// Returns an expression for the function's description, one line of JSON. The compiler fills in package and module.
pub(crate) fn description(name: &str, signature: &str, arguments: &Arguments) -> TokenStream {
    let or_null = |number: Option<String>| number.unwrap_or_else(|| "null".to_owned());
    let rest = format!(
        "\",\"name\":{},\"signature\":{},\"codec\":\"{}\",\"vcpus\":{},\"memory_mib\":{},\"gpus\":{},\"retries\":{},\
         \"timeout_seconds\":{}}}\n",
        json(name),
        json(signature),
        arguments.codec.name(),
        or_null(arguments.vcpus.map(|vcpus| vcpus.to_string())),
        or_null(arguments.memory_mib.map(|mib| mib.to_string())),
        arguments.gpus,
        arguments.retries,
        or_null(arguments.timeout_seconds.map(|seconds| seconds.to_string())),
    );
    quote! {
        ::core::concat!(
            "{\"package\":\"", ::core::env!("CARGO_PKG_NAME"), "\",\"module\":\"", ::core::module_path!(), #rest
        )
    }
}

impl Codec {
    fn name(self) -> &'static str {
        match self {
            Self::Bincode => "bincode",
            Self::Messagepack => "messagepack",
        }
    }
}

fn json(string: &str) -> String {
    let mut quoted = String::from("\"");
    for c in string.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.extend(format!("\\u{:04x}", u32::from(c)).chars()),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::json;

    #[test]
    fn strings_are_quoted_for_json() {
        assert_eq!(json("[u8; \"\\\".len()]"), r#""[u8; \"\\\".len()]""#);
        assert_eq!(json("a\nb"), r#""a\u000ab""#);
    }
}
