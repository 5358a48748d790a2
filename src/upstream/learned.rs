//! What providers refused, and what helped: the fixes that one request had to learn,
//! kept for the next ones to the same model.
//!
//! It stands with the verdicts, because it is about what a provider's answers mean.
//! A lesson is learned only when the repaired request was answered, so that no text
//! that a client made a provider repeat can take a field from others. Each is
//! forgotten after a while: a provider that learned a field gets it again.
//!
//! Read for every request, written almost never: one flag while nothing was learned,
//! a shared snapshot after that.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::protocol::Protocol;
use crate::protocol::repair::Fix;

/// How long a lesson holds.
const HOLDS: Duration = Duration::from_secs(60 * 60);
/// The most models that anything is known of.
const MODELS: usize = 1024;
/// The most fixes of one model.
const FIXES: usize = 16;

/// The memory. See the module's text.
#[derive(Debug, Default)]
pub struct Learned {
    any: AtomicBool,
    models: ArcSwap<Models>,
    writing: Mutex<()>,
}

type Models = HashMap<Box<str>, Arc<[Lesson]>>;

#[derive(Clone, Debug)]
struct Lesson {
    fix: Fix,
    until: Instant,
}

/// Who was asked for what.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The provider's id.
    pub provider: &'a str,
    /// The model's name there.
    pub model: &'a str,
    /// What was spoken.
    pub protocol: Protocol,
}

impl Asked<'_> {
    /// An id has no line ends, and a protocol no spaces.
    fn key(self) -> Box<str> {
        let Self {
            provider,
            model,
            protocol,
        } = self;
        format!("{protocol} {provider}\n{model}").into()
    }
}

impl Learned {
    /// What a request to that model needs.
    #[must_use]
    pub fn fixes(&self, asked: Asked<'_>, now: Instant) -> Vec<Fix> {
        if !self.any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let models = self.models.load();
        let lessons = models.get(&asked.key()).map_or(&[][..], |found| found);
        let holding = lessons.iter().filter(|lesson| now < lesson.until);
        holding.map(|lesson| lesson.fix.clone()).collect()
    }

    /// These fixes helped; those that last are kept.
    pub fn helped(&self, asked: Asked<'_>, fixes: &[Fix], now: Instant) {
        let lasting: Vec<&Fix> = fixes.iter().filter(|fix| fix.lasts()).collect();
        if lasting.is_empty() {
            return;
        }
        let _one_at_a_time = self.writing.lock();
        let mut models = Models::clone(&self.models.load());
        models.retain(|_, lessons| lessons.iter().any(|lesson| now < lesson.until));
        let key = asked.key();
        let mut lessons: Vec<Lesson> = models.get(&key).map_or(Vec::new(), |old| old.to_vec());
        lessons.retain(|old| now < old.until && !lasting.contains(&&old.fix));
        lessons.extend(lasting.into_iter().map(|fix| Lesson {
            fix: fix.clone(),
            until: now + HOLDS,
        }));
        // The oldest stand in front.
        let over = lessons.len().saturating_sub(FIXES);
        lessons.drain(..over);
        models.insert(key, lessons.into());
        if models.len() > MODELS {
            forget_oldest(&mut models);
        }
        self.models.store(Arc::new(models));
        self.any.store(true, Ordering::Relaxed);
    }
}

fn forget_oldest(models: &mut Models) {
    let latest = |lessons: &Arc<[Lesson]>| lessons.last().map(|lesson| lesson.until);
    let oldest = models.iter().min_by_key(|(_, lessons)| latest(lessons));
    if let Some(key) = oldest.map(|(key, _)| key.clone()) {
        models.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(model: &str) -> Asked<'_> {
        Asked {
            provider: "p",
            model,
            protocol: Protocol::Chat,
        }
    }

    fn tool(name: impl ToString) -> Fix {
        Fix::HostedTool(name.to_string().into())
    }

    #[test]
    fn a_lesson_holds_for_its_model_and_for_an_hour() {
        let (learned, now) = (Learned::default(), Instant::now());
        assert_eq!(learned.fixes(asked("m"), now), []);
        learned.helped(asked("m"), &[Fix::DeveloperRole, Fix::Reasoning], now);
        assert_eq!(learned.fixes(asked("m"), now), [Fix::DeveloperRole]);
        let before = now + HOLDS - Duration::from_secs(1);
        assert_eq!(learned.fixes(asked("m"), before), [Fix::DeveloperRole]);
        assert_eq!(learned.fixes(asked("m"), now + HOLDS), []);
        assert_eq!(learned.fixes(asked("n"), now), []);
        let spoken = Asked {
            protocol: Protocol::Responses,
            ..asked("m")
        };
        assert_eq!(learned.fixes(spoken, now), []);
    }

    #[test]
    fn what_was_learned_again_holds_longer_and_stands_once() {
        let (learned, now) = (Learned::default(), Instant::now());
        learned.helped(asked("m"), &[tool(1), tool(2)], now);
        learned.helped(asked("m"), &[tool(1)], now + HOLDS / 2);
        assert_eq!(learned.fixes(asked("m"), now), [tool(2), tool(1)]);
        assert_eq!(learned.fixes(asked("m"), now + HOLDS), [tool(1)]);
    }

    #[test]
    fn what_does_not_last_is_not_kept() {
        let learned = Learned::default();
        learned.helped(asked("m"), &[Fix::Reasoning], Instant::now());
        assert!(!learned.any.load(Ordering::Relaxed));
    }

    #[test]
    fn models_and_fixes_are_bounded_and_the_oldest_go() {
        let (learned, start) = (Learned::default(), Instant::now());
        for i in 0..FIXES + 3 {
            learned.helped(asked("m"), &[tool(i)], start);
        }
        let fixes = learned.fixes(asked("m"), start);
        assert_eq!((fixes.len(), &fixes[0]), (FIXES, &tool(3)));
        for i in 0..MODELS {
            let now = start + Duration::from_millis(i as u64 + 1);
            learned.helped(asked(&format!("m{i}")), &[tool(i)], now);
        }
        assert_eq!(learned.models.load().len(), MODELS);
        assert_eq!(learned.fixes(asked("m"), start), []);
        assert_eq!(learned.fixes(asked("m0"), start), [tool(0)]);
        learned.helped(asked("new"), &[tool(0)], start + 2 * HOLDS);
        assert_eq!(learned.models.load().len(), 1);
    }
}
