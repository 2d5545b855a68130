//! Requests, read by hand.

use super::{Seen, Stream};

/// The next request on this connection; `None` at its end.
pub fn read(stream: &mut dyn Stream, ahead: &mut Vec<u8>, connection: u64) -> Option<Seen> {
    let end = loop {
        if let Some(at) = ahead.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return None,
            // TLS on a plain port is answered as other servers do.
            Ok(_) if ahead.is_empty() && part[0] == 0x16 => {
                let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nThis is plain HTTP.\n");
                return None;
            }
            Ok(length) => ahead.extend_from_slice(&part[..length]),
        }
    };
    let head = String::from_utf8(ahead.drain(..end).collect()).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, n)| n.parse().unwrap());
    while ahead.len() < length {
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return None,
            Ok(length) => ahead.extend_from_slice(&part[..length]),
        }
    }
    let body = String::from_utf8(ahead.drain(..length).collect()).ok()?;
    Some(Seen {
        method,
        target,
        headers,
        body,
        connection,
        sent: 0,
        status: 0,
    })
}
