//! Fitting ids and names into what a protocol allows, and back.

use std::borrow::Cow;

use indexmap::IndexMap;
use ring::digest::{SHA256, digest};

use super::Protocol;
use super::json::Str;

/// A call's id as the target accepts it: unchanged where it is valid, else
/// `call_` and 27 base62 characters of its hash. The same id always becomes the
/// same, so that calls and results agree from turn to turn.
#[must_use]
pub fn call_id<'a>(id: &'a Str<'_>, target: Protocol) -> Cow<'a, str> {
    let plain = id.plain();
    let length = plain.chars().count();
    let valid = match target {
        Protocol::Messages => length <= 64 && plain.bytes().all(is_word),
        Protocol::Responses => length <= 64,
        Protocol::Gemini => true,
        _ => length <= 40,
    };
    if valid && length > 0 {
        return plain;
    }
    Cow::Owned(format!("call_{}", base62::<27>(plain.as_bytes())))
}

/// A client's name for a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// Its name.
    pub name: String,
    /// Its namespace (Responses).
    pub namespace: Option<String>,
}

/// The names that were given to a provider.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The provider's name, and the client's.
    given: IndexMap<String, Original>,
}

impl Names {
    /// A tool's name as the target accepts it; with a namespace, `namespace__name`.
    /// A change is remembered. Two tools never get the same name: fit the declared
    /// tools first and in their order, then what the history calls.
    pub fn fit(&mut self, name: &Str<'_>, namespace: Option<&Str<'_>>, target: Protocol) -> String {
        let original = Original {
            name: name.to_plain_string(),
            namespace: namespace.map(Str::to_plain_string),
        };
        let full = match &original.namespace {
            Some(namespace) => format!("{namespace}__{}", original.name),
            None => original.name.clone(),
        };
        let mut fitted = if is_name(&full, target) {
            full.clone()
        } else {
            hashed(&full, &full, 6, target)
        };
        for digits in [6, 12, 24, 48] {
            match self.given.get(&fitted) {
                Some(owner) if *owner != original => {
                    let seed = format!("{:?}", (&original.namespace, &original.name));
                    fitted = hashed(&full, &seed, digits, target);
                }
                Some(_) => return fitted,
                None => break,
            }
        }
        self.given.insert(fitted.clone(), original);
        fitted
    }

    /// The client's name for what the provider calls that; `None` where it is the
    /// same.
    #[must_use]
    pub fn original(&self, fitted: &str) -> Option<&Original> {
        let original = self.given.get(fitted)?;
        let changed = original.namespace.is_some() || original.name != fitted;
        changed.then_some(original)
    }

    /// Whether no name was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.given
            .keys()
            .all(|fitted| self.original(fitted).is_none())
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

const fn longest(target: Protocol) -> usize {
    match target {
        Protocol::Messages | Protocol::Gemini => 128,
        _ => 64,
    }
}

/// Whether a character may stand in a name, at its beginning or behind it.
const fn is_letter(letter: char, first: bool, target: Protocol) -> bool {
    match (target, first) {
        (Protocol::Gemini, true) => letter.is_ascii_alphabetic() || letter == '_',
        (Protocol::Gemini, false) => {
            letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.' | ':')
        }
        _ => letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-'),
    }
}

fn is_name(name: &str, target: Protocol) -> bool {
    let mut letters = name.chars().enumerate();
    let length = 1..=longest(target);
    length.contains(&name.len()) && letters.all(|(at, letter)| is_letter(letter, at == 0, target))
}

/// The name with what is not allowed replaced, and as many digits of a hash.
fn hashed(name: &str, seed: &str, digits: usize, target: Protocol) -> String {
    let room = longest(target).saturating_sub(digits + 1);
    let replace = |(at, letter): (usize, char)| {
        if is_letter(letter, at == 0, target) {
            letter
        } else {
            '_'
        }
    };
    let mut out: String = name.chars().take(room).enumerate().map(replace).collect();
    out.push('_');
    let hash = digest(&SHA256, seed.as_bytes());
    let hex = hash
        .as_ref()
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16));
    out.extend(hex.take(digits));
    out
}

/// That many base62 digits of the hash.
fn base62<const N: usize>(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let hash = digest(&SHA256, bytes);
    let mut number = hash.as_ref().to_vec();
    let mut out = String::with_capacity(N);
    for _ in 0..N {
        let mut rest = 0_u32;
        for byte in &mut number {
            let part = rest << 8 | u32::from(*byte);
            // The rest is below 62, so that the quotient is below 256.
            *byte = (part / 62) as u8;
            rest = part % 62;
        }
        out.push(char::from(DIGITS[rest as usize]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHAT_FAMILY: [Protocol; 4] = [
        Protocol::Chat,
        Protocol::Responses,
        Protocol::Messages,
        Protocol::Gemini,
    ];

    #[test]
    fn ids_that_are_valid_stay_and_others_become_the_same_every_time() {
        let kimi = Str::new("functions.Web:3");
        assert_eq!(call_id(&kimi, Protocol::Chat), "functions.Web:3");
        assert_eq!(call_id(&kimi, Protocol::Gemini), "functions.Web:3");
        let fitted = call_id(&kimi, Protocol::Messages);
        assert_eq!(fitted.len(), 32);
        assert!(fitted.starts_with("call_") && fitted.bytes().all(is_word));
        assert_eq!(fitted, call_id(&kimi, Protocol::Messages));
        let long = Str::from("x".repeat(80));
        assert_eq!(
            call_id(&long, Protocol::Chat),
            call_id(&long, Protocol::Responses)
        );
        let middling = Str::from("x".repeat(50));
        assert_eq!(call_id(&middling, Protocol::Chat).len(), 32);
        assert_eq!(call_id(&middling, Protocol::Messages).len(), 50);
        assert_eq!(call_id(&Str::new(""), Protocol::Gemini).len(), 32);
    }

    #[test]
    fn names_are_fitted_and_restored() {
        let mut names = Names::default();
        let fitted = names.fit(&Str::new("9get weather"), None, Protocol::Gemini);
        assert!(fitted.starts_with("_get_weather_"), "{fitted}");
        assert_eq!(fitted.len(), "_get_weather_".len() + 6);
        assert_eq!(names.original(&fitted).unwrap().name, "9get weather");
        assert_eq!(names.fit(&Str::new("plain"), None, Protocol::Chat), "plain");
        assert_eq!(names.original("plain"), None);
        let long = names.fit(&Str::from("é".repeat(200)), None, Protocol::Messages);
        assert_eq!(long.len(), 128);
        assert!(names.fit(&Str::new(""), None, Protocol::Chat).len() == 7);
    }

    #[test]
    fn a_namespace_goes_before_the_name_and_comes_back() {
        let mut names = Names::default();
        let fitted = names.fit(&Str::new("read"), Some(&Str::new("fs")), Protocol::Messages);
        assert_eq!(fitted, "fs__read");
        let original = Original {
            name: "read".to_owned(),
            namespace: Some("fs".to_owned()),
        };
        assert_eq!(names.original("fs__read"), Some(&original));
        let rival = names.fit(&Str::new("fs__read"), None, Protocol::Messages);
        assert_ne!(rival, "fs__read");
        assert_eq!(names.original(&rival).unwrap().name, "fs__read");
        let again = names.fit(&Str::new("fs__read"), None, Protocol::Messages);
        assert_eq!(rival, again);
    }

    proptest! {
        #[test]
        fn whatever_is_given_is_fitted(
            id in any::<String>(),
            tools in proptest::collection::vec((any::<String>(), proptest::option::of("[a_.]{0,3}")), 0..8),
            which in 0_usize..4,
        ) {
            let target = CHAT_FAMILY[which];
            let id = Str::from(id);
            let fitted = Str::from(call_id(&id, target).into_owned());
            prop_assert!(!fitted.is_empty());
            prop_assert_eq!(call_id(&fitted, target), fitted.plain());
            let mut names = Names::default();
            for (name, namespace) in &tools {
                let (name, namespace) = (Str::new(name), namespace.as_deref().map(Str::new));
                let fitted = names.fit(&name, namespace.as_ref(), target);
                prop_assert!(is_name(&fitted, target), "{}", fitted);
                match names.original(&fitted) {
                    Some(original) => {
                        prop_assert!(name.is(&original.name));
                        prop_assert_eq!(namespace.map(|n| n.to_plain_string()), original.namespace.clone());
                    }
                    None => prop_assert!(name.is(&fitted) && namespace.is_none()),
                }
            }
        }
    }
}
