//! The traced structure as text: `input`, `output`, `codec`, and a line for each named type, in the order of first
//! mention. Types of the same name are distinguished by a number.

use std::collections::HashMap;

use super::shapes::{Fields, Form, Shape, SlotId, Type, TypeNo, VariantKind};
use super::trace::Tracer;
use crate::codec::Codec;

/// Subject of an entry in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Subject {
    Named(TypeNo),
    /// A type that contains itself and has no name known to serde.
    Recursive(SlotId),
}

struct Writer<'t> {
    tracer: &'t Tracer,
    labels: HashMap<Subject, String>,
    /// Number of types for each name.
    uses: HashMap<String, usize>,
    /// Subjects in the order of their first mention.
    mentioned: Vec<Subject>,
    recursive: Vec<SlotId>,
}

pub(super) fn text(tracer: &Tracer, input: SlotId, output: SlotId, codec: Codec) -> String {
    let mut recursive: Vec<SlotId> = tracer.slots.iter().filter_map(|slot| slot.enclosing).collect();
    recursive.sort_unstable();
    recursive.dedup();
    recursive.retain(|slot| !matches!(tracer.slots[*slot].shapes[..], [Shape::Named(_)]));
    let mut writer = Writer { tracer, labels: HashMap::new(), uses: HashMap::new(), mentioned: Vec::new(), recursive };
    let mut lines = vec![
        format!("input: {}", writer.input(input)),
        format!("output: {}", writer.slot(output)),
        format!("codec: {codec}"),
    ];
    let mut next = 0;
    while let Some(subject) = writer.mentioned.get(next).copied() {
        lines.push(writer.entry(subject));
        next += 1;
    }
    lines.join("\n")
}

impl Writer<'_> {
    /// Writes the input. It is a struct generated for the function, so only its fields count.
    fn input(&mut self, slot: SlotId) -> String {
        match self.tracer.slots[slot].shapes[..] {
            [Shape::Named(ty)] if self.tracer.slots[slot].opaque.is_none() => match self.body(&self.tracer.types[ty]) {
                body if body.is_empty() => "()".to_owned(),
                body => body.trim_start().to_owned(),
            },
            _ => self.slot(slot),
        }
    }

    fn slot(&mut self, slot: SlotId) -> String {
        let slot = self.tracer.slots[slot].enclosing.unwrap_or(slot);
        if self.recursive.contains(&slot) {
            let name = without_paths(self.tracer.slots[slot].type_name);
            return self.label(Subject::Recursive(slot), &name);
        }
        self.shapes(slot)
    }

    fn shapes(&mut self, slot: SlotId) -> String {
        let this = &self.tracer.slots[slot];
        let shapes: Vec<String> = this.shapes.iter().map(|shape| self.shape(shape)).collect();
        let shapes = shapes.join(" | ");
        match this.opaque {
            Some(name) if shapes.is_empty() => format!("opaque {}", readable(name)),
            Some(name) => format!("opaque {} ({shapes})", readable(name)),
            None if !shapes.is_empty() => shapes,
            None if this.entered => "nothing".to_owned(),
            None => "?".to_owned(),
        }
    }

    fn shape(&mut self, shape: &Shape) -> String {
        match shape {
            Shape::Scalar(name) => (*name).to_owned(),
            Shape::Any => "self-describing".to_owned(),
            Shape::Option(content) => format!("Option<{}>", self.slot(*content)),
            Shape::Seq(element) => format!("[{}]", self.slot(*element)),
            Shape::Map(key, value) => format!("{{{}: {}}}", self.slot(*key), self.slot(*value)),
            Shape::Keyed(keys) => {
                let keys: Vec<_> = keys.iter().map(|(name, slot)| format!("{name}: {}", self.slot(*slot))).collect();
                format!("{{ {}, .. }}", keys.join(", "))
            }
            Shape::Tuple(len, slots) => self.tuple(*len, slots),
            Shape::Struct(ty) => match &self.tracer.types[*ty].form {
                Form::Struct(fields) => self.fields(fields),
                _ => "?".to_owned(),
            },
            Shape::Named(ty) => self.label(Subject::Named(*ty), self.tracer.types[*ty].name),
        }
    }

    fn tuple(&mut self, len: usize, slots: &[SlotId]) -> String {
        let elements: Vec<String> = slots.iter().map(|slot| self.slot(*slot)).collect();
        if len > 3 && elements.iter().all(|element| *element == elements[0]) {
            return format!("[{}; {len}]", elements[0]);
        }
        format!("({})", elements.join(", "))
    }

    fn fields(&mut self, fields: &Fields) -> String {
        let mut written = Vec::new();
        for ((name, slot), alias) in fields.names.iter().zip(&fields.slots).zip(&fields.alias) {
            if !alias {
                written.push(format!("{name}: {}", self.slot(*slot)));
            }
        }
        if written.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", written.join(", ")) }
    }

    fn entry(&mut self, subject: Subject) -> String {
        let label = self.labels[&subject].clone();
        match subject {
            Subject::Recursive(slot) => format!("type {label} = {}", self.shapes(slot)),
            Subject::Named(ty) => {
                let declared = &self.tracer.types[ty];
                let kind = if matches!(declared.form, Form::Enum(_)) { "enum" } else { "struct" };
                format!("{kind} {label}{}", self.body(declared))
            }
        }
    }

    /// Writes the part of a named type that follows its name.
    fn body(&mut self, declared: &Type) -> String {
        match &declared.form {
            Form::Unit => String::new(),
            Form::Newtype(slot) => format!("({})", self.slot(*slot)),
            Form::Fields(slot) => self.after_name(*slot),
            Form::Struct(fields) => format!(" {}", self.fields(fields)),
            Form::Enum(choices) => {
                let variants: Vec<String> = choices
                    .variants
                    .iter()
                    .map(|variant| match variant.kind {
                        Some(VariantKind::Unit) => variant.name.to_owned(),
                        Some(VariantKind::Newtype) => format!("{}({})", variant.name, self.slot(variant.slot)),
                        Some(VariantKind::Fields) => format!("{}{}", variant.name, self.after_name(variant.slot)),
                        None => format!("{} ?", variant.name),
                    })
                    .collect();
                format!(" {{ {} }}", variants.join(", "))
            }
        }
    }

    /// Writes fields that follow a name: ` { x: f64 }` or `(f64, f64)`. Equal fields are not shortened to an array:
    /// `Point(f64, f64, f64, f64)`.
    fn after_name(&mut self, slot: SlotId) -> String {
        match &self.tracer.slots[slot].shapes[..] {
            [Shape::Tuple(len, slots)] if *len == slots.len() => {
                let elements: Vec<String> = slots.iter().map(|slot| self.slot(*slot)).collect();
                format!("({})", elements.join(", "))
            }
            [Shape::Struct(_)] => format!(" {}", self.shapes(slot)),
            _ => self.shapes(slot),
        }
    }

    fn label(&mut self, subject: Subject, name: &str) -> String {
        if let Some(label) = self.labels.get(&subject) {
            return label.clone();
        }
        let uses = self.uses.entry(name.to_owned()).or_default();
        *uses += 1;
        let label = if *uses == 1 { name.to_owned() } else { format!("{name}#{uses}") };
        self.labels.insert(subject, label.clone());
        self.mentioned.push(subject);
        label
    }
}

/// Replaces the name of a generated type, such as that of `#[serde(with)]`, which is of no use to a reader.
pub(super) fn readable(type_name: &str) -> &str {
    // The adapter by which a function's result is passed to serde.
    let inner = type_name.strip_prefix("cloudknot::__private::SerdeAdapter<").and_then(|inner| inner.strip_suffix('>'));
    let type_name = inner.unwrap_or(type_name);
    if type_name.contains("::_::") { "through `with`" } else { type_name }
}

/// Returns a type's name without paths: `Option<Tree>` for `core::option::Option<forest::Tree>`.
pub(super) fn without_paths(type_name: &str) -> String {
    let mut short = String::new();
    let mut segment = String::new();
    for character in type_name.chars() {
        match character {
            ':' => segment.clear(),
            other if other.is_alphanumeric() || other == '_' => segment.push(other),
            other => {
                short.push_str(&segment);
                segment.clear();
                short.push(other);
            }
        }
    }
    short + &segment
}
