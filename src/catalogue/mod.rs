//! What others publish about models: three catalogues, kept beside the
//! database and fetched again from time to time, each only once something needs
//! it: nobody outside is asked for what nobody reads. No request to a model waits
//! for them, and without them everything works but for what they would have told.

mod source;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::Uri;
use tokio::sync::Notify;

use crate::config::{CatalogueSettings, Config, PriceSource};
use crate::upstream::{Connector, Fetch};
use crate::usage::catalogue::Catalogue as Prices;
pub use source::{List, Model, Source};

/// How long those wait who ask for a catalogue that nobody had needed before.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Time for one catalogue.
const LIMIT: Duration = Duration::from_secs(60);
/// Most bytes of one: the largest known has some megabytes.
const MOST: usize = 32 << 20;

/// The catalogues as they were read last.
pub struct Catalogues {
    folder: PathBuf,
    lists: [ArcSwapOption<List>; Source::ALL.len()],
    /// Which were looked for and not there.
    missed: [AtomicBool; Source::ALL.len()],
    /// Which were fetched, or could not be.
    attempted: [AtomicBool; Source::ALL.len()],
    /// Something may be needed that was not before.
    stirred: Notify,
    /// A catalogue was fetched, or could not be.
    tried: Notify,
    prices: ArcSwapOption<Prices>,
}

impl fmt::Debug for Catalogues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Catalogues");
        for source in Source::ALL {
            shown.field(source.name(), &self.at_hand(source).map(|list| list.len()));
        }
        shown.finish_non_exhaustive()
    }
}

impl Catalogues {
    /// No catalogue yet; they will be kept in that folder.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            lists: Default::default(),
            missed: Default::default(),
            attempted: Default::default(),
            stirred: Notify::new(),
            tried: Notify::new(),
            prices: ArcSwapOption::empty(),
        }
    }

    /// A catalogue, if it is there; else it is needed from now on.
    #[must_use]
    pub fn list(&self, source: Source) -> Option<Arc<List>> {
        let found = self.at_hand(source);
        if let (None, Some(missed)) = (&found, self.missed.get(source as usize))
            && !missed.swap(true, Ordering::Relaxed)
        {
            self.look_again();
        }
        found
    }

    fn at_hand(&self, source: Source) -> Option<Arc<List>> {
        self.lists.get(source as usize)?.load_full()
    }

    /// Asks for those that are not there, and waits for each that was never fetched
    /// and is to be, at most so long.
    pub async fn first(&self, sources: &[Source], settings: &CatalogueSettings, limit: Duration) {
        let missing = sources
            .iter()
            .filter(|source| self.list(**source).is_none());
        let missing: Vec<Source> = missing.copied().collect();
        for source in missing {
            let tried = self.tried.notified();
            let attempted = self.attempted.get(source as usize);
            let attempted = attempted.is_none_or(|attempted| attempted.load(Ordering::Relaxed));
            if settings.enabled && source.address(settings).is_some() && !attempted {
                let _late = tokio::time::timeout(limit, tried).await;
            }
        }
    }

    /// What the configuration needs may have changed.
    pub fn look_again(&self) {
        self.stirred.notify_one();
    }

    /// Waits until something may be needed that was not before.
    pub async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// Those that the configuration refers to, or that were looked for.
    #[must_use]
    pub fn needed(&self, config: &Config) -> Vec<Source> {
        let missed = |source: &Source| {
            let missed = self.missed.get(*source as usize);
            missed.is_some_and(|missed| missed.load(Ordering::Relaxed))
        };
        let needed = |source: &Source| missed(source) || refers(config, *source);
        Source::ALL.into_iter().filter(needed).collect()
    }

    /// What models cost at OpenRouter, if its catalogue is there.
    #[must_use]
    pub fn prices(&self) -> Option<Arc<Prices>> {
        self.prices.load_full()
    }

    /// Reads a catalogue's document and has it from now on.
    fn take_up(&self, source: Source, document: &[u8]) -> Result<usize, String> {
        let list = List::parse(source, document)?;
        let count = list.len();
        if let Some(place) = self.lists.get(source as usize) {
            place.store(Some(Arc::new(list)));
        }
        if source == Source::OpenRouter
            && let Ok(prices) = Prices::parse(document)
        {
            self.prices.store(Some(Arc::new(prices)));
        }
        Ok(count)
    }

    /// Takes up those of them that are not at hand and were kept by an earlier
    /// process. Reads files.
    pub fn recall(&self, needed: &[Source]) {
        let missing = |source: &&Source| self.at_hand(**source).is_none();
        for source in needed.iter().copied().filter(|source| missing(&source)) {
            let kept = fs::read(self.file(source)).ok();
            if let Some(Err(error)) = kept.map(|document| self.take_up(source, &document)) {
                tracing::info!(source = source.name(), %error, "a catalogue that was kept is no more");
            }
        }
    }

    /// Fetches those of them that have an address, one after the other. What can't be
    /// had is told, and the one that was there goes on.
    pub async fn refresh_all(
        &self,
        connector: &Connector,
        settings: &CatalogueSettings,
        sources: &[Source],
    ) -> Vec<(Source, Result<usize, String>)> {
        let mut told = Vec::new();
        for source in sources.iter().copied() {
            if let Some(address) = source.address(settings) {
                told.push((source, self.refresh(connector, source, address).await));
            }
            if let Some(attempted) = self.attempted.get(source as usize) {
                attempted.store(true, Ordering::Relaxed);
            }
        }
        self.tried.notify_waiters();
        told
    }

    /// Fetches a catalogue, keeps it, and says how many models it has. The one
    /// that was there stays when that fails.
    ///
    /// # Errors
    ///
    /// What went wrong.
    async fn refresh(
        &self,
        connector: &Connector,
        source: Source,
        address: &str,
    ) -> Result<usize, String> {
        let url = address
            .parse::<Uri>()
            .map_err(|error| format!("{address}: {error}"))?;
        let fetch = Fetch {
            url,
            bearer: None,
            most: MOST,
            limit: LIMIT,
            // The address is the operator's own.
            at_home: true,
        };
        let fetched = connector
            .fetch(fetch)
            .await
            .map_err(|error| error.to_string())?;
        if !fetched.status.is_success() {
            return Err(format!("status {}", fetched.status.as_u16()));
        }
        let count = self.take_up(source, &fetched.body)?;
        let file = self.file(source);
        if let Err(error) = keep(&file, &fetched.body) {
            tracing::warn!(%error, file = %file.display(), "a catalogue could not be kept");
        }
        Ok(count)
    }

    fn file(&self, source: Source) -> PathBuf {
        self.folder.join(format!("{}.json", source.name()))
    }
}

/// Whether something in the configuration is told by that catalogue.
fn refers(config: &Config, source: Source) -> bool {
    let mut models = config
        .providers
        .values()
        .flat_map(|provider| &provider.models);
    let priced = source == Source::OpenRouter
        && models.any(|(_, model)| {
            let pricing = model.pricing.as_ref();
            pricing.is_some_and(|pricing| matches!(pricing.source, PriceSource::OpenRouter(_)))
        });
    let mut shown = config.aliases.values().filter_map(|alias| {
        let source = alias.metadata.as_ref()?.get("source")?;
        source.as_str()
    });
    priced
        || shown
            .any(|name| name == source.name() || (name == "auto" && source == Source::OpenRouter))
}

fn keep(file: &Path, document: &[u8]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = file.with_extension("json.tmp");
    fs::write(&draft, document)?;
    fs::rename(&draft, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_recalled_and_what_is_broken_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let document = br#"{"data":[{"id":"maker/a","name":"A"}]}"#;
        keep(&folder.path().join("c/openrouter.json"), document).unwrap();
        keep(&folder.path().join("c/catwalk.json"), b"<html>").unwrap();
        let catalogues = Catalogues::new(folder.path().join("c"));
        assert!(catalogues.list(Source::OpenRouter).is_none());
        catalogues.recall(&[Source::OpenRouter, Source::Catwalk]);
        assert_eq!(
            catalogues.list(Source::OpenRouter).map(|list| list.len()),
            Some(1)
        );
        assert!(catalogues.list(Source::Catwalk).is_none());
    }
}
