//! Maps and sets whose entries have no fixed order: two equal values are then encoded differently. Serde does not tell
//! them from ordered ones, but the name of the type that is built does.
//!
//! A type that collects its entries by way of another one (`from`, `flatten`, `untagged`) does not show here. It is found when an
//! input is read back (`codec`).

/// Returns whether a map or set of this type has its entries in no fixed order. Known are those of the standard library, and of all
/// crates that follow its names: hashbrown, ahash, dashmap, im, rpds, scc, papaya.
pub(super) fn is_unordered(type_name: &str) -> bool {
    let path = type_name.split('<').next().unwrap_or_default();
    let name = path.rsplit("::").next().unwrap_or_default();
    let is_hashed = name.contains("Hash") || name.contains("Dash");
    let is_collection = ["Map", "Set", "Bag"].iter().any(|end| name.ends_with(end));
    let is_ordered = ["Linked", "Ordered", "Index"].iter().any(|part| name.contains(part));
    is_hashed && is_collection && !is_ordered
}

/// Returns whether the name of a type has that of an unordered one in it.
pub(super) fn contains_unordered(type_name: &str) -> bool {
    type_name.split([' ', ',', '(', ')', '<', '>', '[', ']']).any(is_unordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unordered_types_have_their_names() {
        let check = |name: &str, expected: bool| assert_eq!(is_unordered(name), expected, "{name}");
        check("std::collections::hash::map::HashMap<alloc::string::String, u32>", true);
        check("std::collections::hash::set::HashSet<u32>", true);
        check("hashbrown::map::HashMap<u8, u8, foldhash::fast::RandomState>", true);
        check("dashmap::DashMap<u8, u8>", true);
        check("rpds::map::hash_trie_map::HashTrieMap<u8, u8>", true);
        check("alloc::collections::btree::map::BTreeMap<u8, std::collections::hash::map::HashMap<u8, u8>>", false);
        check("indexmap::map::IndexMap<u8, u8>", false);
        check("hashlink::linked_hash_map::LinkedHashMap<u8, u8>", false);
        check("alloc::vec::Vec<lab::HashDigest>", false);
        check("lab::Hash", false);
        assert!(contains_unordered("(u8, lab::Node<std::collections::hash::set::HashSet<u8>>)"));
        assert!(!contains_unordered("(u8, lab::Node<u8>)"));
    }
}
