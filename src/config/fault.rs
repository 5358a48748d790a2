//! What is wrong with a configuration, said so that it can be mended: where,
//! what was found, what was wanted, and the nearest name that would have done.
//!
//! This file must not know the schema.

use std::fmt;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Field names and list positions from the top of the file.
    pub path: Vec<String>,
    /// Line, from 1; 0 where the fault has no place in the file (the
    /// environment, or a file that can't be read).
    pub line: u32,
    /// Column in characters, from 1; 0 as for `line`.
    pub column: u32,
    /// What was found and what was wanted. Never holds a secret.
    pub message: String,
}

impl Fault {
    /// A fault of the file as a whole, or of the environment.
    #[must_use]
    pub fn without_place(path: &[&str], message: impl Into<String>) -> Self {
        Self {
            path: path.iter().map(ToString::to_string).collect(),
            line: 0,
            column: 0,
            message: message.into(),
        }
    }

    fn render(&self, file_name: &str, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str(file_name)?;
        if self.line > 0 {
            write!(out, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(out, " {}", self.path.join("."))?;
        }
        write!(out, ": {}", self.message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.render("plexus.yaml", f)
    }
}

/// All faults as text for a terminal, one a line, in the order given.
#[must_use]
pub fn describe(faults: &[Fault], file_name: &str) -> String {
    let mut text = String::new();
    for fault in faults {
        // Writing to a String can't fail.
        if fault.render(file_name, &mut text).is_ok() {
            text.push('\n');
        }
    }
    text
}

/// A place in the file, both counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::config) struct Place {
    pub(in crate::config) line: u32,
    pub(in crate::config) column: u32,
}

/// Sorts by place and drops repetitions: two passes may see the same fault.
pub(in crate::config) fn settle(mut faults: Vec<Fault>) -> Vec<Fault> {
    faults.sort_by(|a, b| {
        (a.line, a.column, &a.path, &a.message).cmp(&(b.line, b.column, &b.path, &b.message))
    });
    faults.dedup();
    faults
}

/// `; did you mean "x"?` for the nearest of the known names, or nothing when
/// none is near.
pub(in crate::config) fn suggestion<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> String {
    match nearest(written, known) {
        Some(name) => format!("; did you mean \"{name}\"?"),
        None => String::new(),
    }
}

/// The known name nearest to the written one, if it is near enough to be a
/// slip of the finger. Case, `_` and `-` don't count.
#[must_use]
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > LONGEST_COMPARED {
        return None;
    }
    let plain = plain_letters(written);
    let allowed = (plain.len() / 3).max(1);
    known
        .into_iter()
        .filter(|name| name.len() <= LONGEST_COMPARED)
        .map(|name| (distance(&plain, &plain_letters(name)), name))
        .filter(|(far, _)| *far <= allowed)
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name)
}

fn plain_letters(name: &str) -> Vec<char> {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Edit distance in which swapping two neighbours counts once.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

/// Names longer than this aren't compared: the cost grows with the product.
const LONGEST_COMPARED: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(line: u32, path: &[&str]) -> Fault {
        Fault {
            line,
            column: line,
            ..Fault::without_place(path, "wrong")
        }
    }

    #[test]
    fn a_fault_names_file_line_column_and_path() {
        let shown = fault(12, &["providers", "openai"]).to_string();
        assert_eq!(shown, "plexus.yaml:12:12 providers.openai: wrong");
    }

    #[test]
    fn a_fault_without_a_place_or_path_leaves_them_out() {
        let faults = [fault(0, &[]), fault(0, &["PORT"])];
        assert_eq!(
            describe(&faults, "x.yaml"),
            "x.yaml: wrong\nx.yaml PORT: wrong\n"
        );
    }

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        let known = ["api_base_url", "api_key", "extraBody"];
        assert_eq!(nearest("api_base_ur", known), Some("api_base_url"));
        assert_eq!(nearest("apiKey", known), Some("api_key"));
        assert_eq!(nearest("extra_bdoy", known), Some("extraBody"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest(&"x".repeat(5000), known), None);
    }

    #[test]
    fn swapped_neighbours_are_one_slip() {
        let letters = |s: &str| s.chars().collect::<Vec<_>>();
        assert_eq!(distance(&letters("form"), &letters("from")), 1);
        assert_eq!(distance(&letters(""), &letters("abc")), 3);
    }

    #[test]
    fn settling_sorts_by_place_and_drops_repetitions() {
        let settled = settle(vec![fault(9, &["b"]), fault(2, &["a"]), fault(9, &["b"])]);
        assert_eq!(settled, vec![fault(2, &["a"]), fault(9, &["b"])]);
    }
}
