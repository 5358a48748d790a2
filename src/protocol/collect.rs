//! From deltas to a whole answer, and back.

mod own;
#[cfg(test)]
pub(in crate::protocol) mod tests;

use super::ir::{
    Annotation, Arguments, Call, Choice, Delta, Finish, OpaqueKind, Part, PartKind, Response, Text,
    Thought,
};
use super::json::Str;

/// The most answers, and parts of one, that are put together.
const MOST: usize = 1 << 16;
/// What a part costs besides its text, in bytes.
const OVERHEAD: usize = 64;

/// Puts the deltas of a stream together. What breaks the promises of [`Delta`] is
/// left out.
#[derive(Debug, Default)]
pub struct Collector {
    response: Response<'static>,
    /// The parts of each answer, as far as they have come.
    choices: Vec<Vec<Growing>>,
    left: usize,
    full: bool,
}

/// A part that is still coming.
#[derive(Debug)]
struct Growing {
    part: Part<'static>,
    /// Text, reasoning, refusal or a call's input.
    text: String,
    summary: Vec<String>,
}

impl Collector {
    /// Holds at most so many bytes of text.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            left: limit,
            ..Self::default()
        }
    }

    /// Whether something had to be left out because it was too much.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.full
    }

    /// One delta.
    pub fn delta(&mut self, delta: Delta<'_>) {
        match delta {
            Delta::Start { id, model } => {
                self.response.upstream_id = id.map(Str::into_owned);
                self.response.upstream_model = model.map(Str::into_owned);
            }
            Delta::PartStart { choice, part, kind } => self.start(choice, part, kind),
            Delta::Finish { choice, finish } => {
                if let Some(choice) = self.choice(choice) {
                    choice.finish = Some(finish);
                }
            }
            Delta::Usage {
                tokens,
                web_searches,
            } => {
                let mut all = self.response.usage.unwrap_or_default();
                all.update(&tokens);
                self.response.usage = Some(all);
                self.response.web_searches = web_searches.or(self.response.web_searches);
            }
            Delta::Meta {
                service,
                fingerprint,
            } => {
                let response = &mut self.response;
                replace(&mut response.service, service);
                replace(&mut response.fingerprint, fingerprint);
            }
            Delta::Logprobs { choice, tokens } => {
                let size = tokens.iter().map(|token| token.as_str().len() + OVERHEAD);
                if self.spend(size.sum())
                    && let Some(choice) = self.choice(choice)
                {
                    let tokens = tokens.into_iter().map(super::json::Raw::into_owned);
                    choice.logprobs.extend(tokens);
                }
            }
            other => self.grow(other),
        }
    }

    /// More of a part.
    fn grow(&mut self, delta: Delta<'_>) {
        match delta {
            Delta::Text { choice, part, text }
            | Delta::Arguments {
                choice,
                part,
                piece: text,
            } => {
                if let Some(growing) = self.part(choice, part, text.len()) {
                    growing.text.push_str(&text.plain());
                }
            }
            Delta::Summary {
                choice,
                part,
                index,
                text,
            } => {
                if let Some(growing) = self.part(choice, part, text.len() + OVERHEAD) {
                    growing.summarise(index, &text);
                }
            }
            Delta::ArgumentsWhole {
                choice,
                part,
                value,
            } => {
                let found = self.part(choice, part, value.as_str().len());
                if let Some(Part::Call(call)) = found.map(|growing| &mut growing.part) {
                    call.arguments = Arguments::Object(value.into_owned());
                }
            }
            Delta::Opaque {
                choice,
                part,
                opaque,
            } => {
                if let Some(growing) = self.part(choice, part, opaque.data.len()) {
                    growing.sign(own::opaque(opaque));
                }
            }
            Delta::Annotation {
                choice,
                part,
                annotation,
            } => {
                let size = size_of_annotation(&annotation);
                let found = self.part(choice, part, size);
                if let Some(Part::Text(text)) = found.map(|growing| &mut growing.part) {
                    text.annotations.push(own::annotation(annotation));
                }
            }
            _ => {}
        }
    }

    fn start(&mut self, choice: usize, part: usize, kind: PartKind<'_>) {
        let size = size_of_kind(&kind) + OVERHEAD;
        if self.choice(choice).is_none() || !self.spend(size) {
            return;
        }
        let Some(parts) = self.choices.get_mut(choice) else {
            return;
        };
        if parts.len() == part && part < MOST {
            parts.push(Growing {
                part: begun(kind),
                text: String::new(),
                summary: Vec::new(),
            });
        }
    }

    fn choice(&mut self, index: usize) -> Option<&mut Choice<'static>> {
        let enough = index
            .saturating_sub(self.choices.len())
            .saturating_mul(OVERHEAD);
        if index >= MOST || index >= self.choices.len() && !self.spend(enough) {
            self.full = true;
            return None;
        }
        while self.choices.len() <= index {
            self.choices.push(Vec::new());
            self.response.choices.push(Choice::default());
        }
        self.response.choices.get_mut(index)
    }

    /// An open part, when there is room for more of it.
    fn part(&mut self, choice: usize, part: usize, size: usize) -> Option<&mut Growing> {
        if !self.spend(size) {
            return None;
        }
        self.choices.get_mut(choice)?.get_mut(part)
    }

    fn spend(&mut self, bytes: usize) -> bool {
        let enough = self.left >= bytes;
        self.full |= !enough;
        self.left = if enough { self.left - bytes } else { 0 };
        enough
    }

    /// The answer.
    #[must_use]
    pub fn finish(self) -> Response<'static> {
        let mut response = self.response;
        for (choice, parts) in response.choices.iter_mut().zip(self.choices) {
            choice.parts = parts.into_iter().map(Growing::grown).collect();
        }
        response
    }
}

impl Growing {
    fn summarise(&mut self, index: usize, text: &Str<'_>) {
        if index > self.summary.len() {
            return;
        }
        if index == self.summary.len() {
            self.summary.push(String::new());
        }
        if let Some(summary) = self.summary.get_mut(index) {
            summary.push_str(&text.plain());
        }
    }

    fn sign(&mut self, opaque: super::ir::Opaque<'static>) {
        match &mut self.part {
            Part::Text(text) => text.opaque = Some(opaque),
            Part::Call(call) => call.opaque = Some(opaque),
            Part::Reasoning(thought) => {
                thought.redacted = opaque.kind == OpaqueKind::AnthropicRedacted;
                thought.opaque = Some(opaque);
            }
            _ => {}
        }
    }

    fn grown(self) -> Part<'static> {
        let Self {
            mut part,
            text: words,
            summary,
        } = self;
        let words = Str::from(words);
        match &mut part {
            Part::Text(text) => text.text = words,
            Part::Refusal(text) => *text = words,
            Part::Reasoning(thought) => {
                thought.text = words;
                thought.summary = summary.into_iter().map(Str::from).collect();
            }
            Part::Call(call) => match &mut call.arguments {
                Arguments::Text(text) | Arguments::Free(text) => *text = words,
                Arguments::Object(_) => {}
            },
            Part::Media(_) | Part::Hosted(_) | Part::Result(_) => {}
        }
        part
    }
}

fn replace(mine: &mut Option<Str<'static>>, theirs: Option<Str<'_>>) {
    if let Some(text) = theirs {
        *mine = Some(text.into_owned());
    }
}

fn begun(kind: PartKind<'_>) -> Part<'static> {
    match kind {
        PartKind::Text => Part::Text(Text::default()),
        PartKind::Reasoning => Part::Reasoning(Thought::default()),
        PartKind::Refusal => Part::Refusal(Str::default()),
        PartKind::Call {
            id,
            name,
            namespace,
            custom,
        } => Part::Call(Call {
            id: id.into_owned(),
            name: name.into_owned(),
            namespace: namespace.map(Str::into_owned),
            arguments: if custom {
                Arguments::Free(Str::default())
            } else {
                Arguments::Text(Str::default())
            },
            opaque: None,
            cache: None,
        }),
        PartKind::Media(media) => Part::Media(own::media(media)),
        PartKind::Hosted(hosted) => Part::Hosted(own::hosted(hosted)),
    }
}

fn size_of_annotation(annotation: &Annotation<'_>) -> usize {
    let texts = [annotation.title.as_ref(), annotation.cited.as_ref()];
    let texts = texts.into_iter().flatten().map(Str::len);
    annotation.url.len() + texts.sum::<usize>() + OVERHEAD
}

fn size_of_kind(kind: &PartKind<'_>) -> usize {
    match kind {
        PartKind::Call { id, name, .. } => id.len() + name.len(),
        PartKind::Media(media) => match &media.source {
            super::ir::Source::Inline { data, .. } => data.len(),
            super::ir::Source::Text(text) => text.len(),
            super::ir::Source::Url { url: id, .. } | super::ir::Source::File { id } => id.len(),
        },
        PartKind::Hosted(hosted) => {
            let native = hosted.native.iter().map(|raw| raw.as_str().len());
            let sources = hosted.sources.iter().map(|hit| hit.url.len() + OVERHEAD);
            let input = hosted.input.as_ref().map_or(0, |raw| raw.as_str().len());
            let output = hosted.output.as_ref().map_or(0, Str::len);
            native.chain(sources).sum::<usize>() + input + output
        }
        PartKind::Text | PartKind::Reasoning | PartKind::Refusal => 0,
    }
}

/// The deltas that a whole answer would have come in.
pub fn replay(response: &Response<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
    emit(Delta::Start {
        id: response.upstream_id.as_ref().map(Str::borrowed),
        model: response.upstream_model.as_ref().map(Str::borrowed),
    });
    if response.service.is_some() || response.fingerprint.is_some() {
        emit(Delta::Meta {
            service: response.service.as_ref().map(Str::borrowed),
            fingerprint: response.fingerprint.as_ref().map(Str::borrowed),
        });
    }
    for (index, choice) in response.choices.iter().enumerate() {
        replay_choice(index, choice, emit);
    }
    if response.usage.is_some() || response.web_searches.is_some() {
        emit(Delta::Usage {
            tokens: response.usage.unwrap_or_default(),
            web_searches: response.web_searches,
        });
    }
    emit(Delta::End);
}

fn replay_choice(index: usize, choice: &Choice<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
    // An answer has no results of tools that the client runs.
    let parts = choice.parts.iter();
    let parts = parts.filter(|part| !matches!(part, Part::Result(_)));
    for (number, part) in parts.enumerate() {
        replay_part((index, number), part, emit);
    }
    if !choice.logprobs.is_empty() {
        let tokens = choice.logprobs.iter().map(super::json::Raw::borrowed);
        emit(Delta::Logprobs {
            choice: index,
            tokens: tokens.collect(),
        });
    }
    // A stream's answers all finish, even if the document didn't say how.
    emit(Delta::Finish {
        choice: index,
        finish: choice.finish.clone().unwrap_or(Finish::Stop),
    });
}

/// The deltas that a whole part would have come in: of which choice, and which
/// part of it. A result of a tool has none.
pub(in crate::protocol) fn replay_part(
    at: (usize, usize),
    part: &Part<'_>,
    emit: &mut dyn FnMut(Delta<'_>),
) {
    let (choice, number) = at;
    let Some(kind) = kind_of(part) else {
        return;
    };
    emit(Delta::PartStart {
        choice,
        part: number,
        kind,
    });
    match part {
        Part::Text(text) => {
            say(at, &text.text, emit);
            for annotation in &text.annotations {
                emit(Delta::Annotation {
                    choice,
                    part: number,
                    annotation: annotation.clone(),
                });
            }
            sign(at, text.opaque.as_ref(), emit);
        }
        Part::Refusal(text) => say(at, text, emit),
        Part::Reasoning(thought) => replay_thought(at, thought, emit),
        Part::Call(call) => replay_call(at, call, emit),
        Part::Media(_) | Part::Hosted(_) | Part::Result(_) => {}
    }
    emit(Delta::PartEnd {
        choice,
        part: number,
    });
}

fn kind_of<'p>(part: &'p Part<'_>) -> Option<PartKind<'p>> {
    Some(match part {
        Part::Text(_) => PartKind::Text,
        Part::Refusal(_) => PartKind::Refusal,
        Part::Reasoning(_) => PartKind::Reasoning,
        Part::Call(call) => PartKind::Call {
            id: call.id.borrowed(),
            name: call.name.borrowed(),
            namespace: call.namespace.as_ref().map(Str::borrowed),
            custom: matches!(call.arguments, Arguments::Free(_)),
        },
        Part::Media(media) => PartKind::Media(media.clone()),
        Part::Hosted(hosted) => PartKind::Hosted(hosted.clone()),
        Part::Result(_) => return None,
    })
}

fn replay_thought(at: (usize, usize), thought: &Thought<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
    say(at, &thought.text, emit);
    for (index, text) in thought.summary.iter().enumerate() {
        emit(Delta::Summary {
            choice: at.0,
            part: at.1,
            index,
            text: text.borrowed(),
        });
    }
    sign(at, thought.opaque.as_ref(), emit);
}

/// A call's signature comes before its arguments: some encoders have to write it
/// where the call begins.
fn replay_call(at: (usize, usize), call: &Call<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
    sign(at, call.opaque.as_ref(), emit);
    let (choice, part) = at;
    match &call.arguments {
        Arguments::Object(value) => emit(Delta::ArgumentsWhole {
            choice,
            part,
            value: value.borrowed(),
        }),
        Arguments::Text(text) if text.is_empty() => {}
        Arguments::Text(text) => emit(Delta::Arguments {
            choice,
            part,
            piece: text.borrowed(),
        }),
        Arguments::Free(text) => say(at, text, emit),
    }
}

fn say(at: (usize, usize), text: &Str<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
    if !text.is_empty() {
        emit(Delta::Text {
            choice: at.0,
            part: at.1,
            text: text.borrowed(),
        });
    }
}

fn sign(
    at: (usize, usize),
    opaque: Option<&super::ir::Opaque<'_>>,
    emit: &mut dyn FnMut(Delta<'_>),
) {
    if let Some(opaque) = opaque {
        emit(Delta::Opaque {
            choice: at.0,
            part: at.1,
            opaque: opaque.clone(),
        });
    }
}
