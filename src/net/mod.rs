//! One request, one response, no retries: connections, their pool, and all their limits.
//!
//! HTTP/1.1 only: no registry needs more, and several serve HTTP/2 wrongly. Callers handle
//! redirects, challenges and retries; this module ensures that every wait ends and every size is
//! bounded.

mod certificate;
pub(crate) mod clock;
mod connect;
pub(crate) mod error;
pub(crate) mod http;
mod limit;
pub(crate) mod pending;
mod provider;
pub(crate) mod proxy;
pub(crate) mod retry;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod url;

use crate::cancel::{CancelToken, Sockets, Stop};
use crate::error::{Error, Result};
use crate::sync::lock;
use connect::Resolver;
use error::Failure;
pub(crate) use http::Head;
use http::{Connection, Framing};
use limit::Limit;
use pending::{Pending, Wait};
use proxy::{Proxies, Proxy};
use std::net::{IpAddr, TcpStream};
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use stream::{Socket, Stream, TlsStream};
use tls::Trust;
use url::{Origin, Url};

/// The largest unwanted body that is drained to keep the connection.
const DRAIN: u64 = 64 << 10;
/// How long an idle connection is kept. Servers close them after a minute or more.
const KEEP: Duration = Duration::from_secs(30);
/// The lowest average rate of a body in bytes per second: of a layer, which may share a slow line
/// with others, and of a document, which comes alone.
const LEAST_RATE: u64 = 64;
const LEAST_RATE_OF_DOCUMENTS: u64 = 512;

/// Timeouts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// For a connection, including all addresses and the TLS handshake.
    pub connect: Duration,
    /// For a response header.
    pub answer: Duration,
    /// Between two arrivals of data.
    pub idle: Duration,
}

impl Timeouts {
    pub fn from_idle(idle: Duration) -> Self {
        // Deadlines beyond a day could overflow.
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
    /// Complete header lines without line ends, such as `Accept: */*`.
    pub fields: Vec<String>,
    pub form: Option<String>,
    /// Its deadline, if it shares one with other requests.
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
        // A line end in a value would inject a field.
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

/// Chooses whom to trust at an origin.
pub(crate) type TrustAt = Box<dyn Fn(&Origin) -> Result<Arc<Trust>> + Send + Sync>;

/// Opens connections and keeps them for the next request to the same origin. Views of one agent
/// share all but what cancels them.
pub(crate) struct Agent {
    shared: Arc<Shared>,
    /// The connections in use through this view.
    live: Arc<Sockets>,
    cancel: CancelToken,
}

pub(crate) struct Shared {
    resolver: Resolver,
    trust: TrustAt,
    trusts: Mutex<Vec<(Origin, Arc<Trust>)>>,
    proxies: Proxies,
    timeouts: Timeouts,
    idle: Mutex<Vec<(Connection, Instant)>>,
    limit: Option<Limit>,
    pub pending: Pending,
}

/// A view of its own: what hangs up on one of them leaves the others alone.
impl Clone for Agent {
    fn clone(&self) -> Self {
        self.cancelled_by(&self.cancel)
    }
}

impl Deref for Agent {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Agent {
    /// `trust` chooses whom to trust at an origin; called once for each, and only for TLS. `rate`
    /// limits the bytes per second of all connections together.
    pub fn new(timeouts: Timeouts, proxies: Proxies, trust: TrustAt, rate: Option<u64>) -> Self {
        let cancel = CancelToken::new();
        Self {
            shared: Arc::new(Shared {
                resolver: Resolver::default(),
                trust,
                trusts: Mutex::default(),
                proxies,
                timeouts,
                idle: Mutex::default(),
                limit: rate.map(Limit::new),
                pending: Pending::default(),
            }),
            live: cancel.sockets(),
            cancel,
        }
    }

    /// The same agent, cancelled by another token.
    pub fn cancelled_by(&self, token: &CancelToken) -> Self {
        Self {
            shared: self.shared.clone(),
            live: token.sockets(),
            cancel: token.clone(),
        }
    }

    pub fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    pub fn stop(&self) -> &Stop {
        self.cancel.stop()
    }

    /// The deadline for a request, including all redirects and tokens.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeouts.answer * 2
    }

    /// Whether a rate limit slows transfers down.
    pub fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Ends every exchange in progress through this view.
    pub fn hang_up(&self) {
        self.live.shut_down();
    }

    /// The addresses of an origin; none if a proxy resolves it.
    pub fn addresses(&self, origin: &Origin) -> std::result::Result<Vec<IpAddr>, Failure> {
        match self.proxies.choose(origin) {
            Some(_) => Ok(Vec::new()),
            None => self.resolver.addresses(&origin.host),
        }
    }

    /// Sends a request and returns the response, whatever its status.
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
                // The server closed a kept connection meanwhile: that does not count as an attempt
                // (RFC 9112, section 9.3.1). Fresh connections do not loop.
                Err(Failure::Closed { .. }) if reused && !self.stop().is_set() => {}
                Err(_) if self.stop().is_set() => return Err(Error::Cancelled.into()),
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
                self.watch(connection.stream.socket().shared());
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
        if self.stop().is_set() {
            return Err(Error::Cancelled.into());
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

    /// The connection is in use now; a token that was cancelled meanwhile ends it at once.
    fn watch(&self, tcp: &Arc<TcpStream>) {
        self.live.add(tcp);
        if self.stop().is_set() {
            self.hang_up();
        }
    }
}

/// A response: its header, and its body still to be read.
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

/// A body that is read once; at its end the connection returns to the pool.
pub(crate) struct Body<'a> {
    agent: &'a Agent,
    connection: Option<Connection>,
    framing: Framing,
    keep: bool,
    received: u64,
    /// The bytes received when the rate was last checked, and the time spent reading since: time
    /// between reads is not the sender's.
    before: u64,
    spent: Duration,
    /// The lowest rate in bytes per second.
    least: u64,
    /// The deadline for the whole body.
    deadline: Option<Instant>,
    /// Whoever waits for it waits for its sender, unless it is this program that is slow.
    pending: Option<Wait<'a>>,
}

/// The capacity for a large document, chosen so that its memory returns to the system. After frees,
/// glibc uses separate pages only for more than 32 MiB (mallopt(3), M_MMAP_THRESHOLD), musl from
/// 128 KiB.
fn alone(limit: u64) -> usize {
    let least = if cfg!(target_env = "gnu") {
        33 << 20
    } else {
        0
    };
    (limit as usize).max(least)
}

/// An empty buffer for up to `limit` bytes. It never grows: doubling would hold both buffers at
/// once, and untouched memory costs nothing.
pub(crate) fn buffer(limit: u64) -> Vec<u8> {
    let large = limit > 512 << 10;
    Vec::with_capacity(if large { alone(limit) } else { limit as usize })
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

    /// The body's length, if the response states it.
    pub fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(left) => Some(left),
            Framing::Done if self.received == 0 => Some(0),
            _ => None,
        }
    }

    /// The sender's host.
    pub fn host(&self) -> String {
        let connection = self.connection.as_ref();
        connection.map_or(String::new(), |connection| connection.origin.to_string())
    }

    /// The socket, so that another thread can end the reading.
    pub fn socket(&mut self) -> Option<Arc<TcpStream>> {
        self.connection
            .as_mut()
            .map(|connection| connection.stream.socket().shared().clone())
    }

    /// Reads some bytes; 0 at the end. A truncated body is a failure, and so is one that only
    /// trickles: framing bytes do not count.
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
                    _ if self.agent.stop().is_set() => Error::Cancelled.into(),
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
        // A byte per second is not idle, but not a transfer either: with too few bytes in a window,
        // the next read times out.
        if self.received - self.before >= self.least * window.as_secs().max(1) {
            (self.before, self.spent) = (self.received, Duration::ZERO);
        }
        if let Some(limit) = &self.agent.limit {
            let wait = limit.take(read as u64);
            if !self.agent.stop().sleep(wait) {
                return Err(Error::Cancelled.into());
            }
        }
        self.give_back();
        Ok(read)
    }

    fn give_back(&mut self) {
        if self.framing == Framing::Done
            && let Some(mut connection) = self.connection.take()
        {
            self.pending = None;
            if self.keep {
                let socket = connection.stream.socket().shared();
                self.agent.live.remove(socket);
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
                // Doubling would hold both buffers at once; untouched memory costs nothing.
                bytes.reserve_exact(alone(limit) - bytes.len());
            }
            bytes.extend_from_slice(&part[..read]);
        }
    }

    /// The body, or its first `limit` bytes.
    pub fn at_most(&mut self, limit: u64) -> std::result::Result<Vec<u8>, Failure> {
        self.least = LEAST_RATE_OF_DOCUMENTS;
        let mut bytes = buffer(limit);
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

    /// As much of an error's body as can be read, ignoring failures.
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

    /// Drains a small rest so that the connection can be kept; a large one is not worth it.
    pub fn drain(mut self) {
        if self.keep && self.length().is_none_or(|length| length <= DRAIN) {
            let _ = self.excerpt(DRAIN as usize + 1);
        }
    }
}
