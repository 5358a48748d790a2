//! What lies where in a document, found in one pass: a flat list of spans.
//!
//! Nothing is unescaped, converted or copied. A [`Value`] is a position on the
//! tape, as cheap to pass around as a reference; its text is a slice of the
//! document. The list is reused from document to document, so that an event of a
//! stream costs no allocation.
//!
//! The tape remembers what was asked for, so that afterwards it can tell what
//! nobody looked at: see [`Value::unasked`].

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use super::text::{self, Raw, Str};
use super::walk::{Fault, Kind, Visit, walk};

/// The most values of one document, names counted. A body that is nothing but
/// brackets and commas would otherwise take many times its size.
const MOST: usize = 1 << 22;
/// Values that room is made for at once, at one for so many bytes: a list that grows
/// step by step is moved as often. Long documents are mostly text, and short ones are
/// small.
const ROOM: usize = 256;
const BYTES: usize = 16;

/// One value, or the name of a member.
#[derive(Debug)]
struct Node {
    start: u32,
    end: u32,
    /// The node behind this value and all that is in it.
    next: u32,
    kind: Kind,
    /// A string in which half a surrogate pair stands alone.
    odd: bool,
    /// A member's name: somebody asked for it. A value: somebody took it whole.
    seen: AtomicBool,
}

impl Node {
    fn see(&self) {
        self.seen.store(true, Ordering::Relaxed);
    }

    fn is_seen(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }
}

/// A reusable list of nodes. See the module's text.
#[derive(Debug, Default)]
pub struct Tape {
    nodes: Vec<Node>,
    open: Vec<u32>,
    odd: bool,
}

impl Tape {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Walks over a document, which must be JSON to the letter: escapes and
    /// control characters in strings are checked too.
    ///
    /// # Errors
    ///
    /// Where the text is no JSON, is nested deeper than 512 levels, has more than
    /// four million values or more than 4 GiB.
    pub fn parse<'t>(&'t mut self, text: &'t str) -> Result<Value<'t>, Fault> {
        self.nodes.clear();
        self.open.clear();
        self.odd = false;
        if u32::try_from(text.len()).is_err() {
            return Err(Fault {
                at: 0,
                wanted: "less than 4 GiB",
            });
        }
        self.nodes.reserve(ROOM.min(text.len() / BYTES));
        let mut visitor = Visitor {
            bytes: text.as_bytes(),
            tape: self,
        };
        walk(text.as_bytes(), &mut visitor)?;
        Ok(Value {
            text,
            nodes: &self.nodes,
            at: 0,
        })
    }

    /// Whether half a surrogate pair stands alone in the document that was parsed
    /// last: [`mended`](super::mended) is for such.
    #[must_use]
    pub const fn is_odd(&self) -> bool {
        self.odd
    }

    /// The document that was parsed last, which must be given again.
    #[must_use]
    pub fn root<'t>(&'t self, text: &'t str) -> Value<'t> {
        Value {
            text,
            nodes: &self.nodes,
            at: 0,
        }
    }

    /// As [`Tape::parse`], of bytes that may not be UTF-8.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::parse`], and where a byte does not belong to a character.
    pub fn parse_bytes<'t>(&'t mut self, bytes: &'t [u8]) -> Result<Value<'t>, Fault> {
        let text = std::str::from_utf8(bytes).map_err(|error| Fault {
            at: error.valid_up_to(),
            wanted: "UTF-8",
        })?;
        self.parse(text)
    }
}

struct Visitor<'a, 'v> {
    bytes: &'a [u8],
    tape: &'v mut Tape,
}

impl Visitor<'_, '_> {
    fn push(&mut self, kind: Kind, start: usize, end: usize, odd: bool) -> Result<(), Fault> {
        if self.tape.nodes.len() >= MOST {
            return Err(Fault {
                at: start,
                wanted: "at most four million values",
            });
        }
        let index = self.tape.nodes.len();
        self.tape.nodes.push(Node {
            start: small(start),
            end: small(end),
            next: small(index + 1),
            kind,
            odd,
            seen: AtomicBool::new(false),
        });
        self.tape.odd |= odd;
        Ok(())
    }
}

impl Visit for Visitor<'_, '_> {
    fn scalar(&mut self, kind: Kind, start: usize, end: usize) -> Result<(), Fault> {
        let odd = match kind {
            Kind::Plain | Kind::Escaped => {
                let inner = self.bytes.get(start + 1..end - 1).unwrap_or_default();
                text::check(inner, kind == Kind::Escaped).map_err(|fault| Fault {
                    at: start + 1 + fault.at,
                    ..fault
                })?
            }
            _ => false,
        };
        self.push(kind, start, end, odd)
    }

    fn open(&mut self, kind: Kind, start: usize) -> Result<(), Fault> {
        let index = small(self.tape.nodes.len());
        self.push(kind, start, start, false)?;
        self.tape.open.push(index);
        Ok(())
    }

    fn close(&mut self, end: usize) {
        let next = small(self.tape.nodes.len());
        let opened = self.tape.open.pop();
        if let Some(node) = opened.and_then(|index| self.tape.nodes.get_mut(index as usize)) {
            node.end = small(end);
            node.next = next;
        }
    }
}

/// Sizes are checked before the walk begins.
fn small(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// A value of a document on a tape.
#[derive(Clone, Copy)]
pub struct Value<'t> {
    text: &'t str,
    nodes: &'t [Node],
    at: usize,
}

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.raw().as_str())
    }
}

impl<'t> Value<'t> {
    fn node(&self) -> Option<&'t Node> {
        self.nodes.get(self.at)
    }

    fn kind(&self) -> Kind {
        self.node().map_or(Kind::Null, |node| node.kind)
    }

    /// The value's text as it was written, inner white space included. Whoever
    /// takes it has asked for all that is in it.
    #[must_use]
    pub fn raw(&self) -> Raw<'t> {
        if let Some(node) = self.node() {
            node.see();
        }
        let text = self.text.get(self.span()).unwrap_or("null");
        Raw::of_checked(text)
    }

    /// Where the value lies in its document.
    #[must_use]
    pub fn span(&self) -> std::ops::Range<usize> {
        self.node()
            .map_or(0..0, |node| node.start as usize..node.end as usize)
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.kind() == Kind::Null
    }

    /// Whether it is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.kind() == Kind::Object
    }

    /// Whether it is an array.
    #[must_use]
    pub fn is_array(&self) -> bool {
        self.kind() == Kind::Array
    }

    /// Whether it is a string.
    #[must_use]
    pub fn is_str(&self) -> bool {
        matches!(self.kind(), Kind::Plain | Kind::Escaped)
    }

    /// The string that it is.
    #[must_use]
    pub fn as_str(&self) -> Option<Str<'t>> {
        let node = self.node()?;
        let inner = node.start as usize + 1..(node.end as usize).saturating_sub(1);
        let inner = match node.kind {
            Kind::Plain | Kind::Escaped => self.text.get(inner)?,
            _ => return None,
        };
        Some(if node.odd {
            Str::from(text::unescape(inner).into_owned())
        } else {
            Str::of_checked(inner)
        })
    }

    /// The truth value that it is.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self.kind() {
            Kind::True => Some(true),
            Kind::False => Some(false),
            _ => None,
        }
    }

    /// The whole number that it is, if it is not negative and fits. `16.0` and
    /// `1e3` count: some languages have no other way to write a whole number.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        let text = self.number()?;
        if let Ok(number) = text.parse() {
            return Some(number);
        }
        let number: f64 = text.parse().ok()?;
        let whole = number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number);
        // Checked just above: whole, not negative, exact in 53 bits.
        whole.then_some(number as u64)
    }

    /// The whole number that it is.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        let text = self.number()?;
        text.parse()
            .ok()
            .or_else(|| self.as_u64().and_then(|number| i64::try_from(number).ok()))
    }

    /// The number that it is, as near as a double comes.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        self.number()?.parse().ok()
    }

    /// The digits of the number that it is.
    #[must_use]
    pub fn number(&self) -> Option<&'t str> {
        match self.kind() {
            Kind::Number => self.text.get(self.span()),
            _ => None,
        }
    }

    /// The members of the object that it is; none of anything else. A name that
    /// stands twice comes twice. Whoever goes through them has asked for each.
    #[must_use]
    pub fn members(&self) -> Members<'t> {
        Members(self.inside(Kind::Object))
    }

    /// As [`Value::members`], the names as values of their own, whose
    /// [`Value::span`] tells where they lie.
    pub fn entries(&self) -> impl Iterator<Item = (Self, Self)> + use<'t> {
        let mut inside = self.inside(Kind::Object);
        std::iter::from_fn(move || Some((inside.step()?, inside.step()?)))
    }

    /// The elements of the array that it is; none of anything else.
    #[must_use]
    pub fn items(&self) -> Items<'t> {
        Items(self.inside(Kind::Array))
    }

    /// The member of that name; the last one, if it stands there twice, as
    /// nearly all parsers have it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Self> {
        let object = self.node().filter(|node| node.kind == Kind::Object)?;
        let length = small(name.len() + 2);
        let mut at = self.at + 1;
        let mut last = None;
        while at < object.next as usize {
            let [key, value] = self.nodes.get(at..at + 2)? else {
                return None;
            };
            // Names are compared more often than anything else is done.
            let may_be = key.end - key.start == length || key.kind == Kind::Escaped;
            if may_be && self.is_named(key, at, name) {
                key.see();
                last = Some(at + 1);
            }
            at = value.next as usize;
        }
        last.map(|at| Self { at, ..*self })
    }

    /// Whether the key at that place is this name: as bytes, where nothing is escaped.
    fn is_named(&self, key: &Node, at: usize, name: &str) -> bool {
        if key.kind == Kind::Plain {
            let inner = key.start as usize + 1..key.end as usize - 1;
            return self.text.as_bytes().get(inner) == Some(name.as_bytes());
        }
        let key = Self { at, ..*self };
        key.as_str().is_some_and(|found| found.is(name))
    }

    /// The member whose name is meant; the last one, if there are several.
    pub fn named(&self, is_meant: impl Fn(&Str<'t>) -> bool) -> Option<Self> {
        let mut inside = self.inside(Kind::Object);
        let mut last = None;
        while let (Some(name), Some(value)) = (inside.step(), inside.step()) {
            if name.as_str().is_some_and(|name| is_meant(&name)) {
                name.see();
                last = Some(value);
            }
        }
        last
    }

    fn see(&self) {
        if let Some(node) = self.node() {
            node.see();
        }
    }

    /// Tells of every member that nobody has asked for, unless it is `null`: where
    /// its object lies, without numbers (`messages[].content[]`), and its name.
    /// Nothing is told of what is within such a member, nor within what was taken
    /// as a whole. Names are written as `spelled` has them.
    pub fn unasked(
        &self,
        spelled: for<'a> fn(&'a Str<'_>) -> Cow<'a, str>,
        tell: &mut dyn FnMut(&str, &str),
    ) {
        let mut way = Vec::new();
        self.search(&mut way, &mut |way, name| {
            let mut place = String::new();
            for step in way {
                match step {
                    Some(name) => {
                        if !place.is_empty() {
                            place.push('.');
                        }
                        place.push_str(&spelled(name));
                    }
                    None => place.push_str("[]"),
                }
            }
            tell(&place, &spelled(name));
        });
    }

    /// `way` are the names that lead here, `None` for an array's element. Documents
    /// are nested 512 deep at most.
    fn search(
        &self,
        way: &mut Vec<Option<Str<'t>>>,
        tell: &mut dyn FnMut(&[Option<Str<'t>>], &Str<'t>),
    ) {
        let Some(node) = self.node().filter(|node| !node.is_seen()) else {
            return;
        };
        let mut inside = self.inside(node.kind);
        if node.kind == Kind::Array {
            way.push(None);
            while let Some(item) = inside.step() {
                if item.is_container() {
                    item.search(way, tell);
                }
            }
            way.pop();
        } else if node.kind == Kind::Object {
            while let (Some(key), Some(value)) = (inside.step(), inside.step()) {
                let asked = key.node().is_some_and(Node::is_seen);
                if value.is_null() || asked && !value.is_container() {
                    continue;
                }
                let Some(name) = key.as_str() else {
                    continue;
                };
                if !asked {
                    tell(way, &name);
                    continue;
                }
                way.push(Some(name));
                value.search(way, tell);
                way.pop();
            }
        }
    }

    fn is_container(&self) -> bool {
        matches!(self.kind(), Kind::Array | Kind::Object)
    }

    /// All that is in it is known, and needs no asking. Gives the value back.
    pub fn whole(self) -> Self {
        self.see();
        self
    }

    /// The member of that name is known, and needs no asking.
    pub fn skip(&self, name: &str) {
        if let Some(value) = self.get(name) {
            value.see();
        }
    }

    /// As [`Value::get`], `null` being as good as absent.
    #[must_use]
    pub fn some(&self, name: &str) -> Option<Self> {
        self.get(name).filter(|value| !value.is_null())
    }

    /// Whether it is an object or array without anything in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.node()
            .is_some_and(|node| node.next as usize == self.at + 1)
            && matches!(self.kind(), Kind::Array | Kind::Object)
    }

    /// What it is, for error messages: "a string", "an array" ...
    #[must_use]
    pub fn sort(&self) -> &'static str {
        match self.kind() {
            Kind::Null => "null",
            Kind::True | Kind::False => "a boolean",
            Kind::Number => "a number",
            Kind::Plain | Kind::Escaped => "a string",
            Kind::Array => "an array",
            Kind::Object => "an object",
        }
    }

    fn inside(&self, kind: Kind) -> Walker<'t> {
        let end = match self.node() {
            Some(node) if node.kind == kind => node.next as usize,
            _ => self.at + 1,
        };
        Walker {
            text: self.text,
            nodes: self.nodes,
            at: self.at + 1,
            end,
        }
    }
}

#[derive(Clone, Debug)]
struct Walker<'t> {
    text: &'t str,
    nodes: &'t [Node],
    at: usize,
    end: usize,
}

impl<'t> Walker<'t> {
    fn step(&mut self) -> Option<Value<'t>> {
        if self.at >= self.end {
            return None;
        }
        let value = Value {
            text: self.text,
            nodes: self.nodes,
            at: self.at,
        };
        self.at = self.nodes.get(self.at)?.next as usize;
        Some(value)
    }
}

/// See [`Value::members`].
#[derive(Clone, Debug)]
pub struct Members<'t>(Walker<'t>);

impl<'t> Iterator for Members<'t> {
    type Item = (Str<'t>, Value<'t>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.0.step()?;
        key.see();
        Some((key.as_str()?, self.0.step()?))
    }
}

/// See [`Value::items`].
#[derive(Clone, Debug)]
pub struct Items<'t>(Walker<'t>);

impl<'t> Iterator for Items<'t> {
    type Item = Value<'t>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.step()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_found_and_nothing_is_changed() {
        let text =
            r#" {"a":[1,{"b" : 2.50}],"c\n":"x\"y","n":12345678901234567890123,"a":null,"e":{}} "#;
        let mut tape = Tape::new();
        let root = tape.parse(text).unwrap();
        assert!(root.get("a").unwrap().is_null());
        let (_, first) = root.members().next().unwrap();
        assert_eq!(first.raw().as_str(), r#"[1,{"b" : 2.50}]"#);
        let inner: Vec<_> = first.items().collect();
        assert_eq!(inner.len(), 2);
        assert_eq!(inner[1].get("b").unwrap().number(), Some("2.50"));
        assert_eq!(root.get("c\n").unwrap().as_str().unwrap().plain(), "x\"y");
        assert_eq!(
            root.get("n").unwrap().number(),
            Some("12345678901234567890123")
        );
        assert!(root.get("e").unwrap().is_empty());
        assert!(root.some("a").is_none() && root.some("zz").is_none());
        assert_eq!(root.members().count(), 5);
    }

    #[test]
    fn numbers_are_read_where_they_mean_one() {
        let mut tape = Tape::new();
        let root = tape
            .parse("[16.0,1e3,-1,1.5,18446744073709551615]")
            .unwrap();
        let read: Vec<_> = root.items().map(|value| value.as_u64()).collect();
        assert_eq!(read, [Some(16), Some(1000), None, None, Some(u64::MAX)]);
        assert_eq!(root.items().nth(2).unwrap().as_i64(), Some(-1));
    }

    #[test]
    fn what_is_no_json_is_named_with_its_place() {
        let mut tape = Tape::new();
        for (text, at) in [
            ("{\"a\":tru}", 5),
            ("[\"\\x\"]", 2),
            ("[\"\\u12g4\"]", 2),
            ("[\"a\u{1}\"]", 3),
            ("[1,]", 3),
            ("", 0),
        ] {
            assert_eq!(tape.parse(text).unwrap_err().at, at, "{text}");
        }
        assert!(tape.parse(&"[".repeat(100_000)).is_err());
        assert!(tape.parse_bytes(b"[\"\xff\"]").is_err());
    }

    #[test]
    fn half_a_surrogate_becomes_the_replacement_character() {
        let mut tape = Tape::new();
        let root = tape
            .parse(r#"["\ud83d\ude00","a\ud83d","\ude00b"]"#)
            .unwrap();
        let read: Vec<_> = root.items().filter_map(|value| value.as_str()).collect();
        assert_eq!(read[0].plain(), "😀");
        assert_eq!(read[1].plain(), "a\u{fffd}");
        assert_eq!(read[2].plain(), "\u{fffd}b");
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_parser(text in r#"[\[\]{}:,"a0-9eE.+\- ntrulfs\\/b]{0,24}"#) {
            let parsed = serde_json::from_str::<serde_json::Value>(&text);
            let mut tape = Tape::new();
            let walked = tape.parse(&text);
            let overflows = parsed.as_ref().is_err_and(|e| e.to_string().starts_with("number out of range"));
            prop_assert!(overflows || walked.is_ok() == parsed.is_ok(), "{:?} {:?}", walked, parsed);
        }

        #[test]
        fn strings_come_back(text in "\\PC{0,40}") {
            let document = serde_json::to_string(&text).unwrap();
            let mut tape = Tape::new();
            let value = tape.parse(&document).unwrap();
            prop_assert_eq!(value.as_str().unwrap().into_plain(), text);
        }
    }
}
