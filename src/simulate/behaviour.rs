//! How the simulated provider is to behave: one table of options, its parser,
//! and the text that explains it.
//!
//! An option reaches the server in the header `x-simulate: gap=20;tools=2` or
//! in the model name `anything+gap=20+tools=2`; where both speak, the header
//! wins option by option. Nothing here knows HTTP or a protocol.

use std::fmt;
use std::time::Duration;

/// The most text that one answer may be asked to hold.
const TEXT_LIMIT: usize = 64 * 1024 * 1024;
/// The most deltas that one answer may be asked to hold.
const DELTA_LIMIT: usize = 100_000;
/// The most tool calls that one answer may be asked to hold.
const CALL_LIMIT: usize = 128;

/// What one request asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Behaviour {
    /// What the answer says.
    pub content: Content,
    /// When its bytes leave.
    pub pace: Pace,
    /// What goes wrong.
    pub fault: Fault,
    /// Pace and fault hold for this many requests with the same model name.
    pub times: Option<u64>,
}

/// What the answer says; kept when [`Behaviour::times`] has run out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Number of text deltas.
    pub chunks: Option<usize>,
    /// Bytes of text in each delta.
    pub bytes: Option<usize>,
    /// Bytes of one more delta, for one huge frame.
    pub huge: Option<usize>,
    /// The text is the last text of the user.
    pub echo: bool,
    /// There is reasoning before the text.
    pub reasoning: bool,
    /// Number of tool calls.
    pub tools: usize,
    /// The answer says nothing at all.
    pub empty: bool,
    /// Why the answer ends.
    pub finish: Finish,
    /// All input tokens, cached ones among them.
    pub tokens_in: Option<u64>,
    /// All output tokens, reasoning among them.
    pub tokens_out: Option<u64>,
    /// Input tokens read from a cache.
    pub cached: Option<u64>,
    /// Input tokens written to a cache.
    pub cache_write: Option<u64>,
    /// Output tokens spent on reasoning.
    pub reasoning_tokens: Option<u64>,
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finish {
    /// All was said, or a tool is called.
    #[default]
    Stop,
    /// The limit of output tokens was reached.
    Length,
    /// A content filter cut in.
    Filter,
}

/// When bytes leave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pace {
    /// Wait before the response head.
    pub delay: Duration,
    /// Wait between the head and the first byte of the body.
    pub first: Duration,
    /// Wait between two pieces of the body.
    pub gap: Duration,
    /// Where the body falls silent, and for how long (`None`: for ever).
    pub silence: Option<Silence>,
    /// How finely the body is cut.
    pub grain: Grain,
}

/// A silence in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// After this many events.
    pub after: usize,
    /// Its length; `None` for ever.
    pub length: Option<Duration>,
}

/// The pieces in which a body leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grain {
    /// One event at a time.
    #[default]
    Event,
    /// One byte at a time, each flushed on its own.
    Byte,
    /// One byte at a time, with a wait between two.
    Trickle,
}

/// What goes wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fault {
    /// The status of the answer, or of the error inside a stream.
    pub status: Option<u16>,
    /// Value of `location`.
    pub location: Option<String>,
    /// Value of `retry-after`, as given.
    pub retry_after: Option<String>,
    /// Value of `retry-after-ms`.
    pub retry_after_ms: Option<u64>,
    /// Where in a stream an error event stands.
    pub error: Option<ErrorPoint>,
    /// Where the connection is cut.
    pub cut: Option<CutAt>,
    /// Where the stream ends without its terminal event.
    pub ending: Option<Ending>,
    /// Fields that are refused wherever they stand.
    pub refuses: Vec<String>,
    /// What the real services refuse is refused.
    pub strict: bool,
    /// Signatures and ciphertexts of reasoning are refused.
    pub refuses_signatures: bool,
    /// Broken JSON in an otherwise sound answer.
    pub garbage: bool,
    /// A web page in place of an answer.
    pub html: bool,
    /// Line ends of the event stream.
    pub line_end: Option<&'static str>,
    /// Whether the length is announced; `None` as the vendor does.
    pub length: Option<bool>,
    /// The connection is closed this long after the response, unannounced.
    pub close_after: Option<Duration>,
}

/// Where in a stream an error event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorPoint {
    /// It is the first event.
    First,
    /// After the events that open the answer.
    Role,
    /// After some content.
    Content,
    /// After all content, before the end.
    End,
}

/// Where and how a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutAt {
    /// After this many bytes of the body; 0 is before the head.
    pub bytes: u64,
    /// How.
    pub cut: Cut,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// With a FIN.
    Close,
    /// With a RST.
    Reset,
}

/// How a stream ends without its terminal event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// After this many events.
    After(usize),
    /// After all content, before the finish reason.
    Content,
    /// Only the very last event is missing.
    Last,
}

/// An option that could not be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadOption {
    word: String,
    wanted: Option<&'static str>,
}

impl fmt::Display for BadOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wanted {
            Some(wanted) => write!(f, "simulate: `{}` wants {wanted}", self.word),
            None => write!(
                f,
                "simulate: there is no option `{}`; GET /_simulate/help lists them",
                self.word
            ),
        }
    }
}

impl std::error::Error for BadOption {}

/// One row of the table of options.
pub struct Entry {
    /// The word.
    pub word: &'static str,
    /// What follows `=`; empty for a flag.
    pub value: &'static str,
    /// What it does.
    pub help: &'static str,
    set: fn(&mut Behaviour, &str) -> Option<()>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.word, self.value)
    }
}

/// Builds the table, its documentation included, from one list.
macro_rules! options {
    ($( $word:literal [$value:literal] $help:literal $set:expr; )*) => {
        /// Every option there is.
        ///
        /// | option | value | effect |
        /// |---|---|---|
        $(#[doc = concat!("| `", $word, "` | ", $value, " | ", $help, " |")])*
        pub const OPTIONS: &[Entry] = &[
            $(Entry { word: $word, value: $value, help: $help, set: $set },)*
        ];
    };
}

options! {
    "delay" ["ms"] "wait before the response head" |b, v| set(&mut b.pace.delay, millis(v));
    "first" ["ms"] "wait between the head and the first byte of the body" |b, v| set(&mut b.pace.first, millis(v));
    "gap" ["ms"] "wait between two events of the body" |b, v| set(&mut b.pace.gap, millis(v));
    "chunks" ["count"] "number of text deltas" |b, v| set(&mut b.content.chunks, within(v, DELTA_LIMIT));
    "words" ["count"] "number of text deltas, one word each" |b, v| {
        b.content.bytes = None;
        set(&mut b.content.chunks, within(v, DELTA_LIMIT))
    };
    "bytes" ["count"] "bytes of text in each delta" |b, v| set(&mut b.content.bytes, within(v, TEXT_LIMIT));
    "huge" ["bytes"] "one more delta with that many bytes of text: one huge frame" |b, v| set(&mut b.content.huge, within(v, TEXT_LIMIT));
    "echo" [""] "the text is the last text of the user" |b, v| flag(&mut b.content.echo, v);
    "empty" [""] "a 200 with an empty completion" |b, v| flag(&mut b.content.empty, v);
    "reasoning" [""] "reason before answering" |b, v| flag(&mut b.content.reasoning, v);
    "tools" ["count or nothing"] "call that many tools (1), named as in the request; no text unless it is asked for" |b, v| {
        set_plain(&mut b.content.tools, if v.is_empty() { Some(1) } else { within(v, CALL_LIMIT) })
    };
    "finish" ["stop, length or filter"] "why the answer ends" |b, v| set_plain(&mut b.content.finish, finish(v));
    "tokens_in" ["count"] "all input tokens reported, cached ones among them" |b, v| set(&mut b.content.tokens_in, number(v));
    "tokens_out" ["count"] "all output tokens reported, reasoning among them" |b, v| set(&mut b.content.tokens_out, number(v));
    "cached" ["count"] "input tokens reported as read from a cache" |b, v| set(&mut b.content.cached, number(v));
    "cache_write" ["count"] "input tokens reported as written to a cache" |b, v| set(&mut b.content.cache_write, number(v));
    "reasoning_tokens" ["count"] "output tokens reported as reasoning" |b, v| set(&mut b.content.reasoning_tokens, number(v));
    "status" ["300 to 599"] "that status with the vendor's error body; with `error`, the kind of the error in the stream" |b, v| set(&mut b.fault.status, status(v));
    "refuses" ["field"] "a request that has that field anywhere is refused in the vendor's words; may be given more than once" |b, v| {
        b.fault.refuses.push(text(v)?);
        Some(())
    };
    "strict" [""] "requests are checked as the real services check them" |b, v| flag(&mut b.fault.strict, v);
    "refuses_signatures" [""] "a request with a signature or ciphertext of reasoning is refused" |b, v| flag(&mut b.fault.refuses_signatures, v);
    "location" ["address"] "header `location`, for redirects" |b, v| set(&mut b.fault.location, text(v));
    "retry_after" ["seconds or date"] "header `retry-after`" |b, v| set(&mut b.fault.retry_after, text(v));
    "retry_after_ms" ["ms"] "header `retry-after-ms`" |b, v| set(&mut b.fault.retry_after_ms, number(v));
    "error" ["first, role, content or end"] "an error event inside a 200 stream, standing there; without a stream a plain error" |b, v| set(&mut b.fault.error, error_point(v));
    "reset" ["bytes"] "TCP reset after that many bytes of the body; 0 is before the head" |b, v| set(&mut b.fault.cut, cut_at(v, Cut::Reset));
    "close" ["bytes"] "connection closed after that many bytes of the body, the last chunk missing; 0 is before the head" |b, v| set(&mut b.fault.cut, cut_at(v, Cut::Close));
    "eof" ["events or nothing"] "a well-formed end after that many events; without a number before the finish reason" |b, v| set(&mut b.fault.ending, ending(v));
    "noterm" [""] "the very last event is missing" |b, v| v.is_empty().then(|| b.fault.ending = Some(Ending::Last));
    "silent" ["ms or nothing"] "nothing for that long (for ever) after the head" |b, v| silent(b, v);
    "silent_after" ["events"] "the silence comes after that many events" |b, v| silent_after(b, v);
    "trickle" [""] "one byte at a time, `gap` (or 1 ms) apart" |b, v| set_plain(&mut b.pace.grain, v.is_empty().then_some(Grain::Trickle));
    "split" [""] "one byte at a time, each in a chunk of its own" |b, v| set_plain(&mut b.pace.grain, v.is_empty().then_some(Grain::Byte));
    "garbage" [""] "a 200 with broken JSON; in a stream, one frame of it amid sound ones" |b, v| flag(&mut b.fault.garbage, v);
    "html" [""] "a web page in place of the answer, with `status` or 200" |b, v| flag(&mut b.fault.html, v);
    "crlf" [""] "event stream with CR LF line ends" |b, v| v.is_empty().then(|| b.fault.line_end = Some("\r\n"));
    "cr" [""] "event stream with CR line ends" |b, v| v.is_empty().then(|| b.fault.line_end = Some("\r"));
    "length" [""] "announce the length of the body" |b, v| v.is_empty().then(|| b.fault.length = Some(true));
    "nolength" [""] "do not announce the length of the body" |b, v| v.is_empty().then(|| b.fault.length = Some(false));
    "keepalive" ["0"] "close the connection after the response without saying so" |b, v| (v == "0").then(|| b.fault.close_after = Some(Duration::ZERO));
    "idle_close" ["ms"] "close the connection that long after the response without saying so" |b, v| set(&mut b.fault.close_after, millis(v).map(Some));
    "times" ["count"] "all but the content options hold for the first that many requests with this model name only" |b, v| set(&mut b.times, number(v));
}

/// The table as text, for a terminal.
#[must_use]
pub fn help() -> String {
    let mut out = String::from(
        "Say how to answer in the header `x-simulate: gap=20;tools=2`,\n\
         or in the model name: `anything+gap=20+tools=2`. The header wins.\n\n",
    );
    for entry in OPTIONS {
        let left = match entry.value {
            "" => entry.word.to_owned(),
            value => format!("{}={value}", entry.word),
        };
        out.push_str(&format!("  {left:<40} {}\n", entry.help));
    }
    out
}

impl Behaviour {
    /// What the model name and the header ask for.
    ///
    /// # Errors
    /// The first option that is unknown or has a value it cannot have.
    pub fn parse(model: &str, header: Option<&str>) -> Result<Self, BadOption> {
        let mut behaviour = Self::default();
        for option in model.split('+').skip(1) {
            behaviour.set(option)?;
        }
        for option in header.unwrap_or_default().split(';') {
            behaviour.set(option)?;
        }
        behaviour.check()?;
        Ok(behaviour)
    }

    /// The same content, with nothing going wrong.
    #[must_use]
    pub fn calm(&self) -> Self {
        Self {
            content: Content {
                empty: false,
                huge: None,
                ..self.content.clone()
            },
            ..Self::default()
        }
    }

    fn set(&mut self, option: &str) -> Result<(), BadOption> {
        let option = option.trim();
        if option.is_empty() {
            return Ok(());
        }
        let (word, value) = option.split_once('=').unwrap_or((option, ""));
        let (word, value) = (word.trim(), value.trim());
        let bad = |wanted| BadOption {
            word: word.chars().take(64).collect(),
            wanted,
        };
        let entry = OPTIONS
            .iter()
            .find(|entry| entry.word == word)
            .ok_or_else(|| bad(None))?;
        let wanted = match entry.value {
            "" => "no value",
            value => value,
        };
        (entry.set)(self, value).ok_or_else(|| bad(Some(wanted)))
    }

    fn check(&self) -> Result<(), BadOption> {
        let content = &self.content;
        let chunks = content.chunks.unwrap_or(32).max(1);
        if chunks.saturating_mul(content.bytes.unwrap_or(8)) > TEXT_LIMIT {
            return Err(BadOption {
                word: "bytes".to_owned(),
                wanted: Some("chunks times bytes to stay within 64 MiB"),
            });
        }
        Ok(())
    }
}

/// Puts a parsed value into a place that holds `T` or `Option<T>`.
fn set<T, P: From<T>>(place: &mut P, value: Option<T>) -> Option<()> {
    *place = value?.into();
    Some(())
}

fn set_plain<T>(place: &mut T, value: Option<T>) -> Option<()> {
    *place = value?;
    Some(())
}

fn flag(place: &mut bool, value: &str) -> Option<()> {
    value.is_empty().then(|| *place = true)
}

fn number(value: &str) -> Option<u64> {
    value.parse().ok()
}

fn within(value: &str, limit: usize) -> Option<usize> {
    value.parse().ok().filter(|number| *number <= limit)
}

fn millis(value: &str) -> Option<Duration> {
    value.parse().ok().map(Duration::from_millis)
}

fn text(value: &str) -> Option<String> {
    let printable = value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    (printable && !value.is_empty()).then(|| value.to_owned())
}

fn status(value: &str) -> Option<u16> {
    value.parse().ok().filter(|code| (300..600).contains(code))
}

fn finish(value: &str) -> Option<Finish> {
    match value {
        "stop" => Some(Finish::Stop),
        "length" => Some(Finish::Length),
        "filter" => Some(Finish::Filter),
        _ => None,
    }
}

fn error_point(value: &str) -> Option<ErrorPoint> {
    match value {
        "first" => Some(ErrorPoint::First),
        "role" => Some(ErrorPoint::Role),
        "content" => Some(ErrorPoint::Content),
        "end" => Some(ErrorPoint::End),
        _ => None,
    }
}

fn cut_at(value: &str, cut: Cut) -> Option<CutAt> {
    number(value).map(|bytes| CutAt { bytes, cut })
}

fn ending(value: &str) -> Option<Ending> {
    if value.is_empty() {
        return Some(Ending::Content);
    }
    value.parse().ok().map(Ending::After)
}

fn silent(behaviour: &mut Behaviour, value: &str) -> Option<()> {
    let length = match value {
        "" => None,
        value => Some(millis(value)?),
    };
    let after = behaviour.pace.silence.map_or(0, |silence| silence.after);
    behaviour.pace.silence = Some(Silence { after, length });
    Some(())
}

fn silent_after(behaviour: &mut Behaviour, value: &str) -> Option<()> {
    let after = value.parse().ok()?;
    let length = behaviour.pace.silence.and_then(|silence| silence.length);
    behaviour.pace.silence = Some(Silence { after, length });
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_wins_over_the_name_option_by_option() {
        let behaviour = Behaviour::parse("m+gap=20+tools=2", Some("gap=5; echo")).unwrap();
        assert_eq!(behaviour.pace.gap, Duration::from_millis(5));
        assert_eq!(behaviour.content.tools, 2);
        assert!(behaviour.content.echo);
    }

    #[test]
    fn a_name_without_a_plus_asks_for_nothing() {
        assert_eq!(
            Behaviour::parse("acme/m:free", None).unwrap(),
            Behaviour::default()
        );
    }

    #[test]
    fn every_option_of_the_table_can_be_set() {
        for entry in OPTIONS {
            let sample = match entry.value {
                "" => "",
                "300 to 599" => "503",
                "stop, length or filter" => "length",
                "first, role, content or end" => "end",
                "0" => "0",
                _ => "7",
            };
            let header = match sample {
                "" => entry.word.to_owned(),
                sample => format!("{}={sample}", entry.word),
            };
            let behaviour = Behaviour::parse("m", Some(&header)).unwrap();
            assert_ne!(behaviour, Behaviour::default(), "{header} changes nothing");
            assert!(help().contains(entry.help));
        }
    }

    #[test]
    fn an_unknown_word_and_a_bad_value_are_named() {
        let unknown = Behaviour::parse("m+nonsense", None).unwrap_err();
        assert!(unknown.to_string().contains("`nonsense`"));
        let bad = Behaviour::parse("m", Some("status=42")).unwrap_err();
        assert!(bad.to_string().contains("300 to 599"));
    }

    #[test]
    fn silence_keeps_its_place_and_its_length_in_either_order() {
        let wanted = Some(Silence {
            after: 3,
            length: Some(Duration::from_millis(9)),
        });
        for header in ["silent=9;silent_after=3", "silent_after=3;silent=9"] {
            let behaviour = Behaviour::parse("m", Some(header)).unwrap();
            assert_eq!(behaviour.pace.silence, wanted, "{header}");
        }
    }

    #[test]
    fn more_text_than_the_limit_is_refused() {
        assert!(Behaviour::parse("m+chunks=100000+bytes=60000000", None).is_err());
    }
}
