//! A provider of a test's own making: every connection is handed to a function
//! that reads and writes bytes as it likes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::PATIENCE;

/// Stops accepting when dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

/// A connection to a provider of a test's own making.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    /// Number of the connection, from 0.
    pub(crate) number: usize,
    requests: Arc<AtomicUsize>,
}

impl Upstream {
    /// Serves each connection in a thread of its own.
    pub(crate) fn start(serve: impl Fn(Wire) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (counted, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        let serve = Arc::new(serve);
        let thread = thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                let requests = Arc::clone(&counted);
                let wire = Wire {
                    stream,
                    number,
                    requests,
                };
                let serve = Arc::clone(&serve);
                // Ends with its connection, or with the patience of its reads.
                thread::spawn(move || serve(wire));
            }
        });
        Self {
            address,
            requests,
            stop,
            thread: Some(thread),
        }
    }

    /// Whole requests that were read so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Wire {
    /// Reads a request; `None` when the connection ends before it is whole.
    pub(crate) fn request(&mut self) -> Option<Vec<u8>> {
        let mut request = Vec::new();
        loop {
            if let Some(length) = whole_length(&request)
                && request.len() >= length
            {
                self.requests.fetch_add(1, Ordering::SeqCst);
                return Some(request);
            }
            let mut piece = [0; 16 * 1024];
            let read = self.stream.read(&mut piece).ok().filter(|read| *read > 0)?;
            request.extend_from_slice(&piece[..read]);
        }
    }

    /// Writes bytes; whoever they are for may have gone.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).ok();
    }

    /// Writes a whole answer with that body.
    pub(crate) fn answer(&mut self, status: &str, body: &str) {
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.write(format!("{head}{body}").as_bytes());
    }
}

/// The length of a request whose head is there.
fn whole_length(request: &[u8]) -> Option<usize> {
    let head = request.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |length| length.trim().parse().unwrap());
    Some(head + length)
}

/// An address where nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// A chat completion, as small as one can be.
pub(crate) const COMPLETION: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"yes"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
