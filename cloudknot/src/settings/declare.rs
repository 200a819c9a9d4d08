//! Declaration of settings: each is written once, with its type, documentation, flag, check and builder method. Everything
//! else follows from that: the key in tables such as `[package.metadata.cloudknot]`, merging, the options of the command, and their help.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::Result;

/// A setting, as declared.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Name of the field, which in kebab case is the key in `Cargo.toml`.
    pub field: &'static str,
    /// Documentation in Markdown.
    pub docs: &'static str,
    /// Option of the command, if there is one.
    pub flag: Option<Flag>,
    /// Kind of the value.
    pub kind: Kind,
}

impl Setting {
    /// Returns the key in `Cargo.toml`.
    pub fn key(&self) -> String {
        key(self.field)
    }
}

/// Returns the key of a field in `Cargo.toml`.
fn key(field: &str) -> String {
    field.replace('_', "-")
}

/// Option of the command for a setting. That of a list or a table can be repeated.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Name of the option, followed by the name of its value if it takes one: `--memory AMOUNT`. After `TYPE,…`, several values
    /// can be given at once, separated by commas.
    pub usage: &'static str,
    /// Heading in the help of the command.
    pub heading: &'static str,
    /// Fields of the settings that exclude this one.
    pub conflicts: &'static [&'static str],
}

/// Kind of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string, also for a path or an amount.
    Text,
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// A number.
    Number,
    /// A whole number.
    Count,
    /// `true` or absent.
    Switch,
    /// A list of strings.
    List,
    /// A table of strings.
    Table,
    /// A value that only `Cargo.toml` and code can have.
    Other,
}

/// A struct of settings.
pub trait Declared: Sized {
    /// All settings of the struct.
    const ALL: &'static [Setting];
}

/// Type of a setting.
pub(crate) trait Value: Sized {
    const KIND: Kind;
    /// Value that a builder method sets or adds.
    type Input;
    /// Returns this value, completed by the default one.
    fn or(self, defaults: Self) -> Self;
    /// Sets the value, or adds to it.
    fn set(&mut self, value: Self::Input);
}

/// Type of a setting that is given at most once.
pub(crate) trait Single {
    const KIND: Kind = Kind::Other;
}

impl Single for String {
    const KIND: Kind = Kind::Text;
}

impl Single for PathBuf {
    const KIND: Kind = Kind::Text;
}

impl Single for f64 {
    const KIND: Kind = Kind::Number;
}

impl Single for u32 {
    const KIND: Kind = Kind::Count;
}

impl Single for bool {
    const KIND: Kind = Kind::Switch;
}

impl<T: Single> Value for Option<T> {
    const KIND: Kind = T::KIND;
    type Input = T;

    fn or(self, defaults: Self) -> Self {
        self.or(defaults)
    }

    fn set(&mut self, value: T) {
        *self = Some(value);
    }
}

impl<T> Value for Vec<T> {
    const KIND: Kind = Kind::List;
    type Input = T;

    fn or(self, defaults: Self) -> Self {
        if self.is_empty() { defaults } else { self }
    }

    fn set(&mut self, value: T) {
        self.push(value);
    }
}

impl<T> Value for BTreeMap<String, T> {
    const KIND: Kind = Kind::Table;
    type Input = (String, T);

    fn or(self, mut defaults: Self) -> Self {
        defaults.extend(self);
        defaults
    }

    fn set(&mut self, (key, value): (String, T)) {
        self.insert(key, value);
    }
}

/// Declares a struct of settings.
///
/// `or: or` adds a function that merges two structs; `setters: m for f` names the macro with the builder methods, and
/// the field of the builder that has the settings.
/// `#[flag("--memory AMOUNT", "Jobs")]` gives a setting an option of the command, under this heading of its help.
/// `#[check(f)]` calls `f(key, &value)`.
///
/// `#[setter(T)]` gives the builder a method that takes a `T`, and that unsets another setting with `in_place_of`.
/// `#[setter(true)]` is the method of a boolean flag. `#[setter(tag: K, V)]` adds an entry to a table, by a method of this
/// name, and `#[setter(policy: T)]` to a list.
macro_rules! declare {
    (
        $(or: $or:ident,)?
        $(setters: $setters:ident for $place:ident,)?
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $(#[flag($usage:literal, $heading:literal $(, conflicts: $($conflict:ident)+)?)])?
                $(#[check($check:expr)])?
                $(#[setter($($setter:tt)+)])?
                pub $field:ident: $type:ty,
            )*
        }
    ) => {
        $(#[$attribute])*
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)*
        }

        impl $crate::settings::declare::Declared for $name {
            const ALL: &'static [$crate::settings::declare::Setting] = &[$($crate::settings::declare::Setting {
                field: stringify!($field),
                docs: concat!($($doc, "\n"),+),
                flag: $crate::settings::declare::flag!($($usage, $heading, [$($(stringify!($conflict)),+)?])?),
                kind: <$type as $crate::settings::declare::Value>::KIND,
            },)*];
        }

        impl $name {
            $crate::settings::declare::or! { [$($or)?] $($field)* }

            /// Checks each setting, independently of the others.
            pub(crate) fn check_each(&self) -> $crate::error::Result<()> {
                $($($crate::settings::declare::check(stringify!($field), &self.$field, $check)?;)?)*
                Ok(())
            }
        }

        $crate::settings::declare::setters! {
            [$($setters $place)?] $name $({ [$(#[doc = $doc])+] $field [$($($setter)+)?] })*
        }
    };
}

/// Expands to the flag of a setting, or to `None`.
macro_rules! flag {
    () => {
        None
    };
    ($usage:literal, $heading:literal, [$($conflict:expr),*]) => {
        Some($crate::settings::declare::Flag { usage: $usage, heading: $heading, conflicts: &[$($conflict),*] })
    };
}

/// Expands to the function that merges two structs, if it is requested.
macro_rules! or {
    ([] $($field:ident)*) => {};
    ([$or:ident] $($field:ident)*) => {
        /// Returns these settings, with those of `defaults` where none was given. Tables are merged, and lists are
        /// replaced.
        #[must_use]
        pub fn $or(self, defaults: Self) -> Self {
            Self { $($field: $crate::settings::declare::Value::or(self.$field, defaults.$field),)* }
        }
    };
}

/// Expands to the macro with all builder methods, if there is a builder.
macro_rules! setters {
    ([] $($rest:tt)*) => {};
    ([$setters:ident $place:ident] $name:ident $({ $docs:tt $field:ident $setter:tt })*) => {
        macro_rules! $setters {
            () => {
                $($crate::settings::declare::setter! { $docs $name $place $field $setter })*
            };
        }
        pub(crate) use $setters;
    };
}

/// Expands to the builder method of a setting, or to nothing.
macro_rules! setter {
    ($docs:tt $name:ident $place:ident $field:ident []) => {};
    ([$($docs:tt)*] $name:ident $place:ident $field:ident [true]) => {
        #[doc = concat!(
            "Enables [`", stringify!($field), "`](field@", stringify!($name), "::", stringify!($field), "):"
        )]
        $($docs)*
        #[must_use]
        pub fn $field(mut self) -> Self {
            self.$place.$field = Some(true);
            self
        }
    };
    ([$($docs:tt)*] $name:ident $place:ident $field:ident [$method:ident: $key:ty, $value:ty]) => {
        #[doc = concat!(
            "Adds an entry to [`", stringify!($field), "`](field@", stringify!($name), "::", stringify!($field), "):"
        )]
        $($docs)*
        #[must_use]
        pub fn $method(mut self, key: $key, value: $value) -> Self {
            $crate::settings::declare::Value::set(&mut self.$place.$field, (key.into(), value.into()));
            self
        }
    };
    ([$($docs:tt)*] $name:ident $place:ident $field:ident [$method:ident: $argument:ty]) => {
        #[doc = concat!(
            "Adds an entry to [`", stringify!($field), "`](field@", stringify!($name), "::", stringify!($field), "):"
        )]
        $($docs)*
        #[must_use]
        pub fn $method(mut self, value: $argument) -> Self {
            $crate::settings::declare::Value::set(&mut self.$place.$field, value.into());
            self
        }
    };
    ([$($docs:tt)*] $name:ident $place:ident $field:ident [$argument:ty $(, in_place_of: $other:ident)?]) => {
        #[doc = concat!(
            "Sets [`", stringify!($field), "`](field@", stringify!($name), "::", stringify!($field), "):"
        )]
        $($docs)*
        #[must_use]
        pub fn $field(mut self, value: $argument) -> Self {
            $(self.$place.$other = ::std::default::Default::default();)?
            $crate::settings::declare::Value::set(&mut self.$place.$field, value.into());
            self
        }
    };
}

pub(crate) use {declare, flag, or, setter, setters};

/// Checks a value, under the key of its field in `Cargo.toml`.
pub(crate) fn check<T>(field: &str, value: &T, check: impl FnOnce(&str, &T) -> Result<()>) -> Result<()> {
    check(&key(field), value)
}
