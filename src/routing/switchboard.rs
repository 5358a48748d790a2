//! What all cores share of routing: the table of the configuration in force,
//! how every target stands, conversations, and the purse of second tries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::budget::Budget;
use super::cooldown::Rest;
use super::dice::Dice;
use super::permit::Permits;
use super::session::Sessions;
use super::standing::{Standing, Standings};
use super::sticky::Sticky;
use super::table::{self, Route, Table};
use super::window::Sample;
use super::{Asked, Resolution, Unresolved, may_name, unknown};
use crate::config::{Background, Config, Key, lists};
use crate::store::row::{CooldownRow, Measurement};
use crate::usage::catalogue::Catalogue;

/// See the module's text.
#[derive(Debug)]
pub struct Switchboard {
    /// How every target stands.
    pub standings: Standings,
    /// What may be tried a second time.
    pub budget: Budget,
    /// Where conversations are.
    pub sticky: Sticky,
    table: ArcSwap<Table>,
    catalogue: ArcSwap<Catalogue>,
    /// Held while a table is worked out, so that all get the same.
    renewing: Mutex<()>,
    probes: Arc<AtomicU32>,
    began: Instant,
    began_ms: i64,
}

impl Switchboard {
    /// A switchboard that knows nothing yet. `began_ms` is the wall clock's time
    /// at `began`.
    #[must_use]
    pub fn new(config: &Config, began: Instant, began_ms: i64) -> Self {
        let standings = Standings::default();
        let catalogue = Arc::new(Catalogue::default());
        let table = Table::new(config, &standings, &catalogue, None);
        Self {
            standings,
            budget: Budget::default(),
            sticky: Sticky::default(),
            table: ArcSwap::from_pointee(table),
            catalogue: ArcSwap::new(catalogue),
            renewing: Mutex::default(),
            probes: Arc::default(),
            began,
            began_ms,
        }
    }

    /// Milliseconds since the epoch as routing counts them: a clock that is set
    /// does not move them.
    #[must_use]
    pub fn now(&self, at: Instant) -> i64 {
        let since = at.saturating_duration_since(self.began).as_millis();
        self.began_ms
            .saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }

    /// The table of that configuration.
    #[must_use]
    pub fn table(&self, config: &Config) -> Arc<Table> {
        let known = self.table.load();
        if known.revision == config.revision {
            return Arc::clone(&known);
        }
        self.renewed(config)
    }

    #[cold]
    fn renewed(&self, config: &Config) -> Arc<Table> {
        let _renewing = self.renewing.lock();
        let known = self.table.load();
        if known.revision == config.revision {
            return Arc::clone(&known);
        }
        let catalogue = self.catalogue.load();
        let table = Table::new(config, &self.standings, &catalogue, Some(&known));
        let table = Arc::new(table);
        // A request may still be at work on an older configuration.
        if config.revision > known.revision {
            self.table.store(Arc::clone(&table));
        }
        table
    }

    /// Takes up what models cost at OpenRouter; requests that arrive from now on
    /// are priced by it.
    pub fn priced(&self, config: &Config, catalogue: Arc<Catalogue>) {
        let _renewing = self.renewing.lock();
        self.catalogue.store(Arc::clone(&catalogue));
        let known = self.table.load();
        // Somebody may have taken up a newer configuration meanwhile; the next
        // request of an older one works its table out anew.
        if known.revision <= config.revision {
            let table = Table::new(config, &self.standings, &catalogue, Some(&known));
            self.table.store(Arc::new(table));
        }
    }

    /// What models cost at OpenRouter, as far as is known.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.load_full()
    }

    /// Finds the candidates for a model's name, in order, that `key` may use.
    ///
    /// # Errors
    ///
    /// [`Unresolved`].
    pub fn resolve(
        &self,
        config: &Config,
        key: &Key,
        asked: Asked<'_>,
        dice: &mut Dice,
    ) -> Result<Resolution, Unresolved> {
        may_name(key, asked.model)?;
        let route = self.route(config, asked.model)?;
        // An exclusion can't be got round by another name of the same alias.
        let alias = route.alias.as_ref();
        if alias.is_some_and(|alias| lists(&key.excluded_models, &alias.id)) {
            return Err(Unresolved::ModelDenied(asked.model.into()));
        }
        super::resolve(config, key, asked, route, dice)
    }

    fn route(&self, config: &Config, model: &str) -> Result<Arc<Route>, Unresolved> {
        if let Some(rest) = model.strip_prefix("direct/") {
            return self.direct(config, model, rest);
        }
        let known = self.table.load();
        let found = if known.revision == config.revision {
            known.route(model).map(Arc::clone)
        } else {
            self.renewed(config).route(model).map(Arc::clone)
        };
        found.ok_or_else(|| unknown(config, model))
    }

    fn direct(&self, config: &Config, whole: &str, rest: &str) -> Result<Arc<Route>, Unresolved> {
        let (first, second) = match rest.split_once('/') {
            Some((first, second)) if !first.is_empty() && !second.is_empty() => (first, second),
            _ => return Err(Unresolved::DirectFormat(whole.into())),
        };
        let failed = |problem: String| Err(Unresolved::Direct(problem));
        if let Some(alias) = config.alias(first) {
            return match alias.groups.iter().find(|group| &*group.name == second) {
                Some(group) => Ok(table::to_group(
                    (config, &self.standings, &self.catalogue.load()),
                    whole,
                    alias,
                    group,
                )),
                None => failed(format!(
                    "Target group '{second}' not found for alias '{first}'"
                )),
            };
        }
        match config.provider(first) {
            None => failed(format!("Provider '{first}' not found")),
            Some(provider) if !provider.enabled => {
                failed(format!("Provider '{first}' is disabled"))
            }
            Some(provider) => Ok(table::to_model(
                (config, &self.standings, &self.catalogue.load()),
                whole,
                provider,
                second,
            )),
        }
    }

    /// Puts the target first that the conversation is with, if it can be tried.
    pub fn stick(&self, resolution: &mut Resolution, sessions: Sessions) {
        for session in sessions.all() {
            if let Some(number) = self.sticky.find(session)
                && resolution.prefer(number)
            {
                return;
            }
        }
    }

    /// Takes up a rest from before the start.
    pub fn rested(&self, row: &CooldownRow, now: i64) {
        let Some(until) = row.until_ms else { return };
        let rest = Rest {
            until,
            failures: row.failures,
            limited: row.limited,
            message: row.message.clone(),
        };
        if row.model.is_empty() {
            self.standings
                .house(&row.provider)
                .cooldown
                .restore(&rest, now);
        } else {
            let standing = self.standings.of(&row.provider, &row.model);
            standing.cooldown.restore(&rest, now);
        }
    }

    /// Takes up a measurement from before the start.
    pub fn measured(&self, row: &Measurement) {
        let standing = self.standings.of(&row.provider, &row.model);
        standing.window.used(row.start_ms, 1);
        let ttft = row.ttft_ms.filter(|_| row.streamed);
        let sample = if row.answered {
            Sample::of_answer(row.tokens, row.duration_ms, ttft)
        } else {
            Sample::default()
        };
        standing.window.add(sample, row.start_ms);
    }

    /// The permits of a key, if it has a limit.
    #[must_use]
    pub fn key(&self, config: &Config, name: &str) -> Option<Arc<Permits>> {
        let known = self.table.load();
        if known.revision == config.revision {
            return known.key(name).map(Arc::clone);
        }
        self.renewed(config).key(name).map(Arc::clone)
    }

    /// The right to look at a target without a client's request: when that was
    /// not done for long enough, nothing else measures it, and few enough others
    /// are being looked at.
    #[must_use]
    pub fn probe(&self, standing: &Standing, background: Background, now: i64) -> Option<Looking> {
        let stale = i64::try_from(background.staleness.as_millis()).unwrap_or(i64::MAX);
        let seen = standing.probed.load(Ordering::Relaxed);
        let last = seen.max(standing.window.updated()).max(self.began_ms);
        if now.saturating_sub(last) < stale {
            return None;
        }
        let one_more = |count| (count < background.workers).then_some(count + 1);
        self.probes
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more)
            .ok()?;
        let looking = Looking(Arc::clone(&self.probes));
        let claim =
            standing
                .probed
                .compare_exchange(seen, now, Ordering::AcqRel, Ordering::Relaxed);
        claim.is_ok().then_some(looking)
    }
}

/// A target being looked at without a client's request.
#[derive(Debug)]
#[must_use = "dropping it ends the look"]
pub struct Looking(Arc<AtomicU32>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::permit::Ticket;
    use super::*;

    #[test]
    fn background_looks_are_few_and_rare() {
        let config = Config::from_yaml("adminKey: a").unwrap();
        let switchboard = Switchboard::new(&config, Instant::now(), 1_000_000);
        let background = Background {
            staleness: Duration::from_secs(600),
            workers: 1,
        };
        let one = switchboard.standings.of(&"p".into(), &"m".into());
        let two = switchboard.standings.of(&"p".into(), &"n".into());
        let probe = |standing, now| switchboard.probe(standing, background, now);
        assert!(probe(&one, 1_599_999).is_none(), "counted from the start");
        let looking = probe(&one, 1_600_000).unwrap();
        assert!(probe(&two, 1_600_000).is_none(), "one at a time");
        drop(looking);
        assert!(probe(&one, 1_600_001).is_none(), "looked at just now");
        assert!(probe(&two, 1_600_001).is_some());
        assert!(probe(&one, 2_200_000).is_some());
    }

    #[test]
    fn a_clock_that_is_set_does_not_move_routings_time() {
        let config = Config::from_yaml("adminKey: a").unwrap();
        let began = Instant::now();
        let switchboard = Switchboard::new(&config, began, 5000);
        assert_eq!(switchboard.now(began + Duration::from_millis(7)), 5007);
    }

    #[test]
    fn a_new_configuration_has_new_routes_and_keeps_how_targets_stand() {
        let text = |name: &str| {
            format!(
                "adminKey: a\nproviders:\n  p: {{ api_base_url: 'http://p/v1', api_key: k }}\n\
                 models:\n  {name}: {{ targets: [ {{ provider: p, model: m }} ] }}\n\
                 keys: {{ k: {{ secret: s, maxConcurrency: 1 }} }}\n"
            )
        };
        let old = Config::from_yaml(&text("old")).unwrap();
        let mut new = Config::from_yaml(&text("new")).unwrap();
        new.revision = old.revision + 1;
        let switchboard = Switchboard::new(&old, Instant::now(), 1);
        let number = |config: &Config, name: &str| {
            let table = switchboard.table(config);
            table
                .route(name)
                .map(|route| route.candidates[0].standing.number)
        };
        let before = number(&old, "old");
        let held = switchboard.key(&old, "k").unwrap().take(1, Ticket::NONE);
        assert!(held.is_some() && before.is_some());
        assert_eq!(number(&new, "new"), before);
        assert_eq!(number(&new, "old"), None);
        assert_eq!(number(&old, "old"), before, "a request may still hold it");
        assert_eq!(switchboard.table(&new).routes().count(), 1);
        let again = switchboard.key(&new, "k").unwrap();
        assert!(again.take(1, Ticket::NONE).is_none());
    }
}
