//! Quotas as a whole, with a clock of the tests.

use super::*;

const HEAD: &str = "adminKey: a\nproviders:\n  p: { api_base_url: 'http://p/v1', api_key: k }\n";
const DAY: i64 = 86_400_000;

fn config(rest: &str) -> Config {
    Config::from_yaml(&format!("{HEAD}{rest}")).unwrap()
}

fn quotas(config: &Config) -> Quotas {
    Quotas::new(config, &[], None)
}

const PROMPT: Prompt = Prompt {
    bytes: 40,
    generates: true,
    nanos_per_token: 100,
};

fn admit(
    quotas: &Quotas,
    config: &Config,
    key: &str,
    now: i64,
) -> Result<Box<Reservation>, Exceeded> {
    let list = quotas.named(config, key, now).unwrap();
    Reservation::admit(list, "alias", PROMPT, now)
}

fn spent(tokens: u64) -> Spent {
    Spent {
        input: 10,
        output: tokens - 10,
        nanos: tokens * 100,
    }
}

fn used(quotas: &Quotas, config: &Config, key: &str, now: i64) -> Vec<f64> {
    let list = quotas.named(config, key, now).unwrap();
    list.told(now).iter().map(Told::used).collect()
}

#[test]
fn a_key_never_waits_for_what_another_keys_requests_hold() {
    let config = config(
        "keys: { one: { secret: s1, quotas: [aa, bb] }, other: { secret: s2, quotas: [aa, bb] } }\n\
         user_quotas:\n\
         \x20 aa: { type: daily, limitType: requests, limit: 100000 }\n\
         \x20 bb: { type: rolling, duration: 1h, limitType: tokens, limit: 90000000 }\n",
    );
    let quotas = quotas(&config);
    let list = quotas.named(&config, "one", 0).unwrap();
    // Whoever is in the middle of a change of the one key's quotas stays there.
    let held: Vec<_> = list.rules.iter().map(|rule| rule.bucket.held()).collect();
    for _ in 0..1000 {
        admit(&quotas, &config, "other", 0)
            .unwrap()
            .settle(spent(30), 0);
    }
    drop(held);
    assert_eq!(used(&quotas, &config, "other", 0), [1000.0, 30_000.0]);
    assert_eq!(used(&quotas, &config, "one", 0), [0.0, 0.0]);
}

#[test]
fn what_requests_took_before_the_start_is_what_is_reserved_after_it() {
    let config = config(
        "keys: { one: { secret: s1, quotas: [aa] }, new: { secret: s2, quotas: [aa] } }\n\
         user_quotas: { aa: { type: daily, limitType: tokens, limit: 15000 } }\n",
    );
    let quotas = quotas(&config);
    assert!(quotas.measures());
    let habit = |output: u64| Habit {
        key: "one".into(),
        alias: "alias".into(),
        output,
        tokens: output + 10,
        nanos: Some(7),
    };
    quotas.recall(&[habit(900), habit(100), habit(100), habit(100), habit(100)]);
    for key in ["one", "new"] {
        let held: Vec<_> = (0..9).map(|_| admit(&quotas, &config, key, 0)).collect();
        assert!(held.iter().all(Result::is_ok), "{key}");
    }
}

#[test]
fn a_key_has_its_own_quotas_or_those_of_everybody_and_never_both() {
    let config = config(
        "keys: { own: { secret: s1, quotas: [aa, bb] }, other: { secret: s2 } }\n\
         default_quotas: [cc]\n\
         user_quotas:\n\
         \x20 aa: { type: daily, limitType: requests, limit: 1 }\n\
         \x20 bb: { type: weekly, limitType: tokens, limit: 1 }\n\
         \x20 cc: { type: monthly, limitType: cost, limit: 0.5 }\n",
    );
    let quotas = quotas(&config);
    let names = |key: &str| {
        let list = quotas.named(&config, key, 0).unwrap();
        let names: Vec<String> = list.rules().map(|r| r.quota.name.to_string()).collect();
        (names, list.is_default())
    };
    assert_eq!(names("own"), (vec!["aa".into(), "bb".into()], false));
    assert_eq!(names("other"), (vec!["cc".into()], true));
    assert!(quotas.named(&config, "nobody", 0).is_none());
}

#[test]
fn what_failed_is_given_back_and_what_was_answered_is_used() {
    let config = config(
        "keys: { k: { secret: s, quotas: [few, tokens, money] } }\n\
         user_quotas:\n\
         \x20 few: { type: daily, limitType: requests, limit: 2 }\n\
         \x20 tokens: { type: daily, limitType: tokens, limit: 100000 }\n\
         \x20 money: { type: daily, limitType: cost, limit: 1 }\n",
    );
    let quotas = quotas(&config);
    drop(admit(&quotas, &config, "k", 1).unwrap());
    let held = admit(&quotas, &config, "k", 1).unwrap();
    let list = quotas.named(&config, "k", 1).unwrap();
    let reserved: Vec<f64> = list.told(1).iter().map(Told::reserved).collect();
    assert_eq!(reserved, [1.0, 4106.0, 0.000_410_6]);
    drop(held);
    assert_eq!(used(&quotas, &config, "k", 1), [0.0, 0.0, 0.0]);
    for _ in 0..2 {
        admit(&quotas, &config, "k", 2)
            .unwrap()
            .settle(spent(300), 3);
    }
    assert_eq!(used(&quotas, &config, "k", 3), [2.0, 600.0, 0.000_06]);
    let exceeded = admit(&quotas, &config, "k", 4).unwrap_err();
    assert_eq!(exceeded.blocking.len(), 1);
    assert_eq!(&*exceeded.blocking[0].quota.name, "few");
    assert_eq!(exceeded.wait(), Some(DAY - 4));
    let list = quotas.named(&config, "k", 4).unwrap();
    let reserved: Vec<f64> = list.told(4).iter().map(Told::reserved).collect();
    assert_eq!(reserved, [0.0, 0.0, 0.0], "a refusal holds nothing");
    assert_eq!(used(&quotas, &config, "k", DAY), [0.0, 0.0, 0.0]);
}

#[test]
fn a_quota_for_some_targets_counts_those_alone() {
    let config = config(
        "keys: { k: { secret: s, quotas: [dear] } }\n\
         user_quotas:\n\
         \x20 dear: { type: daily, limitType: requests, limit: 1, allowedModels: ['big-*'], excludedProviders: [free] }\n",
    );
    let quotas = quotas(&config);
    let mut held = admit(&quotas, &config, "k", 1).unwrap();
    assert!(held.tightest().is_none());
    held.aim("p", "big-1", 1).unwrap();
    assert!(held.tightest().is_some());
    let mut other = admit(&quotas, &config, "k", 1).unwrap();
    assert!(other.aim("p", "big-2", 1).is_err());
    assert!(other.aim("p", "small", 1).is_ok());
    assert!(other.aim("free", "big-2", 1).is_ok());
    held.aim("p", "small", 1).unwrap();
    assert!(other.aim("p", "big-2", 1).is_ok(), "it was given back");
    other.settle(spent(20), 2);
    held.settle(spent(20), 2);
    assert_eq!(used(&quotas, &config, "k", 2), [1.0]);
}

#[test]
fn a_shared_quota_is_one_for_all_its_keys() {
    let config = config(
        "keys: { a: { secret: s1, quotas: [team] }, b: { secret: s2, quotas: [team] } }\n\
         user_quotas: { team: { type: rolling, duration: 1h, limitType: requests, limit: 2, shared: true } }\n",
    );
    let quotas = quotas(&config);
    admit(&quotas, &config, "a", 1)
        .unwrap()
        .settle(spent(20), 1);
    admit(&quotas, &config, "b", 1)
        .unwrap()
        .settle(spent(20), 1);
    assert!(admit(&quotas, &config, "a", 2).is_err());
    assert!(admit(&quotas, &config, "b", 2).is_err());
    assert!(admit(&quotas, &config, "b", 1_800_002).is_ok());
}

#[test]
fn parallel_agents_are_not_starved_once_it_is_known_what_they_take() {
    let config = config(
        "keys: { k: { secret: s, quotas: [tokens] } }\n\
         user_quotas: { tokens: { type: daily, limitType: tokens, limit: 40000 } }\n",
    );
    let quotas = quotas(&config);
    let at_once = || {
        let mut held = Vec::new();
        while let Ok(reservation) = admit(&quotas, &config, "k", 1) {
            held.push(reservation);
        }
        held.len()
    };
    assert_eq!(at_once(), 9, "of what is taken for likely at first");
    for _ in 0..20 {
        admit(&quotas, &config, "k", 1)
            .unwrap()
            .settle(spent(300), 1);
    }
    let many = at_once();
    assert!((100..=113).contains(&many), "{many} of the 113 that fit");
}

#[test]
fn sixty_four_at_once_against_a_budget_for_three_are_three() {
    let config = config(
        "keys: { k: { secret: s, quotas: [tokens, money] } }\n\
         user_quotas:\n\
         \x20 tokens: { type: weekly, limitType: tokens, limit: 900 }\n\
         \x20 money: { type: monthly, limitType: cost, limit: 0.00009 }\n",
    );
    let quotas = quotas(&config);
    let list = quotas.named(&config, "k", 1).unwrap();
    for _ in 0..30 {
        list.guesses
            .learn(Places::of("k", "alias"), PROMPT, spent(300));
    }
    // In waves, each settled before the next comes.
    let mut admitted = 0;
    for _ in 0..10 {
        let wave: Vec<_> = std::thread::scope(|scope| {
            let ask = || admit(&quotas, &config, "k", 1).ok();
            let threads: Vec<_> = (0..64).map(|_| scope.spawn(ask)).collect();
            threads
                .into_iter()
                .filter_map(|t| t.join().unwrap())
                .collect()
        });
        admitted += wave.len();
        for mut reservation in wave {
            reservation.settle(spent(300), 1);
        }
    }
    assert_eq!(admitted, 3);
}

#[test]
fn another_limit_goes_on_from_what_was_used_and_another_kind_begins_anew() {
    let text = |quota: &str| {
        format!("keys: {{ k: {{ secret: s, quotas: [qq] }} }}\nuser_quotas: {{ qq: {quota} }}\n")
    };
    let mut first = config(&text("{ type: daily, limitType: requests, limit: 5 }"));
    let mut second = config(&text("{ type: daily, limitType: requests, limit: 1 }"));
    let mut third = config(&text("{ type: daily, limitType: tokens, limit: 1 }"));
    (first.revision, second.revision, third.revision) = (1, 2, 3);
    let quotas = quotas(&first);
    let mut open = admit(&quotas, &first, "k", 1).unwrap();
    admit(&quotas, &first, "k", 1).unwrap().settle(spent(20), 1);
    assert!(admit(&quotas, &second, "k", 2).is_err());
    open.settle(spent(20), 2);
    drop(open);
    assert_eq!(used(&quotas, &second, "k", 2), [2.0]);
    assert_eq!(used(&quotas, &third, "k", 2), [0.0]);
    assert_eq!(quotas.buckets.lock().len(), 2, "what is still used is kept");
    let mut fourth = config("keys: { k: { secret: s } }\n");
    fourth.revision = 4;
    let _renewed = quotas.renewed(&fourth, DAY);
    assert!(quotas.buckets.lock().is_empty(), "nothing is left to keep");
}

#[test]
fn a_request_is_weighed_as_it_would_be_admitted_and_nothing_is_held_for_it() {
    let config = config(
        "keys: { k: { secret: s, quotas: [tokens] } }\n\
         user_quotas: { tokens: { type: daily, limitType: tokens, limit: 9000 } }\n",
    );
    let quotas = quotas(&config);
    let list = quotas.named(&config, "k", 1).unwrap();
    let allows = |bytes| {
        let prompt = Prompt { bytes, ..PROMPT };
        let mut weighed = list.weighed("alias", prompt, 1);
        weighed.next().is_some_and(|(_, told)| told.allows())
    };
    assert!(allows(400_000), "who comes alone is let in");
    let held = admit(&quotas, &config, "k", 1).unwrap();
    assert!(allows(40) && allows(40), "weighing takes nothing");
    assert!(!allows(4_000));
    let long = Prompt {
        bytes: 4_000,
        ..PROMPT
    };
    assert!(Reservation::admit(Arc::clone(&list), "alias", long, 1).is_err());
    drop(held);
    assert!(allows(4_000));
}
