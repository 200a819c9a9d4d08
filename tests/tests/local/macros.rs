//! Tests of the expansion of `#[cloudknot::remote]`: the function can be called as before, is registered, and can be
//! run on frames as by a worker.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fmt;
use std::path::Path;

use cloudknot::__private::{Codec, Failure, Function, ItemErrorKind, Resources};
use cloudknot::RemoteFn;
use cloudknot_runtime::frame;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Adds two numbers.
#[cloudknot::remote]
fn add(a: f64, b: f64) -> f64 {
    a + b
}

#[cloudknot::remote]
fn nothing_in_or_out() {}

#[cloudknot::remote]
fn borrows(text: &str, numbers: &[f64], path: &Path, os: &OsStr, c: &CStr, map: &HashMap<String, Vec<f64>>) -> String {
    let sum: f64 = numbers.iter().chain(map.values().flatten()).sum();
    format!("{text} {sum} {} {} {}", path.display(), os.display(), c.to_string_lossy())
}

#[cloudknot::remote]
fn bounded<'long: 'short, 'short>(long: &'long str, short: &'short str) -> String {
    let either: &'short str = if long.len() > short.len() { long } else { short };
    either.to_owned()
}

#[cloudknot::remote]
fn named<'a>(one: &'a str, other: &'a str) -> usize {
    one.len() + other.len()
}

#[cloudknot::remote]
async fn waits(text: &str, mut times: usize) -> String {
    tokio::task::yield_now().await;
    times += 1;
    text.repeat(times)
}

#[cloudknot::remote]
async fn waits_and_owns(times: usize) -> Result<usize, String> {
    tokio::task::yield_now().await;
    times.checked_sub(1).ok_or_else(|| "none left".to_owned())
}

#[cloudknot::remote]
fn factorial(n: u64) -> u64 {
    if n == 0 { 1 } else { n * factorial(n - 1) }
}

#[cloudknot::remote]
#[allow(clippy::let_and_return)]
fn shadows(x: f64) -> f64 {
    let shadows = x * 2.0;
    shadows
}

#[cloudknot::remote]
fn r#type(r#fn: u8) -> u8 {
    r#fn + 1
}

#[cloudknot::remote]
fn run(input: Input, args: u8, value: u8, frame: u8) -> Input {
    Input { value: input.value + u32::from(args) + u32::from(value) + u32::from(frame) }
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone, Copy)]
struct Input {
    value: u32,
}

#[cloudknot::remote(
    name = "renamed",
    vcpus = 0.5,
    memory = "1.5 GiB",
    gpus = 1,
    retries = 2,
    timeout = "1h 30m",
    codec = "messagepack"
)]
fn with_all_arguments(value: serde_json::Value) -> serde_json::Value {
    value
}

mod one {
    #[cloudknot::remote]
    pub(super) fn same_name(x: u8) -> u8 {
        x + super::doubled(&1).to_le_bytes()[0]
    }
}

mod other {
    #[cloudknot::remote]
    pub fn same_name(x: u8) -> u8 {
        x + 20
    }
}

macro_rules! doubling {
    ($name:ident, $argument:ident: $argument_type:ty => $output:ty) => {
        #[cloudknot::remote(retries = 1)]
        fn $name($argument: $argument_type) -> $output {
            <$output>::from(*$argument) * 2
        }
    };
}

doubling!(doubled, x: &u8 => u16);

/// Returns the registry's entry of a function, by its name in this module.
fn function<A, O, F>(remote: &'static RemoteFn<A, O, F>, name: &str) -> &'static Function {
    let id = format!("cloudknot-tests:{}::{name}", module_path!());
    assert!(format!("{remote:?}").contains(&id), "{remote:?} is not {id}");
    cloudknot_runtime::function::find(&id).expect("the function is registered")
}

/// Runs a function as a worker does. The input has the fields of `input`, by position for bincode.
fn serve<I: Serialize, O: DeserializeOwned + Send>(function: &'static Function, input: &I) -> Result<O, Failure> {
    let fingerprint = function.schema().expect("the types are traced").fingerprint;
    let mut frame = Vec::new();
    let _ = frame::encode(function.codec, fingerprint, input, &mut frame).expect("the input can be encoded");
    let mut value = b"before".to_vec();
    function.call(&frame, &mut value)?;
    assert_eq!(&value[..6], b"before");
    Ok(frame::decode(function.codec, fingerprint, &value[6..]).expect("the value can be decoded"))
}

fn check<I, O>(function: &'static Function, input: &I, expected: &O)
where
    I: Serialize,
    O: DeserializeOwned + Send + PartialEq + fmt::Debug,
{
    assert_eq!(&serve::<I, O>(function, input).expect("the function succeeds"), expected);
}

#[test]
fn remote_function_can_be_called() {
    assert!((add(1.0, 2.0) - 3.0).abs() < f64::EPSILON);
    nothing_in_or_out();
    assert_eq!(factorial(5), 120);
    assert!((shadows(2.0) - 4.0).abs() < f64::EPSILON);
    assert_eq!(r#type(1), 2);
    assert_eq!(bounded("ab", "c"), "ab");
    assert_eq!(named("ab", "c"), 3);
    assert_eq!(one::same_name(1), 3);
    assert_eq!(other::same_name(1), 21);
    assert_eq!(doubled(&4), 8);
    let total: f64 = [(1.0, 2.0), (3.0, 4.0)].into_iter().map(|(a, b)| add(a, b)).sum();
    assert!((total - 10.0).abs() < f64::EPSILON);
    assert_eq!([1, 2].map(*factorial), [1, 2]);
}

#[tokio::test]
async fn async_remote_function_can_be_awaited() {
    assert_eq!(waits("ab", 1).await, "abab");
    assert_eq!(waits_and_owns(1).await, Ok(0));
    let text = String::from("x");
    let one = waits(&text, 0);
    let spawned = tokio::spawn(waits("y", 2));
    assert_eq!((one.await, spawned.await.expect("the task does not panic")), ("x".to_owned(), "yyy".to_owned()));
}

#[test]
fn every_form_of_signature_runs_on_frames() {
    check(function(&add, "add"), &(1.0, 2.0), &3.0);
    check(function(&nothing_in_or_out, "nothing_in_or_out"), &(), &());
    let map = HashMap::from([("a".to_owned(), vec![1.0, 2.0])]);
    let c = c"c".to_owned();
    check(
        function(&borrows, "borrows"),
        &("t", vec![1.0, 2.0], Path::new("p"), OsStr::new("o"), c, map),
        &"t 6 p o c".to_owned(),
    );
    check(function(&bounded, "bounded"), &("ab", "c"), &"ab".to_owned());
    check(function(&named, "named"), &("ab", "c"), &3_usize);
    check(function(&waits, "waits"), &("ab", 1_usize), &"abab".to_owned());
    check(function(&waits_and_owns, "waits_and_owns"), &(3_usize,), &2_usize);
    check(function(&factorial, "factorial"), &(5_u64,), &120_u64);
    check(function(&shadows, "shadows"), &(2.0,), &4.0);
    check(function(&r#type, "type"), &(1_u8,), &2_u8);
    check(function(&run, "run"), &(Input { value: 1 }, 2_u8, 3_u8, 4_u8), &Input { value: 10 });
    check(function(&one::same_name, "one::same_name"), &(1_u8,), &3_u8);
    check(function(&other::same_name, "other::same_name"), &(1_u8,), &21_u8);
    check(function(&doubled, "doubled"), &(4_u8,), &8_u16);
    let value = serde_json::json!({"a": [1, null, "x"]});
    check(function(&with_all_arguments, "renamed"), &HashMap::from([("value", &value)]), &value);
}

#[test]
fn nested_remote_function_is_registered() {
    #[cloudknot::remote]
    fn private(x: u8) -> u8 {
        x + 1
    }
    assert_eq!(private(1), 2);
    check(function(&private, "private"), &(1_u8,), &2_u8);
}

#[test]
fn attribute_arguments_are_recorded() {
    assert_eq!(function(&add, "add").resources, Resources::NONE);
    assert_eq!(function(&add, "add").codec, Codec::Bincode);
    let all = function(&with_all_arguments, "renamed");
    assert_eq!(all.codec, Codec::Messagepack);
    assert_eq!(all.resources.vcpus, Some(0.5));
    assert_eq!(all.resources.memory_mib, Some(1536));
    assert_eq!((all.resources.gpus, all.resources.retries), (1, 2));
    assert_eq!(all.resources.timeout, Some(std::time::Duration::from_mins(90)));
}

#[test]
fn signature_is_recorded_as_written() {
    assert_eq!(function(&add, "add").signature, "fn add(a: f64, b: f64) -> f64");
    assert_eq!(function(&waits, "waits").signature, "async fn waits(text: &str, times: usize) -> String");
    assert_eq!(
        function(&bounded, "bounded").signature,
        "fn bounded<'long: 'short, 'short>(long: &'long str, short: &'short str) -> String"
    );
    assert_eq!(function(&doubled, "doubled").signature, "fn doubled(x: &u8) -> u16");
}

mod errors {
    use super::{Failure, ItemErrorKind, fmt, function, serve};
    use std::error::Error;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("no number")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    /// Error that implements only `Display`.
    pub(super) struct Displayed(&'static str);

    impl fmt::Display for Displayed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    type Aliased<T> = std::result::Result<T, Outer>;

    mod fixed {
        pub(super) type Result = std::result::Result<u8, String>;
    }

    fn number(text: &str) -> Aliased<u8> {
        text.parse().map_err(Outer)
    }

    #[cloudknot::remote]
    fn own(text: &str) -> Result<u8, Outer> {
        number(text)
    }

    #[cloudknot::remote]
    fn with_anyhow(text: &str) -> anyhow::Result<u8> {
        Ok(number(text)?)
    }

    #[cloudknot::remote]
    fn boxed(text: &str) -> Result<u8, Box<dyn Error>> {
        Ok(number(text)?)
    }

    #[cloudknot::remote]
    fn boxed_and_sent(text: &str) -> Result<u8, Box<dyn Error + Send + Sync>> {
        Ok(number(text)?)
    }

    #[cloudknot::remote]
    fn of_io(path: &str) -> std::io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    #[cloudknot::remote]
    fn by_text(text: &str) -> Result<u8, String> {
        text.parse().map_err(|_| "no number".to_owned())
    }

    #[cloudknot::remote]
    fn by_static_text(text: &str) -> Result<u8, &'static str> {
        text.parse().map_err(|_| "no number")
    }

    #[cloudknot::remote]
    fn by_display(text: &str) -> Result<u8, Displayed> {
        text.parse().map_err(|_| Displayed("no number"))
    }

    #[cloudknot::remote]
    fn by_alias(text: &str) -> fixed::Result {
        text.parse().map_err(|_| "no number".to_owned())
    }

    fn check(returned: Result<u8, Failure>, message: &str, chain: &[&str]) {
        let failure = returned.expect_err("the function fails");
        assert_eq!(failure.kind, ItemErrorKind::Returned);
        assert_eq!(failure.message, message);
        assert_eq!(failure.chain, chain);
    }

    #[test]
    fn error_chain_round_trips() {
        let chain = &["invalid digit found in string"][..];
        let x = &("x",);
        check(serve(function(&own, "errors::own"), x), "no number", chain);
        check(serve(function(&with_anyhow, "errors::with_anyhow"), x), "no number", chain);
        check(serve(function(&boxed, "errors::boxed"), x), "no number", chain);
        check(serve(function(&boxed_and_sent, "errors::boxed_and_sent"), x), "no number", chain);
        check(serve(function(&by_text, "errors::by_text"), x), "no number", &[]);
        check(serve(function(&by_static_text, "errors::by_static_text"), x), "no number", &[]);
        check(serve(function(&by_display, "errors::by_display"), x), "no number", &[]);
        check(serve(function(&by_alias, "errors::by_alias"), x), "no number", &[]);
        let missing = serve::<_, Vec<u8>>(function(&of_io, "errors::of_io"), &("/no/such/file",));
        assert!(missing.expect_err("the file does not exist").message.starts_with("No such file"));
    }

    #[test]
    fn ok_value_is_encoded_without_its_result() {
        super::check(function(&own, "errors::own"), &("7",), &7_u8);
        super::check(function(&with_anyhow, "errors::with_anyhow"), &("7",), &7_u8);
        super::check(function(&by_alias, "errors::by_alias"), &("7",), &7_u8);
    }
}

#[test]
fn section_describes_every_function() {
    use object::{Object, ObjectSection};
    let path = std::env::current_exe().expect("the path of this program is known");
    let file = std::fs::read(path).expect("the file can be read");
    let file = object::File::parse(&*file).expect("the file is an executable");
    let name = if cfg!(target_vendor = "apple") { "__cloudknot" } else { ".cloudknot" };
    let section = file.section_by_name(name).expect("the section exists").data().expect("the section can be read");
    let text = std::str::from_utf8(section).expect("the section is UTF-8");
    let described: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    assert_eq!(described.len(), cloudknot_runtime::function::all().count());
    let description = |name: &str| described.iter().find(|one| one["name"] == name).expect("the function is described");
    assert_eq!(
        description("renamed"),
        &serde_json::json!({
            "package": "cloudknot-tests", "module": "local::macros", "name": "renamed",
            "signature": "fn with_all_arguments(value: serde_json::Value) -> serde_json::Value",
            "codec": "messagepack", "vcpus": 0.5, "memory_mib": 1536, "gpus": 1, "retries": 2, "timeout_seconds": 5400,
        })
    );
    assert_eq!(description("add")["vcpus"], serde_json::Value::Null);
    assert_eq!(description("add")["timeout_seconds"], serde_json::Value::Null);
}
