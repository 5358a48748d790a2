//! What has to be put right in an answer because of how its request was encoded:
//! names restored, stop texts kept, fences and wrappers taken off.
//!
//! An answer that needs none of it passes as it came.

mod fence;
mod stop;
#[cfg(test)]
mod tests;

use self::fence::Fence;
use self::stop::{Found, Stops};
use super::collect::{Collector, replay};
use super::error::ErrorClass;
use super::fit::Names;
use super::ir::{Delta, Finish, PartKind, Response};
use super::json::{Raw, Str, Tape};

/// What has to be put right.
#[derive(Clone, Debug, Default)]
pub struct Fixups {
    /// Tool names as the provider knows them, and as the client does.
    pub names: Names,
    /// Texts at which the answer has to end because the provider was not told.
    pub stop: Vec<String>,
    /// Whether the answer may stand in a Markdown fence that was not asked for.
    pub fenced: bool,
    /// Names (the provider's) of tools whose arguments were wrapped in
    /// `{"value": ...}` because the provider takes objects only.
    pub wrapped: Vec<String>,
    /// Names (the provider's) of custom tools that were declared as functions of
    /// one string, `input`.
    pub custom: Vec<String>,
    /// Whether a JSON string is to be answered as the bare word in it.
    pub bare_enum: bool,
    /// Whether reasoning comes in `<think>` tags (chat).
    pub think_tags: bool,
}

/// The most bytes of calls and words that are held back in one stream.
const HELD: usize = 16 << 20;
/// The most parts that may be open at once, and the most answers.
const OPEN: usize = 4096;

/// Puts an answer right.
#[derive(Debug, Default)]
pub struct Filter {
    fixups: Fixups,
    stops: Stops,
    active: bool,
    /// The parts that are open and not simply passed on.
    open: Vec<Open>,
    /// The answers of a choice that were cut at a stop text.
    cut: Vec<usize>,
    /// The answers that have begun and not ended.
    running: Vec<usize>,
    /// Bytes held back.
    held: usize,
    stopped: bool,
    over: bool,
}

/// A part that is open.
#[derive(Debug)]
struct Open {
    choice: usize,
    part: usize,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Nothing to do.
    Pass,
    /// Visible text.
    Words(Words),
    /// A call whose arguments must be seen whole.
    Call { custom: bool, arguments: String },
}

#[derive(Debug)]
struct Words {
    fence: Option<Fence>,
    /// The whole text, where only a bare word is wanted.
    bare: Option<String>,
    /// The end of what came, which may be the beginning of a stop text.
    tail: String,
}

impl Filter {
    /// For the answer to one request.
    #[must_use]
    pub fn new(fixups: Fixups) -> Self {
        let active = !fixups.names.is_empty()
            || !fixups.stop.is_empty()
            || fixups.fenced
            || !fixups.wrapped.is_empty()
            || !fixups.custom.is_empty()
            || fixups.bare_enum;
        Self {
            stops: Stops::new(&fixups.stop),
            fixups,
            active,
            ..Self::default()
        }
    }

    /// Whether the answer ended at a stop text, so that the provider may as well
    /// be told to stop.
    #[must_use]
    pub const fn stopped(&self) -> bool {
        self.stopped
    }

    /// A whole answer.
    pub fn response<'a>(&mut self, response: Response<'a>) -> Response<'a> {
        if !self.active {
            return response;
        }
        // The same way as a stream, so that both are put right alike. It is in
        // memory already, and what is made of it is no larger.
        let mut collector = Collector::new(usize::MAX);
        replay(&response, &mut |delta| {
            self.delta(delta, &mut |delta| collector.delta(delta));
        });
        let mut filtered = collector.finish();
        filtered.usage = response.usage;
        filtered.web_searches = response.web_searches;
        filtered
    }

    /// One delta of a stream.
    pub fn delta(&mut self, delta: Delta<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        if !self.active {
            emit(delta);
        } else if !self.over {
            self.put_right(delta, emit);
        }
    }

    fn put_right(&mut self, delta: Delta<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        if choice_of(&delta).is_some_and(|choice| self.cut.contains(&choice)) {
            return;
        }
        match delta {
            Delta::PartStart { choice, part, kind } => {
                self.part_start((choice, part), kind, emit);
            }
            Delta::Text { choice, part, text } => self.text((choice, part), text, emit),
            Delta::Arguments {
                choice,
                part,
                piece,
            } => self.arguments((choice, part), piece, emit),
            Delta::ArgumentsWhole {
                choice,
                part,
                value,
            } => self.whole((choice, part), value, emit),
            Delta::PartEnd { choice, part } => self.part_end((choice, part), emit),
            Delta::Finish { choice, finish } => {
                self.running.retain(|running| *running != choice);
                emit(Delta::Finish { choice, finish });
            }
            // After a stop the provider was left in the middle: no failure of its.
            Delta::Error { .. } if self.stopped && self.running.is_empty() => {
                self.over = true;
                emit(Delta::End);
            }
            Delta::End | Delta::Error { .. } => {
                self.over = true;
                emit(delta);
            }
            other => emit(other),
        }
    }

    fn part_start(
        &mut self,
        at: (usize, usize),
        kind: PartKind<'_>,
        emit: &mut dyn FnMut(Delta<'_>),
    ) {
        let (choice, part) = at;
        if self.open.len() >= OPEN || self.running.len() >= OPEN {
            self.fail(emit);
            return;
        }
        if !self.running.contains(&choice) {
            self.running.push(choice);
        }
        let work = self.work(&kind);
        self.open.push(Open { choice, part, work });
        let custom_call = matches!(
            self.open.last().map(|open| &open.work),
            Some(Work::Call { custom: true, .. })
        );
        let PartKind::Call {
            id,
            name,
            namespace,
            custom,
        } = kind
        else {
            emit(Delta::PartStart { choice, part, kind });
            return;
        };
        let original = self.fixups.names.original(&name.plain());
        let restored = original.map(|original| {
            let namespace = original.namespace.as_deref().map(Str::new);
            (Str::new(&original.name), namespace)
        });
        let (name, namespace) = restored.unwrap_or_else(|| (name.borrowed(), namespace));
        let kind = PartKind::Call {
            id,
            name,
            namespace,
            custom: custom || custom_call,
        };
        emit(Delta::PartStart { choice, part, kind });
    }

    /// What has to be done in a part of that kind.
    fn work(&self, kind: &PartKind<'_>) -> Work {
        match kind {
            PartKind::Text
                if !self.stops.is_empty() || self.fixups.fenced || self.fixups.bare_enum =>
            {
                Work::Words(Words {
                    fence: self.fixups.fenced.then(Fence::default),
                    bare: self.fixups.bare_enum.then(String::new),
                    tail: String::new(),
                })
            }
            PartKind::Call {
                name,
                custom: false,
                ..
            } => {
                let name = name.plain();
                let among = |names: &[String]| names.iter().any(|own| *own == name);
                let custom = among(&self.fixups.custom);
                if custom || among(&self.fixups.wrapped) {
                    let arguments = String::new();
                    Work::Call { custom, arguments }
                } else {
                    Work::Pass
                }
            }
            _ => Work::Pass,
        }
    }

    fn text(&mut self, at: (usize, usize), text: Str<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let (choice, part) = at;
        let open = self.open.iter_mut().find(|open| open.is(at));
        let Some(Work::Words(words)) = open.map(|open| &mut open.work) else {
            emit(Delta::Text { choice, part, text });
            return;
        };
        if let Some(bare) = &mut words.bare {
            bare.push_str(&text.plain());
            self.hold(text.len(), emit);
            return;
        }
        let Some(fence) = &mut words.fence else {
            self.visible(at, text, emit);
            return;
        };
        let inside = fence.push(&text.plain());
        if !inside.is_empty() {
            self.visible(at, Str::from(inside), emit);
        }
    }

    /// Text that is to be seen, as far as no stop text is in it.
    fn visible(&mut self, at: (usize, usize), text: Str<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let (choice, part) = at;
        let open = self.open.iter_mut().find(|open| open.is(at));
        let Some(Work::Words(words)) = open.map(|open| &mut open.work) else {
            return;
        };
        if self.stops.is_empty() || words.tail.is_empty() && self.stops.are_far(&text.plain()) {
            emit(Delta::Text { choice, part, text });
            return;
        }
        let mut all = std::mem::take(&mut words.tail);
        all.push_str(&text.plain());
        let (keep, stop) = match self.stops.find(&all) {
            Found::Stop { at, which } => (at, Some(which)),
            Found::Perhaps { at } => (at, None),
        };
        let (seen, rest) = all.split_at_checked(keep).unwrap_or((&all, ""));
        if !seen.is_empty() {
            let text = Str::new(seen);
            emit(Delta::Text { choice, part, text });
        }
        match stop {
            Some(which) => self.stop(choice, which, emit),
            None => rest.clone_into(&mut words.tail),
        }
    }

    /// The answer ends here.
    fn stop(&mut self, choice: usize, which: usize, emit: &mut dyn FnMut(Delta<'_>)) {
        let own = self.open.iter().filter(|open| open.choice == choice);
        let parts: Vec<usize> = own.map(|open| open.part).collect();
        self.open.retain(|open| open.choice != choice);
        for part in parts {
            emit(Delta::PartEnd { choice, part });
        }
        let text = self.fixups.stop.get(which).cloned();
        emit(Delta::Finish {
            choice,
            finish: Finish::StopSequence(text),
        });
        self.cut.push(choice);
        self.running.retain(|running| *running != choice);
        if self.running.is_empty() {
            self.stopped = true;
        }
    }

    fn arguments(&mut self, at: (usize, usize), piece: Str<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let (choice, part) = at;
        match self.call(at) {
            Some(arguments) => {
                arguments.push_str(&piece.plain());
                self.hold(piece.len(), emit);
            }
            None => emit(Delta::Arguments {
                choice,
                part,
                piece,
            }),
        }
    }

    fn whole(&mut self, at: (usize, usize), value: Raw<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let (choice, part) = at;
        match self.call(at) {
            Some(arguments) => {
                value.as_str().clone_into(arguments);
                self.hold(value.as_str().len(), emit);
            }
            None => emit(Delta::ArgumentsWhole {
                choice,
                part,
                value,
            }),
        }
    }

    /// The arguments that are held back of a call.
    fn call(&mut self, at: (usize, usize)) -> Option<&mut String> {
        let open = self.open.iter_mut().find(|open| open.is(at))?;
        match &mut open.work {
            Work::Call { arguments, .. } => Some(arguments),
            _ => None,
        }
    }

    fn hold(&mut self, bytes: usize, emit: &mut dyn FnMut(Delta<'_>)) {
        self.held = self.held.saturating_add(bytes);
        if self.held > HELD {
            self.fail(emit);
        }
    }

    fn fail(&mut self, emit: &mut dyn FnMut(Delta<'_>)) {
        self.over = true;
        self.open.clear();
        emit(Delta::Error {
            class: ErrorClass::UpstreamFailed,
            message: "the provider's answer is larger than the gateway may hold".to_owned(),
            code: None,
        });
    }

    fn part_end(&mut self, at: (usize, usize), emit: &mut dyn FnMut(Delta<'_>)) {
        let (choice, part) = at;
        let Some(index) = self.open.iter().position(|open| open.is(at)) else {
            emit(Delta::PartEnd { choice, part });
            return;
        };
        if let Some(last) = self.last_words(index) {
            self.visible(at, Str::from(last), emit);
        }
        // A stop text may have ended the part.
        let Some(index) = self.open.iter().position(|open| open.is(at)) else {
            return;
        };
        match self.open.swap_remove(index).work {
            Work::Pass => {}
            Work::Words(words) if words.tail.is_empty() => {}
            Work::Words(words) => {
                let text = Str::from(words.tail);
                emit(Delta::Text { choice, part, text });
            }
            Work::Call { custom, arguments } => {
                self.held = self.held.saturating_sub(arguments.len());
                if custom {
                    input(at, arguments, emit);
                } else {
                    unwrapped(at, &arguments, emit);
                }
            }
        }
        emit(Delta::PartEnd { choice, part });
    }

    /// What a fence or a bare word held back until the end.
    fn last_words(&mut self, index: usize) -> Option<String> {
        let Work::Words(words) = &mut self.open.get_mut(index)?.work else {
            return None;
        };
        let mut last = words.bare.take().unwrap_or_default();
        self.held = self.held.saturating_sub(last.len());
        let bare = self.fixups.bare_enum;
        if let Some(fence) = &mut words.fence {
            let mut inside = fence.push(&last);
            inside.push_str(&fence.finish());
            last = inside;
        }
        if bare {
            last = word(&last).unwrap_or(last);
        }
        (!last.is_empty()).then_some(last)
    }
}

impl Open {
    fn is(&self, at: (usize, usize)) -> bool {
        (self.choice, self.part) == at
    }
}

/// The choice that a delta belongs to.
fn choice_of(delta: &Delta<'_>) -> Option<usize> {
    match delta {
        Delta::PartStart { choice, .. }
        | Delta::Text { choice, .. }
        | Delta::Summary { choice, .. }
        | Delta::Arguments { choice, .. }
        | Delta::ArgumentsWhole { choice, .. }
        | Delta::Opaque { choice, .. }
        | Delta::Annotation { choice, .. }
        | Delta::Logprobs { choice, .. }
        | Delta::PartEnd { choice, .. }
        | Delta::Finish { choice, .. } => Some(*choice),
        _ => None,
    }
}

/// The free text of a custom tool's call: the string `input`, or whatever the
/// model wrote instead.
fn input(at: (usize, usize), arguments: String, emit: &mut dyn FnMut(Delta<'_>)) {
    let mut tape = Tape::new();
    let root = tape.parse(&arguments).ok();
    let found = root.and_then(|root| root.get("input")?.as_str());
    let text = found.map(|text| text.to_plain_string());
    let text = text.unwrap_or(arguments);
    if !text.is_empty() {
        emit(Delta::Text {
            choice: at.0,
            part: at.1,
            text: Str::from(text),
        });
    }
}

/// The arguments that were wrapped in `{"value": ...}`.
fn unwrapped(at: (usize, usize), arguments: &str, emit: &mut dyn FnMut(Delta<'_>)) {
    let (choice, part) = at;
    let mut tape = Tape::new();
    let Ok(root) = tape.parse(arguments) else {
        if !arguments.is_empty() {
            let piece = Str::new(arguments);
            emit(Delta::Arguments {
                choice,
                part,
                piece,
            });
        }
        return;
    };
    emit(Delta::ArgumentsWhole {
        choice,
        part,
        value: root.get("value").unwrap_or(root).raw(),
    });
}

/// The bare word in a JSON string, or in an object that holds nothing else.
fn word(text: &str) -> Option<String> {
    let mut tape = Tape::new();
    let root = tape.parse(text).ok()?;
    let mut members = root.members();
    let only = match (members.next(), members.next()) {
        (Some((_, only)), None) => only,
        _ => root,
    };
    Some(only.as_str()?.to_plain_string())
}
