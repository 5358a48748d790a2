//! Secrets at rest: sealed with AES-256-GCM under `ENCRYPTION_KEY`, each bound
//! to the place that it was sealed for. It must not know where they are kept.
//!
//! A sealed text is `enc:v1:` and, in base64: 16 bytes of salt, 4 that tell one
//! key from another, 12 of nonce, the ciphertext and its tag. The salt makes
//! every installation's key its own, so that a list of passphrases can't be
//! worked through once for all; it stays the same in one file, because a
//! passphrase costs a fifth of a second to turn into a key.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use parking_lot::Mutex;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use ring::pbkdf2;
use ring::rand::{SecureRandom, SystemRandom};

/// What every sealed text begins with.
const MARK: &str = "enc:v1:";
/// The environment variable with the key.
pub const VARIABLE: &str = "ENCRYPTION_KEY";

const SALT: usize = 16;
const CHECK: usize = 4;
const NONCE: usize = 12;
const TAG: usize = 16;

/// Rounds of PBKDF2-HMAC-SHA256 for a passphrase; OWASP's figure of 2023.
const ROUNDS: u32 = 600_000;

/// Salts that one process works with. A file has one; more come from entries
/// that were copied between installations. Each costs a passphrase's rounds.
const SALTS: usize = 16;

/// Why a secret could not be sealed or opened. Never holds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VaultError {
    /// It is sealed, and there is no key.
    NoKey,
    /// It was sealed with another key.
    OtherKey,
    /// It was sealed for another place, or changed since.
    Misplaced,
    /// It only looks like a sealed text.
    Malformed,
    /// The file has values with too many different salts.
    TooManySalts,
    /// The system gave no random numbers.
    NoRandomness,
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => {
                "this value is encrypted and there is no key; set the environment variable \
                 ENCRYPTION_KEY to the key that it was encrypted with"
            }
            Self::OtherKey => {
                "this value was encrypted with another key than the one in the environment \
                 variable ENCRYPTION_KEY"
            }
            Self::Misplaced => {
                "this value was encrypted for another place, or was changed; an encrypted value \
                 can't be copied to another entry: put the secret itself here"
            }
            Self::Malformed => {
                "this value begins like an encrypted one, but is none; the secret itself is wanted"
            }
            Self::TooManySalts => {
                "this value comes from one installation more than can be mixed in one file; put \
                 the secret itself here"
            }
            Self::NoRandomness => "the system gave no random numbers to encrypt with",
        })
    }
}

impl std::error::Error for VaultError {}

/// The key, or none, and what was derived from it. Keys are kept for the
/// process's life; none is ever printed.
#[derive(Default)]
pub struct Vault {
    master: Option<Master>,
    derived: Mutex<Vec<Derived>>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("has_key", &self.has_key())
            .finish_non_exhaustive()
    }
}

enum Master {
    /// 64 hex digits: 32 random bytes.
    Key([u8; 32]),
    Passphrase(Box<str>),
}

/// What one salt makes of the master key.
struct Derived {
    salt: [u8; SALT],
    check: [u8; CHECK],
    key: LessSafeKey,
}

impl Vault {
    /// A vault with that key: 64 hex digits, or else a passphrase. A blank text
    /// is no key.
    #[must_use]
    pub fn new(key: &str) -> Self {
        let key = key.trim();
        let master = match hex(key) {
            _ if key.is_empty() => None,
            Some(bytes) => Some(Master::Key(bytes)),
            None => Some(Master::Passphrase(key.into())),
        };
        Self {
            master,
            derived: Mutex::default(),
        }
    }

    /// A vault with the key in `ENCRYPTION_KEY`, if there is one.
    #[must_use]
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Self {
        Self::new(&environment(VARIABLE).unwrap_or_default())
    }

    /// Whether secrets are sealed at all.
    #[must_use]
    pub const fn has_key(&self) -> bool {
        self.master.is_some()
    }

    /// Whether a text is a sealed one.
    #[must_use]
    pub fn is_sealed(text: &str) -> bool {
        text.starts_with(MARK)
    }

    /// Seals a secret for that place.
    ///
    /// # Errors
    /// [`VaultError::NoKey`], [`VaultError::NoRandomness`].
    pub fn seal(&self, place: &[&str], secret: &str) -> Result<String, VaultError> {
        let random = SystemRandom::new();
        let mut nonce = [0; NONCE];
        random
            .fill(&mut nonce)
            .map_err(|_| VaultError::NoRandomness)?;
        let mut salt = [0; SALT];
        random
            .fill(&mut salt)
            .map_err(|_| VaultError::NoRandomness)?;
        let mut derived = self.derived.lock();
        // The first salt that was met is the file's own.
        if derived.is_empty() {
            derived.push(self.derive(salt)?);
        }
        let Some(with) = derived.first() else {
            return Err(VaultError::NoKey);
        };
        let mut sealed = secret.as_bytes().to_vec();
        with.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound(place)),
                &mut sealed,
            )
            .map_err(|_| VaultError::Malformed)?;
        let bytes = [&with.salt[..], &with.check, &nonce, &sealed].concat();
        Ok(format!("{MARK}{}", BASE64.encode(bytes)))
    }

    /// Opens what was sealed for that place.
    ///
    /// # Errors
    /// Everything but [`VaultError::NoRandomness`].
    pub fn open(&self, place: &[&str], sealed: &str) -> Result<String, VaultError> {
        let coded = sealed.strip_prefix(MARK).ok_or(VaultError::Malformed)?;
        let bytes = BASE64.decode(coded).map_err(|_| VaultError::Malformed)?;
        let (salt, rest) = taken::<SALT>(&bytes)?;
        let (check, rest) = taken::<CHECK>(rest)?;
        let (nonce, rest) = taken::<NONCE>(rest)?;
        if rest.len() < TAG {
            return Err(VaultError::Malformed);
        }
        if !self.has_key() {
            return Err(VaultError::NoKey);
        }
        let mut derived = self.derived.lock();
        let known = derived.iter().position(|known| known.salt == salt);
        let position = match known {
            Some(position) => position,
            None if derived.len() >= SALTS => return Err(VaultError::TooManySalts),
            None => {
                let new = self.derive(salt)?;
                // A stranger's salt must not become the one to seal with.
                if new.check != check {
                    return Err(VaultError::OtherKey);
                }
                derived.push(new);
                derived.len() - 1
            }
        };
        let with = derived.get(position).ok_or(VaultError::NoKey)?;
        if with.check != check {
            return Err(VaultError::OtherKey);
        }
        let mut opened = rest.to_vec();
        let clear = with
            .key
            .open_in_place(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound(place)),
                &mut opened,
            )
            .map_err(|_| VaultError::Misplaced)?;
        String::from_utf8(clear.to_vec()).map_err(|_| VaultError::Malformed)
    }

    fn derive(&self, salt: [u8; SALT]) -> Result<Derived, VaultError> {
        let mut stretched = [0; 32];
        let material = match self.master.as_ref().ok_or(VaultError::NoKey)? {
            Master::Key(key) => key,
            Master::Passphrase(passphrase) => {
                pbkdf2::derive(
                    pbkdf2::PBKDF2_HMAC_SHA256,
                    NonZeroU32::new(ROUNDS).unwrap_or(NonZeroU32::MIN),
                    &salt,
                    passphrase.as_bytes(),
                    &mut stretched,
                );
                &stretched
            }
        };
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(material);
        let key = expanded(&root, b"plexus enc:v1 key")?;
        let (check, _) = taken::<CHECK>(&expanded(&root, b"plexus enc:v1 check")?)?;
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| VaultError::NoKey)?;
        Ok(Derived {
            salt,
            check,
            key: LessSafeKey::new(key),
        })
    }
}

fn expanded(root: &hkdf::Prk, purpose: &[u8]) -> Result<[u8; 32], VaultError> {
    let mut out = [0; 32];
    root.expand(&[purpose], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out))
        .map_err(|_| VaultError::NoKey)?;
    Ok(out)
}

/// A place without doubt about where one name ends and the next begins.
fn bound(place: &[&str]) -> Vec<u8> {
    serde_json::Value::from(place).to_string().into_bytes()
}

fn taken<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), VaultError> {
    bytes
        .split_first_chunk::<N>()
        .map(|(first, rest)| (*first, rest))
        .ok_or(VaultError::Malformed)
}

/// 64 hex digits as bytes.
fn hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const PLACE: [&str; 3] = ["providers", "openai", "api_key"];

    #[test]
    fn what_is_sealed_opens_at_its_place_and_nowhere_else() {
        let vault = Vault::new(KEY);
        let sealed = vault.seal(&PLACE, "sk-secret").unwrap();
        assert!(Vault::is_sealed(&sealed) && !sealed.contains("sk-secret"));
        assert_eq!(vault.open(&PLACE, &sealed).as_deref(), Ok("sk-secret"));
        for place in [
            &["providers", "openai", "secret"][..],
            &["providers", "open", "aiapi_key"],
            &["providers", "openai"],
            &[],
        ] {
            assert_eq!(vault.open(place, &sealed), Err(VaultError::Misplaced));
        }
    }

    #[test]
    fn another_process_with_the_same_key_opens_it_and_seals_with_the_same_salt() {
        let sealed = Vault::new(KEY).seal(&PLACE, "a").unwrap();
        let other = Vault::new(&KEY.to_uppercase());
        assert_eq!(other.open(&PLACE, &sealed).as_deref(), Ok("a"));
        let again = other.seal(&PLACE, "a").unwrap();
        assert_ne!(again, sealed, "the nonce is new");
        assert_eq!(again[..MARK.len() + 21], sealed[..MARK.len() + 21]);
    }

    #[test]
    fn another_key_says_so_and_no_key_says_so() {
        let sealed = Vault::new(KEY).seal(&PLACE, "a").unwrap();
        let other = Vault::new(&"ab".repeat(32));
        assert_eq!(other.open(&PLACE, &sealed), Err(VaultError::OtherKey));
        // Its salt is not taken over.
        let own = other.seal(&PLACE, "b").unwrap();
        assert_ne!(own[..MARK.len() + 21], sealed[..MARK.len() + 21]);
        for none in [Vault::default(), Vault::new(""), Vault::new("  ")] {
            assert_eq!(none.open(&PLACE, &sealed), Err(VaultError::NoKey));
            assert_eq!(none.seal(&PLACE, "a"), Err(VaultError::NoKey));
        }
    }

    #[test]
    fn a_passphrase_is_a_key_too() {
        let vault = Vault::new("correct horse battery staple");
        let sealed = vault.seal(&PLACE, "a").unwrap();
        assert_eq!(vault.open(&PLACE, &sealed).as_deref(), Ok("a"));
        let wrong = Vault::new("correct horse battery stable");
        assert_eq!(wrong.open(&PLACE, &sealed), Err(VaultError::OtherKey));
    }

    #[test]
    fn too_many_salts_are_refused_and_known_ones_go_on() {
        let vault = Vault::new(KEY);
        let of_others: Vec<String> = (0..=SALTS)
            .map(|_| Vault::new(KEY).seal(&PLACE, "a").unwrap())
            .collect();
        let (last, first) = of_others.split_last().unwrap();
        for sealed in first {
            assert_eq!(vault.open(&PLACE, sealed).as_deref(), Ok("a"));
        }
        assert_eq!(vault.open(&PLACE, last), Err(VaultError::TooManySalts));
        assert_eq!(vault.open(&PLACE, &first[3]).as_deref(), Ok("a"));
    }

    #[test]
    fn a_key_is_never_printed() {
        let shown = format!("{:?}", Vault::new("open sesame"));
        assert!(!shown.contains("sesame"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_text_survives_and_any_changed_byte_is_noticed(secret in ".{0,60}", at in any::<prop::sample::Index>(), flip in 1_u8..=255) {
            let vault = Vault::new(KEY);
            let sealed = vault.seal(&PLACE, &secret).unwrap();
            prop_assert_eq!(vault.open(&PLACE, &sealed), Ok(secret));
            let mut bytes = BASE64.decode(&sealed[MARK.len()..]).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let changed = format!("{MARK}{}", BASE64.encode(bytes));
            prop_assert!(vault.open(&PLACE, &changed).is_err());
        }

        #[test]
        fn nothing_that_looks_sealed_can_panic(text in ".{0,80}") {
            let sealed = format!("{MARK}{text}");
            prop_assert!(Vault::new(KEY).open(&PLACE, &sealed).is_err());
        }
    }
}
