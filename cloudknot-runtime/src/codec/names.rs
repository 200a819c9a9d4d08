//! The names of fields and variants in a value. bincode does not write them, so a type whose fields or variants are
//! read in another order than they are written is found by its names.
//!
//! The lists of names that a type gives to a deserializer contain aliases, so a position in such a list is only a lower
//! bound.

use twox_hash::XxHash3_64;

/// Number of field names that are compared together.
const FIELDS_LEN: usize = 8;
const CACHE_LEN: usize = 32;

/// Consecutive field names of a struct, in the order in which they were written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fields {
    /// Name of the struct, or of the enum.
    owner: &'static str,
    /// Number of fields before these.
    before: usize,
    names: [&'static str; FIELDS_LEN],
    len: usize,
    key: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Variant {
    owner: &'static str,
    index: u32,
    name: &'static str,
}

/// The distinct names in a value that is written.
#[derive(Debug)]
pub(super) struct Names {
    fields_cache: [u64; CACHE_LEN],
    fields: Vec<Fields>,
    /// Keys of variants, and the hash of each variant's name.
    variants_cache: [(u64, u64); CACHE_LEN],
    variants: Vec<Variant>,
    sum: Option<u64>,
}

impl Fields {
    #[inline]
    pub(super) fn of(owner: &'static str) -> Self {
        Self { owner, before: 0, names: [""; FIELDS_LEN], len: 0, key: address(owner) }
    }

    #[inline]
    pub(super) fn push(&mut self, name: &'static str, all: &mut Names) {
        if self.len == FIELDS_LEN {
            all.fields(self);
            (self.before, self.len) = (self.before + FIELDS_LEN, 0);
        }
        self.names[self.len] = name;
        self.len += 1;
        self.key = mix(self.key, address(name));
    }

    fn names(&self) -> &[&'static str] {
        &self.names[..self.len]
    }

    /// Returns whether a type with this list of names reads the fields in the order in which they were written.
    fn are_read_by(&self, list: &[&str]) -> bool {
        let mut next = self.before;
        self.names().iter().all(|name| {
            let place = list.iter().skip(next).position(|other| other == name);
            next += place.map_or(0, |place| place + 1);
            place.is_some()
        })
    }
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            fields_cache: [0; CACHE_LEN],
            fields: Vec::new(),
            variants_cache: [(0, 0); CACHE_LEN],
            variants: Vec::new(),
            sum: None,
        }
    }

    /// Returns the sum of the hashes of all variants and omitted fields. A sum, because equal hash maps have their
    /// entries in different orders. `None` if there are none.
    pub(super) fn sum(&self) -> Option<u64> {
        self.sum
    }

    #[inline]
    pub(super) fn fields(&mut self, fields: &Fields) {
        if self.fields_cache[slot(fields.key)] != fields.key {
            self.new_fields(fields);
        }
    }

    #[cold]
    fn new_fields(&mut self, fields: &Fields) {
        self.fields_cache[slot(fields.key)] = fields.key;
        if !self.fields.contains(fields) {
            self.fields.push(*fields);
        }
    }

    #[inline]
    pub(super) fn variant(&mut self, owner: &'static str, index: u32, name: &'static str) {
        let key = mix(mix(address(owner), address(name)), index.into());
        let (known, hash) = self.variants_cache[slot(key)];
        let hash = if known == key { hash } else { self.new_variant(key, Variant { owner, index, name }) };
        self.add(hash);
    }

    #[cold]
    fn new_variant(&mut self, key: u64, variant: Variant) -> u64 {
        let hash = hash(variant.owner, variant.name);
        self.variants_cache[slot(key)] = (key, hash);
        if !self.variants.contains(&variant) {
            self.variants.push(variant);
        }
        hash
    }

    /// Records a field that is left out of this value.
    pub(super) fn omitted(&mut self, owner: &'static str, field: &'static str) {
        self.add(hash(owner, field).rotate_left(1));
    }

    #[inline]
    fn add(&mut self, hash: u64) {
        self.sum = Some(self.sum.unwrap_or(0).wrapping_add(hash));
    }

    /// Returns the variants, each as the name of its enum, its number and its name.
    pub(super) fn variants(&self) -> impl Iterator<Item = (&'static str, u32, &'static str)> {
        self.variants.iter().map(|variant| (variant.owner, variant.index, variant.name))
    }

    /// Checks that the names that were written are those that were read. Lists with the same owner count; if there are
    /// none, because a type is converted from another, all lists count.
    pub(super) fn check(&self, lists: &Lists) -> Result<(), String> {
        for fields in &self.fields {
            if !lists.structs.accept(fields.owner, |list| fields.are_read_by(list)) {
                return Err(format!(
                    "the fields `{}` of `{}` are read in another order, or by other names",
                    fields.names().join("`, `"),
                    fields.owner
                ));
            }
        }
        for Variant { owner, index, name } in &self.variants {
            let is_read_by = |list: &[&str]| list.iter().skip(*index as usize).any(|other| other == name);
            if !lists.enums.accept(owner, is_read_by) {
                return Err(format!("the variant `{name}` of `{owner}` is read as another one"));
            }
        }
        Ok(())
    }
}

/// Lists of the names of fields and variants that types gave to a deserializer.
#[derive(Debug)]
pub(super) struct Lists {
    structs: ListSet,
    enums: ListSet,
}

#[derive(Debug)]
struct ListSet {
    cache: [u64; CACHE_LEN],
    lists: Vec<(&'static str, &'static [&'static str])>,
}

impl Lists {
    pub(super) fn new() -> Self {
        let empty = || ListSet { cache: [0; CACHE_LEN], lists: Vec::new() };
        Self { structs: empty(), enums: empty() }
    }

    #[inline]
    pub(super) fn fields(&mut self, owner: &'static str, list: &'static [&'static str]) {
        self.structs.insert(owner, list);
    }

    #[inline]
    pub(super) fn variants(&mut self, owner: &'static str, list: &'static [&'static str]) {
        self.enums.insert(owner, list);
    }
}

impl ListSet {
    #[inline]
    fn insert(&mut self, owner: &'static str, list: &'static [&'static str]) {
        let key = mix(address(owner), mix(list.as_ptr().addr() as u64, list.len() as u64));
        if self.cache[slot(key)] != key {
            self.insert_new(key, owner, list);
        }
    }

    #[cold]
    fn insert_new(&mut self, key: u64, owner: &'static str, list: &'static [&'static str]) {
        self.cache[slot(key)] = key;
        if !self.lists.contains(&(owner, list)) {
            self.lists.push((owner, list));
        }
    }

    fn accept(&self, owner: &str, is_right: impl Fn(&[&'static str]) -> bool) -> bool {
        let is_named = self.lists.iter().any(|(name, _)| *name == owner);
        let mut relevant = self.lists.iter().filter(|(name, _)| !is_named || *name == owner).peekable();
        relevant.peek().is_none() || relevant.any(|(_, list)| is_right(list))
    }
}

#[inline]
fn mix(key: u64, part: u64) -> u64 {
    (key ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

#[inline]
fn address(text: &'static str) -> u64 {
    (text.as_ptr().addr() as u64).wrapping_add((text.len() as u64) << 48)
}

/// Returns the place in a cache, from the upper bits of a key.
#[inline]
fn slot(key: u64) -> usize {
    key.wrapping_mul(0xd1b5_4a32_d192_ed03).to_le_bytes()[7] as usize % CACHE_LEN
}

fn hash(owner: &str, name: &str) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(owner.as_bytes()), name.as_bytes())
}
