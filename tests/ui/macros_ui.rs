//! Tests of the compile errors of the attributes, word for word. After an intended change, run with `TRYBUILD=overwrite` and
//! review the difference.

#[test]
fn compile_errors_match_snapshots() {
    trybuild::TestCases::new().compile_fail("fail/*.rs");
}
