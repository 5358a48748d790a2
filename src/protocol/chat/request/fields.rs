//! The fields of a request by their types: what is absent, what is wrong.

use crate::protocol::ir::{Digits, Invalid};
use crate::protocol::json::{Raw, Str, Value};

/// An object of a request and where it lies in it, for messages.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    /// The object.
    pub(crate) value: Value<'a>,
    path: String,
    /// A bit for each length that a member's name has: most of what may stand in a
    /// request does not, and need not be looked for.
    lengths: u64,
}

const fn bit(length: usize) -> u64 {
    1 << (length % 64)
}

/// The lengths of an object's names. One with an escape may mean a shorter one.
fn lengths(object: Value<'_>) -> u64 {
    let of_name = |(name, _): (Value<'_>, Value<'_>)| {
        let name = name.as_str().unwrap_or_default();
        match name.inner() {
            inner if inner.contains('\\') => u64::MAX,
            inner => bit(inner.len()),
        }
    };
    object.entries().map(of_name).fold(0, |all, one| all | one)
}

impl<'a> Fields<'a> {
    /// The request itself.
    ///
    /// # Errors
    ///
    /// Where it is no object.
    pub(crate) fn of_body(value: Value<'a>) -> Result<Self, Invalid> {
        Self::at(value, String::new())
    }

    /// An object within the request.
    ///
    /// # Errors
    ///
    /// Where it is no object.
    pub(crate) fn at(value: Value<'a>, path: String) -> Result<Self, Invalid> {
        if value.is_object() {
            let lengths = lengths(value);
            return Ok(Self {
                value,
                path,
                lengths,
            });
        }
        Err(wrong(&path, "an object", value))
    }

    /// Where a member lies: `messages[0].content`.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.path.is_empty() {
            return name.to_owned();
        }
        format!("{}.{name}", self.path)
    }

    /// Where the object itself lies.
    pub(crate) fn place(&self) -> &str {
        &self.path
    }

    /// A member; `null` is as good as none.
    pub(crate) fn some(&self, name: &str) -> Option<Value<'a>> {
        if self.lengths & bit(name.len()) == 0 {
            return None;
        }
        self.value.some(name)
    }

    fn typed<T>(
        &self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, Invalid> {
        let Some(value) = self.some(name) else {
            return Ok(None);
        };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(wrong(&self.path(name), wanted, value)),
        }
    }

    /// A string.
    pub(crate) fn string(&self, name: &str) -> Result<Option<Str<'a>>, Invalid> {
        self.typed(name, "a string", |value| value.as_str())
    }

    /// A string that must be there.
    pub(crate) fn wanted(&self, name: &str) -> Result<Str<'a>, Invalid> {
        let missing = || {
            let path = self.path(name);
            Invalid::request(path.clone(), format!("'{path}' is required"))
        };
        self.string(name)?.ok_or_else(missing)
    }

    /// A number with its digits.
    pub(crate) fn digits(&self, name: &str) -> Result<Option<Digits<'a>>, Invalid> {
        self.typed(name, "a number", |value| {
            Some(Digits {
                text: value.number()?,
                value: value.as_f64()?,
            })
        })
    }

    /// A whole number that is not negative.
    pub(crate) fn count(&self, name: &str) -> Result<Option<u64>, Invalid> {
        self.typed(name, "a whole number, not negative", |value| value.as_u64())
    }

    /// A whole number of at least one.
    pub(crate) fn at_least_one(&self, name: &str) -> Result<Option<u64>, Invalid> {
        self.typed(name, "a whole number of at least 1", |value| {
            value.as_u64().filter(|count| *count > 0)
        })
    }

    /// A truth value.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Invalid> {
        self.typed(name, "a boolean", |value| value.as_bool())
    }

    /// An object, as written.
    pub(crate) fn raw_object(&self, name: &str) -> Result<Option<Raw<'a>>, Invalid> {
        self.typed(name, "an object", |value| {
            value.is_object().then(|| value.raw())
        })
    }

    /// An object.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Self>, Invalid> {
        let Some(value) = self.some(name) else {
            return Ok(None);
        };
        Self::at(value, self.path(name)).map(Some)
    }

    /// An object, where a string may stand in its place.
    pub(crate) fn object_or_string(&self, name: &str) -> Result<Option<Self>, Invalid> {
        match self.some(name) {
            Some(value) if value.is_str() => Ok(None),
            _ => self.object(name),
        }
    }

    /// The elements of an array; none when it is absent.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<Value<'a>>, Invalid> {
        let list = self.typed(name, "an array", |value| {
            value.is_array().then(|| value.items().collect())
        })?;
        Ok(list.unwrap_or_default())
    }

    /// The objects of an array, each with its place.
    pub(crate) fn objects(&self, name: &str) -> Result<Vec<Self>, Invalid> {
        let list = self.list(name)?;
        let places = list.into_iter().enumerate();
        places
            .map(|(i, value)| Self::at(value, format!("{}[{i}]", self.path(name))))
            .collect()
    }

    /// A string, or an array of strings.
    pub(crate) fn strings(&self, name: &str) -> Result<Vec<Str<'a>>, Invalid> {
        let strings = self.typed(name, "a string or an array of strings", |value| {
            if let Some(one) = value.as_str() {
                return Some(vec![one]);
            }
            let all = value.items().map(|item| item.as_str()).collect();
            if value.is_array() { all } else { None }
        })?;
        Ok(strings.unwrap_or_default())
    }
}

/// The refusal of a value of the wrong type.
pub(crate) fn wrong(path: &str, wanted: &str, found: Value<'_>) -> Invalid {
    let subject = if path.is_empty() {
        "the body".to_owned()
    } else {
        format!("'{path}'")
    };
    Invalid::request(
        path,
        format!("{subject} must be {wanted}, not {}", found.sort()),
    )
}
