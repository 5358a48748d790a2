//! Writing JSON by pushing bytes. An [`Object`] or [`Array`] closes itself when
//! it goes out of scope, so that what is written is balanced by construction.

use bytes::BytesMut;

use super::text::{Raw, Str};

/// Writes a string with its quotation marks.
pub fn string(out: &mut BytesMut, text: &Str<'_>) {
    out.extend_from_slice(b"\"");
    out.extend_from_slice(text.inner().as_bytes());
    out.extend_from_slice(b"\"");
}

/// Writes a whole number.
pub fn number(out: &mut BytesMut, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// An object that is being written.
#[derive(Debug)]
pub struct Object<'o> {
    out: &'o mut BytesMut,
    begun: bool,
}

impl<'o> Object<'o> {
    /// Opens one.
    pub fn open(out: &'o mut BytesMut) -> Self {
        out.extend_from_slice(b"{");
        Self { out, begun: false }
    }

    /// Writes a member's name; its value is to follow. The name must need no
    /// escapes, as those of the protocols don't.
    pub fn key(&mut self, name: &str) -> &mut BytesMut {
        let before: &[u8] = if self.begun { b",\"" } else { b"\"" };
        self.begun = true;
        self.out.extend_from_slice(before);
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// As [`Object::key`], for a name that is not ours.
    pub fn foreign_key(&mut self, name: &Str<'_>) -> &mut BytesMut {
        if self.begun {
            self.out.extend_from_slice(b",");
        }
        self.begun = true;
        string(self.out, name);
        self.out.extend_from_slice(b":");
        self.out
    }

    /// A string.
    pub fn str(&mut self, name: &str, text: &Str<'_>) -> &mut Self {
        string(self.key(name), text);
        self
    }

    /// A string that is at hand as it is meant.
    pub fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.str(name, &Str::new(text))
    }

    /// A value as it was written.
    pub fn raw(&mut self, name: &str, value: &Raw<'_>) -> &mut Self {
        self.key(name).extend_from_slice(value.as_str().as_bytes());
        self
    }

    /// A whole number.
    pub fn number(&mut self, name: &str, value: impl itoa::Integer) -> &mut Self {
        number(self.key(name), value);
        self
    }

    /// The digits of a number as they were written.
    pub fn digits(&mut self, name: &str, digits: &str) -> &mut Self {
        self.key(name).extend_from_slice(digits.as_bytes());
        self
    }

    /// A truth value.
    pub fn bool(&mut self, name: &str, value: bool) -> &mut Self {
        let word: &[u8] = if value { b"true" } else { b"false" };
        self.key(name).extend_from_slice(word);
        self
    }

    /// `null`.
    pub fn null(&mut self, name: &str) -> &mut Self {
        self.key(name).extend_from_slice(b"null");
        self
    }

    /// Members that are written already, without braces and with commas between
    /// them; at least one.
    pub fn members(&mut self, written: &str) {
        if self.begun {
            self.out.extend_from_slice(b",");
        }
        self.begun = true;
        self.out.extend_from_slice(written.as_bytes());
    }

    /// An object, to be filled.
    pub fn object(&mut self, name: &str) -> Object<'_> {
        Object::open(self.key(name))
    }

    /// An array, to be filled.
    pub fn array(&mut self, name: &str) -> Array<'_> {
        Array::open(self.key(name))
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        self.out.extend_from_slice(b"}");
    }
}

/// An array that is being written.
#[derive(Debug)]
pub struct Array<'o> {
    out: &'o mut BytesMut,
    begun: bool,
}

impl<'o> Array<'o> {
    /// Opens one.
    pub fn open(out: &'o mut BytesMut) -> Self {
        out.extend_from_slice(b"[");
        Self { out, begun: false }
    }

    /// Makes room for an element; its value is to follow.
    pub fn element(&mut self) -> &mut BytesMut {
        if self.begun {
            self.out.extend_from_slice(b",");
        }
        self.begun = true;
        self.out
    }

    /// A string.
    pub fn str(&mut self, text: &Str<'_>) -> &mut Self {
        string(self.element(), text);
        self
    }

    /// A value as it was written.
    pub fn raw(&mut self, value: &Raw<'_>) -> &mut Self {
        self.element().extend_from_slice(value.as_str().as_bytes());
        self
    }

    /// An object, to be filled.
    pub fn object(&mut self) -> Object<'_> {
        Object::open(self.element())
    }

    /// An array, to be filled.
    pub fn array(&mut self) -> Array<'_> {
        Array::open(self.element())
    }

    /// Whether nothing was written into it yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.begun
    }
}

impl Drop for Array<'_> {
    fn drop(&mut self) {
        self.out.extend_from_slice(b"]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_balanced_and_separated() {
        let mut out = BytesMut::new();
        {
            let mut object = Object::open(&mut out);
            object.text("a", "x\"\n").number("n", 5u64).null("z");
            let mut array = object.array("list");
            array.str(&Str::new("one"));
            array.object().bool("yes", true);
            array.array();
        }
        assert_eq!(
            &out[..],
            br#"{"a":"x\"\n","n":5,"z":null,"list":["one",{"yes":true},[]]}"#
        );
    }
}
