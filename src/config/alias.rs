//! What clients ask for by name: `models:`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;

use super::check::{Check, Seen};
use super::fault::{Place, suggestion};
use super::provider::{Providers, kind};
use super::settings::flag;
use super::tree::{Entry, Node};
use super::{Alias, Selector, Target, TargetGroup};

/// Aliases by id, in file order.
/// Aliases by id, in file order, and by every name that leads to them.
#[derive(Debug, Clone)]
pub(in crate::config) struct Aliases {
    pub(in crate::config) by_id: ById,
    pub(in crate::config) by_name: HashMap<Arc<str>, Arc<Alias>>,
}

type ById = IndexMap<Arc<str>, Arc<Alias>>;

/// Reads `models:`.
pub(in crate::config) fn read(
    check: &mut Check<'_>,
    root: &Node,
    providers: &Providers,
) -> Aliases {
    let entries = root.get("models").map_or(&[][..], Node::entries);
    let names = names(check, entries);
    let mut by_id = ById::new();
    for entry in entries {
        let known = Known {
            providers,
            names: &names,
        };
        let alias = one(check, entry, &known);
        by_id.insert(alias.id.clone(), Arc::new(alias));
    }
    cycles(check, entries, &by_id);
    let by_name = names
        .iter()
        .filter_map(|(name, id)| Some((name.as_str().into(), by_id.get(id.as_str())?.clone())))
        .collect();
    Aliases { by_id, by_name }
}

fn one(check: &mut Check<'_>, entry: &Entry, known: &Known<'_>) -> Alias {
    check.within("models", |check| {
        check.within(&entry.key, |check| alias(check, entry, known))
    })
}

/// Reads `models:` where only these may have changed, and the others stand as
/// they are; `root` has no others. `None` when all have to be looked at: an
/// alias leads to or from another, or a name is somebody else's.
pub(in crate::config) fn reread(
    check: &mut Check<'_>,
    root: &Node,
    providers: &Providers,
    mut aliases: Aliases,
    touched: &[String],
) -> Option<Aliases> {
    let to = |alias: &Arc<Alias>| {
        leads_to(alias)
            .into_iter()
            .any(|id| touched.iter().any(|touched| touched == id))
    };
    if aliases.by_id.values().any(to) {
        return None;
    }
    let entries = root.get("models").map_or(&[][..], Node::entries);
    for id in touched {
        let Some(old) = aliases.by_id.get(id.as_str()).cloned() else {
            continue;
        };
        for name in std::iter::once(&old.id).chain(&old.additional) {
            aliases.by_name.remove(name);
        }
        if !entries.iter().any(|entry| entry.key == *id) {
            aliases.by_id.shift_remove(id.as_str());
        }
    }
    // With none, an alias that leads to another is a fault, and all are read.
    let names = Seen::new();
    for entry in entries {
        let known = Known {
            providers,
            names: &names,
        };
        let alias = Arc::new(one(check, entry, &known));
        for name in std::iter::once(&alias.id).chain(&alias.additional) {
            let before = aliases.by_name.insert(Arc::clone(name), Arc::clone(&alias));
            if before.is_some() || name.is_empty() {
                return None;
            }
        }
        aliases.by_id.insert(Arc::clone(&alias.id), alias);
    }
    Some(aliases)
}

/// Whether every target is a model that its provider has.
pub(in crate::config) fn fit(aliases: &Aliases, providers: &Providers) -> bool {
    let groups = aliases.by_id.values().flat_map(|alias| &alias.groups);
    groups
        .flat_map(|group| &group.targets)
        .all(|target| match target {
            Target::Alias { .. } => true,
            Target::Model {
                provider, model, ..
            } => providers.get(provider).is_some_and(|provider| {
                provider.models.is_empty() || provider.models.contains_key(model)
            }),
        })
}

struct Known<'a> {
    providers: &'a Providers,
    /// Every name of an alias, with the id it stands for.
    names: &'a Seen<String>,
}

/// Every name of every alias with the id it stands for; ids win.
fn names(check: &mut Check<'_>, entries: &[Entry]) -> Seen<String> {
    let mut names: Seen<String> = entries
        .iter()
        .map(|entry| (entry.key.clone(), entry.key.clone()))
        .collect();
    for entry in entries {
        let additional = entry
            .value
            .get("additional_aliases")
            .map_or(&[][..], Node::items);
        let mut own = HashSet::new();
        for (i, item) in additional.iter().enumerate() {
            let Some(name) = item.text() else { continue };
            let message = match names.get(name) {
                // Repeating the id says nothing new and does no harm.
                Some(_) if name == entry.key => continue,
                Some(id) if id == name => format!("\"{name}\" is an alias itself"),
                Some(_) if !own.insert(name) => format!("\"{name}\" is listed twice"),
                Some(id) => format!("\"{name}\" is also a name of the alias \"{id}\""),
                None if name.is_empty() => "an empty name; some text is wanted".to_owned(),
                None => {
                    own.insert(name);
                    names.insert(name.to_owned(), entry.key.clone());
                    continue;
                }
            };
            let path = ["models", &entry.key, "additional_aliases"];
            below(check, &path, i, item.place, message);
        }
    }
    names
}

fn below(check: &mut Check<'_>, path: &[&str], index: usize, at: Place, message: String) {
    match path.split_first() {
        Some((first, rest)) => check.within(first, |check| below(check, rest, index, at, message)),
        None => check.within(&index.to_string(), |check| check.fault(at, message)),
    }
}

fn alias(check: &mut Check<'_>, entry: &Entry, known: &Known<'_>) -> Alias {
    let node = &entry.value;
    let additional = node.get("additional_aliases").map_or(&[][..], Node::items);
    metadata(check, node);
    Alias {
        id: entry.key.as_str().into(),
        additional: additional
            .iter()
            .filter_map(Node::text)
            .filter(|name| *name != entry.key)
            .map(Into::into)
            .collect(),
        kind: kind(node),
        api_match: node.get("priority").and_then(Node::text) == Some("api_match"),
        groups: groups(check, node, known),
        extra_body: node.get("extraBody").map(Node::to_json_map),
        metadata: node
            .get("metadata")
            .map(Node::to_json)
            .filter(|metadata| !metadata.is_null()),
        preferred_api: one_or_more(node.get("preferred_api")),
        sticky: flag(node, "sticky_session", true),
        describes_images: flag(node, "use_image_fallthrough", false),
        enforces_limits: flag(node, "enforce_limits", false),
    }
}

/// One name or a list of them.
fn one_or_more(node: Option<&Node>) -> Vec<String> {
    let one = node.and_then(Node::text).into_iter();
    let many = node
        .map_or(&[][..], Node::items)
        .iter()
        .filter_map(Node::text);
    one.chain(many).map(str::to_owned).collect()
}

fn metadata(check: &mut Check<'_>, node: &Node) {
    let Some(metadata) = node.get("metadata") else {
        return;
    };
    let named = |node: Option<&Node>| {
        node.and_then(Node::text)
            .is_some_and(|text| !text.is_empty())
    };
    let missing = match metadata.get("source").and_then(Node::text) {
        Some("openrouter" | "models.dev" | "catwalk") if !named(metadata.get("source_path")) => {
            "\"source_path\" is missing; it names the model in that catalogue"
        }
        Some("custom") if !named(metadata.get("overrides").and_then(|all| all.get("name"))) => {
            "\"overrides.name\" is missing; the source custom wants one"
        }
        _ => return,
    };
    check.within("metadata", |check| check.fault(metadata.place, missing));
}

fn groups(check: &mut Check<'_>, node: &Node, known: &Known<'_>) -> Vec<TargetGroup> {
    let mut names = HashSet::new();
    let written = node.get("target_groups").map_or(&[][..], Node::items);
    check.within("target_groups", |check| {
        let groups = written.iter().enumerate().map(|(i, group)| {
            check.within(&i.to_string(), |check| {
                let name = group.get("name").and_then(Node::text).unwrap_or_default();
                if !names.insert(name) && !name.is_empty() {
                    check.fault(group.place, format!("a second group called \"{name}\""));
                }
                TargetGroup {
                    name: name.into(),
                    selector: selector(check, group),
                    targets: targets(check, group, known),
                }
            })
        });
        groups.collect()
    })
}

fn selector(check: &mut Check<'_>, group: &Node) -> Selector {
    let word = group
        .get("selector")
        .and_then(Node::text)
        .unwrap_or("random");
    match word {
        "in_order" => Selector::InOrder,
        "cost" => Selector::Cost,
        "latency" => Selector::Latency,
        "performance" => Selector::Performance,
        "e2e_performance" => Selector::E2ePerformance,
        "usage" => Selector::Usage,
        "quota" => {
            let feature = "the selector quota (targets are tried in order)";
            check.within("selector", |check| check.asks(feature));
            Selector::Quota
        }
        _ => Selector::Random,
    }
}

fn targets(check: &mut Check<'_>, group: &Node, known: &Known<'_>) -> Vec<Target> {
    let written = group.get("targets").map_or(&[][..], Node::items);
    let mut seen = HashSet::new();
    check.within("targets", |check| {
        let targets = written.iter().enumerate().filter_map(|(i, node)| {
            check.within(&i.to_string(), |check| {
                let target = target(check, node, known)?;
                let shown = match &target {
                    Target::Model {
                        provider, model, ..
                    } => format!("{provider}/{model}"),
                    Target::Alias { alias, .. } => alias.to_string(),
                };
                let is_alias = matches!(target, Target::Alias { .. });
                if !seen.insert((is_alias, shown.clone())) {
                    check.fault(node.place, format!("the target \"{shown}\" is there twice"));
                }
                Some(target)
            })
        });
        targets.collect()
    })
}

fn target(check: &mut Check<'_>, node: &Node, known: &Known<'_>) -> Option<Target> {
    let field = |name: &str| node.get(name).filter(|node| node.text().is_some());
    let enabled = flag(node, "enabled", true);
    match (field("alias"), field("provider"), field("model")) {
        (Some(alias), None, None) => {
            let name = alias.text()?;
            match known.names.get(name) {
                Some(id) => Some(Target::Alias {
                    alias: id.as_str().into(),
                    enabled,
                }),
                None => {
                    let hint = suggestion(name, known.names.keys().map(String::as_str));
                    let message = format!("there is no alias called \"{name}\"{hint}");
                    check.within("alias", |check| check.fault(alias.place, message));
                    None
                }
            }
        }
        (None, Some(provider), Some(model)) => {
            known_model(check, provider, model, known.providers);
            Some(Target::Model {
                provider: provider.text()?.into(),
                model: model.text()?.into(),
                enabled,
                weight: node.get("weight").and_then(Node::number).unwrap_or(1.0),
            })
        }
        _ => {
            let message = "a target has either \"alias\", or both \"provider\" and \"model\"";
            check.fault(node.place, message);
            None
        }
    }
}

fn known_model(check: &mut Check<'_>, provider: &Node, model: &Node, providers: &Providers) {
    let (Some(id), Some(name)) = (provider.text(), model.text()) else {
        return;
    };
    let Some(found) = providers.get(id) else {
        let hint = suggestion(id, providers.keys().map(AsRef::as_ref));
        let message = format!("there is no provider called \"{id}\"{hint}");
        return check.within("provider", |check| check.fault(provider.place, message));
    };
    if !found.models.is_empty() && !found.models.contains_key(name) {
        let hint = suggestion(name, found.models.keys().map(AsRef::as_ref));
        let message = format!("the provider \"{id}\" lists no model \"{name}\"{hint}");
        check.within("model", |check| check.fault(model.place, message));
    }
}

/// Aliases whose targets lead back to themselves; each cycle is named once,
/// at the first of its members.
fn cycles(check: &mut Check<'_>, entries: &[Entry], aliases: &ById) {
    let mut done: HashSet<&str> = HashSet::new();
    for entry in entries {
        let Some((start, _)) = aliases.get_key_value(entry.key.as_str()) else {
            continue;
        };
        let mut trail: Vec<(&str, Vec<&str>)> = Vec::new();
        let ahead = |id: &str| {
            aliases
                .get(id)
                .map_or_else(Vec::new, |alias| leads_to(alias))
        };
        if done.insert(start) {
            trail.push((start, ahead(start)));
        }
        while let Some((_, left)) = trail.last_mut() {
            let Some(next) = left.pop() else {
                trail.pop();
                continue;
            };
            if let Some(from) = trail.iter().position(|(id, _)| *id == next) {
                let mut ring: Vec<&str> = trail[from..].iter().map(|(id, _)| *id).collect();
                ring.push(next);
                let message = format!("aliases lead in a circle: {}", ring.join(" -> "));
                let place = entries.iter().find(|entry| entry.key == next);
                let place = place.map_or(entry.place, |entry| entry.place);
                check.within("models", |check| {
                    check.within(next, |check| check.fault(place, message));
                });
            } else if done.insert(next) {
                trail.push((next, ahead(next)));
            }
        }
    }
}

/// The aliases that an alias's targets name.
fn leads_to(alias: &Alias) -> Vec<&str> {
    let targets = alias.groups.iter().flat_map(|group| &group.targets);
    let named = targets.filter_map(|target| match target {
        Target::Alias { alias, .. } => Some(&**alias),
        Target::Model { .. } => None,
    });
    named.collect()
}
