//! Subtitles as SRT files have them: cues with times and words, read with patience for what such files get wrong.

use strata_media::segments::Segment;

/// Cues that are read; the rest of a file is passed over.
const MAX_CUES: usize = 100_000;

/// What is said, and when, in milliseconds from the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cue {
    pub start_ms: u64,
    pub end_ms: u64,
    /// On one line, without marks of type.
    pub text: String,
}

/// The cues of an SRT or WebVTT text, in the order of their times. Numbers may be missing, lines may end in any way, blank
/// lines may lie within a cue; what is no cue is passed over. Empty where there is none.
pub fn parse(text: &str) -> Vec<Cue> {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = text.split('\n').map(str::trim).collect();
    let times: Vec<(usize, (u64, u64))> =
        (0..lines.len()).filter_map(|at| Some((at, span(lines[at])?))).take(MAX_CUES).collect();
    let mut cues: Vec<Cue> = Vec::with_capacity(times.len());
    for (place, (at, (start_ms, end_ms))) in times.iter().enumerate() {
        let next = times.get(place + 1).map_or(lines.len(), |(next, _)| number_before(&lines, *next, at + 1));
        let words: Vec<String> = lines[at + 1..next].iter().map(|line| plain(line)).collect();
        let text = words.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        if !text.is_empty() && end_ms > start_ms {
            cues.push(Cue { start_ms: *start_ms, end_ms: *end_ms, text });
        }
    }
    cues.sort_by_key(|cue| (cue.start_ms, cue.end_ms));
    cues
}

/// Where the words before the times at `at` end: before its number, if it has one, which stands below a blank line.
fn number_before(lines: &[&str], at: usize, first: usize) -> usize {
    let is_number = |line: &str| !line.is_empty() && line.len() <= 9 && line.bytes().all(|b| b.is_ascii_digit());
    let has_number = at > first && is_number(lines[at - 1]) && (at - 1 == first || lines[at - 2].is_empty());
    if has_number { at - 1 } else { at }
}

/// `00:00:01,000 --> 00:00:02,500`, with whatever stands behind.
fn span(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_once("-->")?;
    Some((time(start.trim())?, time(end.split_whitespace().next()?)?))
}

/// Hours may be missing; before the thousandths stands a comma or a full stop, or nothing.
fn time(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once([',', '.']).unwrap_or((text, ""));
    let mut seconds = 0u64;
    let parts: Vec<&str> = whole.split(':').collect();
    if !(2..=3).contains(&parts.len()) {
        return None;
    }
    for part in parts {
        let part = part.trim();
        if part.is_empty() || part.len() > 4 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        seconds = seconds * 60 + part.parse::<u64>().ok()?;
    }
    let digits: String = fraction.chars().take_while(char::is_ascii_digit).take(3).collect();
    Some(seconds * 1000 + format!("{digits:0<3}").parse::<u64>().ok()?)
}

/// A line without `<i>`, `{\an8}` and the like.
fn plain(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(['<', '{']) {
        let (before, mark) = rest.split_at(at);
        plain.push_str(before);
        let end = if mark.starts_with('<') { '>' } else { '}' };
        let is_mark = match mark.as_bytes().get(1) {
            Some(b'/') => true,
            Some(b'\\') => mark.starts_with('{'),
            Some(byte) => mark.starts_with('<') && byte.is_ascii_alphabetic(),
            None => false,
        };
        match mark.find(end).filter(|_| is_mark) {
            Some(close) => rest = &mark[close + 1..],
            None => {
                plain.push_str(&mark[..1]);
                rest = &mark[1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// What is said in a segment: the cues whose middle lies in it. A cue that says what the one before it said, as rolling
/// subtitles do, counts once.
pub fn within(cues: &[Cue], segment: &Segment) -> String {
    let mut said: Vec<&str> = Vec::new();
    for cue in cues {
        let middle = cue.start_ms.midpoint(cue.end_ms);
        let is_within = (segment.start_ms..segment.end_ms).contains(&middle);
        if is_within && said.last() != Some(&cue.text.as_str()) {
            said.push(&cue.text);
        }
    }
    said.join(" ")
}

/// Times between cues at which segments of `start_ms..end_ms` may end: as late as `max_ms` lets each, and not before it has
/// `min_ms`. Where cues leave no such time, none is told.
pub fn ends(cues: &[Cue], (start_ms, end_ms): (u64, u64), min_ms: u64, max_ms: u64) -> Vec<u64> {
    let mut gaps: Vec<u64> = Vec::new();
    let mut until_ms = 0;
    for cue in cues {
        // Where cues overlap there is no time between them.
        if until_ms > 0 && cue.start_ms >= until_ms {
            gaps.push(until_ms.midpoint(cue.start_ms));
        }
        until_ms = until_ms.max(cue.end_ms);
    }
    gaps.retain(|gap| *gap > start_ms && *gap < end_ms);
    let mut ends: Vec<u64> = Vec::new();
    let (mut from_ms, min_ms) = (start_ms, min_ms.max(1));
    while end_ms - from_ms > max_ms {
        let last = gaps.partition_point(|gap| *gap <= from_ms + max_ms);
        match last.checked_sub(1).map(|at| gaps[at]).filter(|gap| *gap >= from_ms + min_ms) {
            Some(gap) => {
                ends.push(gap);
                from_ms = gap;
            }
            // A cue is longer than a segment may be: from its end on.
            None => match gaps.get(last) {
                Some(gap) => {
                    ends.push(*gap);
                    from_ms = *gap;
                }
                None => break,
            },
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cue(start_ms: u64, end_ms: u64, text: &str) -> Cue {
        Cue { start_ms, end_ms, text: text.to_owned() }
    }

    #[test]
    fn cues_are_read_whatever_their_file_gets_wrong() {
        let text = "\u{feff}1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>Hello</i>\r\nthere &\r\n\r\n\
                    00:00:03.5 --> 00:00:04.75 align:start\r\n{\\an8}No number, 3 < 4\r\n\r\nand a {blank} line.\r\n\r\n\
                    7\r\n01:02,000-->01:03,000\r\n42\r\n\r\n\
                    8\r\n00:00:09,000 --> 00:00:08,000\r\nbackwards\r\n\r\n9\r\n00:00:10,000 --> 00:00:11,000\r\n\r\n";
        let expected = [
            cue(1000, 2500, "Hello there &"),
            cue(3500, 4750, "No number, 3 < 4 and a {blank} line."),
            cue(62_000, 63_000, "42"),
        ];
        assert_eq!(parse(text), expected);
        assert_eq!(parse("WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>Hi <b>you</b>"), [cue(1000, 2000, "Hi you")]);
        assert_eq!(parse("1\r00:00:01,0 --> 00:00:02,0\rold\r"), [cue(1000, 2000, "old")]);
    }

    #[test]
    fn cues_that_overlap_or_lie_wildly_are_put_in_order() {
        let text = "2\n00:00:05,000 --> 00:00:09,000\nb\n\n1\n00:00:01,000 --> 00:00:06,000\na\n\n\
                    3\n99:99:99,999 --> 9999:00:00,000\nfar\n";
        let found: Vec<String> = parse(text).into_iter().map(|cue| cue.text).collect();
        assert_eq!(found, ["a", "b", "far"]);
    }

    #[test]
    fn what_is_no_subtitle_has_no_cues() {
        for text in ["", "\u{feff}", "fn a() -> b {}", "a --> b", "1:2 --> x", "00:00:01 --> 00:00:02", "1\n\n2\n-->\n"]
        {
            assert_eq!(parse(text), [], "{text}");
        }
    }

    #[test]
    fn a_cue_is_said_where_its_middle_lies() {
        let cues = [cue(0, 1000, "a"), cue(900, 1200, "b"), cue(1000, 1600, "b"), cue(1500, 3000, "c")];
        let said = |start_ms, end_ms| within(&cues, &Segment { start_ms, end_ms });
        assert_eq!(said(0, 1100), "a b");
        assert_eq!(said(0, 2000), "a b");
        assert_eq!(said(2000, 3000), "c");
    }

    #[test]
    fn segments_end_between_cues() {
        let cues: Vec<Cue> = (0..10).map(|n| cue(n * 10_000, n * 10_000 + 8000, "x")).collect();
        assert_eq!(ends(&cues, (0, 98_000), 10_000, 35_000), [29_000, 59_000, 89_000]);
        assert!(ends(&cues, (0, 30_000), 10_000, 35_000).is_empty());
        assert_eq!(ends(&cues, (50_000, 98_000), 10_000, 35_000), [79_000]);
        let long = [cue(0, 60_000, "long"), cue(61_000, 62_000, "short")];
        assert_eq!(ends(&long, (0, 70_000), 5000, 20_000), [60_500]);
        assert!(ends(&[], (0, 70_000), 5000, 20_000).is_empty());
    }
}
