//! A day of provider weather in virtual time: storms come and go, requests
//! arrive, attempts take their time and overlap. The routing core is the real
//! one; clock, providers and clients are this file's.
//!
//! Each seed is a day of its own. A day that breaks a rule names its seed;
//! `WEATHER_SEED=n cargo test --test weather` lives it again.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in helpers of tests a failure is the test's failure"
)]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::{Duration, Instant};

use plexus::config::Config;
use plexus::protocol::Protocol;
use plexus::routing::dice::Dice;
use plexus::routing::standing::{Blame, Change, Pass, Trial};
use plexus::routing::window::Sample;
use plexus::routing::{Asked, Resolution, Switchboard};

const DAYS: u64 = 1000;
const DAY_MS: i64 = 86_400_000;
const DAWN: i64 = 1_795_197_600_000;
/// The last hours of a day are calm, longer than the longest rest.
const CALM_MS: i64 = 3 * 3_600_000;
const REQUESTS: usize = 120;
const PROVIDERS: usize = 5;
/// What the purse holds at the start of a day.
const SAVED: u64 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sky {
    Fine,
    /// 500 at once.
    Errors,
    /// 429 with a wait to keep.
    Limits(u64),
    /// Nothing until the time limit.
    Silence,
    /// Answers that break off.
    Breaks,
    /// Answers with nothing in them, which give no rest.
    Empty,
}

/// One provider's day: when which weather begins.
struct Forecast(Vec<(i64, Sky)>);

impl Forecast {
    fn new(dice: &mut Dice) -> Self {
        let mut changes = vec![(0, Sky::Fine)];
        let mut at = 0;
        loop {
            at += 60_000 * (5 + dice.below(240) as i64);
            if at >= DAY_MS - CALM_MS {
                changes.push((DAY_MS - CALM_MS, Sky::Fine));
                return Self(changes);
            }
            let sky = match dice.below(8) {
                0 => Sky::Errors,
                1 => Sky::Limits(1 + dice.below(900) as u64),
                2 => Sky::Silence,
                3 => Sky::Breaks,
                4 => Sky::Empty,
                _ => Sky::Fine,
            };
            changes.push((at, sky));
        }
    }

    fn at(&self, now: i64) -> Sky {
        let since = now - DAWN;
        let past = self.0.iter().rev().find(|(from, _)| *from <= since);
        past.map_or(Sky::Fine, |(_, sky)| *sky)
    }
}

/// A request under way.
struct Journey {
    resolution: Resolution,
    /// Candidates looked at so far.
    looked_at: usize,
    retries: u32,
    tried: bool,
}

/// What happens at a moment; ordered by time, then by number.
enum Event {
    Arrival,
    /// An attempt of that request comes to its verdict.
    Verdict(usize, Trial, Sky),
    /// An answer comes to its end; true is a regular one.
    End(Trial, bool),
}

struct Day {
    config: Config,
    switchboard: Switchboard,
    forecasts: HashMap<String, Forecast>,
    dice: Dice,
    moments: BinaryHeap<Reverse<(i64, usize)>>,
    events: HashMap<usize, Event>,
    next: usize,
    journeys: HashMap<usize, Journey>,
    tally: Tally,
    /// The deadline that stands for each target.
    deadlines: HashMap<String, i64>,
    /// Targets that are being probed.
    probing: HashSet<u64>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Tally {
    requests: u64,
    tries: u64,
    answered: u64,
    refused: u64,
    helped: u64,
    full: u64,
}

fn file(selector: &str, sound: bool) -> String {
    let mut text =
        String::from("adminKey: a\ncooldown: { initialMinutes: 1, maxMinutes: 60 }\nproviders:\n");
    for i in 0..PROVIDERS {
        text += &format!(
            "  p{i}: {{ api_base_url: 'http://p{i}/v1', api_key: k, maxConcurrency: 3 }}\n"
        );
    }
    if sound {
        text += "  sound: { api_base_url: 'http://s/v1', api_key: k }\n";
    }
    text += &format!("models:\n  m:\n    selector: {selector}\n    targets:\n");
    for i in 0..PROVIDERS {
        text += &format!("      - {{ provider: p{i}, model: m }}\n");
    }
    if sound {
        text += "      - { provider: sound, model: m }\n";
    }
    text + "keys: { k: { secret: s } }\n"
}

impl Day {
    fn new(seed: u64) -> Self {
        let selectors = ["random", "in_order", "latency", "usage", "e2e_performance"];
        let selector = selectors[usize::try_from(seed % 5).unwrap()];
        let config = Config::from_yaml(&file(selector, Self::is_sound(seed))).unwrap();
        let mut dice = Dice::new(seed);
        let forecasts = (0..PROVIDERS).map(|i| (format!("p{i}"), Forecast::new(&mut dice)));
        let forecasts = forecasts.collect();
        let mut day = Self {
            switchboard: Switchboard::new(&config, Instant::now(), DAWN),
            config,
            forecasts,
            dice,
            moments: BinaryHeap::new(),
            events: HashMap::new(),
            next: 0,
            journeys: HashMap::new(),
            tally: Tally::default(),
            deadlines: HashMap::new(),
            probing: HashSet::new(),
        };
        for _ in 0..REQUESTS {
            let at = DAWN + day.dice.below(usize::try_from(DAY_MS).unwrap()) as i64;
            // Requests come in bursts: agents do.
            for burst in 0..1 + day.dice.below(3) as i64 {
                day.happens(at + burst * 200, Event::Arrival);
            }
        }
        day
    }

    /// Whether that day has a provider without weather.
    const fn is_sound(seed: u64) -> bool {
        seed.is_multiple_of(2)
    }

    fn happens(&mut self, at: i64, event: Event) {
        self.moments.push(Reverse((at, self.next)));
        self.events.insert(self.next, event);
        self.next += 1;
    }

    fn live(mut self) -> Tally {
        while let Some(Reverse((now, number))) = self.moments.pop() {
            match self.events.remove(&number).unwrap() {
                Event::Arrival => self.arrive(now, number),
                Event::Verdict(journey, trial, sky) => self.verdict(now, journey, trial, sky),
                Event::End(trial, regular) => self.end(now, trial, regular),
            }
            self.look();
        }
        self.evening();
        self.tally
    }

    fn arrive(&mut self, now: i64, number: usize) {
        self.tally.requests += 1;
        let asked = Asked {
            model: "m",
            protocol: Protocol::Chat,
            now,
            explores: true,
            native_first: false,
        };
        let key = &self.config.keys["k"];
        let resolution = self
            .switchboard
            .resolve(&self.config, key, asked, &mut self.dice);
        let journey = Journey {
            resolution: resolution.unwrap(),
            looked_at: 0,
            retries: 0,
            tried: false,
        };
        self.journeys.insert(number, journey);
        self.advance(now, number);
    }

    /// The next attempt of a request, or its end.
    fn advance(&mut self, now: i64, number: usize) {
        let mut journey = self.journeys.remove(&number).unwrap();
        loop {
            let place = journey.looked_at;
            journey.looked_at += 1;
            let Some(candidate) = journey.resolution.candidates().nth(place) else {
                self.tally.refused += 1;
                return;
            };
            let trial = match Trial::begin(&candidate.standing, candidate.rules, now) {
                Ok(trial) => trial,
                Err(pass) => {
                    self.tally.full += u64::from(matches!(pass, Pass::Full { .. }));
                    continue;
                }
            };
            if !journey.tried {
                self.switchboard.budget.request();
                journey.tried = true;
            } else if self.switchboard.budget.retry() {
                journey.retries += 1;
            } else {
                self.tally.refused += 1;
                return;
            }
            self.tally.tries += 1;
            if trial.is_probe() {
                let first = self.probing.insert(trial.standing().number);
                assert!(first, "two probes of one target at {now}");
            }
            let sky = self
                .forecasts
                .get(&*candidate.provider.id)
                .map_or(Sky::Fine, |forecast| forecast.at(now));
            let takes = match sky {
                Sky::Silence => 30_000,
                _ => 100 + self.dice.below(3000) as i64,
            };
            self.journeys.insert(number, journey);
            self.happens(now + takes, Event::Verdict(number, trial, sky));
            return;
        }
    }

    fn verdict(&mut self, now: i64, number: usize, mut trial: Trial, sky: Sky) {
        let blame = |asked: Option<u64>| Blame {
            asked: asked.map(Duration::from_secs),
            limited: asked.is_some(),
            stall: false,
            message: "weather",
        };
        if trial.is_probe() {
            self.probing.remove(&trial.standing().number);
        }
        let change = match sky {
            Sky::Fine | Sky::Breaks => {
                let journey = self.journeys.remove(&number).unwrap();
                self.tally.answered += 1;
                self.tally.helped += u64::from(journey.retries);
                self.switchboard.budget.answered(journey.retries);
                if trial.is_probe() {
                    self.deadlines.remove(&*trial.standing().house.id);
                }
                trial.answering();
                let lasts = 1000 + self.dice.below(120_000) as i64;
                return self.happens(now + lasts, Event::End(trial, sky == Sky::Fine));
            }
            Sky::Errors | Sky::Silence => trial.failed(now, Some(blame(None))),
            Sky::Limits(seconds) => trial.failed(now, Some(blame(Some(seconds)))),
            Sky::Empty => trial.failed(now, None),
        };
        self.rested(change);
        self.advance(now, number);
    }

    fn end(&mut self, now: i64, trial: Trial, regular: bool) {
        let sample = Sample::of_answer(500, 10_000.0, Some(700.0));
        let blame = Blame {
            asked: None,
            limited: false,
            stall: false,
            message: "broke off",
        };
        let change = if regular {
            trial.succeeded(now, sample)
        } else {
            trial.failed(now, Some(blame))
        };
        self.rested(change);
    }

    fn rested(&mut self, change: Option<Change>) {
        let Some(change) = change else { return };
        let name = change.provider.to_string();
        match change.rest {
            None => drop(self.deadlines.remove(&name)),
            Some(rest) => {
                let before = self.deadlines.insert(name, rest.until);
                assert!(
                    before.is_none_or(|before| before <= rest.until),
                    "a deadline moved inward"
                );
            }
        }
    }

    /// What must hold at every moment.
    fn look(&self) {
        for house in self.switchboard.standings.houses() {
            assert!(house.permits.active() <= 3, "a limit was exceeded");
        }
        let tally = &self.tally;
        let spent = tally
            .tries
            .saturating_sub(tally.requests)
            .saturating_sub(tally.helped);
        let waiting: u32 = self.journeys.values().map(|journey| journey.retries).sum();
        let spent = spent.saturating_sub(u64::from(waiting));
        assert!(
            spent * 10 <= SAVED * 10 + tally.requests,
            "{spent} tries in vain: {tally:?}"
        );
    }

    /// What must hold when the day is over.
    fn evening(&self) {
        let tally = &self.tally;
        assert_eq!(
            tally.answered + tally.refused,
            tally.requests,
            "each request ends once"
        );
        assert!(self.journeys.is_empty() && self.events.is_empty());
        for house in self.switchboard.standings.houses() {
            assert_eq!(house.permits.active(), 0, "a permit leaked");
        }
        for standing in self.switchboard.standings.targets() {
            assert_eq!(standing.permits.active(), 0);
            // The calm was longer than any rest: all can be tried again.
            assert!(
                Trial::begin(&standing, rules(&self.config), DAWN + DAY_MS + 120_000).is_ok(),
                "a target is lost for good"
            );
        }
    }
}

fn rules(config: &Config) -> plexus::routing::standing::Rules {
    let provider = config.providers.values().next().unwrap();
    plexus::routing::standing::Rules::of(config.cooldown, provider, None)
}

fn lived(seed: u64) -> Tally {
    // Shown only when the day breaks a rule.
    println!("seed {seed}");
    Day::new(seed).live()
}

#[test]
fn a_thousand_days_of_weather_break_no_rule() {
    if let Some(seed) = std::env::var("WEATHER_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        println!("{:?}", lived(seed));
        return;
    }
    let mut all = Tally::default();
    for seed in 0..DAYS {
        let day = lived(seed);
        if Day::is_sound(seed) {
            assert_eq!(day.refused, 0, "a sound target was there: {day:?}");
        }
        all.requests += day.requests;
        all.answered += day.answered;
        all.tries += day.tries;
        all.refused += day.refused;
        all.full += day.full;
    }
    // Were it otherwise, the weather would test nothing.
    assert!(all.tries > all.requests + all.requests / 100, "{all:?}");
    assert!(all.refused > 0 && all.full > 0, "{all:?}");
    assert!(all.answered * 100 > all.requests * 95, "{all:?}");
    println!("{all:?}");
}

#[test]
fn the_same_seed_is_the_same_day() {
    assert_eq!(lived(7), lived(7));
}
