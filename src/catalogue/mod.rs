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

use crate::upstream::{Connector, Fetch};
pub use source::{List, Model, Source};

/// Time for one catalogue.
const LIMIT: Duration = Duration::from_secs(60);
/// Most bytes of one: the largest known has some megabytes.
const MOST: usize = 32 << 20;

/// The catalogues as they were read last.
pub struct Catalogues {
    folder: PathBuf,
    lists: [ArcSwapOption<List>; Source::ALL.len()],
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
        }
    }

    /// A catalogue, if there is one.
    #[must_use]
    pub fn list(&self, source: Source) -> Option<Arc<List>> {
        self.lists.get(source as usize)?.load_full()
    }

    /// Takes up what was kept by an earlier process. Reads files.
    pub fn recall(&self) {
        for source in Source::ALL {
            let kept = fs::read(self.file(source)).ok();
            let list = kept.and_then(|document| List::parse(source, &document).ok());
            if let (Some(list), Some(place)) = (list, self.lists.get(source as usize)) {
                place.store(Some(Arc::new(list)));
            }
        }
    }

    /// Fetches a catalogue, keeps it, and says how many models it has. The one
    /// that was there stays when that fails.
    ///
    /// # Errors
    ///
    /// What went wrong.
    pub async fn refresh(
        &self,
        connector: &Connector,
        source: Source,
        address: &str,
    ) -> Result<usize, String> {
        let url: Uri = address.parse().map_err(|error| format!("{address}: {error}"))?;
        let fetch = Fetch {
            url,
            bearer: None,
            most: MOST,
            limit: LIMIT,
            // The address is the operator's own.
            at_home: true,
        };
        let fetched = connector.fetch(fetch).await.map_err(|error| error.to_string())?;
        if !fetched.status.is_success() {
            return Err(format!("status {}", fetched.status.as_u16()));
        }
        let file = self.file(source);
        let read = tokio::task::spawn_blocking(move || {
            let list = List::parse(source, &fetched.body)?;
            if let Err(error) = keep(&file, &fetched.body) {
                tracing::warn!(%error, file = %file.display(), "a catalogue could not be kept");
            }
            Ok::<_, String>(list)
        });
        let list = read.await.map_err(|error| error.to_string())??;
        let count = list.len();
        if let Some(place) = self.lists.get(source as usize) {
            place.store(Some(Arc::new(list)));
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
        assert_eq!(catalogues.list(Source::OpenRouter).map(|list| list.len()), Some(1));
        assert!(catalogues.list(Source::Catwalk).is_none());
    }
}
