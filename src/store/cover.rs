//! A stretch of time as the fewest pieces whose sums are kept: days in the
//! middle, hours towards the ends, single rows where nothing else is exact. No
//! SQL.

use super::sums::Span;

/// A part of a stretch of time. Ends are not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Rows that began in these milliseconds.
    Rows { from: i64, to: i64 },
    /// Buckets of that length.
    Buckets { span: Span, from: i64, to: i64 },
}

/// The pieces of `from..to` (milliseconds), oldest first, in buckets of at most
/// `longest`; without one, rows.
pub(super) fn cover(from: i64, to: i64, longest: Option<Span>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    split(from, to, longest, &mut pieces);
    pieces
}

fn split(from: i64, to: i64, span: Option<Span>, pieces: &mut Vec<Piece>) {
    let Some(span) = span.filter(|_| from < to) else {
        if from < to {
            pieces.push(Piece::Rows { from, to });
        }
        return;
    };
    let shorter = match span {
        Span::Day => Some(Span::Hour),
        Span::Hour => None,
    };
    let first = from.div_euclid(span.ms()) + i64::from(from.rem_euclid(span.ms()) > 0);
    let end = to.div_euclid(span.ms());
    if first >= end {
        split(from, to, shorter, pieces);
        return;
    }
    split(from, first * span.ms(), shorter, pieces);
    pieces.push(Piece::Buckets {
        span,
        from: first,
        to: end,
    });
    split(end * span.ms(), to, shorter, pieces);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000;

    fn ends(piece: Piece) -> (i64, i64) {
        match piece {
            Piece::Rows { from, to } => (from, to),
            Piece::Buckets { span, from, to } => (from * span.ms(), to * span.ms()),
        }
    }

    #[test]
    fn a_month_is_days_between_hours_and_rows() {
        let from = 24 * HOUR * 10 + 3 * HOUR + 60_000;
        let pieces = cover(from, from + 24 * HOUR * 30, Some(Span::Day));
        let spans: Vec<Option<Span>> = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Buckets { span, .. } => Some(*span),
                Piece::Rows { .. } => None,
            })
            .collect();
        let [hour, day] = Span::ALL.map(Some);
        assert_eq!(spans, [None, hour, day, hour, None]);
    }

    proptest! {
        #[test]
        fn pieces_are_the_stretch_without_gap_or_overlap(
            from in 0..40 * 24 * HOUR, length in 0..40 * 24 * HOUR, longest in 0..3_usize,
        ) {
            let longest = Span::ALL.get(longest).copied();
            let mut at = from;
            for piece in cover(from, from + length, longest) {
                let (begin, end) = ends(piece);
                prop_assert!(begin == at && end > begin);
                at = end;
                if let Piece::Buckets { span, .. } = piece {
                    prop_assert!(Some(span) <= longest);
                }
            }
            prop_assert_eq!(at, from + length);
        }
    }
}
