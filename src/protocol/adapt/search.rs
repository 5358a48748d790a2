//! Web search in the form of another provider, and no tool search.

use bytes::BytesMut;

use super::SearchForm;
use crate::protocol::Protocol;
use crate::protocol::edit::Edits;
use crate::protocol::history;
use crate::protocol::json::{Object, Value};
use crate::protocol::notes::{Action, Notes};

/// The names of a Gemini tool that searches the web.
const GOOGLE: [&str; 4] = [
    "googleSearch",
    "google_search",
    "googleSearchRetrieval",
    "google_search_retrieval",
];

/// Gives every web search among the tools the form of one provider.
pub(super) fn coerce<'t>(
    form: SearchForm,
    max_uses: Option<u64>,
    root: Value<'t>,
    edits: &mut Edits<'t>,
    notes: &mut Notes,
) {
    let tools = root.get("tools");
    for tool in tools.into_iter().flat_map(|tools| tools.items()) {
        let Some(found) = form_of(tool) else { continue };
        if found != form {
            edits.replace(tool, written(form, max_uses, tool));
            notes.info(Action::Coerced, "tools.web_search");
        } else if let (SearchForm::Anthropic, Some(most)) = (form, max_uses)
            && tool.some("max_uses").is_none()
        {
            edits.set(tool, "max_uses", &most.to_string());
            notes.info(Action::Injected, "tools.web_search.max_uses");
        }
    }
}

/// Whose web search a tool is, if it is one and nothing else.
fn form_of(tool: Value<'_>) -> Option<SearchForm> {
    let google = GOOGLE.iter().any(|name| tool.get(name).is_some());
    if google && tool.members().count() == 1 {
        return Some(SearchForm::Google);
    }
    match &*history::word(tool, "type")? {
        "openrouter:web_search" => Some(SearchForm::OpenRouter),
        "web_search" => Some(SearchForm::OpenAi),
        sort => {
            let rest = sort.strip_prefix("web_search_")?;
            if rest.starts_with("preview") {
                return Some(SearchForm::OpenAi);
            }
            let dated = rest.len() == 8 && rest.bytes().all(|byte| byte.is_ascii_digit());
            dated.then_some(SearchForm::Anthropic)
        }
    }
}

/// A web search in that form, with those of the old one's settings that it has too.
fn written(form: SearchForm, max_uses: Option<u64>, old: Value<'_>) -> BytesMut {
    let mut out = BytesMut::new();
    let mut tool = Object::open(&mut out);
    let filters = old.some("filters");
    let allowed = old
        .some("allowed_domains")
        .or_else(|| filters.and_then(|filters| filters.some("allowed_domains")));
    let place = old.some("user_location");
    match form {
        SearchForm::Anthropic => {
            tool.text("type", "web_search_20250305");
            tool.text("name", "web_search");
            let most = old.some("max_uses").and_then(|most| most.as_u64());
            if let Some(most) = most.or(max_uses) {
                tool.number("max_uses", most);
            }
            for (name, value) in [("allowed_domains", allowed), ("user_location", place)] {
                if let Some(value) = value {
                    tool.raw(name, &value.raw());
                }
            }
        }
        SearchForm::OpenAi => {
            tool.text("type", "web_search");
            if let Some(allowed) = allowed {
                let mut filters = tool.object("filters");
                filters.raw("allowed_domains", &allowed.raw());
            }
            if let Some(place) = place {
                tool.raw("user_location", &place.raw());
            }
        }
        SearchForm::OpenRouter => {
            tool.text("type", "openrouter:web_search");
        }
        SearchForm::Google => {
            tool.object("googleSearch");
        }
    }
    drop(tool);
    out
}

/// Takes tool search out of the tools and of the history. Tools that were to be
/// loaded by it are loaded at once.
pub(super) fn strip_tool_search<'t>(
    protocol: Protocol,
    root: Value<'t>,
    edits: &mut Edits<'t>,
    notes: &mut Notes,
) {
    let mut any = history::drop_tools(edits, root, |tool| {
        history::word(tool, "type").is_some_and(|sort| sort.starts_with("tool_search"))
    });
    let tools = root.get("tools");
    for tool in tools.into_iter().flat_map(|tools| tools.items()) {
        for holder in [Some(tool), tool.get("function")].into_iter().flatten() {
            any |= holder.get("defer_loading").is_some();
            edits.remove_member(holder, "defer_loading");
        }
    }
    any |= strip_history(protocol, root, edits);
    if any {
        notes.warn(Action::Dropped, "tools.tool_search");
    }
}

fn strip_history<'t>(protocol: Protocol, root: Value<'t>, edits: &mut Edits<'t>) -> bool {
    let Some(turns) = root.get(history::member(protocol)) else {
        return false;
    };
    match protocol {
        Protocol::Responses => {
            let mut any = false;
            for (at, item) in turns.items().enumerate() {
                let sort = history::word(item, "type");
                if matches!(
                    sort.as_deref(),
                    Some("tool_search_call" | "tool_search_output")
                ) {
                    edits.remove(turns, at);
                    any = true;
                }
            }
            any
        }
        Protocol::Messages => history::drop_blocks(edits, turns, "content", |block| {
            match history::word(block, "type").as_deref() {
                Some("tool_search_tool_result") => true,
                Some("server_tool_use") => history::word(block, "name")
                    .is_some_and(|name| name.starts_with("tool_search_tool")),
                _ => false,
            }
        }),
        _ => false,
    }
}
