//! HTTP/1.1 as a test wants it: bytes out as given, chunks in as they come,
//! and a broken answer told from a finished one.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;

use super::PATIENCE;

/// Sends requests to one address, each on a connection of its own.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    address: SocketAddr,
}

impl Client {
    pub(crate) fn of(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Where it sends them.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection on which the test writes and reads by itself.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends a request and reads the whole answer.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.stream(method, path, headers, body).finish()
    }

    /// Sends a request and reads the head of the answer.
    pub(crate) fn stream(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Stream {
        let mut stream = self.connect();
        // The gateway may answer and close before it has read everything.
        stream.write_all(&bytes(method, path, headers, body)).ok();
        Stream::read(stream, method == "HEAD")
    }

    /// Sends these bytes and reads the whole answer.
    pub(crate) fn raw(&self, request: &[u8]) -> Response {
        let mut stream = self.connect();
        stream.write_all(request).ok();
        Stream::read(stream, request.starts_with(b"HEAD ")).finish()
    }
}

/// A request as it goes over the wire. `host` and `content-length` are added
/// unless they are given.
pub(crate) fn bytes(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let given = |name: &str| {
        let mut names = headers.iter().map(|(known, _)| known);
        names.any(|known| known.eq_ignore_ascii_case(name))
    };
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    if !given("host") {
        request.push_str("host: gateway.test\r\n");
    }
    if !body.is_empty() && !given("content-length") && !given("transfer-encoding") {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case, in the order they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The first header field of that name, given in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&self.body)))
    }

    /// The answer, if it has that status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{body}");
        self
    }
}

/// How the end of a body is known.
enum Framing {
    Length(u64),
    Chunked,
    Close,
    Ended,
}

/// An answer whose body is still to be read.
pub(crate) struct Stream {
    pub(crate) status: u16,
    /// Names in lower case, in the order they came.
    pub(crate) headers: Vec<(String, String)>,
    framing: Framing,
    reader: BufReader<TcpStream>,
}

impl Stream {
    /// Reads the head of the answer; interim answers are passed over.
    pub(crate) fn read(stream: TcpStream, to_head: bool) -> Self {
        let mut reader = BufReader::new(stream);
        let (status, headers) = loop {
            let (status, headers) = head(&mut reader);
            if status >= 200 {
                break (status, headers);
            }
        };
        let framing = if to_head || matches!(status, 204 | 304) {
            Framing::Ended
        } else if find(&headers, "transfer-encoding").is_some() {
            Framing::Chunked
        } else {
            let length = find(&headers, "content-length");
            length.map_or(Framing::Close, |length| {
                Framing::Length(length.parse().unwrap())
            })
        };
        Self {
            status,
            headers,
            framing,
            reader,
        }
    }

    /// The first header field of that name, given in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The next piece of the body: a chunk as the gateway sent it, or what
    /// has come of a body without chunks. `None` at its end; an error when the
    /// connection broke before that.
    pub(crate) fn chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        match self.framing {
            Framing::Ended => Ok(None),
            Framing::Chunked => self.next_chunk(),
            Framing::Close => self.available(u64::MAX),
            Framing::Length(left) => {
                let piece = if left == 0 {
                    None
                } else {
                    self.available(left)?
                };
                match &piece {
                    Some(piece) => self.framing = Framing::Length(left - piece.len() as u64),
                    None if left > 0 => return Err(ErrorKind::UnexpectedEof.into()),
                    None => self.framing = Framing::Ended,
                }
                Ok(piece)
            }
        }
    }

    /// Reads on until the body has a piece of text.
    pub(crate) fn read_until(&mut self, wanted: &str) -> String {
        let mut text = String::new();
        while !text.contains(wanted) {
            match self.chunk() {
                Ok(Some(piece)) => text.push_str(&String::from_utf8_lossy(&piece)),
                other => panic!("{other:?} before {wanted:?} in {text}"),
            }
        }
        text
    }

    /// The rest of the body, and the error that broke it off, if one did.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, Option<std::io::Error>) {
        let mut body = Vec::new();
        loop {
            match self.chunk() {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => return (body, None),
                Err(error) => return (body, Some(error)),
            }
        }
    }

    /// The whole answer; it must not be broken off.
    pub(crate) fn finish(mut self) -> Response {
        let (body, error) = self.rest();
        let text = String::from_utf8_lossy(&body);
        assert!(error.is_none(), "{error:?} after {text}");
        Response {
            status: self.status,
            headers: self.headers,
            body,
        }
    }

    /// Leaves, as a client that was interrupted does.
    pub(crate) fn leave(self) {
        self.reader.get_ref().shutdown(Shutdown::Both).ok();
    }

    fn next_chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let line = line(&mut self.reader)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16)
            .map_err(|_| std::io::Error::new(ErrorKind::InvalidData, line.clone()))?;
        let mut piece = vec![0; size];
        self.reader.read_exact(&mut piece)?;
        line_end(&mut self.reader)?;
        if size == 0 {
            self.framing = Framing::Ended;
            return Ok(None);
        }
        Ok(Some(piece))
    }

    fn available(&mut self, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
        let here = self.reader.fill_buf()?;
        let length = here.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
        let piece = here[..length].to_vec();
        self.reader.consume(length);
        Ok((length > 0).then_some(piece))
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

fn head(reader: &mut BufReader<TcpStream>) -> (u16, Vec<(String, String)>) {
    let first = line(reader).expect("an answer");
    let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status in {first:?}"));
    let mut headers = Vec::new();
    loop {
        let field = line(reader).expect("a whole head");
        let Some((name, value)) = field.split_once(':') else {
            assert_eq!(field, "", "a header field");
            return (status, headers);
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn line(reader: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(text) => Ok(text.to_owned()),
        None => Err(ErrorKind::UnexpectedEof.into()),
    }
}

fn line_end(reader: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    match line(reader)?.as_str() {
        "" => Ok(()),
        other => Err(std::io::Error::new(ErrorKind::InvalidData, other)),
    }
}
