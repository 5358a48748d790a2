//! Where in the text an entry stands, found by its lines alone: so that a small
//! edit of a large file costs as much as one of a small file.
//!
//! It knows block style only, and no more of YAML than indents, keys and
//! comments. What it finds is a guess: whoever edits by it checks the whole
//! text afterwards, and where it isn't sure it finds nothing.

use std::ops::Range;

/// Lines that can be edited as a document of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    /// Where they stand in the text. The last one has its line break, unless
    /// it ends the text.
    pub(super) range: Range<usize>,
    /// What has to stand before them for a document that says the same.
    pub(super) head: String,
}

impl Region {
    /// The lines as a document.
    pub(super) fn document(&self, text: &str) -> Option<String> {
        let lines = text.get(self.range.clone())?;
        Some(format!("{}{lines}", self.head))
    }

    /// The text with these lines replaced by those of an edited document.
    pub(super) fn replaced(&self, text: &str, document: &str) -> Option<String> {
        let lines = document.strip_prefix(&self.head)?;
        let (before, after) = (text.get(..self.range.start)?, text.get(self.range.end..)?);
        let mut whole = String::with_capacity(before.len() + lines.len() + after.len() + 1);
        whole.push_str(before);
        whole.push_str(lines);
        if !after.is_empty() && !whole.is_empty() && !whole.ends_with('\n') {
            whole.push('\n');
        }
        whole.push_str(after);
        Some(whole)
    }
}

/// The entry of a section. Where there is none of that name, the section's
/// last one, behind which it would be written.
pub(super) fn entry(text: &str, section: &str, name: &str) -> Option<Region> {
    let block = inside(text, section)?;
    let range = match block.find(text, name) {
        Some(range) => range,
        // Twice is a fault that the check names.
        None if block.keys.iter().any(|(_, key)| *key == name) => return None,
        None => block.keys.last().map(|(range, _)| range.clone())?,
    };
    Some(Region {
        range,
        head: format!("{section}:\n"),
    })
}

/// The names of a section's entries, in order.
pub(super) fn names<'t>(text: &'t str, section: &str) -> Option<Vec<&'t str>> {
    let block = inside(text, section)?;
    Some(block.keys.into_iter().map(|(_, name)| name).collect())
}

/// The names of all sections, in order.
pub(super) fn sections(text: &str) -> Option<Vec<&str>> {
    let block = Block::of(text)?;
    Some(block.keys.into_iter().map(|(_, name)| name).collect())
}

/// Behind everything, where a new section would be written.
pub(super) const fn end(text: &str) -> Region {
    Region {
        range: text.len()..text.len(),
        head: String::new(),
    }
}

/// The text without an entry, if its section has others.
pub(super) fn without(text: &str, section: &str, name: &str) -> Option<String> {
    let block = inside(text, section)?;
    let range = block.find(text, name)?;
    if block.keys.len() < 2 {
        return None;
    }
    let (before, after) = (text.get(..range.start)?, text.get(range.end..)?);
    Some(format!("{before}{after}"))
}

/// A section with its key.
pub(super) fn section(text: &str, name: &str) -> Option<Region> {
    let range = Block::of(text)?.find(text, name)?;
    Some(Region {
        range,
        head: String::new(),
    })
}

/// Whether the section has an entry of that name, as far as its lines tell.
pub(super) fn has(text: &str, section: &str, name: &str) -> Option<bool> {
    let region = entry(text, section, name)?;
    let line = first_line(text, &region.range)?;
    Some(key(line.trim_start_matches(' '))?.0 == name)
}

/// The entries of a section that has them on lines of their own.
fn inside<'t>(text: &'t str, section: &str) -> Option<Block<'t>> {
    let outer = Block::of(text)?.find(text, section)?;
    let line = first_line(text, &outer)?;
    let (found, behind) = key(line)?;
    if found != section || !is_silent(behind) {
        return None;
    }
    Block::within(text, outer.start + line.len()..outer.end)
}

/// The entries of a map in block style.
struct Block<'t> {
    /// Each with its lines: from its key's to its last that isn't a blank or a
    /// comment of the map's own.
    keys: Vec<(Range<usize>, &'t str)>,
}

fn first_line<'t>(text: &'t str, range: &Range<usize>) -> Option<&'t str> {
    text.get(range.clone())?.split_inclusive('\n').next()
}

impl<'t> Block<'t> {
    /// The whole text.
    fn of(text: &'t str) -> Option<Self> {
        let marked = |line: &str| line.starts_with(['%', '\u{feff}']) || line.starts_with("---");
        if text.lines().next().is_some_and(marked) {
            return None;
        }
        Self::within(text, 0..text.len())
    }

    fn within(text: &'t str, inside: Range<usize>) -> Option<Self> {
        let mut keys: Vec<(Range<usize>, &'t str)> = Vec::new();
        let mut level = None;
        let mut at = inside.start;
        let lines = text.get(inside)?;
        let breaks = memchr::memchr_iter(b'\n', lines.as_bytes()).map(|at| at + 1);
        let mut from = 0;
        for to in breaks.chain([lines.len()]) {
            let line = lines.get(std::mem::replace(&mut from, to)..to)?;
            let start = at;
            at += line.len();
            let indent = line.bytes().take_while(|byte| *byte == b' ').count();
            let content = line.get(indent..)?;
            if is_blank(content) {
                continue;
            }
            if content.starts_with('#') && level.is_none_or(|level| indent <= level) {
                continue;
            }
            let own = *level.get_or_insert(indent);
            if indent < own {
                return None;
            }
            // A list may stand as deep as the key that it belongs to.
            if indent > own || is_item(content) {
                keys.last_mut()?.0.end = at;
            } else {
                keys.push((start..at, key(content)?.0));
            }
        }
        Some(Self { keys })
    }

    fn find(&self, text: &str, name: &str) -> Option<Range<usize>> {
        let mut named = self.keys.iter().filter(|(_, key)| *key == name);
        let found = named.next()?.0.clone();
        (named.next().is_none() && found.end <= text.len()).then_some(found)
    }
}

fn is_blank(content: &str) -> bool {
    content
        .bytes()
        .all(|byte| matches!(byte, b'\n' | b'\r' | b' '))
}

fn is_item(content: &str) -> bool {
    content
        .strip_prefix('-')
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\n', '\r']))
}

/// Whether nothing but a comment stands behind a key.
fn is_silent(behind: &str) -> bool {
    let value = behind.trim_start();
    value.is_empty() || (value.starts_with('#') && behind.starts_with([' ', '\t']))
}

/// The key that a line begins with, and what stands behind its colon; for keys
/// that are said without escapes.
fn key(content: &str) -> Option<(&str, &str)> {
    let (key, rest) = match content.chars().next()? {
        mark @ ('"' | '\'') => {
            let (key, rest) = content.get(1..)?.split_once(mark)?;
            let plain = !key.contains(['\\', '\n']) && !rest.starts_with(mark);
            (plain.then_some(key)?, rest.trim_start_matches(' '))
        }
        '?' | '-' | '[' | '{' | '}' | ']' | '&' | '*' | '!' | '|' | '>' | '%' | '@' | '`'
        | '\t' | '<' => return None,
        _ => {
            let mut colons = content.match_indices(':').map(|(at, _)| at);
            let ends = |at: &usize| {
                let behind = content.get(at + 1..).unwrap_or_default();
                behind.is_empty() || behind.starts_with([' ', '\t', '\n', '\r'])
            };
            let (key, rest) = content.split_at(colons.find(ends)?);
            let key = key.trim_end_matches(' ');
            (!key.contains(" #")).then_some((key, rest))?
        }
    };
    Some((key, rest.strip_prefix(':')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# the head
providers:   # who serves
  # the first
  one:
    api_key: k   # given
    # about nothing
    models:
    - m

  # the second
  'two': { api_key: l }
  # the last words
keys: {}

models:
- odd
";

    fn lines(section: &str, name: &str) -> Option<&'static str> {
        let region = entry(FILE, section, name)?;
        assert_eq!(region.head, format!("{section}:\n"));
        FILE.get(region.range)
    }

    #[test]
    fn an_entry_has_its_lines_and_what_is_said_inside_of_it() {
        let one = "  one:\n    api_key: k   # given\n    # about nothing\n    models:\n    - m\n";
        assert_eq!(lines("providers", "one"), Some(one));
        assert_eq!(lines("providers", "two"), Some("  'two': { api_key: l }\n"));
    }

    #[test]
    fn one_that_is_not_there_would_follow_the_last() {
        assert_eq!(lines("providers", "three"), lines("providers", "two"));
        assert_eq!(has(FILE, "providers", "two"), Some(true));
        assert_eq!(has(FILE, "providers", "three"), Some(false));
    }

    #[test]
    fn a_section_ends_before_the_next_and_its_comments() {
        let found = section(FILE, "keys").unwrap();
        assert_eq!(FILE.get(found.range), Some("keys: {}\n"));
        assert_eq!(section(FILE, "nothing"), None);
    }

    #[test]
    fn where_it_is_not_sure_it_finds_nothing() {
        assert_eq!(lines("keys", "a"), None);
        assert_eq!(lines("models", "a"), None);
        for text in [
            "keys: &x\n  a: {}\n",
            "{keys: {a: {}}}\n",
            "---\nkeys:\n  a: {}\n",
            "keys:\n  ? a\n  : {}\n",
            "keys:\n    b: {}\n  a: {}\n",
            "keys:\n  \"a\\u0020\": {}\n",
            "keys:\n  a: {}\n  a: {}\n",
            "keys: {\n  a: {}\n}\n",
        ] {
            let sure = entry(text, "keys", "a").filter(|_| has(text, "keys", "a") == Some(true));
            assert_eq!(sure, None, "{text}");
        }
    }

    #[test]
    fn keys_are_read_as_far_as_they_are_plain() {
        for (line, wanted) in [
            ("a: b\n", Some("a")),
            ("a/b:c: d", Some("a/b:c")),
            ("a :\n", Some("a")),
            ("\"a: b\": c\n", Some("a: b")),
            ("'it''s': c\n", None),
            ("a\n", None),
            ("- a: b\n", None),
            ("http://x: y\n", Some("http://x")),
        ] {
            assert_eq!(key(line).map(|(key, _)| key), wanted, "{line}");
        }
    }
}
