//! The rules of the house, read off the sources: the floors, how a file opens,
//! what is never left behind, and that every endpoint is written about.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that fails should stop where it does"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use plexus::routes::ROUTES;

/// Modules that the tests of any other may use.
const FOR_TESTS: [&str; 2] = ["simulate", "cli"];

#[test]
fn no_arrow_points_up() {
    let floors = floors(&read("src/lib.rs"));
    let found: Vec<String> = sources()
        .iter()
        .flat_map(|file| upward(&file.module, &file.text, &floors, &file.name))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn an_arrow_that_points_up_is_found_however_it_is_written() {
    let floors = ["low", "middle", "high", "simulate"].map(str::to_owned);
    let check = |module: &[&str], text: &str| {
        let module: Vec<String> = module.iter().map(|part| (*part).to_owned()).collect();
        upward(&module, text, &floors, "f.rs")
    };
    for (text, line) in [
        ("use crate::high::X;", 1),
        ("\nuse crate::{low, high};", 2),
        ("use crate::{low::{A, B}, high::{C, D}};", 1),
        ("fn f() {\n    crate::high::g();\n}", 2),
        ("use super::super::high;", 1),
        ("use super::{sibling, super::{\nhigh::X}};", 2),
        ("mod inner {\n    use super::super::super::high::X;\n}", 2),
        ("#[cfg(test)]\nmod tests {\n    use crate::high::X;\n}", 3),
        ("pub(in crate::high) fn f() {}", 1),
        ("use crate::simulate::Simulator;", 1),
        (
            "const A: &str = \"// \\\" {\"; type B<'a> = &'a crate::high::X;",
            1,
        ),
        (
            "const A: char = '\"'; use crate::high; const B: char = '\"';",
            1,
        ),
        ("use crate::*;", 1),
    ] {
        let found = check(&["middle", "part"], text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].starts_with(&format!("f.rs:{line}: ")), "{found:?}");
    }
    for text in [
        "use crate::low::X;",
        "use crate::middle::X; use super::X; use self::high::X; use super::super::middle::X;",
        "// use crate::high::X;\n/* use crate::high; /* crate::high */ */\n//! [`crate::high`]",
        "const A: &str = \"crate::high\"; const B: &str = r#\"\" crate::high::x\"#;",
        "pub(crate) fn f(high: u8) -> u8 { high }",
        "#[cfg(test)]\nmod tests {\n    use crate::simulate::Simulator;\n}",
        "mod inner { mod deeper { use super::super::high; } }",
    ] {
        assert_eq!(check(&["middle", "part"], text), Vec::<String>::new());
    }
}

#[test]
fn the_floors_are_all_modules_there_are() {
    let listed: BTreeSet<String> = floors(&read("src/lib.rs")).into_iter().collect();
    let there: BTreeSet<String> = sources()
        .into_iter()
        .filter_map(|file| file.module.into_iter().next())
        .collect();
    assert_eq!(listed, there);
}

#[test]
fn every_file_opens_by_saying_what_it_owns() {
    for file in sources() {
        assert!(file.text.starts_with("//! "), "{} does not", file.name);
    }
}

#[test]
fn nothing_is_left_for_later() {
    for file in sources() {
        let tokens = tokens(&file.text);
        for pair in tokens.windows(2) {
            let left = matches!(pair[0].text, "todo" | "unimplemented" | "dbg");
            assert!(
                !(left && pair[1].text == "!"),
                "{}:{}: {}!",
                file.name,
                pair[0].line,
                pair[0].text
            );
        }
    }
}

#[test]
fn unsafe_code_is_forbidden() {
    assert!(
        read("src/lib.rs")
            .lines()
            .any(|line| line == "#![forbid(unsafe_code)]")
    );
    assert!(
        read("Cargo.toml")
            .lines()
            .any(|line| line == "unsafe_code = \"forbid\"")
    );
}

#[test]
fn every_management_endpoint_is_written_about_and_no_other() {
    let text = read("docs/management.md");
    let there: BTreeSet<String> = ROUTES
        .iter()
        .filter(|route| route.pattern.starts_with("/v0/"))
        .map(|route| format!("{} {}", route.method, plain(route.pattern)))
        .collect();
    let written: BTreeSet<String> = text
        .split('`')
        .filter(|word| word.contains(" /v0/") && !word.contains(['\n', '?']))
        .map(str::to_owned)
        .collect();
    let missing: Vec<_> = there.difference(&written).collect();
    assert!(missing.is_empty(), "not in docs/management.md: {missing:?}");
    let gone: Vec<_> = written.difference(&there).collect();
    assert!(gone.is_empty(), "docs/management.md has more: {gone:?}");
}

#[test]
fn every_other_endpoint_is_written_about() {
    let mut text = read("README.md");
    for page in fs::read_dir(root().join("docs")).unwrap() {
        text.push_str(&fs::read_to_string(page.unwrap().path()).unwrap());
    }
    for route in ROUTES {
        let path = plain(route.pattern);
        assert!(text.contains(&path), "{} {path}", route.method);
    }
}

#[test]
fn every_dependency_is_written_about_and_no_other() {
    let manifest = read("Cargo.toml");
    let mut section = "";
    let mut there = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]")
            && let Some((name, _)) = line.split_once(" = ")
        {
            there.insert(name.to_owned());
        }
    }
    let written: BTreeSet<String> = read("docs/dependencies.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(written, there);
}

/// A pattern as it is written for people: `{slug..}` as `{slug}`.
fn plain(pattern: &str) -> String {
    pattern.replace("..}", "}")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

struct SourceFile {
    /// Relative to the repository.
    name: String,
    /// Where it stands in the crate; empty for the crate's own files.
    module: Vec<String>,
    text: String,
}

fn sources() -> Vec<SourceFile> {
    let mut files = Vec::new();
    collect(&root().join("src"), &mut files);
    assert!(files.len() > 20, "the sources were not found");
    files.sort();
    files
        .into_iter()
        .map(|path| SourceFile {
            text: fs::read_to_string(&path).unwrap(),
            name: path.strip_prefix(root()).unwrap().display().to_string(),
            module: module_of(path.strip_prefix(root().join("src")).unwrap()),
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn module_of(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> = path
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if parts
        .last()
        .is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main"))
    {
        parts.pop();
    }
    parts
}

/// The modules of the crate, bottom first.
fn floors(lib: &str) -> Vec<String> {
    let tokens = tokens(lib);
    let named = tokens.windows(3).filter(|three| {
        three[0].text == "mod" && three[2].text == ";" && !three[1].text.is_empty()
    });
    named.map(|three| three[1].text.to_owned()).collect()
}

/// Every path of a file that leads to a module above its own, as
/// `file:line: what`.
fn upward(module: &[String], text: &str, floors: &[String], name: &str) -> Vec<String> {
    let Some(own) = module.first() else {
        return Vec::new();
    };
    let height = |wanted: &str| floors.iter().position(|floor| floor == wanted);
    let own_height = height(own);
    let mut found: Vec<String> = paths(module, text)
        .into_iter()
        .filter(|path| {
            let for_tests = path.in_test && FOR_TESTS.contains(&path.module.as_str());
            let up = path.module == "*" || height(&path.module) > own_height;
            up && !for_tests
        })
        .map(|path| {
            let line = path.line;
            format!(
                "{name}:{line}: {own} uses {}, which is above it",
                path.module
            )
        })
        .collect();
    found.dedup();
    found
}

/// A path that leads to a module of the crate.
struct Reference {
    module: String,
    line: usize,
    in_test: bool,
}

/// All paths of a file that begin with `crate`, `self` or `super`.
fn paths(module: &[String], text: &str) -> Vec<Reference> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    let mut scopes = Scopes::new(module);
    let mut at = 0;
    while at < tokens.len() {
        let after_path = at > 1 && tokens[at - 1].text == ":" && tokens[at - 2].text == ":";
        let begins = matches!(tokens[at].text, "crate" | "self" | "super") && !after_path;
        if begins && is_separator(&tokens, at + 1) {
            let mut leaves = Vec::new();
            at = walk(&tokens, at, scopes.module.clone(), &mut leaves);
            let in_test = scopes.in_test();
            found.extend(leaves.into_iter().map(|(module, line)| Reference {
                module,
                line,
                in_test,
            }));
        } else {
            scopes.step(&tokens, at);
            at += 1;
        }
    }
    found
}

/// Walks a path or a tree of them from a token on, gives the outermost module
/// of each, and the number of the token behind.
fn walk(
    tokens: &[Token<'_>],
    mut at: usize,
    mut path: Vec<String>,
    leaves: &mut Vec<(String, usize)>,
) -> usize {
    let mut line = tokens.get(at).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(at) {
        match token.text {
            "crate" => path.clear(),
            "self" => {}
            "super" => {
                path.pop();
            }
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    at = walk(tokens, at, path.clone(), leaves).max(at + 1);
                    if tokens.get(at).is_some_and(|token| token.text == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            other => path.push(other.to_owned()),
        }
        if path.len() == 1 {
            line = token.line;
        }
        at += 1;
        if !is_separator(tokens, at) {
            break;
        }
        // Type arguments and the like end a path of modules.
        let goes_on = tokens
            .get(at + 2)
            .is_some_and(|token| token.is_word() || matches!(token.text, "{" | "*"));
        if !goes_on {
            break;
        }
        at += 2;
    }
    if tokens
        .get(at)
        .is_some_and(|token| token.text == "as" && token.is_word())
    {
        at += 2;
    }
    if let Some(first) = path.into_iter().next() {
        leaves.push((first, line));
    }
    at
}

fn is_separator(tokens: &[Token<'_>], at: usize) -> bool {
    let colon = |at: usize| tokens.get(at).is_some_and(|token| token.text == ":");
    colon(at) && colon(at + 1)
}

/// Which inline modules the place read is in.
struct Scopes {
    module: Vec<String>,
    depth: usize,
    /// The depth that each inline module was opened at, and whether it is one
    /// of tests.
    open: Vec<(usize, bool)>,
}

impl Scopes {
    fn new(module: &[String]) -> Self {
        // A file of tests is one whose name says so.
        let in_test = module.last().is_some_and(|last| last == "tests");
        Self {
            module: module.to_vec(),
            depth: 0,
            open: vec![(usize::MAX, in_test)],
        }
    }

    fn in_test(&self) -> bool {
        self.open.iter().any(|(_, test)| *test)
    }

    fn step(&mut self, tokens: &[Token<'_>], at: usize) {
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
        match text(at) {
            "{" => {
                if at > 1 && text(at - 2) == "mod" {
                    self.module.push(text(at - 1).to_owned());
                    self.open.push((self.depth, is_test_module(tokens, at - 2)));
                }
                self.depth += 1;
            }
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                if self
                    .open
                    .last()
                    .is_some_and(|(depth, _)| *depth == self.depth)
                {
                    self.open.pop();
                    self.module.pop();
                }
            }
            _ => {}
        }
    }
}

/// Whether `#[cfg(test)]` stands right before a module, or before its other
/// attributes.
fn is_test_module(tokens: &[Token<'_>], module: usize) -> bool {
    let start = module.saturating_sub(40);
    let before: Vec<&str> = tokens[start..module]
        .iter()
        .map(|token| token.text)
        .collect();
    let attributes = before
        .iter()
        .rposition(|text| matches!(*text, ";" | "}" | "{"))
        .map_or(&before[..], |end| &before[end + 1..]);
    attributes
        .windows(6)
        .any(|six| six == ["#", "[", "cfg", "(", "test", ")"])
}

/// A word or a mark of the source, with its line.
struct Token<'a> {
    text: &'a str,
    line: usize,
}

impl Token<'_> {
    fn is_word(&self) -> bool {
        self.text
            .starts_with(|c: char| c.is_alphanumeric() || c == '_')
    }
}

/// The source without comments, strings and character literals.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let length = skipped(rest).unwrap_or_else(|| {
            let word = rest
                .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                .unwrap_or(rest.len());
            let length = if word > 0 { word } else { first.len_utf8() };
            if !first.is_whitespace() {
                found.push(Token {
                    text: &rest[..length],
                    line,
                });
            }
            length
        });
        let (read, left) = rest.split_at(length);
        line += read.matches('\n').count();
        rest = left;
    }
    found
}

/// The length of the comment, string or character that the text begins with.
fn skipped(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(comment(text));
    }
    let unprefixed = text.strip_prefix(['b', 'c']).unwrap_or(text);
    let prefix = text.len() - unprefixed.len();
    if let Some(raw) = unprefixed.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let quoted = raw.get(hashes..)?.strip_prefix('"');
        if let Some(inside) = quoted {
            let end = format!("\"{}", "#".repeat(hashes));
            let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
            return Some(prefix + 2 + hashes + length);
        }
    }
    if unprefixed.starts_with('"') {
        return Some(prefix + quoted(unprefixed, '"'));
    }
    let inside = unprefixed.strip_prefix('\'')?;
    let character = inside.chars().next()?;
    // A lifetime has no closing quotation mark after its first letter.
    let is_character = character == '\\' || inside[character.len_utf8()..].starts_with('\'');
    is_character.then(|| prefix + quoted(unprefixed, '\''))
}

/// The length of a comment that may hold others.
fn comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let step = match text.as_bytes().get(at..at + 2) {
            Some(b"/*") => {
                depth += 1;
                2
            }
            Some(b"*/") => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a quoted text with its quotation marks.
fn quoted(text: &str, mark: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if character == mark {
            return at + mark.len_utf8();
        }
    }
    text.len()
}
