//! A configuration of any size, as people and the API would have written it.

use std::fmt::Write as _;

use plexus::config::{Config, describe};

use super::Failure;

/// How much of everything there is.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) providers: u32,
    pub(crate) aliases: u32,
    pub(crate) keys: u32,
}

/// The file's text.
pub(crate) fn text(size: Size) -> Result<String, Failure> {
    let mut text = String::from("# made for measuring\nadminKey: admin-of-the-file\nproviders:\n");
    for i in 0..size.providers {
        write!(
            text,
            "  p{i}:   # the provider {i}\n    display_name: Provider {i}\n    api_base_url: https://api{i}.example.com/v1\n    \
             api_key: sk-provider-{i}\n    enabled: true\n    models:\n      m0: {{ maxConcurrency: 20 }}\n      \
             m1:\n        pricing: {{ source: simple, input: 1.5, output: 6 }}\n      m2: {{}}\n"
        )?;
    }
    text.push_str("\n# what clients ask for\nmodels:\n");
    for i in 0..size.aliases {
        let (one, other) = (i % size.providers, (i * 7 + 1) % size.providers);
        write!(
            text,
            "  a{i}:\n    additional_aliases: [other-{i}]\n    priority: selector\n    target_groups:\n      - name: default\n        \
             selector: in_order\n        targets:\n          - {{ provider: p{one}, model: m0 }}\n          \
             - {{ provider: p{other}, model: m1 }}\n"
        )?;
    }
    text.push_str("\nkeys:\n");
    for i in 0..size.keys {
        write!(
            text,
            "  k{i}:\n    secret: sk-bench-{i}\n    comment: team {i}\n    allowedModels: [a{}, other-{}]\n",
            i % size.aliases,
            (i + 1) % size.aliases
        )?;
    }
    text.push_str("\ntimeout: { defaultSeconds: 300 }\n# the end\n");
    Ok(text)
}

/// The same, checked.
pub(crate) fn config(size: Size) -> Result<Config, Failure> {
    Config::from_yaml(&text(size)?).map_err(|faults| describe(&faults, "bench").into())
}
