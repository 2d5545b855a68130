//! Responses before they are sent.

use std::sync::Arc;

/// Content that may be larger than memory.
#[derive(Clone)]
pub enum Content {
    Bytes(Arc<Vec<u8>>),
    /// So many zero bytes.
    Zeros(u64),
}

impl Content {
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(length) => *length,
        }
    }

    pub fn part(&self, from: u64, length: usize) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes[from as usize..from as usize + length].to_vec(),
            Self::Zeros(_) => vec![0; length],
        }
    }
}

/// An answer before it goes on its way.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<String>,
    pub body: Content,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Content::Bytes(Arc::new(body.into())),
        }
    }

    pub fn with(mut self, header: impl Into<String>) -> Self {
        self.headers.push(header.into());
        self
    }

    pub fn redirect(status: u16, location: &str) -> Self {
        Self::new(status, "").with(format!("Location: {location}"))
    }

    pub fn unauthorized(challenge: &str) -> Self {
        Self::new(
            401,
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
        )
        .with(format!("WWW-Authenticate: {challenge}"))
    }
}

/// Some of the tags, and a link to the next page where there is one.
pub fn tags(repository: &str, tags: &[String], target: &str) -> Reply {
    let query = |name: &str| {
        let (_, query) = target.split_once('?')?;
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    let begin = query("last").map_or(0, |last| {
        tags.iter().take_while(|tag| tag.as_str() <= last).count()
    });
    let most = query("n").map_or(usize::MAX, |n| n.parse().unwrap());
    let page: Vec<String> = tags[begin..]
        .iter()
        .take(most)
        .map(|tag| format!("{tag:?}"))
        .collect();
    let body = format!(r#"{{"name":{repository:?},"tags":[{}]}}"#, page.join(","));
    let reply = Reply::new(200, body);
    match tags[begin..].get(most.saturating_sub(1)) {
        Some(last) if begin.saturating_add(most) < tags.len() => reply.with(format!(
            "Link: </v2/{repository}/tags/list?last={last}&n={most}>; rel=\"next\""
        )),
        _ => reply,
    }
}
