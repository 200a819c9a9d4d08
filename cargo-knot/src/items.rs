//! RUN and ITEMS on the command line: the run that a verb is about, and the items of it.

use std::ops::RangeInclusive;
use std::str::FromStr;

use cargo_knot::exit;
use clap::Args;
use clap::builder::PossibleValuesParser;
use cloudknot::ItemErrorKind;
use cloudknot::look::{Items, Look};

use crate::failure::Failure;
use crate::scope::ScopeArgs;

/// Number of digits of a date, with which the ID of a run begins. Fewer digits may as well be the number of an item.
const DATE_LEN: usize = 8;

/// The run of a verb, and items of it by their numbers.
#[derive(Args)]
pub(crate) struct NumberedItemsArgs {
    /// The run: `last`, `last-1`, the start of its ID or of the word at its end, or its name
    #[arg(default_value = "last")]
    run: String,
    /// The items, counted from 0: numbers and ranges, such as `3,5,8-10`; all without
    items: Option<Ranges>,
}

/// The run of a verb, and a selection of its items.
#[derive(Args)]
pub(crate) struct ItemsArgs {
    #[command(flatten)]
    of: NumberedItemsArgs,
    /// Only items whose last attempt failed
    #[arg(long)]
    failed: bool,
    /// Only items whose last attempt failed in this way
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(ItemErrorKind::ALL.map(ItemErrorKind::name)))]
    kind: Option<String>,
}

impl ItemsArgs {
    /// Returns the selection of items.
    pub(crate) fn items(&self) -> Items {
        let items = self.of.items();
        let items = if self.failed { items.failed() } else { items };
        match self.kind.as_deref().and_then(ItemErrorKind::parse) {
            Some(kind) => items.kind(kind),
            None => items,
        }
    }

    /// Finds the run, as [`NumberedItemsArgs::find`] does.
    pub(crate) async fn find(&self, scope: &ScopeArgs) -> Result<Look, Failure> {
        self.of.find(scope).await
    }
}

impl NumberedItemsArgs {
    /// Returns the selection of items.
    pub(crate) fn items(&self) -> Items {
        let items = Items::all();
        match &self.items {
            Some(Ranges(ranges)) => items.within(ranges.iter().cloned()),
            None => items,
        }
    }

    /// Finds the run.
    ///
    /// # Errors
    /// Returns an error if there is none, or several; also if RUN is a short number, which may be meant as an item.
    pub(crate) async fn find(&self, scope: &ScopeArgs) -> Result<Look, Failure> {
        let hint = || format!("items follow the run: `last {}` names those of the last run", self.run);
        let is_like_items = self.items.is_none() && self.run.parse::<Ranges>().is_ok();
        let found = scope.runs().await?.find(&self.run).await;
        let look = match found {
            Err(error) if is_like_items && error.kind() == cloudknot::ErrorKind::NotFound => {
                let other = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                return Err(Failure::from(error).with_hint(hint() + &other));
            }
            found => found.map_err(|error| scope.failure(error))?,
        };
        let summary = look.summary();
        let is_whole = self.run == summary.word || summary.name.as_ref() == Some(&self.run);
        if is_like_items && self.run.len() < DATE_LEN && !is_whole {
            let message = format!("invalid run `{}`: must have more digits, because it may be an item", self.run);
            let hint = format!("{}; `{}` is the run whose name begins so", hint(), summary.word);
            return Err(Failure::new(exit::USAGE, message).with_hint(hint));
        }
        Ok(look)
    }
}

/// Ranges of items: `3,5,8-10`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ranges(Vec<RangeInclusive<u64>>);

impl FromStr for Ranges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(|range| parse_range(range.trim())).collect::<Result<_, _>>().map(Self)
    }
}

fn parse_range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_number.then(|| text.parse::<u64>().ok()).flatten();
        number.ok_or_else(|| "must be numbers and ranges, such as `3,5,8-10`".to_owned())
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last {
        return Err(format!("the range {first}-{last} must begin with the smaller number"));
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    #[test]
    fn items_are_numbers_and_ranges() {
        let check = |text: &str, expected: &[RangeInclusive<u64>]| {
            assert_eq!(text.parse::<Ranges>().map(|ranges| ranges.0).as_deref(), Ok(expected), "{text}");
        };
        check("0", &[0..=0]);
        check("3,5,8-10", &[3..=3, 5..=5, 8..=10]);
        check("8-10, 3", &[8..=10, 3..=3]);
        check("18446744073709551615", &[u64::MAX..=u64::MAX]);
    }

    #[test]
    fn other_items_are_refused() {
        for text in ["", ",", "3,", "a", "-1", "1-", "-", "1-2-3", "+1", "1.5", "18446744073709551616"] {
            let error = text.parse::<Ranges>().unwrap_err();
            assert_eq!(error, "must be numbers and ranges, such as `3,5,8-10`", "{text}");
        }
        assert_eq!("10-8".parse::<Ranges>().unwrap_err(), "the range 10-8 must begin with the smaller number");
    }

    #[track_caller]
    fn check(arguments: &[&str], run: &str, items: &Items) {
        let command = ItemsArgs::augment_args(Command::new("verb").no_binary_name(true));
        let args = ItemsArgs::from_arg_matches(&command.get_matches_from(arguments)).unwrap();
        assert_eq!((args.of.run.as_str(), &args.items()), (run, items), "{arguments:?}");
    }

    #[test]
    fn run_comes_before_the_items() {
        check(&[], "last", &Items::all());
        check(&["k5v"], "k5v", &Items::all());
        check(&["last", "3,5"], "last", &Items::all().within([3..=3, 5..=5]));
        check(&["--failed"], "last", &Items::all().failed());
        let memory = Items::all().within([7..=9]).kind(ItemErrorKind::OutOfMemory);
        check(&["last-1", "7-9", "--kind", "out-of-memory"], "last-1", &memory);
    }
}
