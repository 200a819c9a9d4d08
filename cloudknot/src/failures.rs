//! Failures in groups of one cause, and the words for them: the same in errors, on the terminal, and in `cargo knot status`.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use cloudknot_runtime::failure::{Cause, ItemError, ItemErrorKind, mask_numbers};
use cloudknot_runtime::text::number;

/// Number of ranges of items that are named.
const SHOWN_RANGES: usize = 3;
/// Maximum number of characters of a message.
const MAX_MESSAGE_LEN: usize = 300;

/// Items that failed for the same reason: failures of one kind, at one place, with one message except for its numbers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FailureGroup {
    /// Kind of the failures.
    pub kind: ItemErrorKind,
    /// Message with each number replaced by `N`, and its causes; `None` if it was not read.
    pub message: Option<String>,
    /// Source location of a panic: `file:line:column`.
    pub place: Option<String>,
    /// Number of items.
    pub count: u64,
    /// Items, as ranges in order.
    pub items: Vec<RangeInclusive<u64>>,
    /// Failure of the first item; `None` if it was not read.
    pub example: Option<ItemError>,
}

impl FailureGroup {
    /// Creates the group of these items, which are in order and not empty.
    pub(crate) fn new(kind: ItemErrorKind, items: impl IntoIterator<Item = u64>) -> Self {
        let items = ranges(items);
        let count = items.iter().map(|range| range.end() - range.start() + 1).sum();
        Self { kind, message: None, place: None, count, items, example: None }
    }

    /// Sets the failure of the first item.
    #[must_use]
    pub(crate) fn with_example(mut self, error: ItemError) -> Self {
        self.message = Some(mask_numbers(&full_message(&error)));
        self.place = error.location().map(str::to_owned);
        self.example = Some(error);
        self
    }

    /// Returns the message for a person: that of the item if there is only one.
    fn shown_message(&self) -> Option<String> {
        let of_item = self.example.as_ref().filter(|_| self.count == 1).map(full_message);
        let message = of_item.or_else(|| self.message.clone())?;
        let line = message.lines().next().unwrap_or_default();
        let mut shown: String = line.chars().take(MAX_MESSAGE_LEN).collect();
        if shown.len() < line.len() {
            shown.push('…');
        }
        Some(shown)
    }
}

fn full_message(error: &ItemError) -> String {
    let messages = std::iter::once(error.message()).chain(error.chain().iter().map(String::as_str));
    messages.collect::<Vec<_>>().join(": ")
}

/// Groups failures by their cause. Groups with more items come first.
pub(crate) fn group<'e>(failures: impl IntoIterator<Item = (u64, &'e ItemError)>) -> Vec<FailureGroup> {
    let mut causes: HashMap<Cause, Vec<(u64, &ItemError)>> = HashMap::new();
    for (item, error) in failures {
        causes.entry(error.cause()).or_default().push((item, error));
    }
    let of_cause = |(cause, mut failures): (Cause, Vec<(u64, &ItemError)>)| {
        failures.sort_unstable_by_key(|(item, _)| *item);
        let items = failures.iter().map(|(item, _)| *item);
        FailureGroup::new(cause.kind, items).with_example(failures[0].1.clone())
    };
    let mut groups: Vec<_> = causes.into_iter().map(of_cause).collect();
    sort(&mut groups);
    groups
}

/// Sorts groups: those with more items first, and those with the lower items first among equal ones.
pub(crate) fn sort(groups: &mut [FailureGroup]) {
    groups.sort_by_key(|group| (std::cmp::Reverse(group.count), group.items.first().map(|range| *range.start())));
}

/// Returns one line for each of the first `most` groups, and one for all others, in columns.
///
/// ```
/// # #[cloudknot::remote]
/// # fn root(x: i64) -> Result<u64, String> { u64::try_from(x).map_err(|_| format!("{x} is negative")) }
/// use cloudknot::look::{Runs, failure_lines};
///
/// let run = root.map([-1, -2, 9]).submit().wait()?;
/// run.finished().wait()?;
/// let details = Runs::of_this_program()?.find(run.id()).wait()?.details(false).wait()?;
/// assert_eq!(failure_lines(&details.failures, 5), ["2  returned an error  items 0-1: -N is negative"]);
/// # Ok::<(), cloudknot::Error>(())
/// ```
pub fn failure_lines(groups: &[FailureGroup], most: usize) -> Vec<String> {
    let shown = &groups[..groups.len().min(most)];
    let others: u64 = groups[shown.len()..].iter().map(|group| group.count).sum();
    let counts = shown.iter().map(|group| group.count).chain([others]);
    let width = counts.map(|count| number(count).len()).max().unwrap_or_default();
    let kinds = shown.iter().map(|group| group.kind.describe().len()).max().unwrap_or_default();
    let line = |group: &FailureGroup| {
        let message = group.shown_message().map(|message| format!(": {message}")).unwrap_or_default();
        let place = group.place.as_ref().map(|place| format!(", at {place}")).unwrap_or_default();
        let (count, kind) = (number(group.count), group.kind.describe());
        format!("{count:>width$}  {kind:<kinds$}  {}{message}{place}", items(group))
    };
    let mut lines: Vec<String> = shown.iter().map(line).collect();
    if others > 0 {
        let causes = groups.len() - shown.len();
        let plural = if causes == 1 { "" } else { "s" };
        lines.push(format!("{:>width$}  failed for {causes} other cause{plural}", number(others)));
    }
    lines
}

/// Returns the items of a group: the first ones, and the number of the others.
fn items(group: &FailureGroup) -> String {
    let name = |range: &RangeInclusive<u64>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let shown = &group.items[..group.items.len().min(SHOWN_RANGES)];
    let shown_count: u64 = shown.iter().map(|range| range.end() - range.start() + 1).sum();
    let plural = if group.count == 1 { "" } else { "s" };
    let names = shown.iter().map(name).collect::<Vec<_>>().join(", ");
    match group.count.saturating_sub(shown_count) {
        0 => format!("item{plural} {names}"),
        others => format!("item{plural} {names} and {} more", number(others)),
    }
}

/// Returns items, which are in order, as ranges.
pub(crate) fn ranges(items: impl IntoIterator<Item = u64>) -> Vec<RangeInclusive<u64>> {
    let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
    for item in items {
        match ranges.last_mut() {
            Some(range) if range.end() + 1 == item => *range = *range.start()..=item,
            _ => ranges.push(item..=item),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use cloudknot_runtime::failure::Failure;

    use super::*;

    fn panicked(message: &str) -> ItemError {
        let failure =
            Failure { location: Some("src/main.rs:41:9".into()), ..Failure::new(ItemErrorKind::Panicked, message) };
        ItemError::new(failure, 1)
    }

    fn out_of_memory() -> ItemError {
        ItemError::new(Failure::new(ItemErrorKind::OutOfMemory, "it needed more than 4 GiB"), 1)
    }

    #[track_caller]
    fn check(failures: &[(u64, ItemError)], most: usize, expected: &[&str]) {
        let groups = group(failures.iter().map(|(item, error)| (*item, error)));
        assert_eq!(failure_lines(&groups, most), expected);
    }

    #[test]
    fn failures_of_one_cause_are_one_line() {
        check(&[], 5, &[]);
        check(&[(7, panicked("boom 7"))], 5, &["1  panicked  item 7: boom 7, at src/main.rs:41:9"]);
        let mut failures: Vec<_> =
            [999, 40, 41].map(|item| (item, panicked(&format!("the len is {item}, no more")))).into();
        failures.extend([17, 203, 204, 811, 820, 822, 824, 826, 828].map(|item| (item, out_of_memory())));
        check(
            &failures,
            5,
            &[
                "9  ran out of memory  items 17, 203-204, 811 and 5 more: it needed more than N GiB",
                "3  panicked           items 40-41, 999: the len is N, no more, at src/main.rs:41:9",
            ],
        );
    }

    #[test]
    fn small_groups_are_counted_together() {
        let mut failures: Vec<_> = (0..1_234).map(|item| (item, panicked("a"))).collect();
        failures.extend(["b", "c", "d"].into_iter().zip(2_000..).map(|(message, item)| (item, panicked(message))));
        check(
            &failures,
            2,
            &[
                "1,234  panicked  items 0-1233: a, at src/main.rs:41:9",
                "    1  panicked  item 2000: b, at src/main.rs:41:9",
                "    2  failed for 2 other causes",
            ],
        );
    }

    #[test]
    fn messages_are_cut() {
        let long = "x".repeat(MAX_MESSAGE_LEN + 1);
        let shown = format!("1  panicked  item 0: {}…, at src/main.rs:41:9", &long[1..]);
        check(&[(0, panicked(&long))], 5, &[&shown]);
        check(&[(0, panicked("first\nsecond"))], 5, &["1  panicked  item 0: first, at src/main.rs:41:9"]);
    }
}
