//! One request, one answer, no second try: connections, their pool, and every limit on them.
//!
//! HTTP/1.1 only: no registry needs more, and several serve HTTP/2 wrongly. What an answer means
//! (redirects, challenges, retries) is decided above; that each wait ends and each size is bounded
//! is decided here.

mod certificate;
pub(crate) mod clock;
mod connect;
pub(crate) mod error;
pub(crate) mod http;
mod limit;
pub(crate) mod pending;
pub(crate) mod proxy;
pub(crate) mod retry;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod url;

use crate::cancel::Stop;
use crate::error::{Error, Result};
use connect::Resolver;
use error::Failure;
pub(crate) use http::Head;
use http::{Connection, Framing};
use limit::Limit;
use pending::{Pending, Wait};
use proxy::{Proxies, Proxy};
use std::net::{IpAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use stream::{Socket, Stream, TlsStream};
use tls::Trust;
use url::{Origin, Url};

/// What an unwanted body may hold so that its connection is still read out and kept.
const DRAIN: u64 = 64 << 10;
/// How long a connection without a request is kept. Servers close them after a minute or more.
const KEEP: Duration = Duration::from_secs(30);
/// The least that must come on average while a body is read, in bytes a second: of a layer, which
/// may be one of several on a slow line, and of a document, which comes alone.
const LEAST_RATE: u64 = 64;
const LEAST_RATE_OF_DOCUMENTS: u64 = 512;

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// For a connection, all addresses and the TLS handshake included.
    pub connect: Duration,
    /// For an answer's head.
    pub answer: Duration,
    /// Between two arrivals of data.
    pub idle: Duration,
}

impl Timeouts {
    pub fn from_idle(idle: Duration) -> Self {
        // Further away than a day, deadlines would only overflow.
        let idle = idle.min(Duration::from_secs(86_400));
        Self {
            connect: idle.min(Duration::from_secs(30)),
            answer: idle.saturating_mul(4),
            idle,
        }
    }
}

/// A request without a body, or with a form.
pub(crate) struct Request<'a> {
    pub url: &'a Url,
    pub method: &'static str,
    /// Complete lines without their end, such as `Accept: */*`.
    pub fields: Vec<String>,
    pub form: Option<String>,
    /// When it must have been answered, where it is one of several that share a deadline.
    pub deadline: Option<Instant>,
}

impl<'a> Request<'a> {
    pub fn get(url: &'a Url) -> Self {
        Self {
            url,
            method: "GET",
            fields: Vec::new(),
            form: None,
            deadline: None,
        }
    }

    pub fn field(mut self, name: &str, value: &str) -> Self {
        // A value with a line end in it would be a second field.
        if !value.bytes().any(|c| c.is_ascii_control()) {
            self.fields.push(format!("{name}: {value}"));
        }
        self
    }

    fn bytes(&self, proxy: Option<&Proxy>) -> Vec<u8> {
        let absolute = match proxy {
            Some(_) if !self.url.origin.secure => format!("http://{}", self.url.origin.authority()),
            _ => String::new(),
        };
        let mut text = format!(
            "{} {absolute}{} HTTP/1.1\r\nHost: {}\r\nUser-Agent: dockersave/{}\r\nAccept-Encoding: identity\r\n",
            self.method,
            self.url.target,
            self.url.origin.authority(),
            env!("CARGO_PKG_VERSION"),
        );
        let credentials = proxy
            .filter(|_| !self.url.origin.secure)
            .and_then(Proxy::authorization);
        for field in self.fields.iter().chain(credentials.iter()) {
            text.push_str(field);
            text.push_str("\r\n");
        }
        if let Some(form) = &self.form {
            text.push_str(&format!(
                "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
                form.len()
            ));
        } else {
            text.push_str("\r\n");
        }
        text.into_bytes()
    }
}

/// Tells whom to trust at an origin.
pub(crate) type TrustAt = Box<dyn Fn(&Origin) -> Result<Arc<Trust>> + Send + Sync>;

/// Makes connections and keeps them for the next request to the same origin.
pub(crate) struct Agent {
    resolver: Resolver,
    trust: TrustAt,
    trusts: Mutex<Vec<(Origin, Arc<Trust>)>>,
    proxies: Proxies,
    timeouts: Timeouts,
    idle: Mutex<Vec<(Connection, Instant)>>,
    live: Mutex<Vec<Weak<TcpStream>>>,
    limit: Option<Limit>,
    pub pending: Pending,
    pub stop: Stop,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    /// `trust` tells whom to trust at an origin; it is asked once for each, and only for TLS.
    pub fn new(timeouts: Timeouts, proxies: Proxies, trust: TrustAt) -> Self {
        Self {
            resolver: Resolver::default(),
            trust,
            trusts: Mutex::default(),
            proxies,
            timeouts,
            idle: Mutex::default(),
            live: Mutex::default(),
            limit: None,
            pending: Pending::default(),
            stop: Stop::default(),
        }
    }

    /// Reads at most so many bytes a second, over all connections.
    pub fn limit_rate(&mut self, rate: u64) {
        self.limit = Some(Limit::new(rate));
    }

    /// When a request must have been answered, with all redirects and tokens on its way.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeouts.answer * 2
    }

    /// It is this program that makes transfers slow.
    pub fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Ends every exchange under way, and every later one.
    pub fn abort(&self) {
        self.stop.set();
        self.hang_up();
    }

    /// Ends every exchange under way.
    pub fn hang_up(&self) {
        lock(&self.idle).clear();
        for socket in lock(&self.live)
            .drain(..)
            .filter_map(|socket| socket.upgrade())
        {
            stream::abort(&socket);
        }
    }

    /// The addresses that connections to an origin are made to; none where a proxy resolves it.
    pub fn addresses(&self, origin: &Origin) -> std::result::Result<Vec<IpAddr>, Failure> {
        match self.proxies.choose(origin) {
            Some(_) => Ok(Vec::new()),
            None => self.resolver.addresses(&origin.host),
        }
    }

    /// Sends a request and returns the answer, whatever its status.
    pub fn send<'a>(&'a self, request: &Request<'_>) -> std::result::Result<Response<'a>, Failure> {
        let origin = &request.url.origin;
        let proxy = self.proxies.choose(origin);
        let bytes = request.bytes(proxy);
        let no_body = request.method == "HEAD";
        loop {
            let wait = request.deadline.map_or(self.timeouts.answer, |end| {
                let left = end.saturating_duration_since(Instant::now());
                left.min(self.timeouts.answer)
            });
            if wait.is_zero() {
                return Err(Failure::Timer {
                    host: origin.to_string(),
                    what: "no answer but redirects",
                    seconds: (self.timeouts.answer * 2).as_secs(),
                });
            }
            let kept = self.kept(origin);
            let reused = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect(origin, proxy)?,
            };
            let pending = self.pending.begin("an answer from", origin);
            match connection.exchange(&bytes, no_body, wait) {
                Ok((head, framing)) => {
                    let keep = connection.is_kept(&head, framing);
                    return Ok(Response {
                        head,
                        body: Body::new(self, connection, framing, keep, pending),
                    });
                }
                // The server closed a kept connection while the request was under way: that is
                // nobody's fault, and no try (RFC 9112, section 9.3.1). Fresh ones do not loop.
                Err(Failure::Closed { .. }) if reused && !self.stop.is_set() => {}
                Err(_) if self.stop.is_set() => return Err(Error::Interrupted(0).into()),
                Err(failure) => return Err(failure),
            }
        }
    }

    fn kept(&self, origin: &Origin) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        idle.retain(|(_, since)| since.elapsed() < KEEP);
        while let Some(at) = idle
            .iter()
            .rposition(|(connection, _)| connection.origin == *origin)
        {
            let (mut connection, _) = idle.swap_remove(at);
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    fn connect(
        &self,
        origin: &Origin,
        proxy: Option<&Proxy>,
    ) -> std::result::Result<Connection, Failure> {
        if self.stop.is_set() {
            return Err(Error::Interrupted(0).into());
        }
        let end = Instant::now() + self.timeouts.connect;
        let first_hop = proxy.map_or(origin, |proxy| &proxy.origin);
        let _pending = self.pending.begin("a connection to", first_hop);
        let tcp = Arc::new(self.resolver.connect(first_hop, self.timeouts.connect)?);
        self.watch(&tcp);
        let broken = |error: std::io::Error| Failure::Connect {
            origin: origin.clone(),
            why: crate::error::plain(&error),
            refused: false,
        };
        let mut socket = Socket::new(tcp, self.timeouts.idle).map_err(broken)?;
        let least = Duration::from_secs(1);
        let wait = self.timeouts.connect.max(least);
        socket.until(end.max(Instant::now() + least), wait);
        if !origin.secure {
            return Ok(Connection::new(Stream::Plain(socket), origin.clone()));
        }
        if let Some(proxy) = proxy {
            let mut tunnel = Connection::new(Stream::Plain(socket), proxy.origin.clone());
            proxy.open_tunnel(&mut tunnel, origin, self.timeouts.answer)?;
            let Stream::Plain(plain) = tunnel.stream else {
                return Err(Failure::Protocol {
                    host: origin.to_string(),
                    why: "cannot be reached through the proxy".into(),
                });
            };
            socket = plain;
            socket.until(Instant::now() + wait, wait);
        }
        let trust = self.trust(origin)?;
        let tls =
            TlsStream::connect(&trust, socket, &origin.host).map_err(|failure| match failure {
                Failure::Timer { host, what, .. } => Failure::Timer {
                    host,
                    what,
                    seconds: self.timeouts.connect.as_secs(),
                },
                other => other,
            })?;
        Ok(Connection::new(Stream::Tls(Box::new(tls)), origin.clone()))
    }

    fn trust(&self, origin: &Origin) -> Result<Arc<Trust>> {
        let mut trusts = lock(&self.trusts);
        if let Some((_, trust)) = trusts.iter().find(|(known, _)| known == origin) {
            return Ok(trust.clone());
        }
        let trust = (self.trust)(origin)?;
        trusts.push((origin.clone(), trust.clone()));
        Ok(trust)
    }

    fn watch(&self, tcp: &Arc<TcpStream>) {
        let mut live = lock(&self.live);
        live.retain(|socket| socket.strong_count() > 0);
        live.push(Arc::downgrade(tcp));
    }
}

/// An answer: its head, and its body still to be read.
pub(crate) struct Response<'a> {
    pub head: Head,
    pub body: Body<'a>,
}

impl Response<'_> {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.fields.get(name)
    }
}

/// A body that is read once; its connection goes back to the pool at the body's end.
pub(crate) struct Body<'a> {
    agent: &'a Agent,
    connection: Option<Connection>,
    framing: Framing,
    keep: bool,
    received: u64,
    /// The bytes that had come when the rate was last looked at, and the time spent on reading
    /// since then: time between reads is not the sender's.
    before: u64,
    spent: Duration,
    /// Bytes a second that must come.
    least: u64,
    /// When all of it must have come.
    deadline: Option<Instant>,
    /// Whoever waits for it waits for its sender, unless it is this program that is slow.
    pending: Option<Wait<'a>>,
}

/// The capacity for a large document, so that its memory goes back to the system with it. glibc
/// gives only what is larger than 32 MiB pages of its own once others were freed (mallopt(3),
/// M_MMAP_THRESHOLD); musl does so from 128 KiB on.
fn alone(limit: u64) -> usize {
    let least = if cfg!(target_env = "gnu") {
        33 << 20
    } else {
        0
    };
    (limit as usize).max(least)
}

impl<'a> Body<'a> {
    fn new(
        agent: &'a Agent,
        connection: Connection,
        framing: Framing,
        keep: bool,
        pending: Wait<'a>,
    ) -> Self {
        let mut body = Self {
            agent,
            connection: Some(connection),
            framing,
            keep,
            received: 0,
            before: 0,
            spent: Duration::ZERO,
            least: LEAST_RATE,
            deadline: None,
            pending: Some(pending).filter(|_| agent.limit.is_none()),
        };
        body.give_back();
        body
    }

    /// The body's length, where the answer states it.
    pub fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(left) => Some(left),
            Framing::Done if self.received == 0 => Some(0),
            _ => None,
        }
    }

    /// Who sends it.
    pub fn host(&self) -> String {
        let connection = self.connection.as_ref();
        connection.map_or(String::new(), |connection| connection.origin.to_string())
    }

    /// It comes through TLS.
    pub fn is_encrypted(&self) -> bool {
        let stream = self
            .connection
            .as_ref()
            .map(|connection| &connection.stream);
        matches!(stream, Some(Stream::Tls(_)))
    }

    /// The socket, so that another thread can end the reading.
    pub fn socket(&mut self) -> Option<Arc<TcpStream>> {
        self.connection
            .as_mut()
            .map(|connection| connection.stream.socket().shared().clone())
    }

    /// Reads some bytes; 0 at the end. A body that ends too early is a failure, and so is one of
    /// which next to nothing comes: whatever the sender puts around its bytes does not count.
    pub fn read(&mut self, buffer: &mut [u8]) -> std::result::Result<usize, Failure> {
        let idle = self.agent.timeouts.idle;
        let Some(connection) = &mut self.connection else {
            return Ok(0);
        };
        let most = match &self.agent.limit {
            Some(limit) => buffer.len().min(limit.portion()),
            None => buffer.len(),
        };
        let buffer = &mut buffer[..most];
        let (begin, window) = (Instant::now(), idle * 2);
        let end = begin + window.saturating_sub(self.spent);
        let end = self.deadline.map_or(end, |deadline| deadline.min(end));
        connection.stream.socket().until(end, idle);
        let read = match connection.body(&mut self.framing, buffer, idle) {
            Ok(read) => read,
            Err(failure) => {
                self.connection = None;
                return Err(match failure {
                    _ if self.agent.stop.is_set() => Error::Interrupted(0).into(),
                    Failure::Timer { host, .. } if self.spent + begin.elapsed() >= window => {
                        Failure::Timer {
                            host,
                            what: "almost no data",
                            seconds: window.as_secs(),
                        }
                    }
                    other => other,
                });
            }
        };
        self.received += read as u64;
        self.spent += begin.elapsed();
        // A byte a second is no idle connection, but no transfer either: without so many in a
        // window, the next read has no time left.
        if self.received - self.before >= self.least * window.as_secs().max(1) {
            (self.before, self.spent) = (self.received, Duration::ZERO);
        }
        if let Some(limit) = &self.agent.limit {
            let wait = limit.take(read as u64);
            if !self.agent.stop.sleep(wait) {
                return Err(Error::Interrupted(0).into());
            }
        }
        self.give_back();
        Ok(read)
    }

    fn give_back(&mut self) {
        if self.framing == Framing::Done
            && let Some(connection) = self.connection.take()
        {
            self.pending = None;
            if self.keep {
                lock(&self.agent.idle).push((connection, Instant::now()));
            }
        }
    }

    /// The whole body, of at most `limit` bytes.
    pub fn document(&mut self, limit: u64, what: &str) -> std::result::Result<Vec<u8>, Failure> {
        self.least = LEAST_RATE_OF_DOCUMENTS;
        let too_large = || {
            Failure::Final(Error::TooLarge {
                what: what.to_owned(),
                limit,
            })
        };
        if self.length().is_some_and(|length| length > limit) {
            self.connection = None;
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        let mut part = [0; 16 << 10];
        loop {
            let read = self.read(&mut part)?;
            if read == 0 {
                bytes.shrink_to_fit();
                return Ok(bytes);
            }
            if (bytes.len() + read) as u64 > limit {
                self.connection = None;
                return Err(too_large());
            }
            if bytes.len() > 512 << 10 && bytes.capacity() < bytes.len() + read {
                // Doubling would hold the old and the new one at once; untouched room costs nothing.
                bytes.reserve_exact(alone(limit) - bytes.len());
            }
            bytes.extend_from_slice(&part[..read]);
        }
    }

    /// The body, or its first `limit` bytes.
    pub fn at_most(&mut self, limit: u64) -> std::result::Result<Vec<u8>, Failure> {
        self.least = LEAST_RATE_OF_DOCUMENTS;
        let large = limit > 512 << 10;
        let mut bytes = Vec::with_capacity(if large { alone(limit) } else { limit as usize });
        let mut part = [0; 16 << 10];
        while (bytes.len() as u64) < limit {
            let most = (limit - bytes.len() as u64).min(part.len() as u64) as usize;
            match self.read(&mut part[..most])? {
                0 => {
                    bytes.shrink_to_fit();
                    return Ok(bytes);
                }
                read => bytes.extend_from_slice(&part[..read]),
            }
        }
        self.connection = None;
        Ok(bytes)
    }

    /// What can be had of an error's body, without a failure of its own.
    pub fn excerpt(&mut self, limit: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        let patience = Duration::from_secs(10).min(self.agent.timeouts.idle);
        self.deadline = Some(Instant::now() + patience);
        while bytes.len() < limit {
            match self.read(&mut part) {
                Ok(0) | Err(_) => break,
                Ok(read) => bytes.extend_from_slice(&part[..read]),
            }
        }
        bytes.truncate(limit);
        bytes
    }

    /// Reads a small rest so that the connection can be kept; a large one is not worth it.
    pub fn drain(mut self) {
        if self.keep && self.length().is_none_or(|length| length <= DRAIN) {
            let _ = self.excerpt(DRAIN as usize + 1);
        }
    }
}
