//! Tools that the provider runs: a `server_tool_use` block and the result block
//! that belongs to it, as one part.

use std::borrow::Cow;

use bytes::BytesMut;

use crate::protocol::Protocol;
use crate::protocol::ir::{Hosted, HostedKind, SearchHit};
use crate::protocol::json::{Array, Object, Raw, Str, Value};

/// Whether a block of that type is the call of a hosted tool.
pub(super) fn is_use(kind: &str) -> bool {
    matches!(kind, "server_tool_use" | "mcp_tool_use")
}

/// Whether a block of that type is the result of a hosted tool.
pub(super) fn is_result(kind: &str) -> bool {
    kind.ends_with("_tool_result") && kind != "tool_result"
}

/// Reads a call and its result; either may be missing.
pub(super) fn decode<'a>(used: Option<Value<'a>>, result: Option<Value<'a>>) -> Hosted<'a> {
    let told = |block: Option<Value<'a>>, name: &str| block?.some(name)?.as_str();
    let name = told(used, "name").or_else(|| told(result, "type"));
    let id = told(used, "id").or_else(|| told(result, "tool_use_id"));
    let content = result.and_then(|result| result.some("content"));
    Hosted {
        kind: name.map_or(HostedKind::Other, |name| kind(&name.plain())),
        id: id.unwrap_or_default(),
        input: used
            .and_then(|used| used.some("input"))
            .map(|input| input.raw()),
        sources: content.map(sources).unwrap_or_default(),
        output: content.and_then(printed),
        failed: content.is_some_and(failed),
        native: [used, result]
            .into_iter()
            .flatten()
            .map(|block| block.raw())
            .collect(),
        origin: Protocol::Messages,
    }
}

fn kind(name: &str) -> HostedKind {
    if name.starts_with("web_search") {
        HostedKind::WebSearch
    } else if name.starts_with("web_fetch") {
        HostedKind::WebFetch
    } else if name.contains("code_execution") {
        HostedKind::Code
    } else {
        HostedKind::Other
    }
}

fn sources(content: Value<'_>) -> Vec<SearchHit<'_>> {
    let pages = content.items();
    let pages = pages.chain(content.is_object().then_some(content));
    pages.filter_map(page).collect()
}

fn page(found: Value<'_>) -> Option<SearchHit<'_>> {
    let title = found
        .some("title")
        .or_else(|| found.some("content")?.some("title"));
    Some(SearchHit {
        url: found.some("url")?.as_str()?,
        title: title.and_then(|title| title.as_str()),
    })
}

/// What a program printed, and what it complained of.
fn printed(content: Value<'_>) -> Option<Str<'_>> {
    let told = |name: &str| content.some(name).and_then(|text| text.as_str());
    match (told("stdout"), told("stderr")) {
        (None, None) => None,
        (Some(text), None) | (None, Some(text)) => Some(text),
        (Some(out), Some(err)) if err.is_empty() => Some(out),
        (Some(out), Some(err)) => Some(Str::from(format!("{}{}", out.plain(), err.plain()))),
    }
}

fn failed(content: Value<'_>) -> bool {
    let kind = content.some("type").and_then(|kind| kind.as_str());
    let error = kind.is_some_and(|kind| kind.plain().ends_with("_error"));
    let code = content.some("return_code").and_then(|code| code.as_i64());
    error || code.is_some_and(|code| code != 0)
}

/// A hosted tool's call and result as blocks for a client.
#[derive(Debug)]
pub(super) struct Blocks<'h, 'a> {
    hosted: &'h Hosted<'a>,
    name: &'static str,
    id: String,
    /// The call's input.
    pub(super) input: Cow<'h, str>,
}

impl<'h, 'a> Blocks<'h, 'a> {
    /// `None` for a tool that Messages has no word for, or whose result it could
    /// not tell. `seed` makes the id, together with the number of the part.
    pub(super) fn of(hosted: &'h Hosted<'a>, seed: &str, number: usize) -> Option<Self> {
        let name = match hosted.kind {
            HostedKind::WebSearch => "web_search",
            HostedKind::Code => "code_execution",
            _ => return None,
        };
        let input = hosted.input.as_ref().filter(|input| input.is_object());
        let none = if hosted.kind == HostedKind::Code {
            r#"{"code":""}"#
        } else {
            r#"{"query":""}"#
        };
        Some(Self {
            hosted,
            name,
            id: format!("srvtoolu_{seed}{number}"),
            input: input.map_or(Cow::Borrowed(none), Raw::compact),
        })
    }

    /// The call. A stream says its input later.
    pub(super) fn write_use(&self, out: &mut BytesMut, input: &str) {
        let mut block = Object::open(out);
        block
            .text("type", "server_tool_use")
            .text("id", &self.id)
            .text("name", self.name);
        block.key("input").extend_from_slice(input.as_bytes());
    }

    /// The result.
    pub(super) fn write_result(&self, out: &mut BytesMut) {
        let mut block = Object::open(out);
        match self.hosted.kind {
            HostedKind::Code => {
                block.text("type", "code_execution_tool_result");
                block.text("tool_use_id", &self.id);
                self.write_printed(block.object("content"));
            }
            _ => {
                block.text("type", "web_search_tool_result");
                block.text("tool_use_id", &self.id);
                self.write_pages(&mut block);
            }
        }
    }

    fn write_printed(&self, mut content: Object<'_>) {
        let output = self.hosted.output.clone().unwrap_or_default();
        let (stdout, stderr) = if self.hosted.failed {
            (Str::default(), output)
        } else {
            (output, Str::default())
        };
        content
            .text("type", "code_execution_result")
            .str("stdout", &stdout)
            .str("stderr", &stderr)
            .number("return_code", u8::from(self.hosted.failed));
        content.array("content");
    }

    fn write_pages(&self, block: &mut Object<'_>) {
        if self.hosted.failed {
            block
                .object("content")
                .text("type", "web_search_tool_result_error")
                .text("error_code", "unavailable");
            return;
        }
        let mut pages: Array<'_> = block.array("content");
        for source in &self.hosted.sources {
            let mut page = pages.object();
            page.text("type", "web_search_result")
                .str("url", &source.url);
            page.str("title", source.title.as_ref().unwrap_or(&source.url));
            page.text("encrypted_content", "").null("page_age");
        }
    }
}
