//! How much may be held: of one body, and of all captures together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// Bytes of one body that are held at most.
pub const BODY: usize = 4 << 20;
/// Bytes of all captures that are not written yet, at most.
pub const IN_FLIGHT: u64 = 128 << 20;
/// Captures that wait to be written at most; more would only keep rows waiting.
const WAITING: u64 = 1024;
/// In which steps room is taken for a body that grows, so that cores don't meet
/// at the account for every piece.
const STEP: u64 = 16 << 10;

/// The account that all captures share.
#[derive(Debug, Default)]
pub(super) struct Room {
    held: AtomicU64,
    waiting: AtomicU64,
}

impl Room {
    /// A place in the queue to the disk, until it is dropped.
    pub(super) fn queue(self: &Arc<Self>) -> Option<Place> {
        let place = Place(Arc::clone(self));
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        (before < WAITING).then_some(place)
    }

    fn take(&self, bytes: u64) -> bool {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= IN_FLIGHT;
        if !fits {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

/// See [`Room::queue`].
#[derive(Debug)]
pub(super) struct Place(Arc<Room>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one body takes of the room; given back when dropped.
#[derive(Debug)]
struct Share {
    room: Arc<Room>,
    bytes: u64,
}

impl Share {
    fn none(room: &Arc<Room>) -> Self {
        Self {
            room: Arc::clone(room),
            bytes: 0,
        }
    }

    /// Room for so many bytes in all, if there is.
    fn reach(&mut self, bytes: usize) -> bool {
        let missing = (bytes as u64).saturating_sub(self.bytes);
        if missing == 0 {
            return true;
        }
        let step = missing.next_multiple_of(STEP);
        let taken = self.room.take(step);
        if taken {
            self.bytes += step;
        }
        taken
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.room.held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// A body that is at hand: its frames are shared, not copied.
#[derive(Debug)]
pub(super) struct Frames {
    frames: Vec<Bytes>,
    cut: u64,
    share: Share,
}

impl Frames {
    pub(super) fn of(all: &[Bytes], room: &Arc<Room>) -> Self {
        let mut held = Self {
            frames: Vec::with_capacity(all.len().min(64)),
            cut: 0,
            share: Share::none(room),
        };
        let mut size = 0;
        for frame in all {
            let fits = frame.len().min(BODY - size);
            if held.cut > 0 || !held.share.reach(size + fits) {
                held.cut += frame.len() as u64;
                continue;
            }
            size += fits;
            held.cut += (frame.len() - fits) as u64;
            held.frames.push(match fits == frame.len() {
                true => frame.clone(),
                // A slice would hold on to all of it.
                false => Bytes::copy_from_slice(&frame[..fits]),
            });
        }
        held
    }

    /// What was held, joined, and how many bytes were left out.
    pub(super) fn take(&mut self) -> (Bytes, u64) {
        let body = match self.frames.len() {
            1 => self.frames.swap_remove(0),
            _ => Bytes::from(std::mem::take(&mut self.frames).concat()),
        };
        (body, self.cut)
    }
}

/// A body that comes piece by piece: copied, because pieces are slices of larger
/// buffers.
#[derive(Debug)]
pub(super) struct Reel {
    bytes: Vec<u8>,
    cut: u64,
    share: Share,
}

impl Reel {
    pub(super) fn new(room: &Arc<Room>) -> Self {
        Self {
            bytes: Vec::new(),
            cut: 0,
            share: Share::none(room),
        }
    }

    /// Takes a piece, as far as there is room. After the first that didn't fit
    /// nothing is taken any more: what is held is a beginning without holes.
    pub(super) fn push(&mut self, piece: &[u8]) {
        let fits = piece.len().min(BODY - self.bytes.len());
        if self.cut > 0 || !self.share.reach(self.bytes.len() + fits) {
            self.cut += piece.len() as u64;
            return;
        }
        self.bytes.extend_from_slice(&piece[..fits]);
        self.cut += (piece.len() - fits) as u64;
    }

    /// What was held, and how many bytes were left out.
    pub(super) fn take(&mut self) -> (Bytes, u64) {
        (std::mem::take(&mut self.bytes).into(), self.cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_held_up_to_its_limit_and_the_rest_is_counted() {
        let room = Arc::<Room>::default();
        let frame = Bytes::from(vec![b'x'; BODY - 10]);
        let mut held = Frames::of(&[frame.clone(), frame], &room);
        let (body, cut) = held.take();
        assert_eq!((body.len(), cut), (BODY, BODY as u64 - 20));
        let mut reel = Reel::new(&room);
        reel.push(&vec![b'x'; BODY - 1]);
        reel.push(b"abc");
        reel.push(b"d");
        let (body, cut) = reel.take();
        assert_eq!((body.len(), cut), (BODY, 3));
        assert!(body.ends_with(b"xa"));
    }

    #[test]
    fn all_captures_together_have_a_limit_and_give_their_room_back() {
        let room = Arc::<Room>::default();
        let frames = [Bytes::from(vec![0; BODY])];
        let most = usize::try_from(IN_FLIGHT).unwrap() / BODY;
        let held: Vec<Frames> = (0..most).map(|_| Frames::of(&frames, &room)).collect();
        let mut reel = Reel::new(&room);
        reel.push(b"late");
        assert_eq!(reel.take(), (Bytes::new(), 4));
        drop(held);
        assert_eq!(room.held.load(Ordering::Relaxed), 0);
        let mut reel = Reel::new(&room);
        reel.push(b"in time");
        assert_eq!(reel.take(), (Bytes::from_static(b"in time"), 0));
    }

    #[test]
    fn the_queue_to_the_disk_is_bounded() {
        let room = Arc::<Room>::default();
        let places: Vec<_> = (0..WAITING).map(|_| room.queue().unwrap()).collect();
        assert!(room.queue().is_none());
        drop(places);
        assert!(room.queue().is_some());
    }
}
