//! Which names a pair of lists lets through: the lists of keys and of quotas.

/// Whether a name passes: an empty list of allowed names allows all, exclusion
/// wins. An entry is a name, or a pattern in which `*` stands for any run of
/// characters, slashes included. Letters count as they are written.
#[must_use]
pub fn permits(allowed: &[String], excluded: &[String], name: &str) -> bool {
    (allowed.is_empty() || lists(allowed, name)) && !lists(excluded, name)
}

/// Whether one of the entries is that name, or a pattern that it fits.
#[must_use]
pub fn lists(entries: &[String], name: &str) -> bool {
    entries.iter().any(|entry| fits(entry, name))
}

fn fits(entry: &str, name: &str) -> bool {
    let Some((start, rest)) = entry.split_once('*') else {
        return entry == name;
    };
    let Some(mut left) = name.strip_prefix(start) else {
        return false;
    };
    let (middles, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    // The first place of each piece leaves the most room for those behind it.
    for middle in middles.split('*').filter(|middle| !middle.is_empty()) {
        let Some((_, behind)) = left.split_once(middle) else {
            return false;
        };
        left = behind;
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (entry, name, expected) in [
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-4o", "GPT-4o", false),
            ("gpt-*", "gpt-4o", true),
            ("gpt-*", "gpt-", true),
            ("gpt-*", "my-gpt-4o", false),
            ("*-mini", "gpt-4o-mini", true),
            ("*-mini", "gpt-4o-mini-2", false),
            ("direct/*/gpt-*", "direct/openai/gpt-4o", true),
            ("direct/*", "direct/openai/a/b", true),
            ("a*b*c", "a-c-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*", "", true),
            ("**", "anything", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(fits(entry, name), expected, "{entry} {name}");
        }
    }

    #[test]
    fn exclusion_wins_and_an_empty_list_allows_all() {
        let list = |entries: &[&str]| entries.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>();
        assert!(permits(&[], &[], "x"));
        assert!(permits(&list(&["x", "y*"]), &[], "yes"));
        assert!(!permits(&list(&["x", "y*"]), &[], "no"));
        assert!(!permits(&list(&["*"]), &list(&["y*"]), "yes"));
        assert!(!permits(&[], &list(&["*"]), "x"));
    }

    /// The obvious way, which may take for ever.
    fn slowly(entry: &[u8], name: &[u8]) -> bool {
        match (entry.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                (0..=name.len()).any(|skipped| slowly(rest, &name[skipped..]))
            }
            (Some((a, rest)), Some((b, behind))) => a == b && slowly(rest, behind),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_fit_what_the_obvious_way_says(entry in "[ab*]{0,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(fits(&entry, &name), slowly(entry.as_bytes(), name.as_bytes()));
        }
    }
}
