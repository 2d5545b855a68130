//! All tags of a repository, page by page, without loops.

use super::{Ask, Repository};
use crate::error::{Error, Result};
use crate::json::Strings;
use crate::net::url::Url;
use std::collections::HashSet;

/// The most of one page that is read, in bytes.
const PAGE_LIMIT: u64 = 4 << 20;
/// The most pages that are read.
const PAGES: usize = 10_000;

/// The tags of a repository, in the registry's order.
pub struct Tags<'a> {
    repository: Repository<'a>,
    next: Option<Url>,
    pages: usize,
    seen: HashSet<u64>,
    /// What is left of the page; as text it takes a fraction of the memory of its tags.
    page: Strings<'static>,
    /// The page brought a tag that was not known before.
    news: bool,
}

impl<'a> Repository<'a> {
    /// The tags of this repository; each page is asked for when it is needed.
    pub fn tags(self) -> Tags<'a> {
        // 1000 is the most that ECR takes.
        let next = Some(self.url("/tags/list?n=1000"));
        Tags {
            repository: self,
            next,
            pages: 0,
            seen: HashSet::new(),
            page: Strings::default(),
            news: true,
        }
    }
}

impl Tags<'_> {
    fn page(&mut self, url: &Url) -> Result<()> {
        let what = format!("the tags of {}", self.repository.reference.name());
        let ask = Ask {
            accept: &["application/json"],
            ..Ask::default()
        };
        let (bytes, link) = self
            .repository
            .client
            .again(&format!("asking for {what}"), || {
                let mut response = self.repository.send(url, ask)?;
                let bytes = response.body.document(PAGE_LIMIT, &what)?;
                let links: Vec<String> = response
                    .head
                    .fields
                    .all("link")
                    .map(str::to_owned)
                    .collect();
                Ok((bytes, links))
            })?;
        self.page = Strings::member(bytes.into(), &["tags"], &what)?;
        self.news = false;
        self.pages += 1;
        if let Some(next) = link.iter().find_map(|field| next_link(field)) {
            self.next = self.resolve(url, &next)?;
        }
        Ok(())
    }

    /// Relative links are common; another host is none of ours (server-side request forgery), and
    /// `http` behind a proxy that speaks `https` means the same host.
    fn resolve(&self, from: &Url, link: &str) -> Result<Option<Url>> {
        let wrong = |why: String| {
            Error::malformed(format!("the next page of tags at {}", from.origin), why)
        };
        let mut next = from.join(link).map_err(wrong)?;
        if next.origin.host == from.origin.host && from.origin.secure && !next.origin.secure {
            next.origin = from.origin.clone();
        }
        if next.origin != from.origin {
            return Err(wrong(format!("leads to another host, {}", next.origin)));
        }
        Ok((next != *from).then_some(next))
    }
}

impl Iterator for Tags<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            for tag in self.page.by_ref() {
                if self.seen.insert(hash(&tag)) {
                    self.news = true;
                    return Some(Ok(tag));
                }
            }
            // A page that brings nothing new would be followed by itself.
            let url = self.next.take().filter(|_| self.news)?;
            if self.pages == PAGES {
                return Some(Err(Error::malformed(
                    format!("the list of tags of {}", self.repository.reference.name()),
                    format!("goes on after {PAGES} pages; what was told of it is not all"),
                )));
            }
            if let Err(error) = self.page(&url) {
                return Some(Err(error));
            }
        }
    }
}

/// Remembering a hash of each tag takes a fraction of the memory of the tags.
fn hash(tag: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    tag.hash(&mut hasher);
    hasher.finish()
}

/// The target of a Link field's item with `rel="next"` (RFC 8288).
fn next_link(field: &str) -> Option<String> {
    let mut rest = field;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>')?;
        let target = &rest[start + 1..end];
        let after = &rest[end + 1..];
        let parameters = &after[..after.find('<').unwrap_or(after.len())];
        let next = parameters.split([';', ',']).any(|parameter| {
            let Some((name, value)) = parameter.split_once('=') else {
                return false;
            };
            name.trim().eq_ignore_ascii_case("rel")
                && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
        });
        if next {
            return Some(target.to_owned());
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found() {
        for (field, expected) in [
            (
                r#"</v2/x/tags/list?n=2&last=b>; rel="next""#,
                Some("/v2/x/tags/list?n=2&last=b"),
            ),
            ("<a>; rel=prev, <b>; REL=next", Some("b")),
            ("<a>; rel=\"prev\"", None),
            ("<a", None),
            ("", None),
        ] {
            assert_eq!(next_link(field).as_deref(), expected, "{field}");
        }
    }
}
