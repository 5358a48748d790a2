//! Putting a conversation into the order that a target wants: system text moved
//! to where it is allowed, calls and results paired, turns merged, nothing empty.

use std::borrow::Cow;
use std::collections::HashMap;

use super::Protocol;
use super::ir::{Arguments, Call, Part, Request, Role, SystemBlock, Text, ToolResult, Turn};
use super::json::Str;
use super::notes::{Action, Field, Notes};

#[cfg(test)]
mod tests;

/// What a target wants of a conversation.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether system text may stand where it is; else it moves to the end of the
    /// leading system text. With `after_user`, only behind a turn of the user.
    pub mid_system: MidSystem,
    /// Whether neighbouring turns of one role become one.
    pub merge: bool,
    /// Whether text that is only white space is as good as none (Messages); else
    /// only `""` is.
    pub drop_blank: bool,
    /// Whether the first turn must be the user's: `(continued)` is put before it.
    pub user_first: bool,
    /// What becomes of a last turn of the assistant.
    pub last_assistant: LastAssistant,
}

/// Where system text in the middle goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MidSystem {
    /// It stays.
    InPlace,
    /// It stays behind a turn of the user, else it is moved.
    AfterUser,
    /// It is moved to the end of the leading system text, with a note.
    Hoist,
}

/// What becomes of a last turn of the assistant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastAssistant {
    /// It stays; with a note when the client's protocol would have had it
    /// continued (Messages).
    Keep,
    /// It stays and is continued: trailing white space of its last text goes.
    Prefill,
    /// The user says `Continue.` behind it, with a note.
    Continue,
}

/// A conversation in a target's order.
#[derive(Clone, Debug)]
pub struct Arranged<'r, 'a> {
    /// The leading system text.
    pub system: Vec<Cow<'r, SystemBlock<'a>>>,
    /// The turns; none when the client said nothing. Each call has one result. The
    /// results stand in the order of their calls, before anything else of their
    /// turn, directly behind the turn of the calls. Nowhere else is a result.
    pub turns: Vec<Arrangement<'r, 'a>>,
}

/// A turn in a target's order.
#[derive(Clone, Debug)]
pub struct Arrangement<'r, 'a> {
    /// Who speaks.
    pub role: Role,
    /// What is said; never empty.
    pub parts: Vec<Cow<'r, Part<'a>>>,
    /// Where the client wrote it.
    pub at: usize,
}

/// Puts a conversation into a target's order, with a note for whatever changes
/// what is said.
#[must_use]
pub fn arrange<'r, 'a>(
    request: &'r Request<'a>,
    rules: &Rules,
    notes: &mut Notes,
) -> Arranged<'r, 'a> {
    let system = request.system.iter();
    let system = system.filter(|block| !is_empty_text(&block.text, rules));
    let mut arranger = Arranger {
        rules: *rules,
        origin: request.origin,
        notes,
        system: system.map(Cow::Borrowed).collect(),
        turns: Vec::with_capacity(request.turns.len()),
        ids: HashMap::new(),
        exchange: Exchange::default(),
    };
    for turn in &request.turns {
        arranger.turn(turn);
    }
    arranger.close();
    arranger.begin_with_user();
    arranger.end();
    Arranged {
        system: arranger.system,
        turns: arranger.turns,
    }
}

struct Arranger<'n, 'r, 'a> {
    rules: Rules,
    origin: Protocol,
    notes: &'n mut Notes,
    system: Vec<Cow<'r, SystemBlock<'a>>>,
    turns: Vec<Arrangement<'r, 'a>>,
    /// The ids of all calls so far, and how often each was asked for.
    ids: HashMap<String, usize>,
    exchange: Exchange<'r, 'a>,
}

/// What was said since the last turn of the assistant began.
#[derive(Default)]
struct Exchange<'r, 'a> {
    /// The assistant's turn.
    assistant: Option<Arrangement<'r, 'a>>,
    /// Its calls, in order.
    calls: Vec<Open<'r, 'a>>,
    /// Which calls the client gave an id to.
    by_id: HashMap<String, Claim>,
    /// What others said behind it, without results.
    rest: Vec<Arrangement<'r, 'a>>,
    /// The turn in which the first result came.
    answered: Option<usize>,
}

/// A call that waits for its result.
struct Open<'r, 'a> {
    id: Str<'a>,
    name: Str<'a>,
    custom: bool,
    renamed: bool,
    result: Option<Cow<'r, Part<'a>>>,
}

/// The calls of one id, and how many results have come for them.
#[derive(Default)]
struct Claim {
    calls: Vec<usize>,
    results: usize,
}

impl<'r, 'a> Arranger<'_, 'r, 'a> {
    fn turn(&mut self, turn: &'r Turn<'a>) {
        if turn.role == Role::Assistant {
            self.assistant(turn);
        } else {
            self.other(turn);
        }
    }

    fn assistant(&mut self, turn: &'r Turn<'a>) {
        let mut parts = Vec::with_capacity(turn.parts.len());
        let mut stray = Vec::new();
        for part in &turn.parts {
            match part {
                Part::Result(_) => stray.push(part),
                part => parts.extend(cleaned(part, &self.rules)),
            }
        }
        if !parts.is_empty() {
            self.speak(parts, turn.at);
        }
        let mut said = Vec::new();
        for result in stray {
            self.result(result, turn.at, &mut said);
        }
        self.push_rest(Role::User, said, turn.at);
    }

    /// A turn of the assistant that has something in it.
    fn speak(&mut self, parts: Vec<Cow<'r, Part<'a>>>, at: usize) {
        let interrupted = self.exchange.answered.is_some() || !self.exchange.rest.is_empty();
        let joins = self.rules.merge || !self.exchange.calls.is_empty();
        if interrupted || !joins {
            self.close();
        }
        let parts: Vec<_> = parts.into_iter().map(|part| self.called(part)).collect();
        match &mut self.exchange.assistant {
            Some(turn) => turn.parts.extend(parts),
            none => {
                *none = Some(Arrangement {
                    role: Role::Assistant,
                    parts,
                    at,
                });
            }
        }
    }

    /// Writes down a call, with an id that no other has.
    fn called(&mut self, part: Cow<'r, Part<'a>>) -> Cow<'r, Part<'a>> {
        let Part::Call(call) = part.as_ref() else {
            return part;
        };
        let given = call.id.to_plain_string();
        let id = self.unique(&given);
        let renamed = id != given;
        let id = if renamed {
            self.notes.info(Action::Coerced, "tool_call_id");
            Str::from(id)
        } else {
            call.id.clone()
        };
        let exchange = &mut self.exchange;
        let claim = exchange.by_id.entry(given).or_default();
        claim.calls.push(exchange.calls.len());
        exchange.calls.push(Open {
            id: id.clone(),
            name: call.name.clone(),
            custom: matches!(call.arguments, Arguments::Free(_)),
            renamed,
            result: None,
        });
        if !renamed {
            return part;
        }
        let renamed = Call { id, ..call.clone() };
        Cow::Owned(Part::Call(renamed))
    }

    /// The id, or the id and `_2`, `_3` ... when another call has it already. Only
    /// what was said before counts, so that a longer conversation begins the same.
    fn unique(&mut self, id: &str) -> String {
        let mut unique = id.to_owned();
        let mut count = self.ids.get(id).copied().unwrap_or_default();
        while self.ids.contains_key(&unique) {
            count += 1;
            unique = format!("{id}_{count}");
        }
        self.ids.insert(id.to_owned(), count.max(1));
        self.ids.insert(unique.clone(), 1);
        unique
    }

    /// A turn of the user, or system text.
    fn other(&mut self, turn: &'r Turn<'a>) {
        let mut said = Vec::with_capacity(turn.parts.len());
        for part in &turn.parts {
            match part {
                Part::Result(_) => self.result(part, turn.at, &mut said),
                Part::Call(_) | Part::Reasoning(_) => {
                    let place = self.place(turn.at);
                    self.notes.warn_at(Action::Dropped, "misplaced_part", place);
                }
                part => said.extend(cleaned(part, &self.rules)),
            }
        }
        self.push_rest(turn.role, said, turn.at);
    }

    fn push_rest(&mut self, role: Role, parts: Vec<Cow<'r, Part<'a>>>, at: usize) {
        if !parts.is_empty() {
            self.exchange.rest.push(Arrangement { role, parts, at });
        }
    }

    /// Gives a result to its call; without one it becomes text.
    fn result(&mut self, part: &'r Part<'a>, at: usize, said: &mut Vec<Cow<'r, Part<'a>>>) {
        let Part::Result(result) = part else {
            return;
        };
        let place = self.place(at);
        let exchange = &mut self.exchange;
        let claim = exchange.by_id.get_mut(result.id.plain().as_ref());
        let Some(claim) = claim else {
            self.notes
                .warn_at(Action::Coerced, "tool_result_without_call", place);
            orphan(result, &self.rules, said);
            return;
        };
        let which = claim.results.min(claim.calls.len().saturating_sub(1));
        claim.results += 1;
        let index = claim.calls.get(which).copied().unwrap_or_default();
        let Some(open) = exchange.calls.get_mut(index) else {
            return;
        };
        exchange.answered.get_or_insert(at);
        let result = answer(part, open, &self.rules);
        if open.result.replace(result).is_some() {
            self.notes
                .warn_at(Action::Dropped, "tool_result_given_twice", place);
        }
    }

    /// Writes down what was said since the assistant's last turn.
    fn close(&mut self) {
        let exchange = std::mem::take(&mut self.exchange);
        let mut at = 0;
        if let Some(turn) = exchange.assistant {
            at = turn.at;
            self.emit(turn);
        }
        let mut results = Vec::with_capacity(exchange.calls.len());
        for open in exchange.calls {
            results.push(open.result.unwrap_or_else(|| {
                let place = self.place(at);
                self.notes.warn_at(Action::Injected, "tool_result", place);
                Cow::Owned(Part::Result(no_result(open.id, open.name, open.custom)))
            }));
        }
        if !results.is_empty() {
            self.emit(Arrangement {
                role: Role::User,
                parts: results,
                at: exchange.answered.unwrap_or(at),
            });
        }
        for turn in exchange.rest {
            self.emit(turn);
        }
    }

    fn emit(&mut self, turn: Arrangement<'r, 'a>) {
        if turn.role == Role::System && !self.may_stay() {
            self.hoist(turn);
            return;
        }
        match self.turns.last_mut() {
            Some(last) if self.rules.merge && last.role == turn.role => {
                last.parts.extend(turn.parts);
            }
            _ => self.turns.push(turn),
        }
    }

    /// Whether system text may stand here.
    fn may_stay(&self) -> bool {
        match self.rules.mid_system {
            MidSystem::InPlace => true,
            MidSystem::Hoist => false,
            // Behind other system text that was allowed to stay.
            MidSystem::AfterUser => self
                .turns
                .last()
                .is_some_and(|last| last.role != Role::Assistant),
        }
    }

    fn hoist(&mut self, turn: Arrangement<'r, 'a>) {
        // Before anything was said it is only where it belongs.
        if !self.turns.is_empty() {
            let place = self.place(turn.at);
            self.notes.warn_at(Action::Coerced, "system_hoisted", place);
        }
        for part in turn.parts {
            if let Part::Text(text) = part.as_ref() {
                self.system.push(Cow::Owned(SystemBlock {
                    text: text.text.clone(),
                    cache: text.cache,
                }));
            }
        }
    }

    fn begin_with_user(&mut self) {
        let first = self.turns.iter().find(|turn| turn.role != Role::System);
        let Some(first) = first.filter(|first| self.rules.user_first && first.role != Role::User)
        else {
            return;
        };
        let turn = saying("(continued)", first.at);
        self.notes.info(Action::Injected, "user_turn");
        self.turns.insert(0, turn);
    }

    fn end(&mut self) {
        if self.rules.last_assistant == LastAssistant::Prefill {
            while self.trim_last() {}
        }
        let Some(last) = self.turns.last().filter(|turn| is_assistant(turn)) else {
            return;
        };
        match self.rules.last_assistant {
            LastAssistant::Prefill => {}
            LastAssistant::Keep => {
                if self.origin == Protocol::Messages {
                    let place = self.place(last.at);
                    self.notes.warn_at(Action::Dropped, "prefill", place);
                }
            }
            LastAssistant::Continue => {
                let (turn, place) = (saying("Continue.", last.at), self.place(last.at));
                self.notes.warn_at(Action::Injected, "continue", place);
                self.turns.push(turn);
            }
        }
    }

    /// Takes trailing white space off the assistant's last words. `true` when a
    /// part went with it, and the next one has to be looked at.
    fn trim_last(&mut self) -> bool {
        let Some(last) = self.turns.last_mut().filter(|turn| is_assistant(turn)) else {
            return false;
        };
        let trimmed = match last.parts.last().map(Cow::as_ref) {
            Some(Part::Text(text)) => trimmed(text),
            _ => None,
        };
        let Some(trimmed) = trimmed else {
            return false;
        };
        last.parts.pop();
        if !trimmed.text.is_empty() {
            last.parts.push(Cow::Owned(Part::Text(trimmed)));
            return false;
        }
        if last.parts.is_empty() {
            self.turns.pop();
        }
        true
    }

    /// A turn in the client's words: `messages[3]`.
    fn place(&self, at: usize) -> String {
        format!("{}[{at}]", Field::Turns.path(self.origin))
    }
}

fn is_assistant(turn: &Arrangement<'_, '_>) -> bool {
    turn.role == Role::Assistant
}

fn saying<'r, 'a>(text: &'static str, at: usize) -> Arrangement<'r, 'a> {
    Arrangement {
        role: Role::User,
        parts: vec![Cow::Owned(Part::Text(Text::new(Str::new(text))))],
        at,
    }
}

/// The text without the white space at its end; `None` where there is none.
fn trimmed<'a>(text: &Text<'a>) -> Option<Text<'a>> {
    let plain = text.text.plain();
    let short = plain.trim_end();
    (short.len() < plain.len()).then(|| Text {
        text: Str::from(short.to_owned()),
        ..text.clone()
    })
}

fn is_empty_text(text: &Str<'_>, rules: &Rules) -> bool {
    text.is_empty() || rules.drop_blank && text.is_blank()
}

/// Whether there is nothing in a part that anybody could read.
fn is_empty(part: &Part<'_>, rules: &Rules) -> bool {
    match part {
        Part::Text(text) => {
            // A signature may ride on empty text where that is allowed.
            let signed = text.opaque.is_some() && !rules.drop_blank;
            !signed && is_empty_text(&text.text, rules)
        }
        Part::Refusal(text) => is_empty_text(text, rules),
        Part::Reasoning(thought) => {
            let said = !thought.text.is_empty() || thought.summary.iter().any(|s| !s.is_empty());
            !said && thought.opaque.is_none()
        }
        Part::Media(_) | Part::Call(_) | Part::Result(_) | Part::Hosted(_) => false,
    }
}

fn cleaned<'r, 'a>(part: &'r Part<'a>, rules: &Rules) -> Option<Cow<'r, Part<'a>>> {
    (!is_empty(part, rules)).then_some(Cow::Borrowed(part))
}

/// A result under its call's id, without empty parts.
fn answer<'r, 'a>(part: &'r Part<'a>, open: &Open<'_, 'a>, rules: &Rules) -> Cow<'r, Part<'a>> {
    let Part::Result(result) = part else {
        return Cow::Borrowed(part);
    };
    let hollow = result.parts.iter().any(|part| is_empty(part, rules));
    if !hollow && !open.renamed {
        return Cow::Borrowed(part);
    }
    let mut result = result.clone();
    result.parts.retain(|part| !is_empty(part, rules));
    result.id = open.id.clone();
    Cow::Owned(Part::Result(result))
}

/// What stands for the result of a call that the client gave none to.
fn no_result<'a>(id: Str<'a>, name: Str<'a>, custom: bool) -> ToolResult<'a> {
    ToolResult {
        id,
        name: Some(name),
        parts: vec![Part::Text(Text::new(Str::new("No result was provided.")))],
        is_error: true,
        custom,
        cache: None,
    }
}

/// A result without a call, as text and media.
fn orphan<'r, 'a>(result: &'r ToolResult<'a>, rules: &Rules, said: &mut Vec<Cow<'r, Part<'a>>>) {
    let mut words = format!("[tool result {}]", result.id.plain());
    let mut others = Vec::new();
    for part in &result.parts {
        match part {
            Part::Text(text) if is_empty_text(&text.text, rules) => {}
            Part::Text(text) => {
                words.push(' ');
                words.push_str(&text.text.plain());
            }
            Part::Media(_) => others.push(Cow::Borrowed(part)),
            _ => {}
        }
    }
    said.push(Cow::Owned(Part::Text(Text::new(Str::from(words)))));
    said.extend(others);
}
