//! The byte stream to one peer, plain or TLS, with a timeout for every wait.
//!
//! Both are read directly into the caller's buffer; TLS records are decrypted in place in a buffer
//! for several of them, so that one system call brings up to 64 KiB.

use super::error::Failure;
use super::tls;
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The TLS read buffer: four records of the largest size.
const INCOMING: usize = 64 << 10;
/// A record cannot be larger than this (RFC 8446, section 5.2), and must fit the buffer.
const RECORD: usize = 16_640;
/// The largest size of a request or handshake message.
const OUTGOING: usize = 32 << 10;

/// A socket with timeouts: an idle time for each read, a deadline for several together.
///
/// Only the deadline bounds a peer that sends a byte now and then, such as of an incomplete TLS
/// record.
pub(crate) struct Socket {
    tcp: Arc<TcpStream>,
    idle: Duration,
    deadline: Instant,
    set: Option<Duration>,
}

impl Socket {
    pub fn new(tcp: Arc<TcpStream>, idle: Duration) -> io::Result<Self> {
        tcp.set_write_timeout(Some(idle))?;
        Ok(Self {
            tcp,
            idle,
            deadline: Instant::now() + idle,
            set: None,
        })
    }

    /// From now on reads fail at `deadline`, or after `idle` without data.
    pub fn until(&mut self, deadline: Instant, idle: Duration) {
        self.deadline = deadline;
        self.idle = idle;
    }

    pub fn shared(&self) -> &Arc<TcpStream> {
        &self.tcp
    }

    fn arm(&mut self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let wait = left.min(self.idle);
        if wait.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if self.set != Some(wait) {
            self.tcp.set_read_timeout(Some(wait))?;
            self.set = Some(wait);
        }
        Ok(())
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.arm()?;
        loop {
            match (&*self.tcp).read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                other => return other,
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match (&*self.tcp).write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::ErrorKind::TimedOut.into())
            }
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One connection's bytes.
pub(crate) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream>),
}

impl Stream {
    pub fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &mut tls.socket,
        }
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }

    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all(bytes),
            Self::Tls(tls) => tls.write_all(bytes),
        }
    }

    /// Whether it can take another request: nothing unread, and the peer has not closed.
    pub fn is_quiet(&mut self) -> bool {
        if let Self::Tls(tls) = self
            && (tls.closed || tls.begin < tls.end || tls.taken < tls.plain.len())
        {
            return false;
        }
        let tcp = &self.socket().tcp;
        if tcp.set_nonblocking(true).is_err() {
            return false;
        }
        let quiet =
            matches!(tcp.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        tcp.set_nonblocking(false).is_ok() && quiet
    }
}

/// The client side of a TLS connection over a socket.
pub(crate) struct TlsStream {
    connection: UnbufferedClientConnection,
    socket: Socket,
    /// Received but not yet decrypted: `incoming[begin..end]`.
    incoming: Box<[u8]>,
    begin: usize,
    end: usize,
    /// Decrypted, but too long for the caller's buffer: `plain[taken..]`.
    plain: Vec<u8>,
    taken: usize,
    closed: bool,
}

/// What the protocol wants next.
enum Next {
    Data,
    Input,
    Again,
    Ready,
    Closed,
}

impl TlsStream {
    /// Does the handshake, bounded by the socket's deadline.
    pub fn connect(trust: &tls::Trust, socket: Socket, host: &str) -> Result<Self, Failure> {
        let connection = trust.client(host)?;
        let mut stream = Self {
            connection,
            socket,
            incoming: vec![0; INCOMING].into_boxed_slice(),
            begin: 0,
            end: 0,
            plain: Vec::new(),
            taken: 0,
            closed: false,
        };
        loop {
            match stream.step(&mut []) {
                Ok((Next::Ready, _)) => return Ok(stream),
                Ok((Next::Closed, _)) => {
                    return Err(Failure::Closed {
                        host: host.to_owned(),
                        why: "closed the connection during the TLS handshake".into(),
                    });
                }
                Ok((Next::Input, _)) => {
                    stream.fill().map_err(|error| trust.explain(host, &error))?
                }
                Ok(_) => {}
                Err(error) => return Err(trust.explain(host, &error)),
            }
        }
    }

    /// Advances the protocol with what was received: decrypts into `buffer`, or sends what is due.
    fn step(&mut self, buffer: &mut [u8]) -> io::Result<(Next, usize)> {
        let incoming = &mut self.incoming[self.begin..self.end];
        let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(incoming);
        let mut copied = 0;
        let next = match state.map_err(tls::as_io)? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(tls::as_io)?;
                    discard += record.discard;
                    let fits = record.payload.len().min(buffer.len() - copied);
                    buffer[copied..copied + fits].copy_from_slice(&record.payload[..fits]);
                    self.plain.extend_from_slice(&record.payload[fits..]);
                    copied += fits;
                }
                Next::Data
            }
            ConnectionState::EncodeTlsData(mut data) => {
                let mut out = vec![0; OUTGOING];
                let length = data.encode(&mut out).map_err(io::Error::other)?;
                // rustls has a separate state for sending; sending right away is equivalent.
                self.socket.write_all(&out[..length])?;
                Next::Again
            }
            ConnectionState::TransmitTlsData(transmit) => {
                transmit.done();
                Next::Again
            }
            ConnectionState::WriteTraffic(_) => Next::Ready,
            ConnectionState::BlockedHandshake => Next::Input,
            ConnectionState::PeerClosed | ConnectionState::Closed => {
                self.closed = true;
                Next::Closed
            }
            _ => return Err(io::Error::other("an unexpected TLS state")),
        };
        self.begin += discard;
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
        Ok((next, copied))
    }

    /// Reads more from the socket; a record must fit in the buffer.
    fn fill(&mut self) -> io::Result<()> {
        if self.incoming.len() - self.end < RECORD && self.begin > 0 {
            self.incoming.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
        }
        if self.end == self.incoming.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a TLS message larger than its buffer",
            ));
        }
        let length = self.socket.read(&mut self.incoming[self.end..])?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.end += length;
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken < self.plain.len() {
            let length = buffer.len().min(self.plain.len() - self.taken);
            buffer[..length].copy_from_slice(&self.plain[self.taken..self.taken + length]);
            self.taken += length;
            if self.taken == self.plain.len() {
                self.plain.clear();
                self.taken = 0;
            }
            return Ok(length);
        }
        let mut read = 0;
        loop {
            if self.closed {
                return Ok(read);
            }
            let (next, copied) = self.step(&mut buffer[read..])?;
            read += copied;
            match next {
                Next::Data | Next::Again if read == buffer.len() || !self.plain.is_empty() => {
                    return Ok(read);
                }
                Next::Input | Next::Ready if read > 0 => return Ok(read),
                Next::Input | Next::Ready => self.fill()?,
                Next::Data | Next::Again | Next::Closed => {}
            }
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(16 << 10) {
            loop {
                let incoming = &mut self.incoming[self.begin..self.end];
                let UnbufferedStatus { discard, state } =
                    self.connection.process_tls_records(incoming);
                let sent = match state.map_err(tls::as_io)? {
                    ConnectionState::WriteTraffic(mut traffic) => {
                        let mut out = vec![0; part.len() + 1024];
                        let length = traffic.encrypt(part, &mut out).map_err(io::Error::other)?;
                        self.socket.write_all(&out[..length])?;
                        true
                    }
                    ConnectionState::EncodeTlsData(mut data) => {
                        let mut out = vec![0; OUTGOING];
                        let length = data.encode(&mut out).map_err(io::Error::other)?;
                        self.socket.write_all(&out[..length])?;
                        false
                    }
                    ConnectionState::TransmitTlsData(transmit) => {
                        transmit.done();
                        false
                    }
                    _ => return Err(io::ErrorKind::BrokenPipe.into()),
                };
                self.begin += discard;
                if sent {
                    break;
                }
            }
        }
        Ok(())
    }
}
