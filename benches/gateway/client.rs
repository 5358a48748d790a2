//! An HTTP/1.1 client that is as cheap as it can be and still checks what it
//! is told: it counts the bytes of an answer's body and keeps the last few.

use std::io;
use std::net::SocketAddr;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How an event stream of Chat Completions ends.
pub(crate) const DONE: &[u8] = b"data: [DONE]\n\n";

const TAIL: usize = 16;

/// A connection that is kept alive.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
}

/// What came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Bytes of the body, framing not counted.
    pub(crate) bytes: u64,
    /// Line feeds before line feeds: events of a stream.
    pub(crate) events: u64,
    tail: [u8; TAIL],
}

impl Answer {
    /// Whether the body ends so.
    pub(crate) fn ends_with(&self, end: &[u8]) -> bool {
        self.tail.ends_with(end)
    }

    fn take(&mut self, data: &[u8], count_events: bool) {
        if count_events {
            self.events += memmem::find_iter(data, b"\n\n").count() as u64;
        }
        self.bytes += data.len() as u64;
        if data.len() >= TAIL {
            self.tail.copy_from_slice(&data[data.len() - TAIL..]);
        } else {
            self.tail.rotate_left(data.len());
            self.tail[TAIL - data.len()..].copy_from_slice(data);
        }
    }
}

/// How long a body is.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    /// Connects; what is read at once fits into `buffer` bytes.
    pub(crate) async fn open(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; buffer].into(),
            from: 0,
            to: 0,
        })
    }

    /// Sends a request and reads all of its answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.read_answer(request, false, |_| {}).await
    }

    /// The same, counting events; `seen` is told of the bytes so far after each
    /// piece of the body.
    pub(crate) async fn watch(
        &mut self,
        request: &[u8],
        seen: impl FnMut(u64),
    ) -> io::Result<Answer> {
        self.read_answer(request, true, seen).await
    }

    async fn read_answer(
        &mut self,
        request: &[u8],
        count_events: bool,
        mut seen: impl FnMut(u64),
    ) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        let (status, framing) = self.head().await?;
        let mut answer = Answer {
            status,
            ..Answer::default()
        };
        match framing {
            Framing::Length(length) => {
                self.data(length, |data| answer.take(data, count_events))
                    .await?;
            }
            Framing::Chunked => loop {
                let size = self.chunk_size().await?;
                self.data(size, |data| {
                    answer.take(data, count_events);
                    seen(answer.bytes);
                })
                .await?;
                self.line_end().await?;
                if size == 0 {
                    break;
                }
            },
        }
        Ok(answer)
    }

    async fn head(&mut self) -> io::Result<(u16, Framing)> {
        loop {
            let waiting = &self.buffer[self.from..self.to];
            if let Some(end) = memmem::find(waiting, b"\r\n\r\n") {
                let head = parse(&waiting[..end + 2]);
                self.from += end + 4;
                return head.ok_or_else(|| invalid("a head that is none"));
            }
            self.fill().await?;
        }
    }

    async fn chunk_size(&mut self) -> io::Result<usize> {
        loop {
            let waiting = &self.buffer[self.from..self.to];
            if let Some(end) = memchr::memchr(b'\n', waiting) {
                let digits = waiting[..end].trim_ascii_end();
                let size = std::str::from_utf8(digits).ok();
                let size = size.and_then(|digits| usize::from_str_radix(digits, 16).ok());
                self.from += end + 1;
                return size.ok_or_else(|| invalid("a chunk without a size"));
            }
            self.fill().await?;
        }
    }

    async fn data(&mut self, length: usize, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            if self.from == self.to {
                self.fill().await?;
            }
            let here = left.min(self.to - self.from);
            take(&self.buffer[self.from..self.from + here]);
            self.from += here;
            left -= here;
        }
        Ok(())
    }

    async fn line_end(&mut self) -> io::Result<()> {
        while self.to - self.from < 2 {
            self.fill().await?;
        }
        if self.buffer[self.from..].starts_with(b"\r\n") {
            self.from += 2;
            return Ok(());
        }
        Err(invalid("a chunk without an end"))
    }

    async fn fill(&mut self) -> io::Result<()> {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        } else if self.to == self.buffer.len() {
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        let read = self.stream.read(&mut self.buffer[self.to..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.to += read;
        Ok(())
    }
}

fn parse(head: &[u8]) -> Option<(u16, Framing)> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?;
    let status = status.get(..3)?.parse().ok()?;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            return Some((status, Framing::Length(value.trim().parse().ok()?)));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return (value.trim() == "chunked").then_some((status, Framing::Chunked));
        }
    }
    None
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
