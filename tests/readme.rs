//! What README.md and docs/ show is tried: every `yaml` block is a valid
//! configuration, and every `sh` block is sent to a demo of its page, in order.
//! A `json` block right behind one is what its answer holds: the same text and
//! numbers, durations aside; `"..."` is any text.
//!
//! The commands are read by a few lines of shell and sent by a few lines of
//! HTTP below, so that nothing need be installed.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that fails should stop where it does"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use plexus::config::{check, describe};
use serde_json::Value;

/// Longest wait for an answer, and for a row to be written.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn every_configuration_that_is_shown_is_valid_and_in_effect() {
    let mut shown = 0;
    for block in pages().into_iter().flat_map(|page| blocks(&page)) {
        if block.language != "yaml" {
            continue;
        }
        shown += 1;
        // Those that it names; a variable that wins over the file is not set.
        let any = |name: &str| {
            let named = block.text.contains(&format!("$env:{name}"));
            named.then(|| format!("value-of-{name}"))
        };
        let config = check(&block.text, &any, Path::new("/etc/plexus"))
            .unwrap_or_else(|faults| panic!("{}: {}", block.place, describe(&faults, "it")));
        assert!(config.warnings.is_empty(), "{}", block.place);
    }
    assert!(shown > 3, "the pages were not found");
}

#[test]
fn the_check_that_the_readme_shows_says_what_it_shows() {
    let readme = root().join("README.md");
    let all = blocks(&readme);
    let yaml = all.iter().find(|block| block.language == "yaml").unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("plexus.yaml"), &yaml.text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_plexus"))
        .args(["check", "plexus.yaml"])
        .current_dir(folder.path())
        .env("OPENAI_API_KEY", "sk-any")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let shown = format!("$ plexus check plexus.yaml\n{said}");
    assert!(
        all.iter().any(|block| block.text.contains(&shown)),
        "not shown:\n{shown}"
    );
}

#[test]
fn every_request_that_is_shown_gets_the_answer_that_is_shown() {
    let mut tried = 0;
    for page in pages() {
        let blocks = blocks(&page);
        if !blocks.iter().any(|block| block.language == "sh") {
            continue;
        }
        let demo = Demo::start();
        for (at, block) in blocks.iter().enumerate() {
            if block.language == "sh" {
                let answer = blocks.get(at + 1).filter(|next| next.language == "json");
                demo.try_out(block, answer);
                tried += 1;
            }
        }
    }
    assert!(tried > 10, "the pages were not found");
}

#[test]
fn every_request_that_the_demo_proposes_is_answered() {
    let demo = Demo::start();
    let lines: Vec<&str> = demo.said.lines().collect();
    let mut tried = 0;
    for (at, line) in lines.iter().enumerate() {
        if line.starts_with("curl") {
            let mut text = (*line).to_owned();
            for more in &lines[at + 1..] {
                if !text.ends_with('\\') {
                    break;
                }
                text = format!("{text}\n{more}");
            }
            let place = format!("the demo's line {}", at + 1);
            let language = "sh".to_owned();
            demo.try_out(
                &Block {
                    language,
                    text,
                    place,
                },
                None,
            );
            tried += 1;
        }
    }
    assert_eq!(tried, 5);
}

/// A running `plexus demo`, and what it said at its start.
struct Demo {
    child: Child,
    said: String,
    variables: Vec<(&'static str, String)>,
    // Open for as long as it may say something.
    _output: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Demo {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_plexus"))
            .args(["demo", "--port", "0"])
            .env("TMPDIR", folder.path())
            .env("LOG_LEVEL", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("Stop it with") {
            assert!(output.read_line(&mut said).unwrap() > 0, "it said: {said}");
        }
        let word = |label: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(label));
            line.unwrap_or_else(|| panic!("no {label} in {said}"))
                .trim()
                .to_owned()
        };
        let variables = vec![
            ("URL", word("  address ")),
            ("KEY", word("  key ")),
            ("ADMIN", word("  admin key ")),
        ];
        Self {
            child,
            said,
            variables,
            _output: output,
            _folder: folder,
        }
    }

    /// Sends a block's command, and again while the row that it asks for is
    /// not written yet.
    fn try_out(&self, block: &Block, shown: Option<&Block>) {
        let request = Request::parse(&block.text, &self.variables)
            .unwrap_or_else(|problem| panic!("{}: {problem}", block.place));
        let sample: Option<Value> = shown.map(|shown| {
            serde_json::from_str(&shown.text)
                .unwrap_or_else(|error| panic!("{}: {error}", shown.place))
        });
        let started = Instant::now();
        loop {
            let (status, body) = request.send();
            assert_eq!(status, 200, "{}: {body}", block.place);
            assert!(!body.is_empty(), "{}: nothing came", block.place);
            let Some(sample) = &sample else { return };
            let found = serde_json::from_str(&body).unwrap_or(Value::Null);
            match difference(sample, &found, "") {
                None => return,
                Some(_) if request.method == "GET" && started.elapsed() < PATIENCE / 4 => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Some(difference) => panic!("{}: {difference}\n{body}", block.place),
            }
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where an answer does not hold what was shown of it.
fn difference(shown: &Value, found: &Value, path: &str) -> Option<String> {
    let same = match (shown, found) {
        (Value::Object(shown), Value::Object(found)) => {
            return shown.iter().find_map(|(name, value)| {
                let path = format!("{path}.{name}");
                match found.get(name) {
                    Some(found) => difference(value, found, &path),
                    None => Some(format!("{path} is not there")),
                }
            });
        }
        (Value::Array(shown), Value::Array(found)) => {
            return shown.iter().enumerate().find_map(|(at, value)| {
                let path = format!("{path}[{at}]");
                match found.get(at) {
                    Some(found) => difference(value, found, &path),
                    None => Some(format!("{path} is not there")),
                }
            });
        }
        (Value::String(shown), Value::String(_)) if shown == "..." => true,
        (Value::Number(_), Value::Number(_)) if path.ends_with("Ms") => true,
        (shown, found) => shown == found,
    };
    (!same).then(|| format!("{path}: found {found}, {shown} is shown"))
}

/// A fenced block of a page.
struct Block {
    language: String,
    text: String,
    place: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let mut pages: Vec<PathBuf> = docs.map(|page| page.unwrap().path()).collect();
    pages.push(root().join("README.md"));
    pages.sort();
    pages
}

fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (line, number) in text.lines().zip(1..) {
        match line.strip_prefix("```") {
            Some(language) if !open => {
                open = true;
                found.push(Block {
                    language: language.to_owned(),
                    text: String::new(),
                    place: format!("{}:{number}", page.display()),
                });
            }
            Some(_) => open = false,
            None if open => {
                let block = found.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
    }
    found
}

/// What a curl command asks for.
#[derive(Debug)]
struct Request {
    method: String,
    host: String,
    path: String,
    headers: Vec<String>,
    body: String,
}

impl Request {
    fn parse(command: &str, variables: &[(&str, String)]) -> Result<Self, String> {
        let mut words = words(command, variables)?.into_iter();
        if words.next().as_deref() != Some("curl") {
            return Err("a command other than curl".to_owned());
        }
        let mut request = Self {
            method: String::new(),
            host: String::new(),
            path: String::new(),
            headers: Vec::new(),
            body: String::new(),
        };
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| format!("{word} without a value"))
            };
            match word.as_str() {
                "-s" | "-N" | "-sN" => {}
                "-X" => request.method = value()?,
                "-H" => request.headers.push(value()?),
                "-d" => request.body = value()?,
                url => {
                    let rest = url.strip_prefix("http://");
                    let rest = rest.ok_or_else(|| format!("{url} is not understood"))?;
                    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                    request.host = host.to_owned();
                    request.path = format!("/{path}");
                }
            }
        }
        if request.method.is_empty() {
            let method = if request.body.is_empty() {
                "GET"
            } else {
                "POST"
            };
            request.method = method.to_owned();
        }
        Ok(request)
    }

    /// Status and body of the answer.
    fn send(&self) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!(
            "{} {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n",
            self.method,
            self.path,
            self.host,
            self.body.len()
        );
        for header in &self.headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        stream
            .write_all(format!("{head}\r\n{}", self.body).as_bytes())
            .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked");
        let body = if chunked {
            dechunk(body)
        } else {
            body.to_owned()
        };
        (status, body)
    }
}

/// A body without the sizes of its chunks; it must end with an empty one.
fn dechunk(mut rest: &str) -> String {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        let (chunk, after) = after.split_at(size);
        body.push_str(chunk);
        rest = after.strip_prefix("\r\n").unwrap();
    }
}

/// A command's words as a shell reads them, as far as the pages need it:
/// quotation marks, lines that go on, and the variables that are set.
fn words(command: &str, variables: &[(&str, String)]) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = command;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match (quote, first) {
            (Some(mark), _) if mark == first => quote = None,
            (None, '\'' | '"') => {
                quote = Some(first);
                word.get_or_insert_default();
            }
            (None, '\\') if rest.starts_with('\n') => rest = &rest[1..],
            (None, space) if space.is_whitespace() => words.extend(word.take()),
            (None | Some('"'), '$') => {
                let length = rest
                    .find(|c: char| !c.is_ascii_alphanumeric())
                    .unwrap_or(rest.len());
                let (name, after) = rest.split_at(length);
                let value = variables.iter().find(|(known, _)| *known == name);
                let (_, value) = value.ok_or_else(|| format!("the variable {name} is not set"))?;
                word.get_or_insert_default().push_str(value);
                rest = after;
            }
            (None, '|' | ';' | '&' | '>' | '<' | '`' | '(') | (None | Some('"'), '\\') => {
                return Err(format!("{first} is not understood"));
            }
            _ => word.get_or_insert_default().push(first),
        }
    }
    if quote.is_some() {
        return Err("a quotation mark is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}
