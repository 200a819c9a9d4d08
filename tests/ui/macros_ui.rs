//! What the attributes refuse, word for word. After a change on purpose, run with
//! `TRYBUILD=overwrite` and read the difference.

#[test]
fn faults_are_refused_where_they_are() {
    trybuild::TestCases::new().compile_fail("fail/*.rs");
}
