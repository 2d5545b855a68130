//! The `image:` lines of block-style YAML, as in compose files and Kubernetes manifests.
//!
//! This is no YAML parser. It follows indentation, quotes, block scalars and flow collections
//! closely enough to find every `image` key, and refuses what could give an image another way:
//! anchors around one, aliases, variables, flow style (YAML 1.2.2, chapters 6 to 9).

/// An image, and the line and platform that it was given with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub line: usize,
    pub image: String,
    pub platform: Option<String>,
}

/// A line's number, and what is wrong with it.
pub(super) type Wrong = (usize, String);

/// Whether a text is YAML rather than a list: its first line has a key, an item or a document mark.
pub(super) fn is_yaml(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    first.is_some_and(|first| {
        first.starts_with(['-', '{', '[', '%', '"', '\'', '?', '&', '!']) || key(first).is_some()
    })
}

pub(super) fn images(text: &str) -> Result<Vec<Found>, Wrong> {
    let mut reader = Reader::default();
    for (number, line) in text.lines().enumerate() {
        reader.line = number + 1;
        reader.read(line).map_err(|why| (number + 1, why))?;
    }
    match &reader.open {
        Some(open) => Err((open.line, "is never closed".into())),
        None => Ok(reader.found),
    }
}

const TAB: &str = "is indented with a tab";

/// An open mapping.
#[derive(Default)]
struct Level {
    indent: usize,
    /// Is it, or what it is in, the content of an anchor?
    anchored: bool,
    /// Does its current value have an anchor?
    below: bool,
    /// Does it say what a service extends?
    extended: bool,
    /// Is its current key `extends`?
    extends: bool,
    image: Option<usize>,
    platform: Option<Result<String, String>>,
}

#[derive(Default)]
struct Reader {
    line: usize,
    levels: Vec<Level>,
    found: Vec<Found>,
    /// The indentation of what a block scalar belongs to.
    block: Option<usize>,
    /// A quoted text or a flow collection that goes on in the next line.
    open: Option<Open>,
    /// The indentation of the key of the line before, if it was read to its end.
    read: Option<usize>,
    /// An anchor before a mapping, and its indentation.
    pending: Option<usize>,
}

impl Reader {
    fn read(&mut self, line: &str) -> Result<(), String> {
        let content = line.trim_start_matches(' ');
        let mut column = line.len() - content.len();
        let empty = content.trim().is_empty();
        if let Some(indent) = self.block {
            if empty || column > indent {
                return Ok(());
            }
            self.block = None;
        }
        if self.open.is_some() {
            return self.scan(line);
        }
        if empty || content.starts_with('#') {
            return Ok(());
        }
        if content.starts_with('\t') {
            return Err(TAB.into());
        }
        if column == 0 && (content.starts_with("---") || content.trim_end() == "...") {
            let rest = uncommented(content.trim_start_matches(['-', '.']));
            if !rest.is_empty() {
                return Err("has content behind a document mark".into());
            }
            (self.levels, self.read, self.pending) = Default::default();
            return Ok(());
        }
        if column == 0 && content.starts_with('%') {
            return Ok(());
        }
        if self.read.take().is_some_and(|indent| column > indent) {
            return Err("continues the value of the line before, which is not supported".into());
        }
        if self.pending.is_some_and(|indent| column <= indent) {
            self.pending = None;
        }
        let mut parent = column.saturating_sub(1);
        let mut rest = content.trim_end();
        while let Some(after) = indicator(rest, '-') {
            self.levels.retain(|level| level.indent <= column);
            parent = column;
            rest = after.trim_start();
            if after[..after.len() - rest.len()].contains('\t') {
                return Err(TAB.into());
            }
            column += 1 + after.len() - rest.len();
        }
        let (anchored, bare) = properties(rest);
        if anchored {
            self.pending = Some(parent);
        }
        self.node(bare, column, parent)
    }

    /// A key with its value, or a scalar.
    fn node(&mut self, text: &str, column: usize, parent: usize) -> Result<(), String> {
        if text.starts_with("{{") {
            return Err("is a template; render it first".into());
        }
        if indicator(text, '?').is_some() || text.starts_with('*') && key(text).is_some() {
            return Err("has a key in a form that is not supported".into());
        }
        match key(text) {
            Some((name, value)) => self.entry(name?, value, column),
            None => self.value(text, parent),
        }
    }

    fn entry(&mut self, name: &str, value: &str, column: usize) -> Result<(), String> {
        self.levels.retain(|level| level.indent <= column);
        if self.levels.last().is_none_or(|top| top.indent < column) {
            let above = self.levels.last();
            let anchored = above.is_some_and(|above| above.anchored || above.below);
            let extended = above.is_some_and(|above| above.extends);
            self.levels.push(Level {
                indent: column,
                anchored: anchored || self.pending.take().is_some(),
                extended,
                ..Level::default()
            });
        }
        let (anchored, bare) = properties(value);
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        if level.extended && name == "file" {
            return Err("extends a service of another file; list that image, too".into());
        }
        let within = level.anchored;
        level.below = anchored || name == "<<";
        level.extends = name == "extends" && uncommented(bare).is_empty();
        match name {
            "image" => {
                if within {
                    return Err(
                        "has an image within an anchor; move it to each service that uses it"
                            .into(),
                    );
                }
                if level.image.is_some() {
                    return Err("has a second image for the same thing".into());
                }
                let image = scalar(value)?;
                let platform = level.platform.clone().transpose()?;
                level.image = Some(self.found.len());
                self.found.push(Found {
                    line: self.line,
                    image,
                    platform,
                });
                self.read = Some(column);
                return Ok(());
            }
            "platform" => {
                let platform = scalar(value);
                if let Some(image) = level.image {
                    self.found[image].platform = Some(platform.clone()?);
                }
                // Without an image beside it, it does not matter what it is.
                if platform.is_ok() {
                    self.read = Some(column);
                }
                let read = platform.is_ok();
                level.platform = Some(platform);
                if read {
                    return Ok(());
                }
            }
            "include" if column == 0 => {
                return Err("includes other files; give each with --from of its own".into());
            }
            "extends" if bare.starts_with('{') => {
                return Err("extends a service in flow style, which is not supported".into());
            }
            _ => {}
        }
        self.value(bare, column)
    }

    /// A value that is no image; `parent` is the indentation of what it belongs to.
    fn value(&mut self, text: &str, parent: usize) -> Result<(), String> {
        match text.chars().next() {
            Some('|' | '>') => self.block = Some(parent),
            Some('{' | '[' | '"' | '\'') => {
                self.open = Some(Open {
                    line: self.line,
                    ..Open::default()
                });
                return self.scan(text);
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads on in what is open.
    fn scan(&mut self, line: &str) -> Result<(), String> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        match open.read(line) {
            None => self.open = Some(open),
            Some(rest) if !uncommented(rest).is_empty() => {
                return Err("has text behind a quoted text or a flow collection".into());
            }
            Some(_) if names_image(&open.flow) => {
                return Err("has an image in flow style; give it a line of its own".into());
            }
            Some(_) => {}
        }
        Ok(())
    }
}

/// A quoted text or a flow collection, as far as it was read.
#[derive(Default)]
struct Open {
    line: usize,
    depth: usize,
    quote: Option<char>,
    /// The text of a flow collection.
    flow: String,
}

impl Open {
    /// Reads a line; if it ends there, what is behind it.
    fn read<'l>(&mut self, line: &'l str) -> Option<&'l str> {
        let mut before = if self.depth > 0 || self.quote.is_some() {
            ' '
        } else {
            ','
        };
        let mut chars = line.char_indices();
        while let Some((at, c)) = chars.next() {
            if self.depth > 0 {
                // What is quoted is a key only as a whole.
                let within = self.quote.is_some_and(|quote| quote != c);
                let hidden = within && !c.is_alphanumeric();
                self.flow.push(if hidden { '_' } else { c });
            }
            match (self.quote, c) {
                (Some('"'), '\\') => drop(chars.next()),
                (Some('\''), '\'') if line[at + 1..].starts_with('\'') => drop(chars.next()),
                (Some(quote), c) if c == quote => self.quote = None,
                (Some(_), _) => continue,
                (None, '"' | '\'') if " \t,:[{".contains(before) => self.quote = Some(c),
                (None, '{' | '[') => self.depth += 1,
                (None, '}' | ']') => self.depth = self.depth.saturating_sub(1),
                (None, '#') if before == ' ' => break,
                _ => {}
            }
            before = c;
            if self.depth == 0 && self.quote.is_none() {
                return Some(&line[at + c.len_utf8()..]);
            }
        }
        self.flow.push(' ');
        None
    }
}

/// Whether a flow collection has a key `image`.
fn names_image(flow: &str) -> bool {
    let mut found = flow.match_indices("image");
    found.any(|(at, word)| {
        let (before, after) = (&flow[..at], &flow[at + word.len()..]);
        let after = after.strip_prefix(['"', '\'']).unwrap_or(after);
        after.trim_start().starts_with(':')
            && !before.ends_with(|c: char| c.is_alphanumeric() || "_-./".contains(c))
    })
}

/// A line's key and what is behind its colon.
fn key(text: &str) -> Option<(Result<&str, String>, &str)> {
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let (name, rest) = text[1..].split_once(quote)?;
        let rest = rest.trim_start().strip_prefix(':')?;
        let name = match name.contains('\\') {
            true => Err("has a key with an escape, which is not supported".into()),
            false => Ok(name),
        };
        return Some((name, rest.trim()));
    }
    if text.starts_with(['{', '[']) {
        return None;
    }
    let ends = |at: &usize| {
        text[at + 1..]
            .chars()
            .next()
            .is_none_or(char::is_whitespace)
    };
    let mut colons = uncommented(text).match_indices(':').map(|(at, _)| at);
    let at = colons.find(ends)?;
    Some((Ok(text[..at].trim_end()), text[at + 1..].trim()))
}

/// What is behind an indicator at the start of a node.
fn indicator(text: &str, which: char) -> Option<&str> {
    let rest = text.strip_prefix(which)?;
    (rest.is_empty() || rest.starts_with([' ', '\t'])).then_some(rest)
}

/// Whether a node has an anchor, and the node without anchor and tag.
fn properties(mut text: &str) -> (bool, &str) {
    let mut anchored = false;
    while text.starts_with(['&', '!']) {
        anchored |= text.starts_with('&');
        let (_, rest) = text.split_once(' ').unwrap_or((text, ""));
        text = rest.trim_start();
    }
    (anchored, text)
}

/// A text without the comment at its end.
fn uncommented(text: &str) -> &str {
    let mut before = ' ';
    let comment = text.char_indices().find(|(_, c)| {
        let found = *c == '#' && before.is_whitespace();
        before = *c;
        found
    });
    comment.map_or(text, |(at, _)| &text[..at]).trim()
}

/// A plain or quoted text that is all in this line.
fn scalar(text: &str) -> Result<String, String> {
    let not = |what: &str| Err(format!("has {what} instead of a plain name on this line"));
    let first = text.chars().next().unwrap_or('#');
    let value = match first {
        '#' => return not("nothing"),
        '&' => return not("an anchor"),
        '*' => return not("an alias"),
        '!' => return not("a tag"),
        '|' | '>' => return not("a block scalar"),
        '{' if text.starts_with("{{") => return Err("is a template; render it first".into()),
        '{' | '[' => return not("flow style"),
        '"' | '\'' => match text[1..].split_once(first) {
            Some((value, rest)) if uncommented(rest).is_empty() && !value.contains('\\') => value,
            _ => return not("a quoted text with an escape or several lines"),
        },
        _ => uncommented(text),
    };
    match value {
        "~" | "null" | "Null" | "NULL" if first == value.chars().next().unwrap_or(' ') => {
            not("null")
        }
        _ if value.contains('$') => not("a variable"),
        _ => Ok(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, String, Option<String>)> {
        let found = images(text).unwrap();
        let found = found.into_iter();
        found
            .map(|one| (one.line, one.image, one.platform))
            .collect()
    }

    #[test]
    fn compose_files_are_read() {
        let text = r#"# A comment with image: none
name: shop
x-logging: &logging
  driver: json-file
  options: {max-size: "10m", "tag": 'x: y'}
services:
  web:
    image: nginx:1.27   # the front: end
    command: ["sh", "-c", "echo # 'image'", 'it''s']
    logging: *logging
    environment:
      - IMAGE=image: is no key here
      - "image: neither"
      - >
        image: nor here
    healthcheck:
      test: [
        "CMD",      # image: x
        "curl"
      ]
  db:
    platform: linux/arm64
    image : "ghcr.io/o/db@sha256:0"
    labels:
      text: "a text
        image: within
        quotes"
      more: |
        image: within a block

        image: too
  cache:
    'image': 'redis:7' # image: none
    platform: 'linux/amd64' # of this one
    extends: web
    <<: *logging
  built:
    build: .
"#;
        assert_eq!(
            found(text),
            [
                (8, "nginx:1.27".into(), None),
                (
                    23,
                    "ghcr.io/o/db@sha256:0".into(),
                    Some("linux/arm64".into())
                ),
                (33, "redis:7".into(), Some("linux/amd64".into())),
            ]
        );
    }

    #[test]
    fn manifests_are_read() {
        let text = "%YAML 1.2\r
---\r
apiVersion: v1
kind: Pod
spec:
  initContainers:
  - image: a:1
    name: x
  containers:
    - name: y
      image: b:2
      args: [--image=c, '--x']
    -
      image: 'd:3'
    - - image: e:4
  volumes:
  - name: image
...
---
spec: {replicas: 2, selector: {matchLabels: {app: image}}}
image: f:5
";
        let images: Vec<String> = found(text).into_iter().map(|(_, image, _)| image).collect();
        assert_eq!(images, ["a:1", "b:2", "d:3", "e:4", "f:5"]);
        assert!(is_yaml(text));
    }

    #[test]
    fn what_could_change_an_image_is_refused() {
        for (text, line, why) in [
            ("a:\n  image: ${TAG}", 2, "a variable"),
            ("image: \"x:$TAG\"", 1, "a variable"),
            ("image: *x", 1, "an alias"),
            ("image: &x debian", 1, "an anchor"),
            ("image: !!str debian", 1, "a tag"),
            ("image: |\n  debian", 1, "a block scalar"),
            ("image: >-\n  debian", 1, "a block scalar"),
            ("image:\n  debian", 1, "nothing"),
            ("image: # none", 1, "nothing"),
            ("image: null", 1, "null"),
            ("image: {reference: x}", 1, "flow style"),
            ("image: \"a\\x3a1\"", 1, "an escape"),
            ("image: \"a\n  b\"", 1, "several lines"),
            ("image: 'a' b", 1, "several lines"),
            ("image: debian\n  :12", 2, "continues"),
            ("a: {image: x}", 1, "in flow style"),
            ("a: [{b: 1,\n  \"image\" : x}]", 2, "in flow style"),
            ("a: {\n  b: 1,\n  image: x\n}", 4, "in flow style"),
            ("{\"spec\":{\"image\":\"x\"}}", 1, "in flow style"),
            ("- {image: x}", 1, "in flow style"),
            ("- - [{image: x}]", 1, "in flow style"),
            ("x: &a\n  image: y", 2, "within an anchor"),
            (
                "x: &a\n  b:\n    - c: 1\n      image: y",
                4,
                "within an anchor",
            ),
            ("- &a\n  image: y", 2, "within an anchor"),
            ("- &a name: z\n  image: y", 2, "within an anchor"),
            ("x:\n  &a\n  image: y", 3, "within an anchor"),
            ("<<:\n  image: y", 2, "within an anchor"),
            ("image: a\nimage: b", 2, "a second image"),
            ("a:\n\timage: x", 2, "a tab"),
            ("-\timage: x", 1, "a tab"),
            ("a: &k image\nb:\n  *k : x", 3, "a key in a form"),
            ("? image\n: x", 1, "a key in a form"),
            ("\"im\\u0061ge\": x", 1, "an escape"),
            (
                "include: other.yml\na:\n  image: x",
                1,
                "includes other files",
            ),
            ("extends:\n  file: x", 2, "another file"),
            ("extends:\n  service: y\n  file: x", 3, "another file"),
            ("extends: {file: x}", 1, "flow style"),
            ("image: {{ .Values.image }}", 1, "a template"),
            ("{{- if .x }}\nimage: y", 1, "a template"),
            ("--- {image: x}", 1, "document mark"),
            ("a: [b\nimage: x", 1, "never closed"),
            ("a: \"b\nimage: x", 1, "never closed"),
            ("a: [b] c", 1, "behind"),
            ("platform: ${P}\nimage: x", 2, "a variable"),
            ("image: x\nplatform: *p", 2, "an alias"),
        ] {
            let (at, found) = images(text).unwrap_err();
            assert!(at == line && found.contains(why), "{text:?}: {at} {found}");
        }
    }

    #[test]
    fn anchors_and_variables_elsewhere_do_not_matter() {
        for text in [
            "x: &a\n  b: c\nw:\n  <<: *a\n  image: i",
            "w:\n  ports: [\"${P}:80\"]\n  image: i",
            "x: &a [1]\nw:\n  image: i",
            "x:\n- &a b\n- *a\nimage: i",
            "platform: ${P}\nw:\n  image: i",
            "a: it's\nimage: i\nb: don't",
            "url: http://h/image:x\nimage: i",
            "run: [sh, -c, 'echo {image: x}', \"my image\", {\"image.x\": y}]\nimage: i",
            "image_: [image, {images: x, my-image: y}]\nimage: i",
            "a: |-\n\n  x\n  image: z\nimage: i",
            "- run: |\n    image: z\n  image: i",
            "- |\n  image: z\n- image: i",
            "a: >2\n   image: z\nimage: i",
        ] {
            let images = images(text).unwrap();
            assert!(
                images.len() == 1 && images[0].image == "i",
                "{text:?}: {images:?}"
            );
        }
    }

    #[test]
    fn a_list_is_told_from_yaml() {
        for list in [
            "debian",
            "# a: b\nh:5000/a:1 linux/amd64",
            "",
            "debian # a: b",
        ] {
            assert!(!is_yaml(list), "{list:?}");
        }
        for yaml in [
            "a:",
            "\n# x\na: b",
            "- a",
            "--- ",
            "{}",
            "version : '3'",
            "'a': b",
        ] {
            assert!(is_yaml(yaml), "{yaml:?}");
        }
    }

    /// No input of single bytes changed, cut or doubled makes it panic or loop.
    #[test]
    fn damaged_text_is_only_refused() {
        let good = "a: &b\n  - 'c\"': [d, {e: \"f\\\"\"}]\n  - |\n    x\n  - image: \"g\" # h\n    platform: i\n--- \n{{\n? k\n";
        for at in 0..good.len() {
            for with in [
                "", "'", "\"", "{", "]", "#", ":", "- ", "\n", "\t", "\u{e9}", "image: ",
            ] {
                let text = format!("{}{with}{}", &good[..at], &good[at + with.len().min(1)..]);
                let _ = images(&text);
                let _ = images(&text[..text.floor_char_boundary(at + 1)]);
            }
        }
    }
}
