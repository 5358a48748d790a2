//! The configuration in force, and how it changes: read again when the file
//! changed, changed through [`Live::change`]. A text that is refused changes
//! nothing; the old configuration goes on.
//!
//! All but [`Live::load`] touches the disk and may block.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::Config;
use super::check::{check_document, check_with, opened_text};
use super::draft::Draft;
use super::edit::EditError;
use super::fault::{Fault, describe};
use super::file::{self, Prepared, Stamp};
use super::recheck::recheck;
use super::seal::{self, Which};
use crate::vault::Vault;

/// Reads a variable of the environment.
pub type Environment = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The configuration in force and the file it comes from.
pub struct Live {
    path: PathBuf,
    environment: Environment,
    vault: Arc<Vault>,
    current: ArcSwap<Config>,
    /// One change at a time; held while the file is read or written.
    state: Mutex<State>,
}

struct State {
    /// The text in force.
    text: String,
    /// The file when it was last looked at; `None` when it was not there.
    stamp: Option<Stamp>,
    loaded_at: SystemTime,
    refused: Vec<Fault>,
    /// The file was found empty, which is believed only when seen twice: some
    /// editors empty a file before they fill it.
    emptied: bool,
    /// Configurations that were in force and may still be in use: a large one
    /// takes milliseconds to be freed, which no request should spend.
    retired: Vec<Arc<Config>>,
}

/// Frees what is in use no more.
fn release(retired: &mut Vec<Arc<Config>>) {
    retired.retain(|config| Arc::strong_count(config) > 1);
}

/// What reading the file again came to.
#[derive(Debug)]
pub enum Reload {
    /// The file says what is in force.
    Unchanged,
    /// A new configuration is in force.
    Changed(Arc<Config>),
}

/// The state of the configuration, for people.
#[derive(Debug, Clone)]
pub struct Status {
    /// Counts the configurations taken up since start, from 1.
    pub revision: u64,
    /// When the one in force was.
    pub loaded_at: SystemTime,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with the file as it is now; empty when it is in force.
    pub refused: Vec<Fault>,
}

/// Why there is no configuration to start with.
#[derive(Debug)]
pub enum OpenError {
    /// The file can't be read or created.
    Io(PathBuf, io::Error),
    /// What is wrong with it.
    Refused(PathBuf, Vec<Fault>),
}

/// Why a change was not made. The configuration in force goes on.
#[derive(Debug)]
pub enum WriteError {
    /// The edit itself failed.
    Edit(EditError),
    /// The result would not be valid.
    Refused(Vec<Fault>),
    /// The file was changed by hand, is not valid, and the edit doesn't mend
    /// it.
    FileRefused(Vec<Fault>),
    /// The file can't be read or written.
    Io(PathBuf, io::Error),
}

/// A draft's text, and what it means.
struct Settled {
    text: String,
    config: Config,
    /// Whether secrets in it are sealed, if they are to be.
    sealed: bool,
}

impl Settled {
    const fn unsealed(text: String, config: Config) -> Self {
        Self {
            text,
            config,
            sealed: false,
        }
    }
}

impl Live {
    /// Reads the file, which is created if it isn't there. Without a path it
    /// is `$CONFIG_FILE`, else `plexus.yaml` in the working directory.
    ///
    /// # Errors
    /// When the file can't be read or is not valid.
    pub fn open(path: Option<PathBuf>, environment: Environment) -> Result<Self, OpenError> {
        let path = path.unwrap_or_else(|| default_path(&*environment));
        let fail = |error| OpenError::Io(path.clone(), error);
        match file::create(&path, NEW_FILE) {
            Err(error) if !path.exists() => return Err(fail(error)),
            // It was there, or it was just made.
            _ => {}
        }
        file::sweep(&path);
        let now = SystemTime::now();
        let (text, stamp) = file::read(&path, now).map_err(fail)?;
        let vault = Arc::new(Vault::from_environment(&*environment));
        let config = check_with(&vault, &text, &*environment, folder(&path))
            .map_err(|faults| OpenError::Refused(path.clone(), faults))?;
        let state = State {
            text,
            stamp: Some(stamp),
            loaded_at: now,
            refused: Vec::new(),
            emptied: false,
            retired: Vec::new(),
        };
        Ok(Self {
            path,
            environment,
            vault,
            current: ArcSwap::from_pointee(config),
            state: Mutex::new(state),
        })
    }

    /// The configuration in force. Cheap; take it once per request.
    #[must_use]
    pub fn load(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// Reads the file again, changed or not.
    ///
    /// # Errors
    /// What is wrong with it; the old configuration goes on.
    pub fn reload(&self) -> Result<Reload, Vec<Fault>> {
        self.take_up(&mut self.state.lock())
    }

    /// Reads the file again if it changed since it was last looked at; `None`
    /// if it didn't. A file that is being written is looked at again the next
    /// time.
    pub fn poll(&self) -> Option<Result<Reload, Vec<Fault>>> {
        // Whoever changes it sees to it.
        let mut state = self.state.try_lock()?;
        release(&mut state.retired);
        let unchanged = match &state.stamp {
            Some(stamp) => stamp.still_holds(&self.path),
            None => !self.path.exists(),
        };
        if unchanged {
            return None;
        }
        let empty = std::fs::metadata(&self.path).is_ok_and(|found| found.len() == 0);
        let seen_before = std::mem::replace(&mut state.emptied, empty);
        if empty && !seen_before && !state.text.is_empty() {
            return None;
        }
        let known = state.refused.clone();
        let outcome = self.take_up(&mut state);
        let nothing_new = match &outcome {
            Ok(Reload::Unchanged) => known.is_empty(),
            Ok(Reload::Changed(_)) => false,
            Err(faults) => *faults == known,
        };
        (!nothing_new).then_some(outcome)
    }

    /// What is wrong with the file as it is now; empty when it is in force.
    #[must_use]
    pub fn last_refused(&self) -> Vec<Fault> {
        self.state.lock().refused.clone()
    }

    /// Changes the file and puts the result in force before it returns. The
    /// draft begins with the text that is on disk now, so what was changed by
    /// hand since the last look is kept.
    ///
    /// # Errors
    /// When the closure stops, its result is not valid, or the disk refuses
    /// it; neither the file nor the configuration in force changes.
    pub fn change<E: From<WriteError>>(
        &self,
        change: impl FnOnce(&mut Draft) -> Result<(), E>,
    ) -> Result<Arc<Config>, E> {
        let mut state = self.state.lock();
        let mut draft = self.draft(&state)?;
        change(&mut draft)?;
        if draft.text() == draft.on_disk() && !draft.by_hand() {
            return Ok(self.load());
        }
        let (settled, prepared) = self.settled_and_prepared(&draft, &mut state.retired);
        let Settled {
            text,
            config,
            sealed,
        } = settled?;
        let which = match draft.is_replaced() {
            true => Which::All,
            false => Which::Changed,
        };
        let text = match sealed {
            true => text,
            false => self.sealed(draft.on_disk(), &text, which)?,
        };
        let prepared = prepared.filter(|_| text == draft.text());
        Ok(self.put(&mut state, draft.on_disk(), (text, prepared), config)?)
    }

    /// As [`Live::change`], by a function from the text to another.
    ///
    /// # Errors
    /// As [`Live::change`].
    pub fn edit(
        &self,
        edit: impl FnOnce(&str) -> Result<String, EditError>,
    ) -> Result<Arc<Config>, WriteError> {
        self.change(|draft| {
            let text = edit(draft.text())?;
            draft.rewrite(text);
            Ok(())
        })
    }

    /// Replaces the whole text, whatever the file says now.
    ///
    /// # Errors
    /// As [`Live::change`].
    pub fn replace(&self, text: &str) -> Result<Arc<Config>, WriteError> {
        self.change(|draft| {
            draft.replace(text.to_owned());
            Ok(())
        })
    }

    /// As [`Live::replace`], with something that has to come about first: it is
    /// shown what the file says and what it is going to say, when nothing but
    /// the renaming is left to do. If it fails, nothing is changed.
    ///
    /// # Errors
    /// As [`Live::replace`], and what `first` says. When the renaming fails all
    /// the same, `first` has come about.
    pub fn replace_after<T, E: From<WriteError>>(
        &self,
        text: &str,
        first: impl FnOnce(&str, &str) -> Result<T, E>,
    ) -> Result<(Arc<Config>, T), E> {
        let fail = |error| WriteError::Io(self.path.clone(), error);
        let mut state = self.state.lock();
        let config = self.check(text).map_err(WriteError::Refused)?;
        let on_disk = file::read(&self.path, SystemTime::now()).map(|(text, _)| text);
        let on_disk = on_disk.unwrap_or_default();
        let text = self.sealed(&on_disk, text, Which::All)?;
        let prepared = file::prepare(&self.path, &text).map_err(fail)?;
        let answer = first(&on_disk, &text)?;
        prepared.commit().map_err(fail)?;
        let config = self.put(&mut state, &text, (text.clone(), None), config)?;
        Ok((config, answer))
    }

    /// Whether a text would be taken up, without taking it up.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn try_out(&self, text: &str) -> Result<(), Vec<Fault>> {
        self.check(text).map(drop)
    }

    /// What seals and opens secrets.
    #[must_use]
    pub const fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// The one place where secrets are sealed on their way into the file.
    fn sealed(&self, on_disk: &str, text: &str, which: Which) -> Result<String, WriteError> {
        seal::sealed(&self.vault, on_disk, text, which).map_err(WriteError::Edit)
    }

    /// The text in force, as it is in the file.
    #[must_use]
    pub fn text(&self) -> String {
        self.state.lock().text.clone()
    }

    /// The configuration in force with its text.
    #[must_use]
    pub fn snapshot(&self) -> (Arc<Config>, String) {
        let state = self.state.lock();
        (self.load(), state.text.clone())
    }

    /// What is in force, since when, and what the file has that is refused.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.state.lock();
        Status {
            revision: self.current.load().revision,
            loaded_at: state.loaded_at,
            path: self.path.clone(),
            refused: state.refused.clone(),
        }
    }

    fn draft(&self, state: &State) -> Result<Draft, WriteError> {
        let on_disk = match file::read(&self.path, SystemTime::now()) {
            Ok((text, _)) => text,
            // Removed by hand: what is in force is all there is.
            Err(error) if error.kind() == io::ErrorKind::NotFound => state.text.clone(),
            Err(error) => return Err(WriteError::Io(self.path.clone(), error)),
        };
        let by_hand = on_disk != state.text || !self.path.exists();
        let vault = Arc::clone(&self.vault);
        Ok(Draft::new(on_disk, self.load(), vault, by_hand))
    }

    /// The draft settled, and its text on the way to the disk, which takes its
    /// time while the text is checked. What is still to be sealed stays off it.
    fn settled_and_prepared<'d>(
        &self,
        draft: &'d Draft,
        retired: &mut Vec<Arc<Config>>,
    ) -> (
        Result<Settled, WriteError>,
        Option<io::Result<Prepared<'d>>>,
    ) {
        if self.vault.has_key() && draft.outcome().is_none() {
            return (self.settled(draft), None);
        }
        std::thread::scope(|scope| {
            let (path, text) = (&self.path, draft.text());
            let preparing = scope.spawn(move || {
                let prepared = file::prepare(path, text);
                // Meanwhile the check goes on.
                release(retired);
                prepared
            });
            (self.settled(draft), preparing.join().ok())
        })
    }

    /// The draft's text and what it means, its guesses checked.
    fn settled(&self, draft: &Draft) -> Result<Settled, WriteError> {
        if let Some(config) = self.known(draft) {
            return Ok(Settled {
                text: draft.text().to_owned(),
                config,
                sealed: true,
            });
        }
        let outcome = self.check(draft.text());
        if draft.is_guessed() {
            let meant = match &outcome {
                Ok(config) => draft.is_meant(&config.document),
                // Faults of what was asked for, or of a wrong guess.
                Err(_) => {
                    opened_text(draft.text(), &self.vault).is_ok_and(|says| draft.is_meant(&says))
                }
            };
            let careful = (!meant).then(|| draft.careful()).transpose()?;
            if let Some(text) = careful.filter(|text| text != draft.text()) {
                let config = self.check(&text).map_err(WriteError::Refused)?;
                return Ok(Settled::unsealed(text, config));
            }
        }
        match outcome {
            Ok(config) => Ok(Settled::unsealed(draft.text().to_owned(), config)),
            Err(faults) => Err(match self.faults_by_hand(draft) {
                Some(faults) => WriteError::FileRefused(faults),
                None => WriteError::Refused(faults),
            }),
        }
    }

    /// What a draft means whose outcome is known without reading its text, if
    /// nothing is wrong with it.
    fn known(&self, draft: &Draft) -> Option<Config> {
        let says = draft.outcome()?;
        let (environment, base) = (&*self.environment, folder(&self.path));
        let little = recheck(draft.in_force(), says, &draft.touched(), environment, base);
        little.or_else(|| check_document(Arc::clone(says), environment, base).ok())
    }

    /// What is wrong with the file as it was on disk, unless it was replaced.
    fn faults_by_hand(&self, draft: &Draft) -> Option<Vec<Fault>> {
        if !draft.by_hand() || draft.is_replaced() {
            return None;
        }
        self.check(draft.on_disk()).err()
    }

    fn check(&self, text: &str) -> Result<Config, Vec<Fault>> {
        check_with(&self.vault, text, &*self.environment, folder(&self.path))
    }

    fn take_up(&self, state: &mut State) -> Result<Reload, Vec<Fault>> {
        let read = file::read(&self.path, SystemTime::now());
        state.stamp = read.as_ref().ok().map(|(_, stamp)| *stamp);
        let outcome = match read {
            Ok((text, _)) if text == state.text => Ok(Reload::Unchanged),
            Ok((text, _)) => self
                .check(&text)
                .map(|config| Reload::Changed(self.swap(state, text, config))),
            Err(error) => {
                let message = format!("the file can't be read: {error}");
                Err(vec![Fault::without_place(&[], message)])
            }
        };
        state.refused = outcome.as_ref().err().cloned().unwrap_or_default();
        outcome
    }

    /// `prepared` is the text on its way to the disk, where it is.
    fn put(
        &self,
        state: &mut State,
        on_disk: &str,
        (text, prepared): (String, Option<io::Result<Prepared<'_>>>),
        config: Config,
    ) -> Result<Arc<Config>, WriteError> {
        let fail = |error| WriteError::Io(self.path.clone(), error);
        if text != on_disk || !self.path.exists() {
            match prepared {
                Some(prepared) => prepared.and_then(Prepared::commit),
                None => file::write(&self.path, &text),
            }
            .map_err(fail)?;
        }
        // What we wrote is what is there; if not, the next poll sees it.
        state.stamp = file::stamp(&self.path, SystemTime::now()).ok();
        state.refused.clear();
        if text == state.text {
            return Ok(self.load());
        }
        Ok(self.swap(state, text, config))
    }

    fn swap(&self, state: &mut State, text: String, mut config: Config) -> Arc<Config> {
        config.revision = self.current.load().revision + 1;
        let config = Arc::new(config);
        state.retired.push(self.current.swap(config.clone()));
        state.text = text;
        state.loaded_at = SystemTime::now();
        config
    }
}

impl From<EditError> for WriteError {
    fn from(error: EditError) -> Self {
        Self::Edit(error)
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("path", &self.path)
            .field("revision", &self.current.load().revision)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Refused(path, faults) => {
                f.write_str(describe(faults, &path.display().to_string()).trim_end())
            }
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edit(error) => error.fmt(f),
            Self::Refused(faults) => write!(
                f,
                "the result would not be valid: {}",
                describe(faults, "plexus.yaml").trim_end()
            ),
            Self::FileRefused(faults) => write!(
                f,
                "the file was changed by hand and is not valid: {}",
                describe(faults, "plexus.yaml").trim_end()
            ),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}
impl std::error::Error for WriteError {}

/// `$CONFIG_FILE`, else `plexus.yaml` in the working directory.
#[must_use]
pub fn default_path(environment: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let named = environment("CONFIG_FILE").filter(|path| !path.is_empty());
    named.map_or_else(|| PathBuf::from("plexus.yaml"), PathBuf::from)
}

pub(in crate::config) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What a file begins with that wasn't there.
const NEW_FILE: &str = "\
# Plexus reads this file at start and whenever it changes. The management API
# edits it in place; comments and order stay. All sections may be absent; the
# admin key comes from the environment variable ADMIN_KEY, or from here:
# adminKey: some-long-secret
";
