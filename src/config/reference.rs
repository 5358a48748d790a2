//! `$env:NAME` in secrets, expanded. This file must never say a value.

/// Reads a variable of the environment.
pub(in crate::config) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

const MARK: &str = "$env:";

/// The text with every reference replaced, or what is wrong with it.
pub(in crate::config) fn expand(
    text: &str,
    environment: Environment<'_>,
) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let (before, after) = (&rest[..at], &rest[at + MARK.len()..]);
        let length = after
            .bytes()
            .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
            .count();
        let (name, tail) = after.split_at(length);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err("found $env: without the name of a variable after it".to_owned());
        }
        let Some(value) = environment(name) else {
            return Err(format!("the environment variable {name} is not set"));
        };
        out.push_str(before);
        out.push_str(&value);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        (name == "TOKEN_1").then(|| "t$env:X".to_owned())
    }

    #[test]
    fn references_are_expanded_once_wherever_they_stand() {
        let expanded = expand("Bearer $env:TOKEN_1, $env:TOKEN_1!", &environment);
        assert_eq!(expanded.as_deref(), Ok("Bearer t$env:X, t$env:X!"));
        assert_eq!(
            expand("é$5 plain", &environment).as_deref(),
            Ok("é$5 plain")
        );
    }

    #[test]
    fn a_missing_variable_is_named() {
        assert!(
            expand("$env:NOPE", &environment)
                .unwrap_err()
                .contains("NOPE is not set")
        );
        assert!(
            expand("$env:", &environment)
                .unwrap_err()
                .contains("without the name")
        );
        assert!(
            expand("$env:1A", &environment)
                .unwrap_err()
                .contains("without the name")
        );
    }
}
