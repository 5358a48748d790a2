//! What others publish about models: three catalogues, kept beside the
//! database and fetched again from time to time. Nothing waits for them, and
//! without them everything works but for what they would have told.

mod source;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::Uri;

use crate::config::CatalogueSettings;
use crate::upstream::{Connector, Fetch};
use crate::usage::catalogue::Catalogue as Prices;
pub use source::{List, Model, Source};

/// Time for one catalogue.
const LIMIT: Duration = Duration::from_secs(60);
/// Most bytes of one: the largest known has some megabytes.
const MOST: usize = 32 << 20;

/// The catalogues as they were read last.
pub struct Catalogues {
    folder: PathBuf,
    lists: [ArcSwapOption<List>; Source::ALL.len()],
    prices: ArcSwapOption<Prices>,
}

impl fmt::Debug for Catalogues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Catalogues");
        for source in Source::ALL {
            shown.field(source.name(), &self.list(source).map(|list| list.len()));
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
            prices: ArcSwapOption::empty(),
        }
    }

    /// A catalogue, if there is one.
    #[must_use]
    pub fn list(&self, source: Source) -> Option<Arc<List>> {
        self.lists.get(source as usize)?.load_full()
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

    /// Takes up what was kept by an earlier process. Reads files.
    pub fn recall(&self) {
        for source in Source::ALL {
            let kept = fs::read(self.file(source)).ok();
            if let Some(Err(error)) = kept.map(|document| self.take_up(source, &document)) {
                tracing::info!(source = source.name(), %error, "a catalogue that was kept is no more");
            }
        }
    }

    /// Fetches all that have an address, one after the other. What can't be had
    /// is told, and the one that was there goes on.
    pub async fn refresh_all(
        &self,
        connector: &Connector,
        settings: &CatalogueSettings,
    ) -> Vec<(Source, Result<usize, String>)> {
        let mut told = Vec::new();
        for source in Source::ALL {
            if let Some(address) = source.address(settings) {
                told.push((source, self.refresh(connector, source, address).await));
            }
        }
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
        catalogues.recall();
        assert_eq!(
            catalogues.list(Source::OpenRouter).map(|list| list.len()),
            Some(1)
        );
        assert!(catalogues.list(Source::Catwalk).is_none());
    }
}
