//! `adapter` of a provider or a model: a name, or a list of names and maps.

use super::check::Check;
use super::tree::{Node, Yaml};
use crate::protocol::adapt::{
    Adapter, Condition, Entry, Kind, OverrideRule, RewriteRule, SearchForm,
};
use crate::protocol::path::Path;

/// Where a list stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Level {
    /// At a provider, for all its models.
    Provider,
    /// At a model, after the provider's.
    Model,
}

/// Reads the list.
pub(in crate::config) fn entries(check: &mut Check<'_>, node: &Node, level: Level) -> Vec<Entry> {
    let Some(written) = node.get("adapter") else {
        return Vec::new();
    };
    check.within("adapter", |check| match &written.value {
        Yaml::List(items) => {
            let numbered = items.iter().enumerate();
            let read = numbered.filter_map(|(i, item)| {
                check.within(&i.to_string(), |check| entry(check, item, level))
            });
            read.collect()
        }
        _ => entry(check, written, level).into_iter().collect(),
    })
}

fn entry(check: &mut Check<'_>, node: &Node, level: Level) -> Option<Entry> {
    let name = node.text().or_else(|| node.get("name")?.text())?;
    let kind = Kind::from_name(name)?;
    if node.get("enabled").and_then(Node::flag) == Some(false) {
        return Some(Entry::Off(kind));
    }
    if kind == Kind::ModelOverride && level == Level::Provider {
        let message = "model_override is for models, and this is a provider's list";
        check.fault(node.place, message);
        return None;
    }
    adapter(check, node, kind, name).map(Entry::On)
}

fn adapter(check: &mut Check<'_>, node: &Node, kind: Kind, name: &str) -> Option<Adapter> {
    match kind {
        Kind::ReasoningContent => return Some(Adapter::ReasoningContent),
        Kind::SuppressDeveloperRole => return Some(Adapter::SuppressDeveloperRole),
        Kind::SuppressGpt5Options => return Some(Adapter::SuppressGpt5Options),
        Kind::StripToolSearch => return Some(Adapter::StripToolSearch),
        Kind::NormalizeToolIds => return Some(Adapter::NormalizeToolIds),
        Kind::StripGeminiSignatures => return Some(Adapter::StripGeminiSignatures),
        Kind::SignGeminiCalls => return Some(Adapter::SignGeminiCalls),
        Kind::StripOldAnthropicFields => return Some(Adapter::StripOldAnthropicFields),
        Kind::ModelOverride | Kind::ReasoningRewrite | Kind::WebSearchCoercion => {}
    }
    let Some(options) = node.get("options") else {
        let message = format!("{name} wants options: {{\"name\": \"{name}\", \"options\": ...}}");
        check.fault(node.place, message);
        return None;
    };
    check.within("options", |check| match kind {
        Kind::ModelOverride => Some(Adapter::ModelOverride(rules(check, options, override_rule))),
        Kind::ReasoningRewrite => Some(Adapter::ReasoningRewrite(rules(
            check,
            options,
            rewrite_rule,
        ))),
        _ => web_search(options),
    })
}

fn rules<T>(
    check: &mut Check<'_>,
    options: &Node,
    read: impl Fn(&mut Check<'_>, &Node) -> Option<T>,
) -> Vec<T> {
    let items = options.get("rules").map_or(&[][..], Node::items);
    check.within("rules", |check| {
        let numbered = items.iter().enumerate();
        let read = numbered
            .filter_map(|(i, item)| check.within(&i.to_string(), |check| read(check, item)));
        read.collect()
    })
}

fn override_rule(check: &mut Check<'_>, node: &Node) -> Option<OverrideRule> {
    let written = node.get("conditions")?;
    if written.items().is_empty() {
        check.within("conditions", |check| {
            check.fault(written.place, "no condition; at least one is wanted");
        });
    }
    let conditions = check.within("conditions", |check| {
        let numbered = written.items().iter().enumerate();
        let read = numbered.filter_map(|(i, item)| {
            check.within(&i.to_string(), |check| {
                Some(Condition {
                    field: path(check, item, "field")?,
                    value: item.get("value").map(Node::to_json),
                })
            })
        });
        read.collect()
    });
    Some(OverrideRule {
        model: node.get("model")?.text()?.to_owned(),
        rewrite_to: node.get("rewriteTo")?.text()?.to_owned(),
        conditions,
    })
}

fn rewrite_rule(check: &mut Check<'_>, node: &Node) -> Option<RewriteRule> {
    let values = node.get("values").map_or(&[][..], Node::entries).iter();
    Some(RewriteRule {
        from: path(check, node, "from")?,
        to: path(check, node, "to"),
        values: values
            .map(|entry| (entry.key.clone(), entry.value.to_json()))
            .collect(),
    })
}

fn path(check: &mut Check<'_>, node: &Node, field: &str) -> Option<Path> {
    let written = node.get(field)?;
    let text = written.text()?;
    let path = Path::parse(text);
    if path.is_none() {
        check.within(field, |check| {
            let message =
                format!("\"{text}\" is no path to a field; one like reasoning.effort is wanted");
            check.fault(written.place, message);
        });
    }
    path
}

fn web_search(options: &Node) -> Option<Adapter> {
    let target = match options.get("target")?.text()? {
        "anthropic" => SearchForm::Anthropic,
        "openai" => SearchForm::OpenAi,
        "openrouter" => SearchForm::OpenRouter,
        "google" => SearchForm::Google,
        _ => return None,
    };
    Some(Adapter::WebSearchCoercion {
        target,
        max_uses: options.get("max_uses").and_then(Node::whole),
    })
}

#[cfg(test)]
mod tests {
    use super::super::schema::ADAPTERS;
    use super::*;
    use crate::config::Config;
    use crate::protocol::adapt::Chain;

    fn load(provider: &str, model: &str) -> Result<Config, String> {
        let text = format!(
            "adminKey: a\nproviders:\n  p:\n    api_base_url: https://x.test/v1\n    api_key: k\n\
             \x20   {provider}\n    models: {{ m: {{ {model} }}, n: {{}} }}\n"
        );
        Config::from_yaml(&text).map_err(|faults| {
            let lines = faults
                .iter()
                .map(|f| format!("{}: {}", f.path.join("."), f.message));
            lines.collect::<Vec<_>>().join("\n")
        })
    }

    fn chains(provider: &str, model: &str) -> (Chain, Chain) {
        let config = load(provider, model).unwrap();
        assert_eq!(config.warnings, Vec::<String>::new());
        let provider = config.provider("p").unwrap();
        assert_eq!(provider.models["n"].adapters, provider.adapters);
        (
            provider.adapters.clone(),
            provider.models["m"].adapters.clone(),
        )
    }

    #[test]
    fn the_schema_and_the_adapters_have_the_same_names() {
        let kinds = Kind::ALL.map(|(name, _)| name);
        for name in ADAPTERS {
            assert!(kinds.contains(name), "{name}");
        }
        assert_eq!(kinds.len(), ADAPTERS.len());
    }

    #[test]
    fn a_models_list_comes_after_its_providers() {
        let (provider, model) = chains(
            "adapter: [reasoning_content, {name: strip_unsupported_tool_search, enabled: true}]",
            "adapter: [{name: reasoning_content, enabled: false}, suppress_developer_role]",
        );
        let both = [Adapter::ReasoningContent, Adapter::StripToolSearch];
        assert_eq!(provider.configured(), both);
        let own = [Adapter::StripToolSearch, Adapter::SuppressDeveloperRole];
        assert_eq!(model.configured(), own);
        let (_, model) = chains(
            "adapter: reasoning_content",
            "adapter: [{name: reasoning_content, enabled: false}, reasoning_content]",
        );
        assert_eq!(model.configured(), [Adapter::ReasoningContent]);
    }

    #[test]
    fn options_are_read() {
        let (_, model) = chains(
            "adapter: {}".replace("{}", "[]").as_str(),
            "adapter: [{name: web_search_coercion, options: {target: anthropic, max_uses: 3}}, \
             {name: model_override, options: {rules: [{model: m, rewriteTo: n, conditions: [{field: a.b, value: [1]}, {field: c}]}]}}, \
             {name: reasoning_rewrite, options: {rules: [{from: reasoning_effort, to: thinking.type, values: {none: disabled, low: null}}]}}]",
        );
        let [search, named, rewritten] = model.configured() else {
            panic!("{model:?}")
        };
        let wanted = Adapter::WebSearchCoercion {
            target: SearchForm::Anthropic,
            max_uses: Some(3),
        };
        assert_eq!(*search, wanted);
        assert!(matches!(named, Adapter::ModelOverride(rules)
            if rules[0].conditions[0].value == Some(serde_json::json!([1])) && rules[0].conditions[1].value.is_none()));
        assert!(
            matches!(rewritten, Adapter::ReasoningRewrite(rules) if rules[0].values.len() == 2)
        );
    }

    #[test]
    fn what_an_adapter_lacks_is_said_with_its_place() {
        for (provider, model, wanted) in [
            (
                "adapter: web_search_coercion",
                "",
                "providers.p.adapter: web_search_coercion wants options",
            ),
            (
                "adapter: [{name: model_override, options: {rules: []}}]",
                "",
                "providers.p.adapter.0: model_override is for models",
            ),
            (
                "",
                "adapter: [{name: model_override, options: {rules: [{model: m, rewriteTo: n, conditions: []}]}}]",
                "providers.p.models.m.adapter.0.options.rules.0.conditions: no condition",
            ),
            (
                "",
                "adapter: [{name: reasoning_rewrite, options: {rules: [{from: 'a b'}]}}]",
                "rules.0.from: \"a b\" is no path",
            ),
            (
                "",
                "adapter: [{name: reasoning_content, options: {max: 1}}]",
                "adapter.0.options.max: unknown field",
            ),
            (
                "",
                "adapter: [{name: web_search_coercion, options: {target: bing}}]",
                "adapter.0.options.target: found",
            ),
            ("", "adapter: [{name: nothing}]", "adapter.0.name: found"),
            ("", "adapter: reasoning_contents", "did you mean"),
        ] {
            let faults = load(provider, model).unwrap_err();
            assert!(faults.contains(wanted), "{wanted}\n{faults}");
        }
    }
}
