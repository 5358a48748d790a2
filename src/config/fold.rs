//! The one form of a configuration: what older files and short forms say,
//! said as the management API says it.
//!
//! It works on any tree, right or wrong: what doesn't fit is left alone for
//! the shape check to name.

use super::fault::{Fault, Place};
use super::schema;
use super::shape;
use super::tree::{Entry, Node, Yaml};

/// Folds spellings, short forms and old words. The faults are what can't be
/// folded because both forms are there.
pub(in crate::config) fn canonical(root: Node) -> (Node, Vec<Fault>) {
    let mut faults = Vec::new();
    let mut root = shape::fold_fields(root, &schema::FILE);
    move_proxies(&mut root, &mut faults);
    for provider in section(&mut root, "providers") {
        for model in section(&mut provider.value, "models") {
            fold_kind(&mut model.value);
        }
    }
    for alias in section(&mut root, "models") {
        fold_kind(&mut alias.value);
        fold_groups(alias, &mut faults);
    }
    for key in section(&mut root, "keys") {
        wrap_quota(&mut key.value);
    }
    (root, faults)
}

/// `trustedProxies` at the top is `server.trustedProxies`.
fn move_proxies(root: &mut Node, faults: &mut Vec<Fault>) {
    let Some(moved) = take(root, "trustedProxies") else {
        return;
    };
    let Yaml::Map(entries) = &mut root.value else {
        return;
    };
    let Some(server) = entries.iter_mut().find(|entry| entry.key == "server") else {
        entries.push(Entry {
            key: "server".to_owned(),
            place: moved.place,
            value: Node {
                place: moved.place,
                value: Yaml::Map(vec![moved]),
            },
        });
        return;
    };
    if server.value.get("trustedProxies").is_some() {
        let message = "also in \"server\"; one of the two is wanted";
        faults.push(fault(&["trustedProxies"], moved.place, message));
        return;
    }
    if server.value.value == Yaml::Null {
        server.value.value = Yaml::Map(Vec::new());
    }
    if let Yaml::Map(fields) = &mut server.value.value {
        fields.push(moved);
    }
}

/// `type: text` is `type: chat`.
fn fold_kind(node: &mut Node) {
    for field in fields(node).iter_mut().filter(|field| field.key == "type") {
        if field.value.text() == Some("text") {
            field.value.value = Yaml::Text("chat".to_owned());
        }
    }
}

/// `selector` and `targets` are one group called `default`. Beside
/// `target_groups`, `selector` is what groups without one use.
fn fold_groups(alias: &mut Entry, faults: &mut Vec<Fault>) {
    let selector = take(&mut alias.value, "selector");
    let targets = take(&mut alias.value, "targets");
    let groups = fields(&mut alias.value)
        .iter_mut()
        .find(|field| field.key == "target_groups");
    let Some(groups) = groups else {
        let Some(targets) = targets else { return };
        let place = targets.place;
        let mut group = vec![text_entry("name", "default", place)];
        group.extend(selector);
        group.push(targets);
        let group = Node {
            value: Yaml::Map(group),
            place,
        };
        let list = Node {
            value: Yaml::List(vec![group]),
            place,
        };
        if let Yaml::Map(entries) = &mut alias.value.value {
            entries.push(Entry {
                key: "target_groups".to_owned(),
                place,
                value: list,
            });
        }
        return;
    };
    if let Some(targets) = targets {
        let message = "also as \"target_groups\"; one of the two is wanted";
        faults.push(fault(
            &["models", &alias.key, "targets"],
            targets.place,
            message,
        ));
    }
    let (Some(selector), Yaml::List(groups)) = (selector, &mut groups.value.value) else {
        return;
    };
    for group in groups
        .iter_mut()
        .filter(|group| group.get("selector").is_none())
    {
        if let Yaml::Map(entries) = &mut group.value {
            entries.push(selector.clone());
        }
    }
}

/// One quota is a list of one.
fn wrap_quota(key: &mut Node) {
    for field in fields(key).iter_mut().filter(|field| field.key == "quotas") {
        if let Yaml::Text(_) = field.value.value {
            let place = field.value.place;
            let one = std::mem::replace(&mut field.value, Node::empty());
            field.value = Node {
                value: Yaml::List(vec![one]),
                place,
            };
        }
    }
}

fn text_entry(key: &str, text: &str, place: Place) -> Entry {
    Entry {
        key: key.to_owned(),
        place,
        value: Node {
            value: Yaml::Text(text.to_owned()),
            place,
        },
    }
}

fn section<'a>(node: &'a mut Node, name: &str) -> &'a mut [Entry] {
    let found = fields(node).iter_mut().find(|entry| entry.key == name);
    found.map_or_else(Default::default, |entry| fields(&mut entry.value))
}

fn fields(node: &mut Node) -> &mut [Entry] {
    match &mut node.value {
        Yaml::Map(entries) => entries,
        _ => Default::default(),
    }
}

fn take(node: &mut Node, name: &str) -> Option<Entry> {
    let Yaml::Map(entries) = &mut node.value else {
        return None;
    };
    let position = entries.iter().position(|entry| entry.key == name)?;
    Some(entries.remove(position))
}

fn fault(path: &[&str], at: Place, message: &str) -> Fault {
    Fault {
        line: at.line,
        column: at.column,
        ..Fault::without_place(path, message)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;
    use serde_json::json;

    fn folded(text: &str) -> serde_json::Value {
        let (node, faults) = canonical(tree::parse(text).0);
        assert_eq!(faults, vec![]);
        node.to_json()
    }

    #[test]
    fn the_short_form_of_an_alias_is_one_group() {
        let text = "models: {a: {selector: cost, targets: [{provider: p, model: m}]}}";
        let group = json!({"name": "default", "selector": "cost",
            "targets": [{"provider": "p", "model": "m"}]});
        assert_eq!(
            folded(text),
            json!({"models": {"a": {"target_groups": [group]}}})
        );
    }

    #[test]
    fn a_selector_beside_groups_is_for_groups_without_one() {
        let text = "models: {a: {selector: cost, target_groups: [{name: x}, \
                    {name: y, selector: usage}]}}";
        let groups = json!([{"name": "x", "selector": "cost"}, {"name": "y", "selector": "usage"}]);
        assert_eq!(
            folded(text),
            json!({"models": {"a": {"target_groups": groups}}})
        );
    }

    #[test]
    fn other_spellings_and_words_become_the_written_ones() {
        let text = "keys: {k: {quota: q}}\ntrustedProxies: [10.0.0.1]\nmcpServers: {}\n\
                    providers: {p: {geminiThinkingEnabled: true, models: {m: {type: text}}}}\n";
        let wanted = json!({"keys": {"k": {"quotas": ["q"]}}, "mcp_servers": {},
            "providers": {"p": {"gemini_thinking_enabled": true, "models": {"m": {"type": "chat"}}}},
            "server": {"trustedProxies": ["10.0.0.1"]}});
        assert_eq!(folded(text), wanted);
    }

    #[test]
    fn both_forms_at_once_are_faults() {
        let text = "trustedProxies: []\nserver: {trustedProxies: []}\n\
                    models: {a: {targets: [], target_groups: []}}\n";
        let (_, faults) = canonical(tree::parse(text).0);
        let shown: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(shown[0].starts_with("plexus.yaml:1:1 trustedProxies: also in"));
        assert!(shown[1].starts_with("plexus.yaml:3:14 models.a.targets: also as"));
    }

    #[test]
    fn what_does_not_fit_is_left_alone() {
        let text = "models: [1]\nkeys: {k: 5}\nproviders: {p: {models: [a]}}\nserver: 3\n";
        let (node, _) = tree::parse(text);
        assert_eq!(canonical(node.clone()).0, node);
    }
}
