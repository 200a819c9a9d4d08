//! A folder as a store.
/// A folder as a store.
#[derive(Debug)]
pub struct DirStore;
