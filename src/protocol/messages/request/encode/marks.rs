//! Cache marks: Anthropic takes four, and long-lived ones only before short-lived.
//! <https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching>

use crate::protocol::Protocol;
use crate::protocol::ir::{Lifetime, Part, Request, Tool, ToolResult};
use crate::protocol::json::Object;
use crate::protocol::notes::{Action, Field, Notes};
use crate::protocol::translate::Target;

use super::turns::Conversation;

/// The most marks of a request.
const MOST: usize = 4;

/// Which marks are written: the last ones.
#[derive(Debug)]
pub(super) struct Marks {
    /// How many are still to be left out.
    skip: usize,
    /// Whether a short-lived one was written.
    short: bool,
}

impl Marks {
    /// Counts the marks in the order in which they are written. One place may be
    /// taken by the automatic mark.
    pub(super) fn of(
        request: &Request<'_>,
        conversation: &Conversation<'_, '_>,
        automatic: bool,
        notes: &mut Notes,
    ) -> Self {
        let count = count(request, conversation);
        let skip = count.saturating_sub(MOST - usize::from(automatic));
        if skip > 0 {
            notes.info(Action::Dropped, Field::CacheMark.path(request.origin));
        }
        Self { skip, short: false }
    }

    /// Writes a mark, if it is one of those that stay.
    pub(super) fn write(&mut self, block: &mut Object<'_>, mark: Option<Lifetime>) {
        let Some(mut lifetime) = mark else {
            return;
        };
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        if self.short {
            lifetime = Lifetime::Short;
        }
        self.short |= lifetime == Lifetime::Short;
        write(block, Some(lifetime));
    }
}

fn count(request: &Request<'_>, conversation: &Conversation<'_, '_>) -> usize {
    let tools = request.tools.iter().filter(|tool| match tool {
        Tool::Function(function) => function.cache.is_some(),
        Tool::Custom { .. } | Tool::Hosted(_) => false,
    });
    let system = conversation.system().iter();
    let system = system.filter(|block| block.cache.is_some());
    let parts = conversation.parts();
    let parts = parts.filter(|part| mark_of(part).is_some());
    tools.count() + system.count() + parts.count()
}

/// The mark behind a part.
pub(super) fn mark_of(part: &Part<'_>) -> Option<Lifetime> {
    match part {
        Part::Text(text) => text.cache,
        Part::Media(media) => media.cache,
        Part::Call(call) => call.cache,
        Part::Result(result) => mark_of_result(result),
        Part::Refusal(_) | Part::Reasoning(_) | Part::Hosted(_) => None,
    }
}

/// The mark behind a result, or the last one in it.
pub(super) fn mark_of_result(result: &ToolResult<'_>) -> Option<Lifetime> {
    let inside = || result.parts.iter().rev().find_map(mark_of);
    result.cache.or_else(inside)
}

/// Writes a mark of that life.
pub(super) fn write(block: &mut Object<'_>, mark: Option<Lifetime>) {
    let Some(lifetime) = mark else {
        return;
    };
    let mut mark = block.object("cache_control");
    mark.text("type", "ephemeral");
    if lifetime == Lifetime::Long {
        mark.text("ttl", "1h");
    }
}

/// The mark at the top level: what the client asked for, and for a client that
/// can't say it, but calls tools turn after turn and expects the prompt to be
/// cached, one that it did not ask for.
pub(super) fn automatic(
    request: &Request<'_>,
    target: &Target<'_>,
    conversation: &Conversation<'_, '_>,
    notes: &mut Notes,
) -> Option<Lifetime> {
    if !target.capabilities.auto_cache {
        if request.cache.auto.is_some() {
            notes.info(Action::Dropped, Field::CacheMark.path(request.origin));
        }
        return None;
    }
    let expects = request.origin != Protocol::Messages
        && !request.tools.is_empty()
        && count(request, conversation) == 0;
    let implied = expects.then_some(Lifetime::Short);
    if request.cache.auto.is_none() && implied.is_some() {
        notes.info(Action::Injected, "cache_control");
    }
    request.cache.auto.or(implied)
}
