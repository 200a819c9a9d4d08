//! The structure of a function's types as data: what a program needs to read stored values without the types.
//!
//! `build` makes it from what was traced. It is a table of nodes that refer to each other by their index, so that a type
//! can contain itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Part;

mod build;

pub(super) use self::build::build;

/// Index of a node.
pub(crate) type NodeId = u32;

/// Maximum number of nodes.
const MAX_NODES: usize = 1 << 20;

/// Structure of a function's input and output types, as data from which stored values are read.
///
/// As JSON, it is stored in the manifest of a run. It may then contain anything, so it is checked before it is used, by
/// [`check`](Self::check).
///
/// ```
/// # use cloudknot_runtime::{codec::Codec, fingerprint::{Part, Schema}};
/// let structure = Schema::of::<(), std::net::IpAddr>(Codec::Bincode).structure;
/// let opaque = structure.opaque(Part::Output).expect("the address is stored in another form than JSON has");
/// assert_eq!(opaque.type_name, "core::net::ip_addr::IpAddr");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {
    nodes: Vec<Node>,
    input: NodeId,
    output: NodeId,
}

/// Type of a part of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Node {
    Bool,
    U8,
    U16,
    U32,
    U64,
    U128,
    I8,
    I16,
    I32,
    I64,
    I128,
    F32,
    F64,
    Char,
    String,
    Bytes,
    Unit,
    /// A value of any type, which the encoding describes.
    Any,
    Option(NodeId),
    Seq(NodeId),
    Map(NodeId, NodeId),
    /// A map with these entries, and others of any type.
    Keyed(Vec<Field>),
    Tuple(Vec<NodeId>),
    /// A tuple of this number of elements of one type.
    Array(NodeId, u64),
    /// A named type that is encoded as its only content.
    Newtype(String, NodeId),

    UnitStruct(String),

    TupleStruct(String, Vec<NodeId>),
    Struct(String, Vec<Field>),
    Enum(String, Vec<Variant>),
    Opaque(Opaque),
}

/// Field of a struct, with its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Field(pub(crate) String, pub(crate) NodeId);

/// Variant of an enum, with its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Variant(pub(crate) String, pub(crate) Content);

/// Content of a variant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Content {
    Unit,
    Newtype(NodeId),
    Tuple(Vec<NodeId>),
    Struct(Vec<Field>),
    /// The variant was never built while its type was traced.
    Unknown,
}

/// A type whose values only the program itself can convert to JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Opaque {
    /// Full name of the type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Reason why its values are opaque.
    pub reason: OpaqueReason,
}

/// Form of values that can be written without an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RawForm {
    /// The values are strings.
    Text,
    /// The values are bytes.
    Bytes,
}

/// Reason why the values of a type are opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OpaqueReason {
    /// The type has another form where it is read by people, which JSON is, than in a compact encoding.
    Readable,
    /// JSON has no such keys of a map.
    Keys,
    /// The type could not be traced, because it refused the values that it was offered.
    Untraced,
    /// The kinds of its values cannot be distinguished in its encoding.
    Ambiguous,
    /// The type is written in another way than it is read.
    Asymmetric,
}

impl fmt::Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            OpaqueReason::Readable => "has another form in JSON than in the encoding",
            OpaqueReason::Keys => "has keys of a map that JSON cannot have",
            OpaqueReason::Untraced => "cannot be traced",
            OpaqueReason::Ambiguous => "has values whose kinds the encoding does not distinguish",
            OpaqueReason::Asymmetric => "is written in another way than it is read",
        };
        write!(f, "`{}` {reason}", self.type_name)
    }
}

impl Structure {
    /// Returns a type in this part of which only the program itself can convert values to JSON, if there is one. A value
    /// that does not contain such a type can still be converted.
    pub fn opaque(&self, part: Part) -> Option<&Opaque> {
        let mut seen = vec![false; self.nodes.len()];
        let mut rest = vec![self.root(part)];
        while let Some(id) = rest.pop() {
            let Some(seen) = seen.get_mut(id as usize).filter(|seen| !**seen) else { continue };
            *seen = true;
            match self.node(id) {
                Some(Node::Opaque(opaque)) => return Some(opaque),
                // The last is the first on the stack.
                Some(node) => rest.extend(node.parts().into_iter().rev()),
                None => {}
            }
        }
        None
    }

    /// Returns the form in which values of this part can be written without an encoding, if they are text or bytes.
    pub fn raw_form(&self, part: Part) -> Option<RawForm> {
        let is_byte = |id: &NodeId| matches!(self.node(*id), Some(Node::U8));
        let mut id = self.root(part);
        // A type may contain itself.
        for _ in 0..=self.nodes.len() {
            match self.node(id)? {
                Node::Newtype(_, content) => id = *content,
                Node::String | Node::Char => return Some(RawForm::Text),
                Node::Bytes => return Some(RawForm::Bytes),
                Node::Seq(element) | Node::Array(element, _) if is_byte(element) => return Some(RawForm::Bytes),
                _ => return None,
            }
        }
        None
    }

    /// Returns the names of the function's arguments, in order.
    pub fn arguments(&self) -> impl Iterator<Item = &str> {
        let fields = match self.node(self.input) {
            Some(Node::Struct(_, fields)) => &fields[..],
            _ => &[],
        };
        fields.iter().map(|field| field.0.as_str())
    }

    /// Checks that this is a structure, which was read from a record.
    ///
    /// # Errors
    /// Returns the first reason why it is not.
    pub fn check(&self) -> Result<(), String> {
        if self.nodes.len() > MAX_NODES {
            return Err(format!("`types` has {} nodes, but must have at most {MAX_NODES}", self.nodes.len()));
        }
        let mut ids = self.nodes.iter().flat_map(Node::parts).chain([self.input, self.output]);
        match ids.find(|id| self.node(*id).is_none()) {
            Some(id) => Err(format!("`types` refers to node {id}, but has {} nodes", self.nodes.len())),
            None => Ok(()),
        }
    }

    /// Makes a part opaque, because samples of its type are written in another way than they are read.
    pub(super) fn set_asymmetric(&mut self, part: Part, type_name: &str) {
        let opaque = Opaque { type_name: type_name.to_owned(), reason: OpaqueReason::Asymmetric };
        self.nodes.push(Node::Opaque(opaque));
        let id = NodeId::try_from(self.nodes.len() - 1).expect("the number of traced slots is limited");
        *match part {
            Part::Input => &mut self.input,
            Part::Output => &mut self.output,
        } = id;
    }

    pub(crate) fn root(&self, part: Part) -> NodeId {
        match part {
            Part::Input => self.input,
            Part::Output => self.output,
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id as usize)
    }
}

impl Node {
    /// Returns the nodes that this one refers to.
    fn parts(&self) -> Vec<NodeId> {
        match self {
            Self::Option(id) | Self::Seq(id) | Self::Array(id, _) | Self::Newtype(_, id) => vec![*id],
            Self::Map(key, value) => vec![*key, *value],
            Self::Tuple(ids) | Self::TupleStruct(_, ids) => ids.clone(),
            Self::Keyed(fields) | Self::Struct(_, fields) => fields.iter().map(|field| field.1).collect(),
            Self::Enum(_, variants) => variants.iter().flat_map(|variant| variant.1.parts()).collect(),
            _ => Vec::new(),
        }
    }
}

impl Content {
    fn parts(&self) -> Vec<NodeId> {
        match self {
            Self::Unit | Self::Unknown => Vec::new(),
            Self::Newtype(id) => vec![*id],
            Self::Tuple(ids) => ids.clone(),
            Self::Struct(fields) => fields.iter().map(|field| field.1).collect(),
        }
    }
}
