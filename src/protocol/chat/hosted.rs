//! Hosted tools as chat can show them: code that was run, in words.

use crate::protocol::ir::{Hosted, HostedKind};
use crate::protocol::json::Tape;

/// Code that the provider ran and what it printed, as fenced text. `None` for
/// other tools, of which nothing is shown.
pub(super) fn code_text(hosted: &Hosted<'_>) -> Option<String> {
    if hosted.kind != HostedKind::Code {
        return None;
    }
    let input = hosted.input.as_ref()?;
    let mut tape = Tape::new();
    let input = tape.parse(input.as_str()).ok()?;
    let code = input.some("code").or_else(|| input.some("command"))?;
    let code = code.as_str()?;
    let mut out = format!("```python\n{}\n```", code.plain().trim_end());
    if let Some(output) = hosted.output.as_ref().filter(|output| !output.is_empty()) {
        out.push_str(&format!("\n```\n{}\n```", output.plain().trim_end()));
    }
    Some(out)
}
