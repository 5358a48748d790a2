//! The whole numbers of an object and of the objects in it, by name: all that is
//! wanted of what providers report, without a value for each thing that they do.

use super::walk::{Fault, Kind, Visit, walk};

/// Most numbers that are looked at. Real reports have at most two dozen.
const MOST: usize = 48;
/// Objects within objects that are looked into.
const DEEP: usize = 4;

/// Where a name stands, without its quotation marks.
type Name = (u32, u32);

#[derive(Clone, Copy, Default)]
struct Count {
    of: Name,
    name: Name,
    value: u64,
}

/// See the module's text.
pub(in crate::protocol) struct Counts<'a> {
    text: &'a [u8],
    found: [Count; MOST],
    many: usize,
    /// The names of the open objects; that of an array is none.
    open: [Option<Name>; DEEP],
    depth: usize,
    last: Name,
}

impl<'a> Counts<'a> {
    /// Those of that object; `None` when it is none.
    pub(in crate::protocol) fn of(text: &'a [u8]) -> Option<Self> {
        let mut counts = Self {
            text,
            found: [Count::default(); MOST],
            many: 0,
            open: [None; DEEP],
            depth: 0,
            last: (0, 0),
        };
        if text.first() != Some(&b'{') || u32::try_from(text.len()).is_err() {
            return None;
        }
        walk(text, &mut counts).ok().map(|()| counts)
    }

    /// The number `name` of the object `of` in it, of the object itself where that
    /// is empty. Anything but a whole number is none.
    pub(in crate::protocol) fn at(&self, of: &str, name: &str) -> Option<u64> {
        let is = |place: Name, wanted: &str| self.text_at(place) == wanted.as_bytes();
        let mut found = self.found.iter().take(self.many);
        found
            .find(|count| is(count.name, name) && is(count.of, of))
            .map(|count| count.value)
    }

    fn text_at(&self, (start, end): Name) -> &[u8] {
        self.text
            .get(start as usize..end as usize)
            .unwrap_or_default()
    }

    /// The name of the innermost open object.
    fn within(&self) -> Option<Name> {
        *self.open.get(self.depth.checked_sub(1)?)?
    }
}

/// Lengths were looked at before the walk.
fn place(start: usize, end: usize) -> Name {
    let short = |at| u32::try_from(at).unwrap_or(u32::MAX);
    (short(start), short(end))
}

fn whole(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(digit.into())
    })
}

impl Visit for Counts<'_> {
    fn scalar(&mut self, kind: Kind, start: usize, end: usize) -> Result<(), Fault> {
        match kind {
            Kind::Plain | Kind::Escaped => self.last = place(start + 1, end - 1),
            Kind::Number => {
                let of = self.within();
                let value = self.text.get(start..end).and_then(whole);
                if let (Some(of), Some(value)) = (of, value)
                    && let Some(free) = self.found.get_mut(self.many)
                {
                    *free = Count {
                        of,
                        name: self.last,
                        value,
                    };
                    self.many += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, kind: Kind, _: usize) -> Result<(), Fault> {
        let name = (kind == Kind::Object).then_some(self.last);
        if let Some(place) = self.open.get_mut(self.depth) {
            *place = name;
        }
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self, _: usize) {
        self.depth = self.depth.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_own_and_their_objects_names() {
        let text = br#" {"a":1,"b":{"a":2,"c":{"a":3},"d":4},"e":[5,{"a":6}],"f":"7","g":8.0,
            "h":-9,"i":null,"j":18446744073709551616,"k":18446744073709551615,"b2":{}, "l" : 0}"#;
        let counts = Counts::of(text.trim_ascii()).unwrap();
        assert_eq!(counts.at("", "a"), Some(1));
        assert_eq!(counts.at("b", "a"), Some(2));
        assert_eq!(counts.at("c", "a"), Some(3));
        assert_eq!(counts.at("b", "d"), Some(4));
        assert_eq!(counts.at("", "k"), Some(u64::MAX));
        assert_eq!(counts.at("", "l"), Some(0));
        for (of, name) in [
            ("", "e"),
            ("e", "e"),
            ("", "f"),
            ("", "g"),
            ("", "h"),
            ("", "i"),
            ("", "j"),
            ("", "d"),
            ("", "b"),
        ] {
            assert_eq!(counts.at(of, name), None, "{of}.{name}");
        }
    }

    #[test]
    fn what_is_no_object_has_none() {
        for text in ["", "[1]", "1", "{", "{\"a\":1", "{\"a\":1}x", "{\"a\":01}"] {
            assert!(Counts::of(text.as_bytes()).is_none(), "{text}");
        }
        let many = format!("{{{}\"z\":2}}", "\"a\":1,".repeat(MOST));
        let counts = Counts::of(many.as_bytes()).unwrap();
        assert_eq!((counts.at("", "a"), counts.at("", "z")), (Some(1), None));
        let deep = format!("{}1{}", "{\"a\":".repeat(DEEP + 2), "}".repeat(DEEP + 2));
        assert_eq!(Counts::of(deep.as_bytes()).unwrap().at("a", "a"), None);
    }
}
