//! Misbehaviour as data: what to do, to which request, how often.

use super::{Content, Reply, Seen};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// What to do instead of answering well. Several may hold for one request.
#[derive(Clone)]
pub enum Action {
    /// This answer instead.
    Reply(Reply),
    /// Resets the connection after so many bytes of the body.
    Reset(u64),
    /// Closes it cleanly after so many.
    Close(u64),
    /// Sends so many, then nothing for so long.
    Stall(u64, Duration),
    /// Waits before the head.
    Delay(Duration),
    /// A byte at a time, so long apart.
    Drip(Duration),
    /// The first bytes at once instead of an answer, then the others again and again, so long
    /// apart.
    Trickle(Vec<u8>, Vec<u8>, Duration),
    /// One bit of this byte of the body is wrong.
    Flip(u64),
    /// Ranges are ignored.
    NoRange,
    /// These Content-Range fields instead of the right one.
    ContentRange(Vec<String>),
    /// The body in chunks of this size.
    Chunked(usize),
    /// HTTP/1.0, the body ends with the connection.
    Old,
    /// So many bytes more than there are, chunked.
    Longer(u64),
    /// This Content-Length.
    Length(u64),
    /// These bytes instead of an answer, then close.
    Raw(Vec<u8>),
    /// These bytes before the answer.
    Before(Vec<u8>),
    /// One more field.
    Header(String),
    /// Closes after the answer, without having said so.
    CloseAfter,
    /// Closes after the answer, and says so.
    SayClose,
    /// Fields without end.
    EndlessHead,
    /// A body without end, chunked.
    EndlessBody,
}

/// An action for the requests whose path holds a text.
#[derive(Clone)]
pub struct Fault {
    pub path: String,
    pub action: Action,
    pub skip: usize,
    pub times: usize,
    pub used: bool,
    only_ranges: bool,
    every: usize,
    met: usize,
    odd_connections: bool,
    above: usize,
}

impl Fault {
    pub fn new(path: &str, action: Action) -> Self {
        Self {
            path: path.to_owned(),
            action,
            skip: 0,
            times: 1,
            used: false,
            only_ranges: false,
            every: 1,
            met: 0,
            odd_connections: false,
            above: 0,
        }
    }

    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }

    pub fn skip(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    /// Only for requests with a Range field.
    pub fn ranges(mut self) -> Self {
        self.only_ranges = true;
        self
    }

    /// Only each second, third… request that fits otherwise.
    pub fn every(mut self, nth: usize) -> Self {
        self.every = nth;
        self
    }

    /// Only on every second connection; the first one is well.
    pub fn odd_connections(mut self) -> Self {
        self.odd_connections = true;
        self
    }

    /// Only while more than so many requests are being answered, this one among them.
    pub fn above(mut self, requests: usize) -> Self {
        self.above = requests;
        self
    }

    /// Does it hold for this request, while so many are being answered? Counts those it fits.
    pub fn fits(&mut self, seen: &Seen, active: usize) -> bool {
        let fits = seen.target.contains(&self.path)
            && (!self.only_ranges || seen.header("range").is_some())
            && (!self.odd_connections || seen.connection % 2 == 1)
            && (self.above == 0 || active > self.above);
        self.met += usize::from(fits);
        fits && self.met.is_multiple_of(self.every)
    }
}

/// Answers a closed or open range with 206, or 416 where it is none.
pub fn cut_range(reply: &mut Reply, range: &str) {
    let size = reply.body.len();
    let parts = range
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'));
    let Some((first, last)) = parts else { return };
    let first: u64 = first.parse().unwrap();
    let last: u64 = if last.is_empty() {
        size.saturating_sub(1)
    } else {
        last.parse().unwrap()
    };
    // Like crane's own registry: open ranges and ends behind the end are refused.
    if range.ends_with('-') || last >= size || first > last {
        *reply = Reply::new(416, "");
        return;
    }
    reply.status = 206;
    reply
        .headers
        .push(format!("Content-Range: bytes {first}-{last}/{size}"));
    reply.body = match &reply.body {
        Content::Bytes(bytes) => Content::Bytes(std::sync::Arc::new(
            bytes[first as usize..=last as usize].to_vec(),
        )),
        Content::Zeros(_) => Content::Zeros(last - first + 1),
    };
}

/// Sends an answer with its faults; `false` when the connection is to end.
pub fn send(
    stream: &mut dyn super::Stream,
    socket: &TcpStream,
    seen: &Seen,
    reply: &Reply,
    actions: &[Action],
    pace: u64,
    note: &dyn Fn(u64),
) -> bool {
    let mut plan = Plan::new(seen, reply, pace);
    for action in actions {
        plan.apply(action);
    }
    let outcome = plan.run(stream, socket, reply, note);
    matches!(outcome, Ok(true))
}

struct Plan {
    head: String,
    length: Option<u64>,
    chunk: Option<usize>,
    old: bool,
    reset: Option<u64>,
    close: Option<u64>,
    stall: Option<(u64, Duration)>,
    delay: Option<Duration>,
    drip: Option<Duration>,
    flip: Option<u64>,
    extra: u64,
    trickle: Option<(Vec<u8>, Vec<u8>, Duration)>,
    raw: Option<Vec<u8>>,
    before: Vec<u8>,
    keep: bool,
    endless_head: bool,
    endless_body: bool,
    no_body: bool,
    pace: u64,
}

impl Plan {
    fn new(seen: &Seen, reply: &Reply, pace: u64) -> Self {
        let mut head = format!("HTTP/1.1 {} Status\r\n", reply.status);
        for header in &reply.headers {
            head.push_str(&format!("{header}\r\n"));
        }
        Self {
            head,
            length: Some(reply.body.len()),
            chunk: None,
            old: false,
            reset: None,
            close: None,
            stall: None,
            delay: None,
            drip: None,
            flip: None,
            extra: 0,
            trickle: None,
            raw: None,
            before: Vec::new(),
            keep: true,
            endless_head: false,
            endless_body: false,
            no_body: seen.method == "HEAD",
            pace,
        }
    }

    fn apply(&mut self, action: &Action) {
        match action.clone() {
            Action::Reply(_) | Action::NoRange => {}
            Action::Reset(at) => self.reset = Some(at),
            Action::Close(at) => self.close = Some(at),
            Action::Stall(at, wait) => self.stall = Some((at, wait)),
            Action::Delay(wait) => self.delay = Some(wait),
            Action::Drip(wait) => self.drip = Some(wait),
            Action::Trickle(first, then, pause) => self.trickle = Some((first, then, pause)),
            Action::Flip(at) => self.flip = Some(at),
            Action::ContentRange(fields) => {
                self.head = self
                    .head
                    .split_inclusive("\r\n")
                    .filter(|line| !line.starts_with("Content-Range"))
                    .collect();
                for field in fields {
                    self.head.push_str(&format!("Content-Range: {field}\r\n"));
                }
            }
            Action::Chunked(size) => self.chunk = Some(size),
            Action::Old => {
                self.head = self.head.replacen("HTTP/1.1", "HTTP/1.0", 1);
                self.old = true;
            }
            Action::Longer(extra) => {
                self.extra = extra;
                self.chunk = Some(4096);
            }
            Action::Length(length) => self.length = Some(length),
            Action::Raw(bytes) => self.raw = Some(bytes),
            Action::Before(bytes) => self.before = bytes,
            Action::Header(line) => self.head.push_str(&format!("{line}\r\n")),
            Action::CloseAfter => self.keep = false,
            Action::SayClose => {
                self.head.push_str("Connection: close\r\n");
                self.keep = false;
            }
            Action::EndlessHead => self.endless_head = true,
            Action::EndlessBody => {
                self.endless_body = true;
                self.chunk = Some(4096);
            }
        }
    }

    fn run(
        mut self,
        stream: &mut dyn super::Stream,
        socket: &TcpStream,
        reply: &Reply,
        note: &dyn Fn(u64),
    ) -> std::io::Result<bool> {
        std::thread::sleep(self.delay.unwrap_or_default());
        if let Some(raw) = &self.raw {
            stream.write_all(raw)?;
            stream.flush()?;
            // Unread bytes would turn the close into a reset, so the other side closes first.
            socket.shutdown(std::net::Shutdown::Write)?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            while matches!(std::io::Read::read(stream, &mut [0; 1024]), Ok(1..)) {}
            return Ok(false);
        }
        if let Some((first, then, pause)) = &self.trickle {
            stream.write_all(first)?;
            loop {
                stream.write_all(then)?;
                stream.flush()?;
                std::thread::sleep(*pause);
            }
        }
        stream.write_all(&self.before)?;
        if self.chunk.is_some() {
            self.head.push_str("Transfer-Encoding: chunked\r\n");
        } else if !self.old {
            self.head
                .push_str(&format!("Content-Length: {}\r\n", self.length.unwrap_or(0)));
        }
        stream.write_all(self.head.as_bytes())?;
        if self.endless_head {
            loop {
                stream.write_all(b"X-More: and more\r\n")?;
            }
        }
        stream.write_all(b"\r\n")?;
        if self.no_body {
            return Ok(self.keep);
        }
        self.body(stream, socket, reply, note)
    }

    fn body(
        &self,
        stream: &mut dyn super::Stream,
        socket: &TcpStream,
        reply: &Reply,
        note: &dyn Fn(u64),
    ) -> std::io::Result<bool> {
        let size = reply.body.len();
        let begin = Instant::now();
        let mut sent = 0;
        while sent < size + self.extra || self.endless_body {
            let stop = [self.reset, self.close, self.stall.map(|(at, _)| at)]
                .into_iter()
                .flatten()
                .min();
            if stop.is_some_and(|stop| sent >= stop) {
                stream.flush()?;
                return self.stop(socket, sent);
            }
            let most = if self.drip.is_some() {
                1
            } else {
                self.chunk.unwrap_or(16 << 10) as u64
            };
            let total = if self.endless_body {
                u64::MAX
            } else {
                size + self.extra
            };
            let mut length =
                most.min(total - sent)
                    .min(stop.map_or(u64::MAX, |stop| stop - sent)) as usize;
            if sent < size {
                length = length.min((size - sent) as usize);
            }
            let mut part = if sent < size {
                reply.body.part(sent, length)
            } else {
                vec![b'x'; length]
            };
            if let Some(flip) = self
                .flip
                .filter(|flip| (sent..sent + length as u64).contains(flip))
            {
                part[(flip - sent) as usize] ^= 1;
            }
            if self.chunk.is_some() {
                stream.write_all(format!("{length:x};ext=1\r\n").as_bytes())?;
                stream.write_all(&part)?;
                stream.write_all(b"\r\n")?;
            } else {
                stream.write_all(&part)?;
            }
            sent += length as u64;
            note(sent);
            if let Some(wait) = self.drip {
                stream.flush()?;
                std::thread::sleep(wait);
            }
            if self.pace > 0 {
                let due = Duration::from_secs_f64(sent as f64 / self.pace as f64);
                std::thread::sleep(due.saturating_sub(begin.elapsed()));
            }
        }
        if self.chunk.is_some() {
            stream.write_all(b"0\r\nX-Trailer: yes\r\n\r\n")?;
        }
        stream.flush()?;
        Ok(self.keep && !self.old && self.length.is_none_or(|length| length == size))
    }

    fn stop(&self, socket: &TcpStream, sent: u64) -> std::io::Result<bool> {
        if let Some((at, wait)) = self.stall.filter(|(at, _)| *at <= sent) {
            let _ = at;
            std::thread::sleep(wait);
        }
        if self.reset.is_some_and(|at| at <= sent) {
            // What was written is on its way before the reset overtakes it.
            std::thread::sleep(Duration::from_millis(30));
            rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO))?;
        }
        Ok(false)
    }
}
