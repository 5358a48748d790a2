//! A value that must not be seen: it has no `Display`, and `Debug` hides it.

use std::fmt;
use std::sync::Arc;

/// A credential. Cheap to clone; printed as `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a credential.
    #[must_use]
    pub fn new(value: impl Into<Arc<str>>) -> Self {
        Self(value.into())
    }

    /// The credential itself, for the one place that must send or compare it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Whether a field of that name holds a secret. Besides `api_key` and `secret`
/// these are options of quota checkers.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let plain = plain_letters(name);
    let words = [
        "apikey",
        "secret",
        "password",
        "cookie",
        "authorization",
        "session",
    ];
    words.iter().any(|word| plain.contains(word)) || plain.ends_with("token")
}

/// The letters and digits of a name, in lower case.
#[must_use]
pub fn plain_letters(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|c| c.to_ascii_lowercase()).collect()
}
