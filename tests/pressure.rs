//! Clients that read slowly, and clients that leave: what the provider notices
//! of it, how soon, and what it costs the gateway. One after the other, because
//! memory and time are measured.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in helpers of tests a failure is the test's failure, and times are for people to read"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use support::dialect::Dialect;
use support::upstream::{Upstream, Wire};
use support::{FILE, Gateway, SECRET, await_some, client};

/// How soon a provider must be let go at the very latest; the times themselves
/// are printed, and are to stay under 50 ms on a machine that is not busy.
const AT_ONCE: Duration = Duration::from_secs(1);

/// One test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock()
}

/// A gateway before that provider, which is called `own`.
fn before(upstream: &Upstream, server: &str) -> Gateway {
    let own = format!(
        "providers:\n  own: {{ api_base_url: 'http://{}/v1', api_key: x }}\n",
        upstream.address
    );
    let file = FILE.replacen("providers:\n", &own, 1);
    Gateway::with(&format!("server: {{ {server} }}\n{file}"))
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Waits until a number has not changed for a while, and returns it.
fn settled(number: &AtomicU64) -> u64 {
    let mut last = (number.load(Ordering::SeqCst), Instant::now());
    await_some("the number to settle", || {
        let now = number.load(Ordering::SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (now > 0 && last.1.elapsed() > Duration::from_millis(400)).then_some(now)
    })
}

const EVENT: usize = 32 * 1024;
const EVENTS: usize = 4096;

/// A provider with 128 MB to say, that counts what was taken off it.
fn endless(taken: &Arc<AtomicU64>) -> Upstream {
    let taken = Arc::clone(taken);
    Upstream::start(move |mut wire: Wire| {
        if wire.request().is_none() {
            return;
        }
        wire.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        let text = "x".repeat(EVENT);
        let event = format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
        );
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        for _ in 0..EVENTS {
            if wire.stream.write_all(chunk.as_bytes()).is_err() {
                return;
            }
            taken.fetch_add(event.len() as u64, Ordering::SeqCst);
        }
        let end = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        wire.write(format!("{:x}\r\n{end}\r\n0\r\n\r\n", end.len()).as_bytes());
    })
}

#[test]
fn a_client_that_reads_nothing_holds_the_provider_back_and_costs_no_memory() {
    let _alone = alone();
    let taken = Arc::new(AtomicU64::new(0));
    let upstream = endless(&taken);
    let gateway = before(&upstream, "");
    let (path, body) = Dialect::Chat.ask("direct/own/m", true);
    let headers = [("x-api-key", SECRET), ("connection", "close")];
    let request = client::bytes("POST", &path, &headers, body.to_string().as_bytes());
    let before = resident();
    let mut stream = gateway.client().connect();
    stream.write_all(&request).unwrap();
    let stalled = settled(&taken);
    let grown = resident().saturating_sub(before);
    println!("stalled after {stalled} bytes, {grown} bytes more in memory");
    // What is taken lies in the system's four socket buffers.
    assert!(stalled < 48 << 20, "{stalled}");
    assert!(grown < 4 << 20, "{grown}");
    let mut read = 0_u64;
    let mut tail = Vec::new();
    let mut piece = vec![0; 256 * 1024];
    let mut most = 0;
    loop {
        let count = stream.read(&mut piece).unwrap();
        if count == 0 {
            break;
        }
        read += count as u64;
        tail = piece[count.saturating_sub(64)..count].to_vec();
        most = most.max(resident().saturating_sub(before));
    }
    println!("{read} bytes read, at most {most} bytes more in memory");
    assert!(read > (EVENT * EVENTS) as u64);
    assert!(String::from_utf8_lossy(&tail).contains("[DONE]"));
    assert!(most < 8 << 20, "{most}");
    assert_eq!(gateway.rows(1)[0]["responseStatus"], "success");
}

#[test]
fn one_client_that_reads_nothing_does_not_hold_up_the_others() {
    let _alone = alone();
    let taken = Arc::new(AtomicU64::new(0));
    let upstream = endless(&taken);
    let gateway = before(&upstream, "");
    let stuck: Vec<_> = (0..4)
        .map(|_| gateway.speak(Dialect::Chat, "direct/own/m", true))
        .collect();
    settled(&taken);
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let began = Instant::now();
        let answer = gateway.speak(Dialect::Chat, "by-chat", true).finish();
        assert_eq!(answer.status, 200);
        slowest = slowest.max(began.elapsed());
    }
    println!("slowest of 50 beside 4 that are stuck: {slowest:?}");
    assert!(slowest < AT_ONCE);
    for stream in stuck {
        stream.leave();
    }
    assert_eq!(gateway.rows(54).len(), 54);
}

#[test]
fn a_hundred_slow_streams_cost_little_memory_each() {
    let _alone = alone();
    let gateway = Gateway::start();
    let model = "direct/messages/m+chunks=200+bytes=2000+gap=1+silent+silent_after=100";
    gateway.speak(Dialect::Messages, model, true).leave();
    let before = resident();
    let streams: Vec<_> = (0..100)
        .map(|_| gateway.speak(Dialect::Messages, model, true))
        .collect();
    await_some("all to be under way", || {
        let metrics = gateway.app.metrics.render(0);
        metrics
            .contains("plexus_in_flight_requests{provider=\"messages\"} 100")
            .then_some(())
    });
    let each = resident().saturating_sub(before) / 100;
    // The simulated provider and this client live in the same process.
    println!("{each} bytes for each stream, provider and client included");
    assert!(each < 200_000, "{each}");
    for stream in streams {
        stream.leave();
    }
    assert_eq!(gateway.rows(101).len(), 101);
}

/// The time from the client's leaving to the provider's noticing.
fn time_to_cancel(gateway: &Gateway, leave: impl FnOnce()) -> Duration {
    let before = gateway.provider.simulator.stats().cancelled;
    let left = Instant::now();
    leave();
    let deadline = left + AT_ONCE;
    while gateway.provider.simulator.stats().cancelled == before {
        assert!(
            Instant::now() < deadline,
            "the provider goes on after {AT_ONCE:?}"
        );
        thread::sleep(Duration::from_micros(200));
    }
    left.elapsed()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let middle = times[times.len() / 2];
    let last = times[times.len() - 1];
    println!(
        "cancel {what}: median {middle:?}, longest {last:?}, of {}",
        times.len()
    );
}

#[test]
fn a_client_that_leaves_before_the_answer_stops_the_provider_at_once() {
    let _alone = alone();
    let gateway = Gateway::start();
    for fault in ["delay=60000", "first=60000", "silent"] {
        let mut times = Vec::new();
        for round in 0..20 {
            let dialect = Dialect::FOUR[round % 4];
            let model = format!("direct/{}/m+{fault}", dialect.name());
            let (path, body) = dialect.ask(&model, true);
            let headers = [("x-api-key", SECRET)];
            let request = client::bytes("POST", &path, &headers, body.to_string().as_bytes());
            gateway.provider.simulator.clear();
            let mut stream = gateway.client().connect();
            stream.write_all(&request).unwrap();
            await_some("the provider to be asked", || {
                let requests = gateway.provider.simulator.requests();
                requests
                    .iter()
                    .any(|request| request.body.is_some())
                    .then_some(())
            });
            times.push(time_to_cancel(&gateway, || drop(stream)));
        }
        report(&format!("before the answer ({fault})"), times);
    }
    assert_eq!(gateway.rows(60).len(), 60);
}

#[test]
fn a_client_that_leaves_in_the_middle_stops_the_provider_at_once() {
    let _alone = alone();
    let gateway = Gateway::start();
    let paces = [
        ("chunks=600+gap=20", 20),
        ("chunks=20+silent+silent_after=9", 20),
        // As fast as it goes, and more than the system's buffers hold.
        ("chunks=250+bytes=64000", 4),
    ];
    for (pace, rounds) in paces {
        let mut times = Vec::new();
        for round in 0..rounds {
            let dialect = Dialect::FOUR[round % 4];
            let model = format!("direct/{}/m+{pace}", dialect.name());
            let mut stream = gateway.speak(dialect, &model, true);
            stream.chunk().unwrap().unwrap();
            times.push(time_to_cancel(&gateway, || stream.leave()));
        }
        report(&format!("in the middle ({pace})"), times);
    }
    assert_eq!(gateway.rows(44).len(), 44);
}

#[test]
fn a_client_that_leaves_while_its_body_goes_up_stops_the_upload() {
    let _alone = alone();
    let received = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(AtomicU64::new(0));
    let (counter, end) = (Arc::clone(&received), Arc::clone(&ended));
    let upstream = Upstream::start(move |mut wire: Wire| {
        let mut piece = vec![0; 64 * 1024];
        while let Ok(count) = wire.stream.read(&mut piece) {
            if count == 0 {
                break;
            }
            counter.fetch_add(count as u64, Ordering::SeqCst);
            // Slower than the gateway, so that the body is always on its way.
            thread::sleep(Duration::from_millis(2));
        }
        end.fetch_add(1, Ordering::SeqCst);
    });
    let gateway = before(&upstream, "");
    let (path, body) = Dialect::Chat.ask("direct/own/m", true);
    let mut body = body.to_string().into_bytes();
    body.resize(60 << 20, b' ');
    let mut stream = gateway.client().connect();
    let request = client::bytes("POST", &path, &[("x-api-key", SECRET)], &body);
    stream.write_all(&request).unwrap();
    await_some("the upload to begin", || {
        (received.load(Ordering::SeqCst) > 1 << 20).then_some(())
    });
    let left = Instant::now();
    drop(stream);
    let idle = "plexus_in_flight_requests{provider=\"own\"} 0";
    await_some("the gateway to let go", || {
        gateway.app.metrics.render(0).contains(idle).then_some(())
    });
    let took = left.elapsed();
    println!("cancel during the upload: {took:?}");
    assert!(took < AT_ONCE, "{took:?}");
    await_some("the connection to end", || {
        (ended.load(Ordering::SeqCst) == 1).then_some(())
    });
    let received = received.load(Ordering::SeqCst);
    assert!(received < body.len() as u64, "all of it was sent");
    assert_eq!(gateway.rows(1)[0]["responseStatus"], "cancelled");
}
