//! Hosted tools as chat can show them: code that was run, in words.

use crate::protocol::ir::{Hosted, HostedKind};
use crate::protocol::json::Tape;

/// Code that the provider ran and what it printed, as fenced text. `None` for
/// other tools, of which nothing is shown.
pub(super) fn code_text(hosted: &Hosted<'_>) -> Option<String> {
    if hosted.kind != HostedKind::Code {
        return None;
    }
    let mut tape = Tape::new();
    let input = hosted.input.as_ref();
    let input = input.and_then(|input| tape.parse(input.as_str()).ok());
    let code = input.and_then(|input| input.some("code").or_else(|| input.some("command")));
    let code = code.and_then(|code| code.as_str());
    let output = hosted.output.as_ref().filter(|output| !output.is_empty());
    let code = code.map(|code| format!("```python\n{}\n```", code.plain().trim_end()));
    let output = output.map(|output| format!("```\n{}\n```", output.plain().trim_end()));
    match (code, output) {
        (Some(code), Some(output)) => Some(format!("{code}\n{output}")),
        (one, other) => one.or(other),
    }
}
