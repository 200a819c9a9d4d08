//! The index of a Knot's runs: empty objects, whose keys say what is needed to list runs. The folder of a run sorts by the time
//! of its submission, newest first.
//!
//! ```text
//! knots/<knot>/index/<inverted time>-<word>/submitted/<backend>.<items>.<upper half of the inputs' hash>/<function>[/<name>]
//! knots/<knot>/index/<inverted time>-<word>/round/<n>.<items>.<time>
//! knots/<knot>/index/<inverted time>-<word>/ended/<round>.<state>.<done>.<failed>.<time>
//! ```
//!
//! Times are milliseconds since 1970-01-01 UTC; `<inverted time>` is the date in the run's ID, subtracted from 99999999999999999.
//! Functions and names are encoded: any byte but ASCII letters, digits and `-` is `_` and two hexadecimal digits.
//!
//! The index is a hint: the record of a run is authoritative. It is written by programs that compute or follow a run, never by those
//! that only read.

use std::time::{Duration, SystemTime};

use super::RunKeys;
use super::keys::{from_one, segment};

/// Maximum length in bytes of the name of a run.
pub const MAX_NAME_LEN: usize = 64;
/// Letters of the word at the end of a run's ID.
pub const WORD_LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Length of the word at the end of a run's ID.
pub const WORD_LEN: usize = 6;
/// Maximum length in bytes of an encoded function or name in a key. A longer function is cut at its start.
const MAX_ENCODED_LEN: usize = 192;
/// Number of digits of the date in a run's ID.
const DATE_LEN: usize = 17;
const DATES: u64 = 100_000_000_000_000_000;

/// State of a run, as shown to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RunState {
    /// No item is running.
    Waiting,
    /// Items are running.
    Running,
    /// Every item has a value.
    Done,
    /// The run has ended, and some items have no value.
    Failed,
    /// The run was cancelled before it was done.
    Cancelled,
}

impl RunState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Running, Self::Done, Self::Failed, Self::Cancelled];

    /// Returns the name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns the state with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Returns `true` if no more outcomes will come.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// Entry of a run in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexEntry {
    /// The run was submitted.
    Submitted {
        /// Name of the backend.
        backend: String,
        /// Number of items.
        items: u64,
        /// Upper half of the hash of the inputs, if it was recorded.
        inputs: Option<u64>,
        /// ID of the function. A very long one begins with `…`.
        function: String,
        /// Name that the user gave the run.
        name: Option<String>,
    },
    /// A round after the first was recorded.
    Round {
        /// Number of the round, from 2.
        round: u32,
        /// Number of scheduled items.
        items: u64,
        /// Time of its record, in milliseconds since 1970-01-01 UTC.
        at_ms: u64,
    },
    /// A round ended.
    Ended {
        /// Number of the round, from 1.
        round: u32,
        /// State of the run.
        state: RunState,
        /// Number of the run's items that have a value.
        done: u64,
        /// Number of the run's items whose last attempt failed.
        failed: u64,
        /// Time of the end, in milliseconds since 1970-01-01 UTC.
        at_ms: u64,
    },
}

/// Checks a name that a user gives a run. On the command line, a run is chosen by its name, by `last` or `last-1`, or by the
/// beginning of its ID or of the word at its end, so a name must not look like one of these.
///
/// # Errors
/// Returns what the name must be.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_last = name == "last" || name.strip_prefix("last-").is_some_and(is_number);
    let is_of_word = |byte: u8| WORD_LETTERS.contains(&byte);
    let is_like_word =
        name.len() == WORD_LEN && name.bytes().all(is_of_word) && name.bytes().any(|byte| byte.is_ascii_digit());
    let is_like_id = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') || date_and_word(name).is_some();
    if name.is_empty() || name.len() > MAX_NAME_LEN {
        Err("must have 1 to 64 bytes")
    } else if name.trim() != name || name.chars().any(char::is_control) {
        Err("must have no control characters, and no spaces at its ends")
    } else if is_last {
        Err("must not be `last`, which is the last run")
    } else if is_like_id {
        Err("must not look like the ID of a run: begin it with a word")
    } else if is_like_word {
        Err("must not look like the word at the end of a run's ID: add a space or `-`, as in `sweep-2`")
    } else {
        Ok(())
    }
}

/// Returns the prefix of the index of a Knot.
pub fn index(knot: &str) -> String {
    format!("{}{}/index/", RunKeys::KNOTS, segment(knot))
}

/// Returns the prefix of the entries of all runs that were submitted this number of months before the month of the time.
pub fn index_of_month(knot: &str, time: SystemTime, before: u32) -> String {
    const MONTHS: u64 = 999_999;
    let date = humantime::format_rfc3339_seconds(time).to_string();
    let number = |digits: &str| digits.parse::<u64>().expect("a time begins with its year and month");
    let months = (12 * number(&date[..4]) + number(&date[5..7]) - 1).saturating_sub(before.into());
    format!("{}{:06}", index(knot), MONTHS - (months / 12 * 100 + months % 12 + 1))
}

/// Returns the prefix of a run's entries in the index of its Knot. Returns `None` if its ID does not have the form that a host
/// gives: `20261128-101530123-k5vzdk`.
pub fn index_of(knot: &str, run: &str) -> Option<String> {
    let (date, word) = date_and_word(run)?;
    Some(format!("{}{:017}-{word}/", index(knot), DATES - 1 - date))
}

/// Returns the key of an entry of a run in the index of its Knot; `None` as for [`index_of`].
pub fn index_key(knot: &str, run: &str, entry: &IndexEntry) -> Option<String> {
    let name = match entry {
        IndexEntry::Submitted { backend, items, inputs, function, name } => {
            let name = name.as_ref().map(|name| format!("/{}", encode(name))).unwrap_or_default();
            let inputs = inputs.map(|inputs| format!(".{inputs:016x}")).unwrap_or_default();
            format!("submitted/{backend}.{items}{inputs}/{}{name}", shortened(&encode(function)))
        }
        IndexEntry::Round { round, items, at_ms } => format!("round/{round:04}.{items}.{at_ms}"),
        IndexEntry::Ended { round, state, done, failed, at_ms } => {
            format!("ended/{round:04}.{}.{done}.{failed}.{at_ms}", state.name())
        }
    };
    Some(index_of(knot, run)? + &name)
}

/// Parses a key in the index of a Knot: the ID of the run, and the entry. Returns `None` for any other key.
pub fn index_entry(key: &str) -> Option<(String, IndexEntry)> {
    let (_, key) = key.split_once("/index/")?;
    let (folder, key) = key.split_once('/')?;
    let run = run_of(folder)?;
    let (kind, rest) = key.split_once('/')?;
    let entry = match kind {
        "submitted" => submitted(rest)?,
        "round" => {
            let [round, items, at_ms] = split(rest)?;
            IndexEntry::Round { round: from_one(round)?, items: items.parse().ok()?, at_ms: at_ms.parse().ok()? }
        }
        "ended" => {
            let [round, state, done, failed, at_ms] = split(rest)?;
            IndexEntry::Ended {
                round: from_one(round)?,
                state: RunState::parse(state)?,
                done: done.parse().ok()?,
                failed: failed.parse().ok()?,
                at_ms: at_ms.parse().ok()?,
            }
        }
        _ => return None,
    };
    Some((run, entry))
}

fn submitted(rest: &str) -> Option<IndexEntry> {
    let mut segments = rest.split('/');
    let fields: Vec<&str> = segments.next()?.split('.').collect();
    let (backend, items, inputs) = match fields[..] {
        [backend, items] => (backend, items, None),
        [backend, items, inputs] => (backend, items, Some(hash_half(inputs)?)),
        _ => return None,
    };
    let function = segments.next()?;
    let name = segments.next();
    if segments.next().is_some() {
        return None;
    }
    let function = match function.strip_prefix("__") {
        Some(end) => format!("…{}", decode(end)?),
        None => decode(function)?,
    };
    let name = name.map(|name| decode(name).ok_or(())).transpose().ok()?;
    Some(IndexEntry::Submitted { backend: backend.to_owned(), items: items.parse().ok()?, inputs, function, name })
}

/// Parses the 16 hexadecimal digits of half a hash.
fn hash_half(digits: &str) -> Option<u64> {
    let half = u64::from_str_radix(digits, 16).ok()?;
    (format!("{half:016x}") == digits).then_some(half)
}

/// Splits a name at its dots into this number of fields.
fn split<const N: usize>(name: &str) -> Option<[&str; N]> {
    name.split('.').collect::<Vec<_>>().try_into().ok()
}

/// Returns the ID of the run whose folder in the index has this name.
fn run_of(folder: &str) -> Option<String> {
    let (inverted, word) = folder.split_once('-')?;
    if inverted.len() != DATE_LEN || !is_word(word) || !inverted.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let date = format!("{:017}", DATES - 1 - inverted.parse::<u64>().ok()?);
    Some(format!("{}-{}-{word}", &date[..8], &date[8..]))
}

/// Returns the time at which a run was submitted, according to its ID.
pub fn submitted_at(run: &str) -> Option<SystemTime> {
    let (date, _) = date_and_word(run)?;
    let date = format!("{date:017}");
    let at = |from: usize, to: usize| &date[from..to];
    let text =
        format!("{}-{}-{}T{}:{}:{}.{}Z", at(0, 4), at(4, 6), at(6, 8), at(8, 10), at(10, 12), at(12, 14), at(14, 17));
    humantime::parse_rfc3339(&text).ok()
}

/// Returns the random word at the end of a run's ID, by which people name the run; all of an ID that has no such word.
pub fn word_of(run: &str) -> &str {
    date_and_word(run).map_or(run, |(_, word)| word)
}

fn date_and_word(run: &str) -> Option<(u64, &str)> {
    let mut fields = run.split('-');
    let (day, time, word) = (fields.next()?, fields.next()?, fields.next()?);
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if day.len() != 8
        || time.len() != 9
        || !is_number(day)
        || !is_number(time)
        || !is_word(word)
        || fields.next().is_some()
    {
        return None;
    }
    Some((format!("{day}{time}").parse().ok()?, word))
}

fn is_word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Returns the time in milliseconds since 1970-01-01 UTC.
pub fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn encode(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("_{byte:02x}") })
        .collect()
}

/// Cuts the start of an encoded text that is too long for a key; `__` stands for it.
fn shortened(encoded: &str) -> String {
    if encoded.len() <= MAX_ENCODED_LEN {
        return encoded.to_owned();
    }
    // Cut where a character begins that is not encoded, so that the rest can be decoded.
    let end = &encoded[encoded.len() - MAX_ENCODED_LEN..];
    let starts = end.char_indices().map(|(at, _)| at);
    let is_decodable = |at: &usize| decode(&end[*at..]).is_some();
    let at = starts.into_iter().find(is_decodable).unwrap_or(end.len());
    format!("__{}", &end[at..])
}

fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'_' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "20261128-101530123-k5vzdk";

    #[track_caller]
    fn check(entry: &IndexEntry, name: &str) {
        let key = index_key("sweep", RUN, entry).unwrap();
        assert_eq!(key, format!("knots/sweep/index/79738871898469876-k5vzdk/{name}"));
        assert_eq!(index_entry(&key), Some((RUN.to_owned(), entry.clone())));
    }

    #[test]
    fn entries_round_trip() {
        let submitted = |name: Option<&str>| IndexEntry::Submitted {
            backend: "batch".into(),
            items: 4096,
            inputs: None,
            function: "lab:lab::align".into(),
            name: name.map(Into::into),
        };
        let hash = "00112233445566ab";
        let hashed = IndexEntry::Submitted {
            backend: "local".into(),
            items: 7,
            inputs: Some(0x0011_2233_4455_66ab),
            function: "f".into(),
            name: None,
        };
        check(&hashed, &format!("submitted/local.7.{hash}/f"));
        check(&submitted(None), "submitted/batch.4096/lab_3alab_3a_3aalign");
        check(&submitted(Some("größe 3")), "submitted/batch.4096/lab_3alab_3a_3aalign/gr_c3_b6_c3_9fe_203");
        check(&IndexEntry::Round { round: 2, items: 12, at_ms: 1_795_000_000_000 }, "round/0002.12.1795000000000");
        let ended = IndexEntry::Ended { round: 1, state: RunState::Failed, done: 4084, failed: 12, at_ms: 7 };
        check(&ended, "ended/0001.failed.4084.12.7");
    }

    #[test]
    fn newer_runs_come_first() {
        let prefix = |run: &str| index_of("k", run).unwrap();
        assert!(prefix("20261128-101530124-aaaaaa") < prefix("20261128-101530123-zzzzzz"));
        assert!(prefix("20270101-000000000-aaaaaa") < prefix("20261231-235959999-aaaaaa"));
    }

    #[test]
    fn runs_of_a_month_have_a_prefix() {
        let check = |time: &str, before: u32, run: &str, expected: bool| {
            let month = index_of_month("k", humantime::parse_rfc3339(time).unwrap(), before);
            assert_eq!(index_of("k", run).unwrap().starts_with(&month), expected, "{run}, {before} before {time}");
        };
        let (january, december) = ("20270103-000000000-aaaaaa", "20261231-235959999-aaaaaa");
        check("2027-01-31T12:00:00Z", 0, january, true);
        check("2027-01-31T12:00:00Z", 0, december, false);
        check("2027-01-31T12:00:00Z", 1, december, true);
        check("2027-12-01T00:00:00Z", 11, january, true);
        check("2027-12-01T00:00:00Z", 12, december, true);
        check("2027-12-01T00:00:00Z", 13, december, false);
    }

    #[test]
    fn long_functions_are_cut_at_the_start() {
        for module in ["m".repeat(300), "größe::".repeat(60)] {
            let function = format!("p:{module}::align");
            let entry = IndexEntry::Submitted {
                backend: "local".into(),
                items: 1,
                inputs: Some(u64::MAX),
                function,
                name: Some("x".repeat(MAX_NAME_LEN)),
            };
            let key = index_key("k", RUN, &entry).unwrap();
            assert!(key.len() < 900 && key.split('/').all(|segment| segment.len() <= 255), "{key}");
            let Some((_, IndexEntry::Submitted { function, .. })) = index_entry(&key) else { panic!("{key}") };
            assert!(function.starts_with('…') && function.ends_with("::align"), "{function}");
        }
    }

    #[test]
    fn keys_of_another_form_are_passed_over() {
        let folder = "knots/k/index/79738871898469876-k5vzdk";
        for key in [
            "knots/k/runs/r/manifest.json",
            "knots/k/index/1-k5vzdk/ended/0001.done.1.0.7",
            &format!("{folder}/ended/0001.dead.1.0.7"),
            &format!("{folder}/ended/0000.done.1.0.7"),
            &format!("{folder}/ended/0001.done.1.0"),
            &format!("{folder}/submitted/local.x/f"),
            &format!("{folder}/submitted/local.1.0a/f"),
            &format!("{folder}/submitted/local.1/_f"),
            &format!("{folder}/submitted/local.1/f/n/m"),
            &format!("{folder}/other/1"),
            &format!("{folder}/round/0002.1"),
        ] {
            assert_eq!(index_entry(key), None, "{key}");
        }
        assert_eq!(index_of("k", "r"), None);
        assert_eq!(index_of("k", "20261128-101530123-k5v-x"), None);
    }

    #[test]
    fn names_cannot_be_taken_for_other_ways_to_choose_a_run() {
        for name in [
            "sweep 3",
            "sweep-3",
            "größe",
            "lastly",
            "last-run",
            "last 1",
            "trendy",
            "2026-11 test",
            "3.5",
            &"x".repeat(64),
        ] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        let check = |name: &str, must: &str| {
            assert!(check_name(name).is_err_and(|why| why.contains(must)), "{name}: {:?}", check_name(name));
        };
        for name in ["", &"x".repeat(65), &"ß".repeat(33)] {
            check(name, "1 to 64 bytes");
        }
        for name in ["a\nb", "\u{1b}[31m", " sweep", "sweep ", "a\u{85}b"] {
            check(name, "control characters");
        }
        for name in ["last", "last-1", "last-"] {
            check(name, "the last run");
        }
        for name in ["2", "20261128", "20261128-10", RUN, "-"] {
            check(name, "the ID of a run");
        }
        for name in ["k5vzdk", "sweep2", "000abc"] {
            check(name, "the word at the end");
        }
    }

    #[test]
    fn id_says_when_the_run_was_submitted() {
        let at = submitted_at(RUN).unwrap();
        assert_eq!(humantime::format_rfc3339_millis(at).to_string(), "2026-11-28T10:15:30.123Z");
        assert_eq!((word_of(RUN), word_of("r")), ("k5vzdk", "r"));
        assert_eq!((submitted_at("r"), submitted_at("20261328-101530123-k5vzdk")), (None, None));
        assert_eq!(unix_ms(at), 1_795_860_930_123);
    }
}
