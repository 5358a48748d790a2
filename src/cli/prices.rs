//! `plexus prices LIST`: prices from a public list into a configuration file.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Failed, environment, say};
use crate::config::live::{Live, WriteError};
use crate::config::{Config, Provider};
use crate::usage::lists::{Found, PriceList};

/// `plexus prices`
#[derive(Debug, clap::Args)]
pub(super) struct Prices {
    /// The list, as a file: LiteLLM's map of models, models.dev's api.json, or
    /// OpenRouter's list of models
    list: PathBuf,
    /// Configuration file [default: $CONFIG_FILE, else plexus.yaml]
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// Providers to price the models of [default: all]
    #[arg(long)]
    provider: Vec<String>,
    /// What the list calls the provider, where it is not the name in the file
    #[arg(long)]
    called: Option<String>,
    /// Replace prices that the file has already
    #[arg(long)]
    overwrite: bool,
    /// Only say what would be written
    #[arg(long)]
    dry_run: bool,
}

/// A price to be written.
struct Priced {
    provider: String,
    model: String,
    pricing: Value,
}

/// Looks up every model that the file lists, and writes what was found.
pub(super) fn prices(options: &Prices) -> Result<(), Failed> {
    let list = read(&options.list)?;
    let live = Live::open(options.config.clone(), Box::new(environment))?;
    let config = live.load();
    for name in &options.provider {
        if config.provider(name).is_none() {
            return Err(Failed(format!("there is no provider called \"{name}\"")));
        }
    }
    say(&format!(
        "{}: {} models, in the layout of {}\n",
        options.list.display(),
        list.len(),
        list.layout
    ));
    let priced = look_up(&config, &list, options);
    if options.dry_run || priced.is_empty() {
        say(&format!("{} prices, nothing was written\n", priced.len()));
        return Ok(());
    }
    let path = live.status().path;
    write(&live, &config, &priced)?;
    say(&format!(
        "{} prices were written into {}\n",
        priced.len(),
        path.display()
    ));
    Ok(())
}

fn read(path: &Path) -> Result<PriceList, Failed> {
    let fail = |error: &dyn std::fmt::Display| Failed(format!("{}: {error}", path.display()));
    let document = std::fs::read(path).map_err(|error| fail(&error))?;
    PriceList::parse(&document).map_err(|error| fail(&error))
}

fn look_up(config: &Config, list: &PriceList, options: &Prices) -> Vec<Priced> {
    let wanted = |provider: &&std::sync::Arc<Provider>| {
        options.provider.is_empty() || options.provider.iter().any(|name| **name == *provider.id)
    };
    let mut priced = Vec::new();
    for provider in config.providers.values().filter(wanted) {
        let called = options.called.as_deref().unwrap_or(&provider.id);
        for (model, listed) in &provider.models {
            let name = format!("{}/{model}", provider.id);
            if listed.pricing.is_some() && !options.overwrite {
                say(&format!("  {name}: has a price, which stays\n"));
                continue;
            }
            match list.find(called, model) {
                Found::Nothing => say(&format!("  {name}: not in the list\n")),
                Found::Several(entries) => {
                    let names: Vec<&str> = entries.iter().map(|entry| &*entry.name).collect();
                    say(&format!(
                        "  {name}: left out, prices differ: {}; say which with --called\n",
                        names.join(", ")
                    ));
                }
                Found::One(entry) => {
                    say(&format!("  {name}: {} ({})\n", entry.summary(), entry.name));
                    priced.push(Priced {
                        provider: provider.id.to_string(),
                        model: model.to_string(),
                        pricing: entry.pricing(),
                    });
                }
            }
        }
    }
    priced
}

/// Writes the prices with one change of the file. A plain list of models becomes
/// a map first: names alone have no room for a price.
fn write(live: &Live, config: &Config, priced: &[Priced]) -> Result<(), Failed> {
    live.change(|draft| {
        let failed = |error| Failed::from(WriteError::Edit(error));
        for provider in config.providers.values() {
            let of_provider = || priced.iter().filter(|one| *one.provider == *provider.id);
            let names_only = provider.models.values().all(|model| model.name_only);
            if names_only && of_provider().next().is_some() {
                let models: Map<String, Value> = provider
                    .models
                    .keys()
                    .map(|name| {
                        let own = of_provider().find(|one| *one.model == **name);
                        let own = own.map(|one| serde_json::json!({ "pricing": one.pricing }));
                        (name.to_string(), own.unwrap_or_else(|| Map::new().into()))
                    })
                    .collect();
                let path = ["providers", &provider.id, "models"];
                draft.set(&path, &Value::Object(models)).map_err(failed)?;
                continue;
            }
            for one in of_provider() {
                let path = ["providers", &one.provider, "models", &one.model, "pricing"];
                draft.set(&path, &one.pricing).map_err(failed)?;
            }
        }
        Ok::<(), Failed>(())
    })?;
    Ok(())
}
