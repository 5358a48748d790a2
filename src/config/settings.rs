//! The sections about the gateway itself, with their defaults, and what the
//! environment overrides.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::check::{Check, count, is_slug, texts};
use super::endpoint;
use super::schema;
use super::tree::{Node, Yaml};
use super::{
    Background, CatalogueSettings, Cooldown, Exploration, Failover, Flow, Limits, LoggingSettings,
    Secret, ServerSettings, Stall, StoreSettings, TlsSettings, Vision, address,
};

/// `ADMIN_KEY`, else `adminKey`. Without either there is no configuration.
pub(in crate::config) fn admin_key(check: &mut Check<'_>, root: &Node) -> Option<Secret> {
    // The file's own is read even when it doesn't win, for its faults.
    let own = root.get("adminKey").map(|node| {
        check.within("adminKey", |check| {
            let before = check.faults.len();
            let secret = check.secret(node);
            let silent = check.faults.len() == before && node.text().is_some();
            (secret, silent)
        })
    });
    if let Some(key) = check.variable("ADMIN_KEY") {
        return Some(Secret::new(key));
    }
    match own {
        Some((Some(secret), _)) => Some(secret),
        // A fault was noted already.
        Some((None, false)) => None,
        _ => {
            let message = "there is no admin key; set the environment variable ADMIN_KEY, or \
                           adminKey in the file, to some text that isn't empty";
            let place = root.get("adminKey").map_or(root.place, |node| node.place);
            check.within("adminKey", |check| check.fault(place, message));
            None
        }
    }
}

/// `server:`, with `HOST` and `PORT`.
pub(in crate::config) fn server(check: &mut Check<'_>, root: &Node) -> ServerSettings {
    let empty = Node::empty();
    let node = root.get("server").unwrap_or(&empty);
    check.within("server", |check| ServerSettings {
        host: host(check, node),
        port: port(check, node),
        unix_socket: file(check, node, "unixSocket"),
        tls: node
            .get("tls")
            .and_then(|tls| check.within("tls", |check| self::tls(check, tls))),
        http2: flag(node, "http2", true),
        trusted_proxies: networks(check, node, "trustedProxies"),
        cors_origins: node
            .get("cors")
            .and_then(|cors| cors.get("origins"))
            .map_or_else(|| vec!["*".to_owned()], |origins| texts(Some(origins))),
        limits: limits(node.get("limits").unwrap_or(&empty)),
        drain: seconds(node, "drainSeconds", 30),
        heartbeat: seconds(node, "heartbeatSeconds", 15),
    })
}

/// `store:`, with `DATABASE_URL` and `DATA_DIR`.
pub(in crate::config) fn store(check: &mut Check<'_>, root: &Node) -> StoreSettings {
    let empty = Node::empty();
    let node = root.get("store").unwrap_or(&empty);
    let days = node.get("retention").unwrap_or(&empty);
    StoreSettings {
        path: store_path(check, node),
        usage_days: count(days, "usageDays").unwrap_or(0),
        error_days: count(days, "errorDays").unwrap_or(30),
        database_mb: count(days, "databaseMb").unwrap_or(0),
        debug_days: count(days, "debugDays").unwrap_or(7),
        debug_mb: count(days, "debugMb").unwrap_or(512),
        mcp_days: count(days, "mcpDays").unwrap_or(30),
        responses: node.get("responses").and_then(Node::flag).unwrap_or(true),
        response_days: count(days, "responseDays").unwrap_or(30),
    }
}

/// `catalogue:`.
pub(in crate::config) fn catalogue(check: &mut Check<'_>, root: &Node) -> CatalogueSettings {
    let empty = Node::empty();
    let node = root.get("catalogue").unwrap_or(&empty);
    let mut address = |field: &str, usual: &str| {
        let Some(written) = node.get(field) else {
            return Some(usual.to_owned());
        };
        let text = written.text()?;
        if let Err(message) = endpoint::base(text.split('?').next().unwrap_or_default()) {
            check.within("catalogue", |check| {
                check.within(field, |check| check.fault(written.place, message));
            });
        }
        Some(text.to_owned())
    };
    CatalogueSettings {
        open_router: address("openrouter", "https://openrouter.ai/api/v1/models"),
        models_dev: address("modelsDev", "https://models.dev/api.json"),
        catwalk: address("catwalk", "https://catwalk.charm.sh/v2/providers"),
        hugging_face: address("huggingface", "https://huggingface.co")
            .map(|base| base.trim_end_matches('/').to_owned()),
        enabled: flag(node, "enabled", true),
        refresh: Duration::from_secs(60 * count(node, "refreshMinutes").unwrap_or(60)),
    }
}

/// `logging:`, with `LOG_LEVEL`, `LOG_MODULES` and `DEBUG`.
pub(in crate::config) fn logging(check: &mut Check<'_>, root: &Node) -> LoggingSettings {
    let empty = Node::empty();
    let node = root.get("logging").unwrap_or(&empty);
    let own = node
        .get("level")
        .and_then(Node::text)
        .unwrap_or("info")
        .to_owned();
    let debugging = check
        .variable("DEBUG")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let level = match check.variable("LOG_LEVEL") {
        Some(level) => level.trim().to_ascii_lowercase(),
        None if debugging => "debug".to_owned(),
        None => own,
    };
    if !schema::LEVELS.contains(&level.as_str()) {
        let message = format!(
            "LOG_LEVEL is {level:?}; one of {} is wanted",
            schema::LEVELS.join(", ")
        );
        // A level that the file misspells was named by the shape check.
        if check.variable("LOG_LEVEL").is_some() {
            check.variable_fault("LOG_LEVEL", &message);
        }
    }
    let modules = match check.variable("LOG_MODULES") {
        Some(list) => list
            .split(',')
            .map(|m| m.trim().to_owned())
            .filter(|m| !m.is_empty())
            .collect(),
        None => texts(node.get("modules")),
    };
    LoggingSettings {
        level: match level.as_str() {
            "verbose" => "debug".to_owned(),
            "silly" => "trace".to_owned(),
            _ => level,
        },
        modules,
        json: node.get("format").and_then(Node::text) == Some("json"),
        capture: debugging,
    }
}

/// `failover:`.
pub(in crate::config) fn failover(root: &Node) -> Failover {
    let empty = Node::empty();
    let node = root.get("failover").unwrap_or(&empty);
    let codes = node.get("retryableStatusCodes").map(|codes| {
        let codes = codes.items().iter().filter_map(Node::whole);
        codes.filter_map(|code| u16::try_from(code).ok()).collect()
    });
    Failover {
        enabled: flag(node, "enabled", true),
        retryable_status_codes: codes,
        retryable_errors: match node.get("retryableErrors") {
            Some(errors) => texts(Some(errors)),
            None => RETRYABLE_ERRORS.map(str::to_owned).to_vec(),
        },
        most_attempts: count(node, "maxAttempts").unwrap_or(MOST_ATTEMPTS),
    }
}

/// `timeout.defaultSeconds`.
pub(in crate::config) fn attempt_timeout(root: &Node) -> Duration {
    let empty = Node::empty();
    seconds(root.get("timeout").unwrap_or(&empty), "defaultSeconds", 300)
}

/// `timeout.connectSeconds`.
pub(in crate::config) fn connect_timeout(root: &Node) -> Option<Duration> {
    let seconds = root.get("timeout")?.get("connectSeconds")?.number()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// `stall:`.
pub(in crate::config) fn stall(root: &Node) -> Stall {
    let empty = Node::empty();
    let node = root.get("stall").unwrap_or(&empty);
    let first = node.get("ttfbSeconds").and_then(Node::number);
    Stall {
        first: first.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        first_bytes: count(node, "ttfbBytes").unwrap_or(100),
        flow: count(node, "minBytesPerSecond").map(|bytes_per_second| Flow {
            bytes_per_second,
            window: seconds(node, "windowSeconds", 10),
            grace: seconds(node, "gracePeriodSeconds", 30),
        }),
        cooldown: flag(node, "stallCooldown", false),
    }
}

/// A provider's own values over those of `stall:`. Null switches off what can
/// be off, and elsewhere leaves the file's.
pub(in crate::config) fn stall_of(root: &Node, provider: &Node) -> Stall {
    let empty = Node::empty();
    let stall = root.get("stall").unwrap_or(&empty);
    let all = self::stall(root);
    let milliseconds = |field| count(provider, field).map(Duration::from_millis);
    let first = match provider.get("stallTtfbMs") {
        Some(_) => milliseconds("stallTtfbMs"),
        None => all.first,
    };
    let least = match provider.get("stallMinBps") {
        Some(_) => count(provider, "stallMinBps"),
        None => all.flow.map(|flow| flow.bytes_per_second),
    };
    let window = milliseconds("stallWindowMs");
    let grace = milliseconds("stallGracePeriodMs");
    Stall {
        first,
        first_bytes: count(provider, "stallTtfbBytes").unwrap_or(all.first_bytes),
        flow: least.map(|bytes_per_second| Flow {
            bytes_per_second,
            window: window.unwrap_or_else(|| seconds(stall, "windowSeconds", 10)),
            grace: grace.unwrap_or_else(|| seconds(stall, "gracePeriodSeconds", 30)),
        }),
        cooldown: flag(provider, "stall_cooldown", all.cooldown),
    }
}

/// The rates of exploration, and `backgroundExploration:`.
pub(in crate::config) fn exploration(root: &Node) -> Exploration {
    let rate = |field| root.get(field).and_then(Node::number);
    let empty = Node::empty();
    let node = root.get("backgroundExploration").unwrap_or(&empty);
    let background = Background {
        staleness: seconds(node, "stalenessThresholdSeconds", 600),
        workers: count(node, "workerConcurrency").unwrap_or(2),
    };
    let performance = rate("performanceExplorationRate").unwrap_or(0.05);
    Exploration {
        latency: rate("latencyExplorationRate").unwrap_or(performance),
        performance,
        e2e_performance: rate("e2ePerformanceExplorationRate").unwrap_or(performance),
        background: flag(node, "enabled", false).then_some(background),
    }
}

/// `vision_fallthrough:`; empty text is as good as none.
pub(in crate::config) fn vision(root: &Node) -> Vision {
    let empty = Node::empty();
    let node = root.get("vision_fallthrough").unwrap_or(&empty);
    let text = |field| {
        let text = node.get(field).and_then(Node::text);
        text.filter(|text| !text.trim().is_empty()).map(Into::into)
    };
    Vision {
        descriptor: text("descriptor_model"),
        prompt: text("default_prompt"),
    }
}

/// `cooldown:`.
pub(in crate::config) fn cooldown(check: &mut Check<'_>, root: &Node) -> Cooldown {
    let empty = Node::empty();
    let node = root.get("cooldown").unwrap_or(&empty);
    let minutes = |field, default: f64| {
        let minutes = node.get(field).and_then(Node::number).unwrap_or(default);
        Duration::try_from_secs_f64(minutes * 60.0).unwrap_or_default()
    };
    let (initial, longest) = (minutes("initialMinutes", 2.0), minutes("maxMinutes", 300.0));
    if initial > longest {
        let message = "initialMinutes is more than maxMinutes; at most the same is wanted";
        check.within("cooldown", |check| check.fault(node.place, message));
    }
    Cooldown { initial, longest }
}

/// `mcp_servers:` is only checked; the document holds it.
pub(in crate::config) fn mcp_servers(check: &mut Check<'_>, root: &Node) {
    let Some(node) = root.get("mcp_servers") else {
        return;
    };
    for entry in node.entries() {
        check.within("mcp_servers", |check| {
            check.within(&entry.key, |check| {
                if !is_slug(&entry.key) || entry.key == "plexus" {
                    let message = "a server's name is 2 to 63 of a-z, 0-9, - and _, begins with a \
                                   letter or digit, and is not plexus";
                    check.fault(entry.place, message);
                }
                mcp_server(check, &entry.value);
            });
        });
    }
}

fn mcp_server(check: &mut Check<'_>, node: &Node) {
    let local = node.get("mode").and_then(Node::text) == Some("local_http");
    let needed: &[&str] = if local {
        &["launcher", "package"]
    } else {
        &["upstream_url"]
    };
    for field in needed.iter().filter(|field| node.get(field).is_none()) {
        check.fault(node.place, format!("\"{field}\" is missing"));
    }
    if let Some(url) = node.get("upstream_url") {
        let text = url.text().unwrap_or_default();
        let bare = text.split(['?', '#']).next().unwrap_or_default();
        if let (Some(_), Err(message)) = (url.text(), endpoint::base(bare)) {
            check.within("upstream_url", |check| check.fault(url.place, message));
        }
    }
    if let Some(headers) = node.get("headers") {
        check.within("headers", |check| check.headers(headers));
    }
    if let Some(variables) = node.get("env") {
        check.within("env", |check| check.references(variables));
    }
}

/// The networks of a list of rules; a fault for each that is none.
pub(in crate::config) fn networks(
    check: &mut Check<'_>,
    node: &Node,
    field: &str,
) -> Vec<ipnet::IpNet> {
    let rules = node.get(field).map_or(&[][..], Node::items);
    let mut all = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        let Some(text) = rule.text() else { continue };
        match address::networks(text) {
            Some(networks) => all.extend(networks),
            None => check.within(field, |check| {
                let message = format!(
                    "found {text:?}; an address, a network like 10.0.0.0/8, or a range like \
                     10.0.0.5-20 is wanted"
                );
                check.within(&i.to_string(), |check| check.fault(rule.place, message));
            }),
        }
    }
    all
}

fn host(check: &mut Check<'_>, node: &Node) -> IpAddr {
    let own = node.get("host").and_then(|host| {
        let text = host.text()?;
        let address = address::listen(text);
        if address.is_none() {
            let message = format!("found {text:?}; an IP address or localhost is wanted");
            check.within("host", |check| check.fault(host.place, message));
        }
        address
    });
    let default = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let Some(text) = check.variable("HOST") else {
        return own.unwrap_or(default);
    };
    address::listen(&text).unwrap_or_else(|| {
        let message = format!("HOST is {text:?}; an IP address or localhost is wanted");
        check.variable_fault("HOST", &message);
        default
    })
}

fn port(check: &mut Check<'_>, node: &Node) -> u16 {
    let own = count(node, "port").unwrap_or(4000);
    let Some(text) = check.variable("PORT") else {
        return own;
    };
    text.trim().parse().unwrap_or_else(|_| {
        let message = format!("PORT is {text:?}; a number from 0 to 65535 is wanted");
        check.variable_fault("PORT", &message);
        own
    })
}

fn tls(check: &Check<'_>, node: &Node) -> Option<TlsSettings> {
    let least = node.get("minVersion");
    let newest_only = least.and_then(Node::text) == Some("1.3")
        || least
            .and_then(Node::number)
            .is_some_and(|version| version > 1.2);
    Some(TlsSettings {
        cert: file(check, node, "cert")?,
        key: file(check, node, "key")?,
        client_ca: file(check, node, "clientCa"),
        tls13_only: newest_only,
    })
}

fn limits(node: &Node) -> Limits {
    Limits {
        body: count::<u64>(node, "bodyMb").unwrap_or(100) << 20,
        header_bytes: count::<usize>(node, "headerKb").unwrap_or(64) << 10,
        headers: count(node, "headers").unwrap_or(100),
        connections: count(node, "connections").unwrap_or(10_000),
        header_time: seconds(node, "headerSeconds", 30),
        body_idle: seconds(node, "bodyIdleSeconds", 30),
        keep_alive: seconds(node, "keepAliveSeconds", 75),
        streams: count(node, "streamsPerConnection").unwrap_or(256),
    }
}

fn store_path(check: &mut Check<'_>, node: &Node) -> PathBuf {
    if let Some(url) = check.variable("DATABASE_URL") {
        return match sqlite_file(url.trim()) {
            Ok(path) => check.base.join(path),
            Err(message) => {
                check.variable_fault("DATABASE_URL", &format!("DATABASE_URL: {message}"));
                PathBuf::new()
            }
        };
    }
    if let Some((node, url)) = node.get("url").and_then(|url| Some((url, url.text()?))) {
        return match sqlite_file(url) {
            Ok(path) => check.base.join(path),
            Err(message) => {
                let fault = |check: &mut Check<'_>| check.fault(node.place, message);
                check.within("store", |check| check.within("url", fault));
                PathBuf::new()
            }
        };
    }
    let folder = check
        .variable("DATA_DIR")
        .unwrap_or_else(|| "data".to_owned());
    check.base.join(folder).join("plexus.db")
}

/// The file of `sqlite://PATH` or of a plain path. The URL itself may hold a
/// password, so messages show its scheme only.
fn sqlite_file(url: &str) -> Result<&str, String> {
    let path = match url.split_once("://") {
        None => url,
        Some(("sqlite" | "file", path)) => path,
        Some(("postgres" | "postgresql", _)) => {
            let message = "PostgreSQL is not supported; sqlite://PATH is wanted";
            return Err(message.to_owned());
        }
        Some((scheme, _)) => {
            return Err(format!(
                "found the scheme {scheme:?}; sqlite://PATH is wanted"
            ));
        }
    };
    if path.is_empty() || path.ends_with('/') || path.contains('\0') {
        return Err("the name of a file is missing; sqlite://PATH is wanted".to_owned());
    }
    Ok(path)
}

fn file(check: &Check<'_>, node: &Node, field: &str) -> Option<PathBuf> {
    let text = node.get(field)?.text().filter(|text| !text.is_empty())?;
    Some(check.base.join(text))
}

/// A truth value with a default.
pub(in crate::config) fn flag(node: &Node, field: &str, default: bool) -> bool {
    match node.get(field).map(|node| &node.value) {
        Some(Yaml::Flag(flag)) => *flag,
        _ => default,
    }
}

fn seconds(node: &Node, field: &str, default: u64) -> Duration {
    Duration::from_secs(count(node, field).unwrap_or(default))
}

/// Most targets that one request tries when the file doesn't say.
const MOST_ATTEMPTS: u32 = 8;

/// What moves on to the next target when the file doesn't say.
const RETRYABLE_ERRORS: [&str; 4] = ["ECONNREFUSED", "ETIMEDOUT", "ENOTFOUND", "ECONNRESET"];
