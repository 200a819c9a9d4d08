//! Tests of the compile errors of the attributes, word for word. After an intended change, run with `TRYBUILD=overwrite` and
//! review the difference.

#[test]
fn faults_are_refused_where_they_are() {
    trybuild::TestCases::new().compile_fail("fail/*.rs");
}
