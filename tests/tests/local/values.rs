//! Tests of values that cannot be sent: refused before anything is stored, or as the failure of their item.

use std::sync::atomic::{AtomicU32, Ordering};

use cloudknot::{ErrorKind, ItemErrorKind};
use serde::{Deserialize, Serialize};

use super::in_process::set_home;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Method {
    #[serde(skip)]
    #[allow(dead_code)]
    Interactive,
    Euler,
    Heun,
    RungeKutta,
}

#[cloudknot::remote]
fn order_of(method: Method) -> u32 {
    method as u32
}

#[cloudknot::remote]
fn method_of(order: u32) -> Method {
    if order == 1 { Method::Euler } else { Method::Heun }
}

#[cloudknot::remote(codec = "messagepack")]
fn same_method(method: Method) -> Method {
    method
}

// `[Euler, Heun]` ran as `[Heun, RungeKutta]`.
#[test]
fn another_variant_is_refused() {
    let _home = set_home();
    for method in [Method::Euler, Method::Heun, Method::RungeKutta] {
        let error = order_of.map([method]).wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(format!("{error:?}").contains("codec = \"messagepack\""), "{error:?}");
        assert_eq!(same_method.map([method]).wait().unwrap(), [method]);
    }
    let outcomes = method_of.map([1, 2]).submit().wait().unwrap().outcomes().wait().unwrap();
    for outcome in outcomes {
        let failure = outcome.unwrap_err();
        assert_eq!(failure.kind(), ItemErrorKind::Codec);
        assert!(failure.message().starts_with("result: the decoded value differs from the encoded one"), "{failure}");
    }
}

/// A type whose structure shows that bincode cannot carry it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Shape {
    Square { side: f64 },
}

#[derive(Debug, Serialize, Deserialize)]
struct Drawing {
    shapes: Vec<Shape>,
}

static DRAWN: AtomicU32 = AtomicU32::new(0);

#[cloudknot::remote]
fn draw(side: f64) -> Drawing {
    DRAWN.fetch_add(1, Ordering::SeqCst);
    Drawing { shapes: vec![Shape::Square { side }] }
}

#[cloudknot::remote]
fn count(prefix: &str, drawing: &Drawing) -> usize {
    prefix.len() + drawing.shapes.len()
}

#[cloudknot::remote(codec = "messagepack")]
fn area(drawing: &Drawing) -> f64 {
    drawing.shapes.iter().map(|Shape::Square { side }| side * side).sum()
}

// All items were computed before the first result was refused.
#[test]
fn types_that_the_codec_cannot_carry_are_refused_before_any_item_runs() {
    let _home = set_home();
    let error = draw.map([1.0, 2.0]).wait().unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (
            ErrorKind::Config,
            "cannot map `draw`: bincode cannot carry the field `shapes` of `Drawing`, in the result: its type needs a \
             self-describing format"
        )
    );
    assert_eq!(error.hint(), Some("use #[cloudknot::remote(codec = \"messagepack\")]"));
    assert_eq!(DRAWN.load(Ordering::SeqCst), 0);
    let error = count.map([("a".to_owned(), draw(1.0))]).wait().unwrap_err();
    assert!(error.to_string().contains("in the argument `drawing`"), "{error}");
    assert_eq!(area.map([draw(2.0)]).wait().unwrap(), [4.0]);
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Nest(Option<Box<Nest>>);

fn nest(depth: usize) -> Nest {
    (1..depth).fold(Nest(None), |inner, _| Nest(Some(Box::new(inner))))
}

#[cloudknot::remote]
fn nested(depth: usize) -> Nest {
    nest(depth)
}

#[cloudknot::remote]
fn depth_of(nest: &Nest) -> usize {
    std::iter::successors(Some(nest), |nest| nest.0.as_deref()).count()
}

// M6: the item succeeded, and the program that read its value overflowed its stack.
#[test]
fn a_result_that_is_nested_too_deeply_fails_its_item() {
    let _home = set_home();
    let outcomes = nested.map([60, 1_000]).submit().wait().unwrap().outcomes().wait().unwrap();
    assert_eq!(depth_of(outcomes[0].as_ref().unwrap()), 60);
    let failure = outcomes[1].as_ref().unwrap_err();
    assert_eq!(failure.kind(), ItemErrorKind::Codec);
    assert!(failure.message().contains("nested more than 128 levels deep"), "{failure}");
    let error = depth_of.map([nest(1_000)]).wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
}
