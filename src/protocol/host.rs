//! Whose a host is, by its name.

/// Whether a host is that domain or below it; with `*` in front, whether it ends so.
pub(in crate::protocol) fn is_at(host: &str, domain: &str) -> bool {
    if let Some(end) = domain.strip_prefix('*') {
        return host.ends_with(end);
    }
    let above = host.strip_suffix(domain);
    above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::is_at;

    #[test]
    fn a_domain_is_itself_and_what_is_below_it() {
        assert!(is_at("openai.com", "openai.com") && is_at("api.openai.com", "openai.com"));
        assert!(!is_at("notopenai.com", "openai.com") && !is_at("openai.com.test", "openai.com"));
        assert!(is_at(
            "eu-aiplatform.googleapis.com",
            "*aiplatform.googleapis.com"
        ));
    }
}
