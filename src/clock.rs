//! The time, read once in each turn of a task.
//!
//! A request asks what time it is a dozen times between its arrival and its row,
//! most of them within some microseconds; to read the machine's clock each time
//! costs more than all of its routing. A task that serves is therefore polled
//! inside [`turn`]: the first question reads the clock, and the same turn's further
//! ones get the same answer. Outside of a turn every question reads it.
//!
//! A turn ends where the task waits, so no limit is off by more than the work of
//! one turn.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How old a pairing of the two clocks may be: a wall clock that was set is
/// followed after this long.
const PAIRED: Duration = Duration::from_millis(100);

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn::Outside) };
    /// Nanoseconds since the epoch at an instant.
    static PAIR: Cell<Option<(Instant, i64)>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
enum Turn {
    Outside,
    Begun,
    At(Instant),
}

/// Puts back what was before, however the turn ends.
struct Before(Turn);

impl Drop for Before {
    fn drop(&mut self) {
        TURN.set(self.0);
    }
}

/// Runs one turn of a task, in which no time passes for whoever asks [`now`]. A turn
/// within a turn is part of it.
pub fn turn<T>(run: impl FnOnce() -> T) -> T {
    let before = TURN.get();
    if matches!(before, Turn::Outside) {
        TURN.set(Turn::Begun);
    }
    let _before = Before(before);
    run()
}

/// The time of this turn, or of this moment outside of one.
#[must_use]
pub fn now() -> Instant {
    match TURN.get() {
        Turn::At(now) => now,
        Turn::Begun => {
            let now = Instant::now();
            TURN.set(Turn::At(now));
            now
        }
        Turn::Outside => Instant::now(),
    }
}

/// Milliseconds since the epoch, at [`now`].
#[must_use]
pub fn wall_ms() -> i64 {
    const MILLISECOND: i64 = 1_000_000;
    let now = now();
    let known = PAIR.get().and_then(|(at, wall)| {
        let since = now.checked_duration_since(at)?;
        (since < PAIRED).then(|| wall + i64::from(since.subsec_nanos()))
    });
    let wall = known.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall = i64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX);
        PAIR.set(Some((now, wall)));
        wall
    });
    wall / MILLISECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later_than(before: Instant) -> bool {
        while Instant::now() <= before {}
        now() > before
    }

    #[test]
    fn no_time_passes_within_a_turn() {
        let outside = now();
        assert!(later_than(outside));
        turn(|| {
            let begun = now();
            assert!(!later_than(begun));
            turn(|| assert_eq!(now(), begun));
            assert_eq!(now(), begun);
        });
        assert!(later_than(now()));
    }

    #[test]
    fn a_turn_that_panics_is_over() {
        let broken = std::panic::catch_unwind(|| {
            turn(|| {
                assert_eq!(now(), now());
                panic!("on purpose");
            })
        });
        assert!(broken.is_err());
        assert!(later_than(now()));
    }

    #[test]
    fn the_wall_clock_is_the_machines() {
        for _ in 0..3 {
            let machine = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let machine = i64::try_from(machine.as_millis()).unwrap();
            assert!((wall_ms() - machine).abs() < 1_000);
        }
    }
}
