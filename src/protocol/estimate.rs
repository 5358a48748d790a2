//! How many tokens a text has, roughly, without any vendor's vocabulary.
//!
//! Vocabularies are megabytes each, right for one vendor only, and slow to load.
//! What they have in common is how they cut: words with the space before them,
//! digits in threes, runs of punctuation, scripts other than Latin by the
//! character. A walk over the text counts those pieces, each at its usual price,
//! which was fitted against OpenAI's o200k.

pub mod answer;

use super::json::{Str, Value};

/// Prices are in hundredths of a token.
const TOKEN: u64 = 100;

/// Of a mark that stands before a word.
const MARK_BEFORE_WORD: u64 = 64;

/// What a run of characters is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Lower,
    Upper,
    Digit,
    Space,
    Line,
    Mark,
    /// Letters of alphabets other than the English.
    Alphabet,
    Ideograph,
    Kana,
    Hangul,
    Emoji,
    /// Joiners and selectors inside emoji.
    Joiner,
    Other,
}

const fn class(letter: char) -> Class {
    match letter {
        'a'..='z' => Class::Lower,
        'A'..='Z' => Class::Upper,
        '0'..='9' => Class::Digit,
        ' ' | '\t' => Class::Space,
        '\n' | '\r' => Class::Line,
        '!'..='~' => Class::Mark,
        '\u{c0}'..='\u{24f}' | '\u{370}'..='\u{5ff}' | '\u{600}'..='\u{6ff}' => Class::Alphabet,
        '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' => Class::Ideograph,
        '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ffef}' => Class::Ideograph,
        '\u{3040}'..='\u{30ff}' => Class::Kana,
        '\u{ac00}'..='\u{d7a3}' => Class::Hangul,
        '\u{200d}' | '\u{fe0f}' => Class::Joiner,
        '\u{2600}'..='\u{27bf}' | '\u{1f000}'..='\u{1faff}' => Class::Emoji,
        _ => Class::Other,
    }
}

/// The tokens of a text: within about a seventh of what OpenAI counts for prose,
/// code, JSON, Chinese and emoji.
#[must_use]
pub fn tokens(text: &str) -> u64 {
    let mut counter = Counter::default();
    for letter in text.chars() {
        counter.push(class(letter));
    }
    counter.tokens()
}

/// Adds up a text, class by class.
#[derive(Clone, Debug, Default)]
struct Counter {
    price: u64,
    /// The run that goes on, and how long it is.
    run: Option<(Class, u64)>,
    /// Whether the run before was punctuation, to which a line end belongs.
    after_mark: bool,
}

impl Counter {
    /// What was seen so far, if nothing follows.
    fn tokens(&self) -> u64 {
        let mut ended = self.clone();
        ended.end_run(None);
        ended.price.div_ceil(TOKEN)
    }

    fn push(&mut self, class: Class) {
        match &mut self.run {
            Some((running, length)) if *running == class => *length += 1,
            // A capital letter belongs to the word that it begins.
            Some((running @ Class::Upper, length)) if class == Class::Lower && *length == 1 => {
                *running = Class::Lower;
                *length = 2;
            }
            _ => {
                self.end_run(Some(class));
                self.run = Some((class, 1));
            }
        }
    }

    fn end_run(&mut self, next: Option<Class>) {
        let Some((class, length)) = self.run.take() else {
            return;
        };
        self.price += match class {
            Class::Lower => word(length),
            Class::Upper => 100 + length.saturating_sub(3) * 35,
            Class::Digit => length.div_ceil(3) * TOKEN,
            // The last space belongs to the word behind it.
            Class::Space => u64::from(length > 1) * TOKEN + length / 80 * TOKEN,
            Class::Line if self.after_mark => 0,
            Class::Line => TOKEN,
            // One mark before a word is often one token with it.
            Class::Mark if matches!(next, Some(Class::Lower | Class::Upper)) => {
                MARK_BEFORE_WORD + (length - 1) * 42
            }
            Class::Mark => 95 + (length - 1) * 24,
            Class::Alphabet => 70 + length * 22,
            Class::Ideograph => length * 71,
            Class::Kana => length * 72,
            Class::Hangul => length * 68,
            Class::Emoji => length * 175,
            Class::Joiner => length * 80,
            Class::Other => length * 110,
        };
        self.after_mark = class == Class::Mark;
    }
}

/// The price of a word: the common ones are one token, whatever their length.
const fn word(length: u64) -> u64 {
    match length {
        0..=6 => 102,
        7..=10 => 100 + (length - 6) * 9,
        _ => 136 + (length - 10) * 22,
    }
}

/// What a turn costs beside its text.
const TURN: u64 = 4;
/// What a picture costs, near enough at the usual sizes.
const IMAGE: u64 = 1_000;
/// What a page of a PDF costs.
const PAGE: u64 = 1_500;
/// Base64 characters of a page of a PDF, roughly.
const PAGE_SIZE: u64 = 100_000;
/// Base64 characters of a second of sound, which costs ...
const SECOND_SIZE: u64 = 21_000;
/// ... so much.
const SECOND: u64 = 25;

/// The tokens of a request in any of the four chat protocols: its text, its tools
/// as they are written, a price for each turn, picture and page. Base64 is never
/// counted as text.
#[must_use]
pub fn request(body: Value<'_>) -> u64 {
    let mut total = 0;
    for (name, value) in body.members() {
        match &*name.plain() {
            "messages" | "input" | "contents" => {
                total += TURN * value.items().count() as u64 + inside(value, "");
            }
            "system" | "instructions" | "systemInstruction" | "system_instruction" | "prompt" => {
                total += TURN + inside(value, "");
            }
            "tools" | "functions" | "response_format" | "text" | "output_config" => {
                total += tokens(value.raw().as_str());
            }
            "generateContentRequest" | "generate_content_request" => total += request(value),
            _ => {}
        }
    }
    total
}

/// The tokens of whatever text is in a value. Documents are at most 512 levels
/// deep, and so is this.
fn inside(value: Value<'_>, name: &str) -> u64 {
    if let Some(text) = value.as_str() {
        return string(name, &text);
    }
    if value.is_array() {
        return value.items().map(|item| inside(item, name)).sum();
    }
    if let Some(media) = media(value) {
        return media;
    }
    let members = value.members();
    members
        .map(|(name, value)| inside(value, &name.plain()))
        .sum()
}

/// A string member: what names and marks things is not text for the model.
fn string(name: &str, text: &Str<'_>) -> u64 {
    match name {
        "type" | "role" | "id" | "call_id" | "tool_call_id" | "tool_use_id" | "detail"
        | "signature" | "thoughtSignature" | "encrypted_content" | "mimeType" | "mime_type"
        | "media_type" | "status" | "ttl" => 0,
        _ => {
            let plain = text.plain();
            match plain
                .strip_prefix("data:")
                .and_then(|rest| rest.split_once(";base64,"))
            {
                Some((mime, data)) => inline(mime, data.len() as u64),
                None => tokens(&plain),
            }
        }
    }
}

/// An object that holds base64, by the type that stands beside it.
fn media(value: Value<'_>) -> Option<u64> {
    let data = value.some("data")?.as_str()?;
    let beside = ["media_type", "mimeType", "mime_type", "format"];
    let mime = beside.iter().find_map(|name| value.some(name)?.as_str())?;
    Some(inline(&mime.plain(), data.len() as u64))
}

fn inline(mime: &str, size: u64) -> u64 {
    if mime.ends_with("pdf") {
        PAGE * size.div_ceil(PAGE_SIZE).max(1)
    } else if mime.starts_with("audio/") || matches!(mime, "wav" | "mp3") {
        SECOND * size.div_ceil(SECOND_SIZE).max(1)
    } else if mime.starts_with("text/") {
        size / 5
    } else {
        IMAGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json::Tape;

    /// What OpenAI's o200k makes of the texts.
    const COUNTED: [(&str, u64); 8] = [
        ("chinese.txt", 320),
        ("emoji.txt", 184),
        ("prose.txt", 264),
        ("python.txt", 653),
        ("readme.txt", 851),
        ("rows.json", 1721),
        ("rust.txt", 839),
        ("schema.json", 128),
    ];

    #[test]
    fn the_corpus_is_estimated_within_fifteen_percent() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokens");
        for (name, counted) in COUNTED {
            let text = std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
            let ratio = tokens(&text) as f64 / counted as f64;
            assert!((0.85..1.15).contains(&ratio), "{name}: {ratio:.3}");
        }
    }

    #[test]
    fn base64_is_no_text() {
        let picture = "A".repeat(400_000);
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"text","text":"What is it?"}},
            {{"type":"image_url","image_url":{{"url":"data:image/png;base64,{picture}"}}}},
            {{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{picture}"}}}},
            {{"inlineData":{{"mimeType":"application/pdf","data":"{picture}"}}}}]}}]}}"#
        );
        let mut tape = Tape::new();
        let counted = request(tape.parse(&body).unwrap());
        assert!((8_000..8_020).contains(&counted), "{counted}");
    }

    #[test]
    fn tools_and_turns_count() {
        let mut tape = Tape::new();
        let bare = request(
            tape.parse(r#"{"messages":[{"role":"user","content":"hi"}]}"#)
                .unwrap(),
        );
        assert_eq!(bare, TURN + 2);
        let text = r#"{"contents":[{"parts":[{"text":"hi"}]}],"tools":[{"functionDeclarations":[{"name":"f","description":"does it"}]}]}"#;
        let mut tape = Tape::new();
        assert!(request(tape.parse(text).unwrap()) > bare + 8);
    }
}
