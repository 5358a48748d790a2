//! Entity tags: what a careful client quotes so that it changes only what it has
//! seen (RFC 9110, sections 8.8.3 and 13.1).

use http::header::{HeaderMap, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderName, StatusCode};
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::Refusal;

/// A tag with its quotation marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag(String);

impl Tag {
    /// Of what a resource says, hidden secrets included.
    pub(super) fn of(value: &Value) -> Self {
        Self::of_text(&value.to_string())
    }

    /// Of a text.
    pub(super) fn of_text(text: &str) -> Self {
        let digest = digest(&SHA256, text.as_bytes());
        let half = digest.as_ref().iter().take(16);
        let letters: String = half.map(|byte| format!("{byte:02x}")).collect();
        Self(format!("\"{letters}\""))
    }

    /// As a header's value.
    pub(super) fn value(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

/// What a request says about the state that it may meet.
#[derive(Debug, Clone, Default)]
pub(super) struct Condition {
    one_of: Option<Vec<String>>,
    none_of: Option<Vec<String>>,
}

impl Condition {
    /// The condition that header fields state; most state none.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self {
            one_of: listed(headers, &IF_MATCH),
            none_of: listed(headers, &IF_NONE_MATCH),
        }
    }

    /// Whether the caller says which state it has seen.
    pub(super) const fn is_careful(&self) -> bool {
        self.one_of.is_some()
    }

    /// Checks a write against the state it meets; `None` where nothing is.
    ///
    /// # Errors
    /// 412 that tells the tag of the state.
    pub(super) fn met(&self, state: Option<&Tag>) -> Result<(), Refusal> {
        let among = |tags: &[String]| match state {
            None => false,
            Some(state) => tags.iter().any(|tag| tag == "*" || *tag == state.0),
        };
        if self.one_of.as_deref().is_some_and(|tags| !among(tags)) {
            return Err(failed("If-Match", state));
        }
        if self.none_of.as_deref().is_some_and(among) {
            return Err(failed("If-None-Match", state));
        }
        Ok(())
    }

    /// Whether the caller of a GET has this already.
    pub(super) fn has(&self, tag: &HeaderValue) -> bool {
        let text = tag.to_str().unwrap_or_default();
        let same = |known: &String| known == "*" || known.trim_start_matches("W/") == text;
        self.none_of.iter().flatten().any(same)
    }
}

fn listed(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<String>> {
    if !headers.contains_key(name) {
        return None;
    }
    let lists = headers.get_all(name).into_iter();
    let tags = lists.filter_map(|list| list.to_str().ok());
    let tags = tags.flat_map(|list| list.split(',')).map(str::trim);
    Some(
        tags.filter(|tag| !tag.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

fn failed(header: &str, state: Option<&Tag>) -> Refusal {
    let message = match state {
        Some(state) => format!("{header}: this has the tag {} now; read it again", state.0),
        None => format!("{header}: this is not there"),
    };
    Refusal::new(StatusCode::PRECONDITION_FAILED, message).tagged(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(pairs: &[(HeaderName, &str)]) -> Condition {
        let pairs = pairs.iter();
        let pairs =
            pairs.map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        Condition::of(&pairs.collect())
    }

    #[test]
    fn a_condition_is_met_by_the_state_it_names() {
        let (state, other) = (Tag::of_text("a"), Tag::of_text("b"));
        let both = format!("{}, {}", other.0, state.0);
        for (header, value, there, absent) in [
            (IF_MATCH, state.0.as_str(), true, false),
            (IF_MATCH, both.as_str(), true, false),
            (IF_MATCH, other.0.as_str(), false, false),
            (IF_MATCH, "*", true, false),
            (IF_MATCH, "", false, false),
            (IF_NONE_MATCH, "*", false, true),
            (IF_NONE_MATCH, state.0.as_str(), false, true),
            (IF_NONE_MATCH, other.0.as_str(), true, true),
        ] {
            let condition = condition(&[(header.clone(), value)]);
            assert_eq!(
                condition.met(Some(&state)).is_ok(),
                there,
                "{header}: {value}"
            );
            assert_eq!(condition.met(None).is_ok(), absent, "{header}: {value}");
        }
        assert!(Condition::default().met(None).is_ok());
    }
}
