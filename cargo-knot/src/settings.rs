//! Options of the command line that are settings of the library, which declares each of them once.

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use cloudknot::__private::{Declared, Setting, SettingKind};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// Settings from options. They are deserialized from a table of the declared keys, as those in
/// `Cargo.toml` are.
#[derive(Debug)]
pub(crate) struct SettingsArgs<S>(pub(crate) S);

impl<S: Declared + DeserializeOwned> Args for SettingsArgs<S> {
    fn augment_args(command: Command) -> Command {
        S::ALL.iter().filter_map(option).fold(command, Command::arg)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<S: Declared + DeserializeOwned> FromArgMatches for SettingsArgs<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let with_flag = S::ALL.iter().filter(|setting| setting.flag.is_some());
        let table: Map<_, _> =
            with_flag.filter_map(|setting| Some((setting.key(), value(setting, matches)?))).collect();
        let settings = S::deserialize(Value::Object(table));
        settings.map(Self).map_err(|error| clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n")))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Returns the option of a setting, if it has one.
fn option(setting: &'static Setting) -> Option<Arg> {
    let flag = setting.flag?;
    let (name, value) = flag.usage.split_once(' ').map_or((flag.usage, None), |(name, value)| (name, Some(value)));
    let name = name.trim_start_matches("--");
    let mut option = Arg::new(setting.field).long(name).help_heading(flag.heading).help(help(setting));
    option = flag.conflicts.iter().fold(option, |option, other| option.conflicts_with(*other));
    if let Some(value) = value {
        option = option.value_name(value);
    }
    Some(match setting.kind {
        SettingKind::Switch => option.action(ArgAction::SetTrue),
        SettingKind::Number => option.value_parser(number),
        SettingKind::Count => option.value_parser(value_parser!(u32)),
        SettingKind::Choice(names) => option.value_parser(PossibleValuesParser::new(names)),
        SettingKind::Table => option.action(ArgAction::Append).value_parser(pair),
        SettingKind::List => {
            let option = option.action(ArgAction::Append);
            if flag.usage.ends_with(",…") { option.value_delimiter(',') } else { option }
        }
        SettingKind::Text | SettingKind::Other => option,
    })
}

/// Returns the given value of a setting, as `Cargo.toml` would have it.
fn value(setting: &Setting, matches: &ArgMatches) -> Option<Value> {
    let id = setting.field;
    match setting.kind {
        SettingKind::Switch => matches.get_flag(id).then_some(Value::Bool(true)),
        SettingKind::Number => matches.get_one::<f64>(id).map(|number| json!(number)),
        SettingKind::Count => matches.get_one::<u32>(id).map(|count| json!(count)),
        SettingKind::Table => matches.get_many::<(String, String)>(id).map(|pairs| pairs.cloned().collect()),
        SettingKind::List => matches.get_many::<String>(id).map(|all| all.cloned().collect()),
        SettingKind::Text | SettingKind::Choice(_) | SettingKind::Other => {
            matches.get_one::<String>(id).map(|text| json!(text))
        }
    }
}

/// Returns the help of an option: the documentation as one paragraph, without the last period.
fn help(setting: &Setting) -> String {
    let words: Vec<_> = setting.docs.split_whitespace().collect();
    // Amounts keep their quotes, which a shell requires, but lose their backticks.
    let text = words.join(" ").replace("`\"", "\"").replace("\"`", "\"");
    let text = text.trim_end_matches('.');
    let text = text.strip_prefix("`true` if ").map_or_else(|| text.to_owned(), capital);
    match setting.kind {
        SettingKind::List | SettingKind::Table => format!("{text}; may be repeated"),
        _ => text,
    }
}

fn capital(text: &str) -> String {
    text[..1].to_uppercase() + &text[1..]
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| "must be a number".to_owned())
}

/// Parses `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or_else(|| "must be KEY=VALUE".to_owned())?;
    Ok((key.to_owned(), value.to_owned()))
}
