//! `plexus replay ID`: asks a running gateway to run a captured request again,
//! and shows what is different.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Failed, environment, say};
use crate::config;
use crate::upstream::{Client, Connector, RequestBody, Wire};

/// Time for a connection to the gateway.
const CONNECT: Duration = Duration::from_secs(5);
/// What the gateway says at most, in bytes.
const LARGEST: usize = 128 << 20;
const ADMIN_KEY: HeaderName = HeaderName::from_static("x-admin-key");

/// `plexus replay`
#[derive(Debug, clap::Args)]
pub(super) struct Replay {
    /// The captured request's id
    id: Uuid,
    /// Another target than the request's own
    #[arg(long, value_name = "PROVIDER/MODEL")]
    target: Option<String>,
    /// The gateway [default: where the configuration says that it listens]
    #[arg(long)]
    url: Option<String>,
    /// Configuration file [default: $CONFIG_FILE, else plexus.yaml]; only read
    /// for the gateway's address and, without ADMIN_KEY, its admin key
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// Show what the gateway said, as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command; fails when the two runs can't be compared, not when they
/// differ.
pub(super) fn replay(options: &Replay) -> Result<(), Failed> {
    let gateway = Gateway::find(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let said = runtime.block_on(gateway.ask(options))?;
    if options.json {
        say(&format!("{said:#}\n"));
    } else {
        say(&told(&said));
    }
    Ok(())
}

/// A gateway and the key to it.
struct Gateway {
    scheme: Scheme,
    authority: Authority,
    key: HeaderValue,
}

impl Gateway {
    fn find(options: &Replay) -> Result<Self, Failed> {
        let named = environment("ADMIN_KEY").filter(|key| !key.is_empty());
        let (url, key) = match (&options.url, named) {
            (Some(url), Some(key)) => (url.clone(), key),
            (url, named) => {
                let (address, key) = configured(options.config.as_deref())?;
                (url.clone().unwrap_or(address), named.unwrap_or(key))
            }
        };
        let uri: Uri = url.parse()?;
        let parts = (uri.scheme().cloned(), uri.authority().cloned());
        let (Some(scheme), Some(authority)) = parts else {
            return Err(Failed(format!("{url:?} is no URL like http://host:port")));
        };
        let mut key = HeaderValue::try_from(key)?;
        key.set_sensitive(true);
        Ok(Self {
            scheme,
            authority,
            key,
        })
    }

    async fn ask(&self, options: &Replay) -> Result<Value, Failed> {
        let path = format!("/v0/management/debug/logs/{}/replay", options.id);
        let body = Bytes::from(json!({ "target": options.target }).to_string());
        let build = |wire| self.request(wire, &path, &body);
        let client = Client::new(Connector::new(CONNECT, Vec::new()));
        let sent = client
            .send((&self.scheme, &self.authority), None, &build)
            .await
            .map_err(|error| Failed(format!("{}: {error}", self.authority)))?;
        let (head, mut body) = sent.into_parts();
        let mut read = Vec::new();
        while let Some(chunk) = body.chunk().await {
            read.extend_from_slice(&chunk?);
            if read.len() > LARGEST {
                return Err(Failed("the gateway's answer is too large".into()));
            }
        }
        let said: Value = serde_json::from_slice(&read).unwrap_or_default();
        if head.status.is_success() {
            return Ok(said);
        }
        let error = &said["error"];
        let why = error.as_str().or_else(|| error["message"].as_str());
        let why = why.unwrap_or("no reason given");
        Err(Failed(format!("{}: {why}", head.status)))
    }

    fn request(&self, wire: Wire, path: &str, body: &Bytes) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::new(vec![body.clone()]));
        *request.method_mut() = Method::POST;
        let uri = match wire {
            Wire::H1 => path.parse(),
            Wire::H2 => format!("{}://{}{path}", self.scheme, self.authority).parse(),
        };
        *request.uri_mut() = uri.unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(ADMIN_KEY, self.key.clone());
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if wire == Wire::H1
            && let Ok(host) = HeaderValue::from_str(self.authority.as_str())
        {
            headers.insert(header::HOST, host);
        }
        request
    }
}

/// Where the gateway of that file listens, and its admin key.
fn configured(file: Option<&Path>) -> Result<(String, String), Failed> {
    let usual = || environment("CONFIG_FILE").unwrap_or_else(|| "plexus.yaml".into());
    let file = file.map_or_else(|| PathBuf::from(usual()), Path::to_owned);
    let text = std::fs::read_to_string(&file)
        .map_err(|error| Failed(format!("{}: {error}", file.display())))?;
    let folder = file.parent().filter(|path| !path.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let config = config::check(&text, &environment, folder)
        .map_err(|faults| Failed(config::describe(&faults, &file.display().to_string())))?;
    let server = &config.server;
    let scheme = if server.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let host = match server.host {
        host if !host.is_unspecified() => std::net::SocketAddr::new(host, server.port).to_string(),
        _ => format!("localhost:{}", server.port),
    };
    let key = config.admin_key.expose().to_owned();
    Ok((format!("{scheme}://{host}"), key))
}

/// The two runs side by side, for people.
fn told(said: &Value) -> String {
    let (original, replay) = (&said["original"], &said["replay"]);
    let mut text = format!("{:<18} {:<36}  {}\n", "", "original", "replay");
    let names = { replay.as_object() }.into_iter().flatten();
    let long = ["text", "reasoning", "calls", "body"];
    for (name, after) in names.filter(|(name, _)| !long.contains(&name.as_str())) {
        let mark = if is_different(said, name) { "*" } else { " " };
        let before = plain(&original[name]);
        text.push_str(&format!(
            "{mark}{name:<17} {before:<36}  {}\n",
            plain(after)
        ));
    }
    for name in long {
        if is_different(said, name) {
            text.push_str(&format!("\n*{name}\n"));
            lines(&mut text, &plain(&original[name]), &plain(&replay[name]));
        }
    }
    text
}

fn is_different(said: &Value, name: &str) -> bool {
    let different = said["differences"].as_array();
    different.is_some_and(|names| names.iter().any(|known| known == name))
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Lines that only one has, between those that both begin and end with.
fn lines(text: &mut String, before: &str, after: &str) {
    let (before, after): (Vec<&str>, Vec<&str>) =
        (before.lines().collect(), after.lines().collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let start = before.iter().zip(&after).take_while(same).count();
    let ends = before[start..]
        .iter()
        .rev()
        .zip(after[start..].iter().rev());
    let end = ends.take_while(same).count();
    for line in &before[start..before.len() - end] {
        text.push_str(&format!("- {line}\n"));
    }
    for line in &after[start..after.len() - end] {
        text.push_str(&format!("+ {line}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_different_is_marked_and_texts_are_shown_line_by_line() {
        let side =
            |status: u16, text: &str| json!({ "status": status, "provider": "p", "text": text });
        let said = json!({
            "original": side(200, "same\nold\nend"),
            "replay": side(500, "same\nnew\nend"),
            "differences": ["status", "text"],
        });
        let text = told(&said);
        assert!(text.contains("*status            200"), "{text}");
        assert!(text.contains(" provider          p"), "{text}");
        assert!(text.ends_with("*text\n- old\n+ new\n"), "{text}");
    }
}
