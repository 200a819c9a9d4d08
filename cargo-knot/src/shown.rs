//! Text and JSON of runs: numbers, times, names, and the JSON object of a run.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Datelike as _, Local, TimeDelta};
pub(crate) use cloudknot::__private::{number, word_of};
use cloudknot::ItemError;
use cloudknot::look::{RoundSummary, Summary};
use serde_json::{Value, json};

/// Returns a number with the noun for it.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// Returns a duration in its two largest units.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration < Duration::from_millis(1) => format!("{} µs", duration.as_micros()),
        0 => format!("{} ms", duration.as_millis()),
        1..60 if seconds < 10 => format!("{:.1} s", duration.as_secs_f64()),
        1..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

fn two(large: u64, unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{large} {unit}") } else { format!("{large} {unit} {small} {small_unit}") }
}

/// Returns a size in the largest binary unit that fits.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some((unit, name)) = units.into_iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes} bytes");
    };
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    if tenths >= 1_000 { format!("{} {name}", tenths / 10) } else { format!("{}.{} {name}", tenths / 10, tenths % 10) }
}

/// Returns a time in the local time zone, as a person would name it.
pub(crate) fn when(time: SystemTime) -> String {
    when_at(time.into(), Local::now())
}

/// Returns the time of day in the local time zone.
pub(crate) fn now() -> String {
    Local::now().format("%H:%M:%S").to_string()
}

fn when_at(time: DateTime<Local>, now: DateTime<Local>) -> String {
    let days = (now.date_naive() - time.date_naive()).num_days();
    match days {
        0 => time.format("today %H:%M").to_string(),
        1 => time.format("yesterday %H:%M").to_string(),
        _ if time.year() == now.year() || (now - time).abs() < TimeDelta::days(180) => {
            time.format("%e %b %H:%M").to_string().trim_start().to_owned()
        }
        _ => time.format("%Y-%m-%d").to_string(),
    }
}

/// Returns the last part of a function's path.
pub(crate) fn function_name(summary: &Summary) -> &str {
    summary.function.as_deref().map_or("-", |id| id.rsplit([':', '…']).next().unwrap_or(id))
}

/// Returns the place of a run, in few words.
pub(crate) fn place(summary: &Summary) -> String {
    match summary.backend.as_deref() {
        Some("batch") => format!("batch {}", summary.knot),
        Some(backend) => backend.to_owned(),
        None => summary.region.as_ref().map_or_else(|| "local".to_owned(), |_| format!("batch {}", summary.knot)),
    }
}

/// Returns the state of a run; the words for one whose record cannot be read.
pub(crate) fn state(summary: &Summary) -> &'static str {
    summary.state.map_or("unreadable", cloudknot::look::RunState::name)
}

/// Returns the JSON of an item's error.
pub(crate) fn error_json(error: &ItemError) -> Value {
    json!({
        "kind": error.kind().name(),
        "message": error.message(),
        "causes": error.chain(),
        "place": error.location(),
        "attempt": error.attempt(),
    })
}

/// Returns the JSON of a run.
pub(crate) fn run_json(summary: &Summary) -> Value {
    let items = &summary.items;
    let round = |round: &RoundSummary| json!({"started": round.started.map(rfc3339), "items": round.items, "seconds": round.duration.map(|time| time.as_secs_f64())});
    json!({
        "run": summary.run,
        "word": summary.word,
        "name": summary.name,
        "function": summary.function,
        "backend": summary.backend,
        "knot": summary.knot,
        "region": summary.region,
        "submitted": summary.submitted.map(rfc3339),
        "ended": summary.ended.map(rfc3339),
        "state": summary.state.map(cloudknot::look::RunState::name),
        "items": {
            "all": items.items,
            "succeeded": items.succeeded,
            "failed": items.failed,
            "running": items.running,
            "waiting": items.waiting,
            "unfinished": items.unfinished,
        },
        "rounds": summary.rounds.iter().map(round).collect::<Vec<_>>(),
        "seconds": summary.duration().map(|duration| duration.as_secs_f64()),
        "cost": null,
        "problem": summary.problem,
    })
}

/// Returns a time in UTC, as programs read it.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;

    use super::*;

    #[test]
    fn numbers_have_separators() {
        for (given, shown) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(given), shown);
        }
    }

    #[test]
    fn durations_have_two_units() {
        for (millis, shown) in [
            (0, "0 µs"),
            (120, "120 ms"),
            (1_250, "1.2 s"),
            (31_000, "31 s"),
            (240_000, "4 min"),
            (250_000, "4 min 10 s"),
            (7_500_000, "2 h 5 min"),
            (200_000_000, "2 d 7 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), shown);
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, shown) in
            [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (700 << 20, "700 MiB")]
        {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn times_are_named_by_their_day() {
        let at = |day: u32, hour: u32| Local.with_ymd_and_hms(2026, 11, day, hour, 15, 0).unwrap();
        let now = at(28, 12);
        assert_eq!(when_at(at(28, 10), now), "today 10:15");
        assert_eq!(when_at(at(27, 23), now), "yesterday 23:15");
        assert_eq!(when_at(at(3, 9), now), "3 Nov 09:15");
        assert_eq!(when_at(now - TimeDelta::days(400), now), "2025-10-24");
        assert_eq!(when_at(at(29, 9), now), "29 Nov 09:15", "the clock of another machine may be ahead");
    }
}
