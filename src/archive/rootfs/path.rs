//! Paths in layers: normalised, and what they mean. Whiteouts are those of the OCI image-spec,
//! layer.md, and of AUFS, from which it took them.

/// PATH_MAX of Linux without the NUL: no system call takes a longer one.
const LONGEST: usize = 4095;

/// What an entry of a layer is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Role {
    Entry,
    /// Removes this path of the layers below.
    Whiteout(Vec<u8>),
    /// Removes what the layers below have in this directory.
    Opaque(Vec<u8>),
    /// AUFS's own files (`.wh..wh.plnk`, `.wh..wh.aufs`), which hard links may point to.
    Hidden,
}

/// The path without `.`, `..` and slashes around it, from the root directory; empty for that.
pub(super) fn normal(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    if path.len() > LONGEST {
        return Err("is longer than any path can be");
    }
    if path.contains(&0) {
        return Err("has a NUL in its path");
    }
    let mut out = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if out.is_empty() => return Err("climbs out of the root directory"),
            b".." => out.truncate(parent(&out).len()),
            part => {
                if !out.is_empty() {
                    out.push(b'/');
                }
                out.extend_from_slice(part);
            }
        }
    }
    Ok(out)
}

/// The directory of a normal path.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    &path[..slash.unwrap_or(0)]
}

/// What a normal path stands for.
pub(super) fn role(path: &[u8]) -> Result<Role, &'static str> {
    let directory = parent(path);
    let base = path[directory.len()..].strip_prefix(b"/");
    let base = base.unwrap_or(&path[directory.len()..]);
    let starts = |with: &[u8]| {
        let mut parts = directory.split(|byte| *byte == b'/');
        parts.any(|part| part.starts_with(with))
    };
    if starts(b".wh..wh.") {
        return Ok(Role::Hidden);
    }
    if starts(b".wh.") {
        return Err("is in a whiteout");
    }
    match base.strip_prefix(b".wh.") {
        None => Ok(Role::Entry),
        Some(b".wh..opq") => Ok(Role::Opaque(directory.to_vec())),
        Some(name) if name.starts_with(b".wh.") => Ok(Role::Hidden),
        Some(b"" | b"." | b"..") => Err("is a whiteout of a directory itself"),
        Some(name) if directory.is_empty() => Ok(Role::Whiteout(name.to_vec())),
        Some(name) => Ok(Role::Whiteout([directory, b"/", name].concat())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_form() {
        for (path, right) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/a/./b", "a/b"),
            ("a/../b", "b"),
            ("a/b/../c/..", "a"),
            ("./", ""),
            ("/", ""),
            ("", ""),
        ] {
            assert_eq!(normal(path.as_bytes()), Ok(right.into()), "{path}");
        }
        for path in [
            "..",
            "../a",
            "/..",
            "a/../..",
            "a/../../a",
            "./../a",
            "a\0b",
        ] {
            assert!(normal(path.as_bytes()).is_err(), "{path}");
        }
        assert!(normal(&[b'a'; 4095]).is_ok() && normal(&[b'a'; 4096]).is_err());
    }

    #[test]
    fn whiteouts_are_recognised() {
        let whiteout = |path: &str| Ok(Role::Whiteout(path.into()));
        for (path, right) in [
            ("a/b", Ok(Role::Entry)),
            (".wha", Ok(Role::Entry)),
            ("", Ok(Role::Entry)),
            (".wh.a", whiteout("a")),
            ("a/b/.wh.c", whiteout("a/b/c")),
            ("a/.wh..c", whiteout("a/.c")),
            ("a/.wh..wh..opq", Ok(Role::Opaque("a".into()))),
            (".wh..wh..opq", Ok(Role::Opaque("".into()))),
            (".wh..wh.aufs", Ok(Role::Hidden)),
            (".wh..wh.plnk/1.2", Ok(Role::Hidden)),
        ] {
            assert_eq!(role(path.as_bytes()), right, "{path}");
        }
        for path in [".wh.", "a/.wh.", "a/.wh..", ".wh...", ".wh.a/b"] {
            assert!(role(path.as_bytes()).is_err(), "{path}");
        }
    }
}
