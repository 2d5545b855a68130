//! Link fields of the next page (RFC 8288), also in the forms that registries have sent instead:
//! without angle brackets, without a relation, in single quotes, with several relations in one.

/// The target of the link to the next page, or the first link if none has a relation.
pub(in crate::registry) fn next<'f>(fields: impl Iterator<Item = &'f str>) -> Option<String> {
    let mut bare = None;
    for field in fields {
        let mut rest = field;
        while let Some((target, relation, after)) = first(rest) {
            rest = after;
            match relation {
                Some(relation) => {
                    let mut words = relation.split_ascii_whitespace();
                    if words.any(|word| word.eq_ignore_ascii_case("next")) {
                        return Some(target.to_owned());
                    }
                }
                None => bare = bare.or_else(|| Some(target.to_owned())),
            }
        }
    }
    bare
}

/// The first link of a field: its target, its relations, and the rest.
fn first(field: &str) -> Option<(&str, Option<&str>, &str)> {
    let field = field.trim_start_matches([' ', '\t', ',']);
    if field.is_empty() {
        return None;
    }
    let (target, mut rest) = match field.strip_prefix('<') {
        Some(inner) => inner.split_once('>').unwrap_or_else(|| split(inner, ";")),
        // A comma may be part of a bare URL.
        None => split(field, ";"),
    };
    let mut relation = None;
    while let Some(parameter) = rest.trim_start().strip_prefix(';') {
        let (own, after) = split(parameter, ";,");
        rest = after;
        if let Some((name, value)) = own.split_once('=')
            && name.trim().eq_ignore_ascii_case("rel")
            && relation.is_none()
        {
            relation = Some(value.trim().trim_matches(['"', '\'']));
        }
    }
    // Anything that is neither a parameter nor another link is ignored.
    let after = rest.find(',').map_or("", |at| &rest[at..]);
    Some((target.trim(), relation, after))
}

/// Splits before the first of these characters that is not quoted.
fn split<'t>(text: &'t str, at: &str) -> (&'t str, &'t str) {
    let (mut quoted, mut escaped) = (false, false);
    let end = text.find(|c| {
        let ends = !quoted && at.contains(c);
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && quoted && !escaped;
        ends
    });
    text.split_at(end.unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found() {
        const NEXT: &str = "/v2/x/tags/list?n=2&last=b";
        for (fields, expected) in [
            (
                &[r#"</v2/x/tags/list?n=2&last=b>; rel="next""#][..],
                Some(NEXT),
            ),
            (&[r#"/v2/x/tags/list?n=2&last=b; rel="next""#], Some(NEXT)),
            (&["/v2/x/tags/list?n=2&last=b"], Some(NEXT)),
            (&["</v2/x/tags/list?n=2&last=b>"], Some(NEXT)),
            (&["</v2/x/tags/list?n=2&last=b; rel=next"], Some(NEXT)),
            (&["<a>; rel=prev, <b>; REL=next"], Some("b")),
            (&["<a>; rel=prev,<b>;rel = \"last  NEXT\""], Some("b")),
            (&["<a>; rel=prev", "<b>; rel=next"], Some("b")),
            (&["<a>, <b>; rel=next"], Some("b")),
            (
                &[r#"<a>; title="x, <y>; rel=next \" z"; rel=next"#],
                Some("a"),
            ),
            (&[r#"<a>; title="x, <y>; rel=next"; rel=first"#], None),
            (&["<a,b>; rel=next"], Some("a,b")),
            (&["a?x=1,2; rel=next, <c>; rel=last"], Some("a?x=1,2")),
            (&["<a>; rel=nextish; rel=next"], None),
            (&["<a>; rel='prev next'"], Some("a")),
            (&["<a>; rel=\"prev\""], None),
            (&["<a>; rel=preload; as=style", "</x>; rel=first"], None),
            (&["<>; rel=next"], Some("")),
            (&["<a"], Some("a")),
            (&["", " , "], None),
            (&[], None),
        ] {
            let found = next(fields.iter().copied());
            assert_eq!(found.as_deref(), expected, "{fields:?}");
        }
    }
}
