//! Where a recording is cut into segments. Pure: what is known of it comes in as numbers.

use crate::{
    ffmpeg::{SceneCut, Silence},
    limits::MAX_SEGMENTS,
};
use serde::{Deserialize, Serialize};
use strata_model::{Error, Result};

/// What decides where segments end.
#[derive(Debug, Clone, PartialEq)]
pub enum SplitBy<'a> {
    /// Every so many milliseconds.
    Time { interval_ms: u64 },
    /// Changes of scene.
    Scenes(&'a [SceneCut]),
    /// The middles of pauses.
    Silences(&'a [Silence]),
}

/// A part of a recording in milliseconds; the end is the next one's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    pub start_ms: u64,
    pub end_ms: u64,
}

/// Segments that cover all of a recording of `duration_ms` without a gap. None is longer than `max_ms`: a longer one is cut
/// into equal parts. None is shorter than `min_ms` where it can be joined with the one before it.
/// [`Error::Invalid`] for an interval or a maximum of 0, or more than 100,000 segments.
pub fn plan(duration_ms: u64, by: &SplitBy, min_ms: u64, max_ms: u64) -> Result<Vec<Segment>> {
    if max_ms == 0 || max_ms < min_ms {
        return Err(Error::invalid("max_segment_duration", "must be above 0 and not below the minimum"));
    }
    if let SplitBy::Time { interval_ms: 0 } = by {
        return Err(Error::invalid("interval", "must be above 0"));
    }
    let step_ms = match by {
        SplitBy::Time { interval_ms } => (*interval_ms).min(max_ms),
        SplitBy::Scenes(_) | SplitBy::Silences(_) => max_ms,
    };
    if duration_ms / step_ms > MAX_SEGMENTS as u64 {
        let message = format!("{duration_ms} ms would be more than {MAX_SEGMENTS} segments");
        return Err(Error::invalid("interval", message));
    }
    let mut ends = ends(duration_ms, by);
    ends.retain(|end| *end > 0 && *end < duration_ms);
    ends.sort_unstable();
    ends.push(duration_ms);
    let mut segments: Vec<Segment> = Vec::new();
    let mut start_ms = 0;
    for end_ms in ends {
        let is_last = end_ms == duration_ms;
        if end_ms - start_ms < min_ms && !is_last {
            continue;
        }
        match segments.last_mut() {
            // What is left at the end is too short to stand alone.
            Some(last) if end_ms - start_ms < min_ms && end_ms - last.start_ms <= max_ms => last.end_ms = end_ms,
            _ if end_ms > start_ms => split(Segment { start_ms, end_ms }, max_ms, &mut segments),
            _ => {}
        }
        start_ms = end_ms;
    }
    segments.truncate(MAX_SEGMENTS);
    Ok(segments)
}

fn ends(duration_ms: u64, by: &SplitBy) -> Vec<u64> {
    match by {
        SplitBy::Time { interval_ms } => (1..).map(|n| n * interval_ms).take_while(|end| *end < duration_ms).collect(),
        SplitBy::Scenes(cuts) => cuts.iter().map(|cut| cut.time_ms).collect(),
        SplitBy::Silences(silences) => {
            let middle = |s: &Silence| s.end_ms.map(|end_ms| s.start_ms.midpoint(end_ms));
            silences.iter().filter_map(middle).collect()
        }
    }
}

/// Equal parts of at most `max_ms`.
fn split(segment: Segment, max_ms: u64, into: &mut Vec<Segment>) {
    let length_ms = segment.end_ms - segment.start_ms;
    let parts = length_ms.div_ceil(max_ms);
    let at = |part: u64| segment.start_ms + (u128::from(length_ms) * u128::from(part) / u128::from(parts)) as u64;
    into.extend((0..parts).map(|part| Segment { start_ms: at(part), end_ms: at(part + 1) }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(duration_ms: u64, by: SplitBy, min_ms: u64, max_ms: u64) -> Vec<(u64, u64)> {
        plan(duration_ms, &by, min_ms, max_ms).unwrap().iter().map(|s| (s.start_ms, s.end_ms)).collect()
    }

    #[test]
    fn by_time_the_last_is_joined_when_it_is_short() {
        let by = SplitBy::Time { interval_ms: 10_000 };
        assert_eq!(pairs(25_000, by.clone(), 1_000, 30_000), [(0, 10_000), (10_000, 20_000), (20_000, 25_000)]);
        assert_eq!(pairs(20_500, by.clone(), 1_000, 30_000), [(0, 10_000), (10_000, 20_500)]);
        assert_eq!(pairs(500, by.clone(), 1_000, 30_000), [(0, 500)]);
        assert_eq!(pairs(0, by, 1_000, 30_000), []);
    }

    #[test]
    fn long_scenes_are_cut_evenly_and_short_ones_joined() {
        let cut = |time_ms| SceneCut { time_ms, score: 0.5 };
        let cuts = [cut(200), cut(5_000), cut(5_100), cut(70_000)];
        let found = pairs(71_000, SplitBy::Scenes(&cuts), 1_000, 30_000);
        assert_eq!(found, [(0, 5_000), (5_000, 26_666), (26_666, 48_333), (48_333, 70_000), (70_000, 71_000)]);
    }

    #[test]
    fn pauses_are_cut_in_their_middle() {
        let silences = [Silence { start_ms: 1_000, end_ms: Some(2_000) }, Silence { start_ms: 9_000, end_ms: None }];
        assert_eq!(pairs(10_000, SplitBy::Silences(&silences), 500, 30_000), [(0, 1_500), (1_500, 10_000)]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(plan(1, &SplitBy::Time { interval_ms: 0 }, 0, 1).is_err());
        assert!(plan(1, &SplitBy::Time { interval_ms: 1 }, 0, 0).is_err());
        assert!(plan(u64::MAX, &SplitBy::Time { interval_ms: 1 }, 0, 1).is_err());
        assert!(plan(u64::MAX, &SplitBy::Scenes(&[]), 0, 1).is_err());
    }

    #[test]
    fn segments_cover_everything_whatever_the_numbers() {
        let seed = 7;
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2_000 {
            let duration = random.u64(1..200_000);
            let cuts: Vec<SceneCut> =
                (0..random.usize(0..40)).map(|_| SceneCut { time_ms: random.u64(0..250_000), score: 1.0 }).collect();
            let min = random.u64(0..5_000);
            let max = random.u64(min.max(1)..60_000);
            let made = plan(duration, &SplitBy::Scenes(&cuts), min, max).unwrap();
            assert_eq!((made[0].start_ms, made[made.len() - 1].end_ms), (0, duration), "seed {seed}");
            assert!(made.windows(2).all(|w| w[0].end_ms == w[1].start_ms), "seed {seed}: {made:?}");
            assert!(
                made.iter().all(|s| s.end_ms > s.start_ms && s.end_ms - s.start_ms <= max),
                "seed {seed}: {made:?}"
            );
        }
    }
}
