//! `plexus demo`: the gateway with a simulated provider behind it, both in this
//! process, and everything in a folder that goes when it ends.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::mpsc;

use tokio::net::TcpListener;
use uuid::Uuid;

use super::handover::Role;
use super::run::Gateway;
use super::{Failed, environment, say};
use crate::config::live::Live;
use crate::simulate::{Options, Simulator};

/// Serves until told to stop.
pub(super) fn demo(host: IpAddr, port: u16) -> Result<(), Failed> {
    let folder = Folder::new()?;
    let provider = start_provider()?;
    let key = format!("sk-demo-{}", Uuid::new_v4().simple());
    let admin = format!("admin-demo-{}", Uuid::new_v4().simple());
    let file = folder.0.join("plexus.yaml");
    std::fs::write(&file, configuration(host, port, provider, &key, &admin))?;
    // The file is all there is: the environment of whoever tries the demo must
    // not reach into it.
    let logs = |name: &str| {
        if name == "LOG_LEVEL" {
            environment(name)
        } else {
            None
        }
    };
    let live = Live::open(Some(file), Box::new(logs))?;
    let gateway = Gateway::start(live, None)?;
    say(&welcome(gateway.server.address(), &key, &admin));
    gateway.run(None, Role::First)
}

/// A folder that is removed with everything in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("plexus-demo-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Starts the simulated provider on a thread that lives as long as the process.
fn start_provider() -> Result<SocketAddr, Failed> {
    let (tell, told) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("simulated-provider".into());
    thread.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            if tell.send(listener.local_addr()).is_err() {
                return Ok(());
            }
            Simulator::new(Options::default())
                .serve(listener, std::future::pending())
                .await
        })
    })?;
    Ok(told.recv()??)
}

fn configuration(host: IpAddr, port: u16, provider: SocketAddr, key: &str, admin: &str) -> String {
    format!(
        "# Written by `plexus demo`.
adminKey: {admin}
server: {{ host: \"{host}\", port: {port}, drainSeconds: 2 }}
catalogue: {{ enabled: false }}
providers:
  simulated:
    display_name: Simulated provider
    api_base_url:
      chat: http://{provider}/v1
      responses: http://{provider}/v1
      messages: http://{provider}/v1
      gemini: http://{provider}/v1beta
    api_key: any-key-will-do
    disable_cooldown: true
models:
  demo:
    selector: in_order
    targets: [ {{ provider: simulated, model: demo+echo }} ]
  demo-slow:
    selector: in_order
    targets: [ {{ provider: simulated, model: slow+chunks=40+gap=100 }} ]
  demo-thinking:
    selector: in_order
    targets: [ {{ provider: simulated, model: thinking+reasoning+words=20 }} ]
  demo-tools:
    selector: in_order
    targets: [ {{ provider: simulated, model: tools+tools=2 }} ]
  demo-failover:
    selector: in_order
    targets:
      - {{ provider: simulated, model: broken+status=503 }}
      - {{ provider: simulated, model: cut+error=role }}
      - {{ provider: simulated, model: sound+words=12 }}
  demo-embedding:
    type: embeddings
    selector: in_order
    targets: [ {{ provider: simulated, model: embedding }} ]
keys:
  demo: {{ secret: {key}, comment: Made by plexus demo }}
"
    )
}

fn welcome(address: SocketAddr, key: &str, admin: &str) -> String {
    let url = format!("http://{address}");
    format!(
        r#"Plexus is serving a simulated provider.

  address    {url}
  key        {key}
  admin key  {admin}
  models     demo, demo-slow, demo-thinking, demo-tools, demo-failover, demo-embedding

Try it in another terminal:

# OpenAI Chat Completions
curl -sN {url}/v1/chat/completions -H 'authorization: Bearer {key}' -H 'content-type: application/json' \
  -d '{{"model":"demo","stream":true,"messages":[{{"role":"user","content":"Hello from chat"}}]}}'

# OpenAI Responses
curl -sN {url}/v1/responses -H 'authorization: Bearer {key}' -H 'content-type: application/json' \
  -d '{{"model":"demo","stream":true,"input":"Hello from responses"}}'

# Anthropic Messages
curl -sN {url}/v1/messages -H 'x-api-key: {key}' -H 'anthropic-version: 2023-06-01' -H 'content-type: application/json' \
  -d '{{"model":"demo","stream":true,"max_tokens":200,"messages":[{{"role":"user","content":"Hello from messages"}}]}}'

# Gemini
curl -sN '{url}/v1beta/models/demo:streamGenerateContent?alt=sse' -H 'x-goog-api-key: {key}' -H 'content-type: application/json' \
  -d '{{"contents":[{{"role":"user","parts":[{{"text":"Hello from gemini"}}]}}]}}'

# What it wrote down
curl -s '{url}/v0/management/usage?limit=5' -H 'x-admin-key: {admin}'

Stop it with Ctrl-C; nothing is kept.
"#
    )
}
