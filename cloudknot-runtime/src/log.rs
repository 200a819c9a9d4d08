//! The output of items: which lines belong to which item, on the way from an item process to the user.
//!
//! An item process writes a marker into its log before each item. Its supervisor removes the markers, and so knows which attempt
//! printed each line. A worker puts the item and the attempt in front of each line of its own log, where others find them.

use std::fmt;

/// Maximum number of bytes of an item's output that are kept for its error.
pub const LOG_TAIL: usize = 16 * 1024;
/// Length in bytes from which a line is split.
pub const MAX_LINE_LEN: usize = 16 * 1024;

/// Output of one attempt of an item, in whole lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    /// The attempt; `None` for output before the first item of a process, such as that of init functions.
    pub source: Option<Source>,
    /// Lines, each with its line break.
    pub text: Vec<u8>,
}

/// Attempt of an item that printed a line. Its text form is the prefix of a line: `[item 17, attempt 1]`.
///
/// ```
/// # use cloudknot_runtime::log::Source;
/// let source = Source { item: 17, attempt: 1 };
/// assert_eq!(source.to_string(), "[item 17, attempt 1]");
/// assert_eq!(Source::parse("[item 17, attempt 1] reading 17.fastq"), Some((source, "reading 17.fastq")));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    /// Index of the item.
    pub item: u64,
    /// Number of the attempt in its round, from 1.
    pub attempt: u32,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[item {}, attempt {}]", self.item, self.attempt)
    }
}

impl Source {
    /// Parses the prefix of a line. Returns the source and the rest of the line.
    pub fn parse(line: &str) -> Option<(Self, &str)> {
        let (item, rest) = line.strip_prefix("[item ")?.split_once(", attempt ")?;
        let (attempt, rest) = rest.split_once(']')?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(item) || !is_number(attempt) {
            return None;
        }
        let source = Self { item: item.parse().ok()?, attempt: attempt.parse().ok()? };
        Some((source, rest.strip_prefix(' ').unwrap_or(rest)))
    }
}

impl Printed {
    /// Returns the lines without their line breaks. Longer ones are split.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.text.split_inclusive(|&byte| byte == b'\n');
        lines.map(|line| line.strip_suffix(b"\n").unwrap_or(line)).flat_map(pieces)
    }

    /// Returns the lines with their source in front of each.
    pub fn with_prefixes(&self) -> Vec<u8> {
        let Some(source) = self.source else { return self.text.clone() };
        let mut lines = Vec::with_capacity(self.text.len() + 32);
        for line in self.lines() {
            lines.extend_from_slice(format!("{source} ").as_bytes());
            lines.extend_from_slice(line);
            lines.push(b'\n');
        }
        lines
    }
}

/// Splits a line into pieces of at most [`MAX_LINE_LEN`] bytes, between characters. An empty line is one piece.
fn pieces(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest.take()?;
        if line.len() <= MAX_LINE_LEN {
            return Some(line);
        }
        // A byte within a character of UTF-8 begins with the bits 10.
        let is_start = |at: &usize| line[*at] & 0xc0 != 0x80;
        let at = (MAX_LINE_LEN - 3..=MAX_LINE_LEN).rev().find(is_start).unwrap_or(MAX_LINE_LEN);
        rest = Some(&line[at..]);
        Some(&line[..at])
    })
}

/// Reads the log of a worker, whose lines have prefixes.
#[derive(Debug, Default)]
pub struct PrefixedLines {
    line: Vec<u8>,
}

impl PrefixedLines {
    /// Reads more of the log. Returns its whole lines.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Printed> {
        let mut printed = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() > 2 * MAX_LINE_LEN {
                self.end(&mut printed);
            }
        }
        printed
    }

    /// Ends the log, whose last line may have no line break.
    pub fn end(&mut self, printed: &mut Vec<Printed>) {
        let mut line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return;
        }
        // A prefix is ASCII and ends before the text, which need not be UTF-8.
        let head = line.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let source = Source::parse(head).map(|(source, rest)| (source, head.len() - rest.len()));
        if let Some((_, len)) = source {
            line.drain(..len);
        }
        let source = source.map(|(source, _)| source);
        match printed.last_mut() {
            Some(last) if last.source == source => last.text.extend(line),
            _ => printed.push(Printed { source, text: line }),
        }
    }
}

/// Marker that an item process writes into its log. No output contains it, because it contains a random number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker([u8; NONCE_LEN]);

const NONCE_LEN: usize = 16;
/// First byte of a marker: the record separator, which is rare in text.
const FIRST: u8 = 0x1e;
const MARKER_LEN: usize = 1 + NONCE_LEN + 8;

impl Marker {
    /// Creates a marker with this random number.
    pub fn new(nonce: u128) -> Self {
        Self(nonce.to_le_bytes())
    }

    /// Returns the bytes that precede the output of an item.
    pub fn before(self, item: u64) -> [u8; MARKER_LEN] {
        let mut bytes = [FIRST; MARKER_LEN];
        bytes[1..=NONCE_LEN].copy_from_slice(&self.0);
        bytes[1 + NONCE_LEN..].copy_from_slice(&item.to_le_bytes());
        bytes
    }

    /// Returns the position of the first marker in these bytes, and its item. Without one, returns the number of bytes that cannot
    /// be the beginning of a marker.
    fn find(self, bytes: &[u8]) -> Result<(usize, u64), usize> {
        let mut from = 0;
        while let Some(at) = bytes[from..].iter().position(|&byte| byte == FIRST).map(|at| from + at) {
            let found = &bytes[at..];
            let nonce = &found[1..found.len().min(1 + NONCE_LEN)];
            if !self.0.starts_with(nonce) {
                from = at + 1;
                continue;
            }
            return match found.get(1 + NONCE_LEN..MARKER_LEN) {
                Some(item) => Ok((at, u64::from_le_bytes(item.try_into().expect("the range has eight bytes")))),
                None => Err(at),
            };
        }
        Err(bytes.len())
    }
}

/// Divides the output of an item process into the lines of its items.
#[derive(Debug)]
pub(crate) struct Splitter {
    marker: Marker,
    /// Bytes that may be the beginning of a marker.
    rest: Vec<u8>,
    /// Item that prints at the moment.
    current: Option<u64>,
    /// Incomplete last line of the output.
    line: Vec<u8>,
    /// The end of the output before the first item, and of each item whose answer has not been taken yet.
    tails: Vec<(Option<u64>, Vec<u8>)>,
}

/// Output of an item, or of a process before its first item.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ItemOutput {
    pub(crate) item: Option<u64>,
    pub(crate) text: Vec<u8>,
}

impl Splitter {
    pub(crate) fn new(marker: Marker) -> Self {
        Self { marker, rest: Vec::new(), current: None, line: Vec::new(), tails: vec![(None, Vec::new())] }
    }

    /// Divides output. Appends whole lines to `out`; an incomplete line is held back.
    pub(crate) fn push(&mut self, output: &[u8], out: &mut Vec<ItemOutput>) {
        let joined;
        let mut output = if self.rest.is_empty() {
            output
        } else {
            joined = [std::mem::take(&mut self.rest).as_slice(), output].concat();
            &joined
        };
        loop {
            match self.marker.find(output) {
                Ok((at, item)) => {
                    self.append(&output[..at], out);
                    self.end_line(out);
                    // What init functions print may explain the failure of the first item.
                    let start = match &mut self.tails[..] {
                        [(None, start)] if self.current.is_none() => std::mem::take(start),
                        _ => Vec::new(),
                    };
                    self.current = Some(item);
                    self.tails.push((Some(item), start));
                    output = &output[at + MARKER_LEN..];
                }
                Err(at) => {
                    self.append(&output[..at], out);
                    self.rest = output[at..].to_vec();
                    return;
                }
            }
        }
    }

    fn append(&mut self, text: &[u8], out: &mut Vec<ItemOutput>) {
        if text.is_empty() {
            return;
        }
        let (_, tail) = self.tails.last_mut().expect("there is a tail from the start");
        let kept = text.len().min(LOG_TAIL);
        tail.extend_from_slice(&text[text.len() - kept..]);
        let excess = tail.len().saturating_sub(LOG_TAIL);
        tail.drain(..excess);
        self.line.extend_from_slice(text);
        let whole = self.line.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        // A line without an end is not held back forever.
        let whole = if self.line.len() - whole > MAX_LINE_LEN { self.line.len() } else { whole };
        let incomplete = self.line.split_off(whole);
        let lines = std::mem::replace(&mut self.line, incomplete);
        self.emit(lines, out);
    }

    fn emit(&self, text: Vec<u8>, out: &mut Vec<ItemOutput>) {
        match out.last_mut() {
            _ if text.is_empty() => {}
            Some(last) if last.item == self.current => last.text.extend_from_slice(&text),
            _ => out.push(ItemOutput { item: self.current, text }),
        }
    }

    /// Ends the last line, so that the lines of several processes do not mix.
    fn end_line(&mut self, out: &mut Vec<ItemOutput>) {
        if !self.line.is_empty() {
            let mut line = std::mem::take(&mut self.line);
            line.push(b'\n');
            self.emit(line, out);
        }
    }

    /// Ends the last line if its item is over: it is none of those that were sent and not answered.
    pub(crate) fn end_line_unless(&mut self, is_running: impl FnOnce(u64) -> bool, out: &mut Vec<ItemOutput>) {
        if !self.current.is_some_and(is_running) {
            self.end_line(out);
        }
    }

    /// Ends the output, once the process has ended.
    pub(crate) fn end(&mut self, out: &mut Vec<ItemOutput>) {
        let rest = std::mem::take(&mut self.rest);
        self.append(&rest, out);
        self.end_line(out);
    }

    /// Returns the end of the output of an item; before its first item, that of the process.
    pub(crate) fn tail(&self, item: u64) -> String {
        let start = || self.tails.iter().find(|(of, _)| of.is_none());
        let of_item = self.tails.iter().rfind(|(of, _)| *of == Some(item));
        let is_before_items = self.tails.iter().all(|(of, _)| of.is_none());
        let tail = of_item.or_else(|| start().filter(|_| is_before_items));
        tail.map_or_else(String::new, |(_, tail)| String::from_utf8_lossy(tail).into_owned())
    }

    /// Forgets the ends of the output of items that are over.
    pub(crate) fn keep_tails(&mut self, is_running: impl Fn(u64) -> bool) {
        let last = self.tails.len() - 1;
        let mut position = 0;
        self.tails.retain(|(item, _)| {
            let keep = position == last || item.is_some_and(&is_running);
            position += 1;
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKER: Marker = Marker([7; NONCE_LEN]);

    fn texts(out: &[ItemOutput]) -> Vec<(Option<u64>, String)> {
        out.iter().map(|output| (output.item, String::from_utf8_lossy(&output.text).into_owned())).collect()
    }

    /// Sends the output in pieces of each length.
    #[track_caller]
    fn check(output: &[u8], expected: &[(Option<u64>, &str)]) {
        for length in 1..=output.len() {
            let mut splitter = Splitter::new(MARKER);
            let mut out = Vec::new();
            output.chunks(length).for_each(|piece| splitter.push(piece, &mut out));
            splitter.end(&mut out);
            let expected: Vec<_> = expected.iter().map(|(item, text)| (*item, (*text).to_owned())).collect();
            assert_eq!(texts(&out), expected, "pieces of {length} bytes");
        }
    }

    fn output(parts: &[(Option<u64>, &[u8])]) -> Vec<u8> {
        let part = |(item, text): &(Option<u64>, &[u8])| {
            let marker = item.map(|item| MARKER.before(item).to_vec()).unwrap_or_default();
            [marker, text.to_vec()].concat()
        };
        parts.iter().flat_map(part).collect()
    }

    #[test]
    fn lines_belong_to_their_items() {
        check(b"", &[]);
        check(b"banner\n", &[(None, "banner\n")]);
        let items = output(&[(None, b"start"), (Some(3), b"one\ntwo"), (Some(4), b""), (Some(u64::MAX), b"x\n")]);
        check(&items, &[(None, "start\n"), (Some(3), "one\ntwo\n"), (Some(u64::MAX), "x\n")]);
        let almost = output(&[(Some(1), b"\x1e\x07\x07 no marker \x1e\x1e"), (Some(2), b"\x1e")]);
        check(&almost, &[(Some(1), "\x1e\x07\x07 no marker \x1e\x1e\n"), (Some(2), "\x1e\n")]);
    }

    #[test]
    fn incomplete_line_is_held_back_until_its_item_is_over() {
        let mut splitter = Splitter::new(MARKER);
        let mut out = Vec::new();
        splitter.push(&output(&[(Some(1), b"one\nhal")]), &mut out);
        assert_eq!(texts(&out), [(Some(1), "one\n".to_owned())]);
        splitter.end_line_unless(|_| true, &mut out);
        assert_eq!(texts(&out), [(Some(1), "one\n".to_owned())]);
        splitter.end_line_unless(|item| item != 1, &mut out);
        assert_eq!(texts(&out), [(Some(1), "one\nhal\n".to_owned())]);
        splitter.push(&vec![b'x'; MAX_LINE_LEN + 1], &mut out);
        assert_eq!(out.last().map(|last| last.text.len()), Some(8 + MAX_LINE_LEN + 1), "a long line is not held back");
    }

    #[test]
    fn tails_are_those_of_their_items() {
        let mut splitter = Splitter::new(MARKER);
        let mut out = Vec::new();
        splitter.push(b"banner\n", &mut out);
        assert_eq!(splitter.tail(1), "banner\n", "the process ends before its first item");
        let long = vec![b'x'; 3 * LOG_TAIL];
        splitter.push(&output(&[(Some(1), b"one"), (Some(2), &long), (Some(3), b"three")]), &mut out);
        assert_eq!((splitter.tail(1), splitter.tail(3)), ("banner\none".to_owned(), "three".to_owned()));
        assert_eq!(splitter.tail(2).len(), LOG_TAIL);
        assert_eq!(splitter.tail(4), "");
        splitter.keep_tails(|item| item == 2);
        assert_eq!((splitter.tail(1).as_str(), splitter.tail(3).as_str()), ("", "three"));
        assert_eq!(splitter.tails.len(), 2);
    }

    #[test]
    fn long_lines_are_split_between_characters() {
        let text = format!("a{}\nb", "ü".repeat(MAX_LINE_LEN));
        let printed = Printed { source: None, text: text.clone().into_bytes() };
        let lines: Vec<&str> =
            printed.lines().map(|line| std::str::from_utf8(line).expect("whole characters")).collect();
        assert!(lines.len() == 4 && lines.iter().all(|line| line.len() <= MAX_LINE_LEN), "{}", lines.len());
        assert_eq!(lines.concat(), text.replace('\n', ""));
    }

    #[test]
    fn log_of_a_worker_is_read_back() {
        let printed = [
            Printed { source: None, text: b"banner\n".to_vec() },
            Printed { source: Some(Source { item: 3, attempt: 1 }), text: b"one \xff\n\n".to_vec() },
            Printed { source: Some(Source { item: 4, attempt: 2 }), text: b"x\n".to_vec() },
        ];
        let log: Vec<u8> = printed.iter().flat_map(Printed::with_prefixes).collect();
        for length in 1..=log.len() {
            let (mut lines, mut read) = (PrefixedLines::default(), Vec::<Printed>::new());
            for more in log.chunks(length).flat_map(|piece| lines.push(piece)) {
                match read.last_mut() {
                    Some(last) if last.source == more.source => last.text.extend(more.text),
                    _ => read.push(more),
                }
            }
            lines.end(&mut read);
            assert_eq!(read, printed, "pieces of {length} bytes");
        }
    }

    #[test]
    fn prefix_names_item_and_attempt() {
        let source = Source { item: 3, attempt: 2 };
        let printed = Printed { source: Some(source), text: b"a\n\nb".to_vec() };
        let text = String::from_utf8(printed.with_prefixes()).unwrap();
        assert_eq!(text, "[item 3, attempt 2] a\n[item 3, attempt 2] \n[item 3, attempt 2] b\n");
        assert_eq!(Source::parse("[item 3, attempt 2] "), Some((source, "")));
        for other in
            ["", "item 3", "[item , attempt 1] x", "[item 3, attempt +1] x", "[item 3] x", "[item 3, attempt 1"]
        {
            assert_eq!(Source::parse(other), None, "{other}");
        }
        let start = Printed { source: None, text: b"banner\n".to_vec() };
        assert_eq!(start.with_prefixes(), b"banner\n");
    }
}
