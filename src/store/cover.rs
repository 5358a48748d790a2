//! A stretch of time as the fewest pieces whose sums are kept: days in the
//! middle, hours and minutes towards the ends, single rows where nothing else
//! is exact. No SQL.

use super::sums::{Span, State};

/// A part of a stretch of time. Ends are not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Rows that began in these milliseconds.
    Rows { from: i64, to: i64 },
    /// Buckets of that length.
    Buckets { span: Span, from: i64, to: i64 },
}

/// The pieces of `from..to` (milliseconds), oldest first, in buckets of at most
/// `longest`.
pub(super) fn cover(from: i64, to: i64, longest: Span, state: State) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let counted = state.counted_from_ms().clamp(from, to.max(from));
    rows(from, counted, &mut pieces);
    split(counted, to, Some(longest), state, &mut pieces);
    pieces
}

fn split(from: i64, to: i64, span: Option<Span>, state: State, pieces: &mut Vec<Piece>) {
    let Some(span) = span.filter(|_| from < to) else {
        rows(from, to, pieces);
        return;
    };
    if span == Span::Minute && from < state.minutes_from {
        let kept = state.minutes_from.min(to);
        rows(from, kept, pieces);
        split(kept, to, Some(span), state, pieces);
        return;
    }
    let shorter = match span {
        Span::Day => Some(Span::Hour),
        Span::Hour => Some(Span::Minute),
        Span::Minute => None,
    };
    let first = from.div_euclid(span.ms()) + i64::from(from.rem_euclid(span.ms()) > 0);
    let end = to.div_euclid(span.ms());
    if first >= end {
        split(from, to, shorter, state, pieces);
        return;
    }
    split(from, first * span.ms(), shorter, state, pieces);
    pieces.push(Piece::Buckets {
        span,
        from: first,
        to: end,
    });
    split(end * span.ms(), to, shorter, state, pieces);
}

fn rows(from: i64, to: i64, pieces: &mut Vec<Piece>) {
    if from < to {
        pieces.push(Piece::Rows { from, to });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: State = State {
        counted_from: 0,
        minutes_from: 0,
    };
    const HOUR: i64 = 3_600_000;

    fn ends(piece: Piece) -> (i64, i64) {
        match piece {
            Piece::Rows { from, to } => (from, to),
            Piece::Buckets { span, from, to } => (from * span.ms(), to * span.ms()),
        }
    }

    #[test]
    fn a_month_is_days_between_hours_and_minutes() {
        let from = 24 * HOUR * 10 + 3 * HOUR + 60_000;
        let pieces = cover(from, from + 24 * HOUR * 30, Span::Day, ALL);
        let spans: Vec<Option<Span>> = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Buckets { span, .. } => Some(*span),
                Piece::Rows { .. } => None,
            })
            .collect();
        let [minute, hour, day] = Span::ALL.map(Some);
        assert_eq!(spans, [minute, hour, day, hour, minute]);
    }

    proptest! {
        #[test]
        fn pieces_are_the_stretch_without_gap_or_overlap(
            from in 0..40 * 24 * HOUR, length in 0..40 * 24 * HOUR, longest in 0..3_usize,
            counted in 0..80 * 24 * HOUR, minutes in 0..80_i64 * 24,
        ) {
            let state = State { counted_from: counted << 20, minutes_from: minutes * HOUR };
            let pieces = cover(from, from + length, Span::ALL[longest], state);
            let mut at = from;
            for piece in pieces {
                let (begin, end) = ends(piece);
                prop_assert!(begin == at && end > begin);
                at = end;
                if let Piece::Buckets { span, .. } = piece {
                    prop_assert!(begin >= state.counted_from_ms() && span <= Span::ALL[longest]);
                    prop_assert!(span != Span::Minute || begin >= state.minutes_from);
                }
            }
            prop_assert_eq!(at, from + length);
        }
    }
}
