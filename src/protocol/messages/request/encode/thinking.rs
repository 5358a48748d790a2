//! Whether and how the model is to think, and how many tokens it gets.
//! <https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking>

use crate::protocol::Protocol;
use crate::protocol::ir::{Display, Effort, Invalid, Reasoning, ReasoningMode, Request};
use crate::protocol::json::Object;
use crate::protocol::notes::{Action, Field, Notes};
use crate::protocol::translate::Target;

/// The limit of output where nobody says one: what is long enough for an answer
/// and within what models allow.
const UNKNOWN: u64 = 16_384;
/// The most that is asked for unasked.
const UNASKED: u64 = 32_000;
/// The smallest budget that Anthropic takes, and what must be left beside one.
const LEAST: u64 = 1024;

/// What is said about thinking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Disabled,
    Adaptive(Option<&'static str>),
    Budget(u64),
}

/// What was decided.
#[derive(Debug)]
pub(super) struct Plan {
    form: Option<Form>,
    /// `output_config.effort`.
    pub(super) effort: Option<Effort>,
    /// `max_tokens`.
    pub(super) max_tokens: u64,
}

/// What the client asks for.
enum Wish {
    Nothing,
    Off,
    On,
}

fn wish(reasoning: Option<&Reasoning>) -> Wish {
    let Some(reasoning) = reasoning else {
        return Wish::Nothing;
    };
    let off = reasoning.mode == ReasoningMode::Off
        || reasoning.effort == Some(Effort::None)
        || reasoning.budget == Some(0);
    let on = reasoning.mode != ReasoningMode::Default
        || reasoning.effort.is_some()
        || reasoning.budget.is_some();
    match (off, on) {
        (true, _) => Wish::Off,
        (false, true) => Wish::On,
        (false, false) => Wish::Nothing,
    }
}

/// Whether thinking is asked for and the model knows how.
pub(super) fn is_wanted(request: &Request<'_>, target: &Target<'_>) -> bool {
    let thinking = target.capabilities.thinking;
    let can = thinking.adaptive || thinking.budget;
    can && matches!(wish(request.reasoning.as_ref()), Wish::On)
}

impl Plan {
    /// Decides. `forced` says that a tool must be called, `unsigned` that the
    /// exchange goes on from calls without signed thinking before them.
    pub(super) fn of(
        request: &Request<'_>,
        target: &Target<'_>,
        forced: bool,
        unsigned: bool,
        notes: &mut Notes,
    ) -> Result<Self, Invalid> {
        let mut planner = Planner {
            request,
            target,
            notes,
        };
        let max_tokens = planner.max_tokens()?;
        let mut plan = Self {
            form: None,
            effort: None,
            max_tokens,
        };
        match wish(request.reasoning.as_ref()) {
            Wish::Nothing => {}
            Wish::Off => planner.switch_off(&mut plan),
            Wish::On => planner.switch_on(&mut plan, forced, unsigned),
        }
        Ok(plan)
    }

    /// Whether the model will think.
    pub(super) fn thinks(&self) -> bool {
        matches!(self.form, Some(Form::Adaptive(_) | Form::Budget(_)))
    }

    /// Writes `thinking`.
    pub(super) fn write_thinking(&self, body: &mut Object<'_>) {
        let Some(form) = self.form else {
            return;
        };
        let mut thinking = body.object("thinking");
        match form {
            Form::Disabled => {
                thinking.text("type", "disabled");
            }
            Form::Adaptive(display) => {
                thinking.text("type", "adaptive");
                if let Some(display) = display {
                    thinking.text("display", display);
                }
            }
            Form::Budget(tokens) => {
                thinking
                    .text("type", "enabled")
                    .number("budget_tokens", tokens);
            }
        }
    }
}

struct Planner<'p, 'a> {
    request: &'p Request<'a>,
    target: &'p Target<'p>,
    notes: &'p mut Notes,
}

impl Planner<'_, '_> {
    fn path(&self, field: Field) -> &'static str {
        field.path(self.request.origin)
    }

    fn max_tokens(&mut self) -> Result<u64, Invalid> {
        let most = self.target.capabilities.max_output;
        let Some(asked) = self.request.sampling.max_output else {
            return Ok(most.map_or(UNKNOWN, |most| most.min(UNASKED)));
        };
        let path = self.path(Field::MaxOutput);
        if asked == 0 {
            return Err(Invalid::request(
                path,
                format!("{path}: must be at least 1"),
            ));
        }
        match most {
            Some(most) if most < asked => {
                let what = format!("{path}={asked}>{most}");
                self.notes.warn_at(Action::Coerced, what, path);
                Ok(most)
            }
            _ => Ok(asked),
        }
    }

    fn switch_off(&mut self, plan: &mut Plan) {
        let thinking = self.target.capabilities.thinking;
        if thinking.off {
            plan.form = Some(Form::Disabled);
        } else if thinking.adaptive {
            plan.effort = self.target.capabilities.nearest_effort(Effort::Low);
            let path = self.path(Field::Reasoning);
            let what = format!("{path}=none>low");
            self.notes.warn_at(Action::Coerced, what, path);
        }
    }

    fn switch_on(&mut self, plan: &mut Plan, forced: bool, unsigned: bool) {
        let capabilities = self.target.capabilities;
        let (adaptive, budget) = (capabilities.thinking.adaptive, capabilities.thinking.budget);
        if !adaptive && !budget {
            let path = self.path(self.asked_by());
            self.notes.warn(Action::Dropped, path);
            return;
        }
        if forced && !capabilities.forced_with_thinking {
            let path = self.path(Field::Reasoning);
            self.notes.warn(Action::Dropped, path);
            plan.form = self.disabled();
            return;
        }
        let asked = self.budget_asked();
        let verbatim = asked.is_some() && self.effort_asked().is_none();
        if budget && (!adaptive || verbatim) {
            self.spend(plan, asked, unsigned);
        } else {
            plan.form = Some(Form::Adaptive(self.display()));
            plan.effort = self.effort();
        }
    }

    /// The field by which thinking was asked for.
    fn asked_by(&self) -> Field {
        if self.effort_asked().is_some() {
            Field::Effort
        } else if self.budget_asked().is_some() {
            Field::Budget
        } else {
            Field::Reasoning
        }
    }

    fn effort_asked(&self) -> Option<Effort> {
        self.request.reasoning.as_ref()?.effort
    }

    /// The budget, where it is a number of tokens.
    fn budget_asked(&self) -> Option<u64> {
        let budget = self.request.reasoning.as_ref()?.budget?;
        u64::try_from(budget).ok().filter(|tokens| *tokens > 0)
    }

    fn disabled(&self) -> Option<Form> {
        let off = self.target.capabilities.thinking.off;
        off.then_some(Form::Disabled)
    }

    /// The effort for a model that decides by itself; none where none is asked.
    fn effort(&mut self) -> Option<Effort> {
        let by_name = self.effort_asked();
        let asked = by_name.or_else(|| self.budget_asked().map(effort_of))?;
        let nearest = self.target.capabilities.nearest_effort(asked)?;
        let path = self.path(self.asked_by());
        if by_name.is_none() {
            let what = format!("{path}>{}", nearest.name());
            self.notes.warn_at(Action::Coerced, what, path);
        } else if nearest != asked {
            let what = format!("{path}={}>{}", asked.name(), nearest.name());
            self.notes.warn_at(Action::Coerced, what, path);
        }
        Some(nearest)
    }

    /// Newer models show nothing of their thinking unless they are told to.
    fn display(&self) -> Option<&'static str> {
        let display = self.request.reasoning.as_ref().map(|asked| asked.display);
        match display.unwrap_or_default() {
            Display::Omit => Some("omitted"),
            Display::Summary => Some("summarized"),
            // There is no word for it in chat, where it is shown when it comes.
            Display::Default if self.request.origin == Protocol::Chat => Some("summarized"),
            Display::Default => None,
        }
    }

    /// Thinking within a budget, beside which room for the answer must be left.
    fn spend(&mut self, plan: &mut Plan, asked: Option<u64>, unsigned: bool) {
        let path = self.path(self.asked_by());
        if unsigned {
            let what = "thinking_disabled_unsigned_history";
            self.notes.warn_at(Action::Emulated, what, path);
            plan.form = self.disabled();
            return;
        }
        let most = self.target.capabilities.max_output;
        let wanted = asked.unwrap_or_else(|| match self.effort_asked() {
            Some(effort) => budget_of(effort, most),
            None => budget_of(Effort::Medium, most),
        });
        let wanted = wanted.max(LEAST);
        if self.request.sampling.max_output.is_none() {
            let room = wanted.saturating_add(LEAST);
            let room = most.map_or(room, |most| room.min(most));
            plan.max_tokens = plan.max_tokens.max(room);
        }
        let granted = wanted.min(plan.max_tokens.saturating_sub(LEAST));
        if granted < LEAST {
            self.notes.warn(Action::Dropped, path);
            plan.form = self.disabled();
            return;
        }
        if granted < wanted {
            let what = format!("{path}={wanted}>{granted}");
            self.notes.warn_at(Action::Coerced, what, path);
        }
        plan.form = Some(Form::Budget(granted));
    }
}

/// The effort that a budget comes nearest to.
const fn effort_of(budget: u64) -> Effort {
    match budget {
        0..=1024 => Effort::Low,
        1025..=8192 => Effort::Medium,
        8193..=24576 => Effort::High,
        _ => Effort::XHigh,
    }
}

fn budget_of(effort: Effort, most: Option<u64>) -> u64 {
    match effort {
        Effort::None | Effort::Minimal => 1024,
        Effort::Low => 4096,
        Effort::Medium => 8192,
        Effort::High => 24_576,
        Effort::XHigh => 32_768,
        Effort::Max => most.map_or(32_768, |most| most.saturating_sub(LEAST)),
    }
}
