//! The manual page in roff. Pure, and the same for the same source: its date is the source's.
//!
//! The text is in [`super::flags`], [`super::help`] and [`super::manual`].

use super::flags::{FLAGS, Flag, GROUPS};
use super::help::{EXAMPLES, NOTES, STATUSES, USAGE, WHAT, wrap};
use super::manual::{Part, SECTIONS};
use std::fmt::Write as _;

/// The day this source was last changed, or the version released, as the build script finds it.
const DATE: &str = env!("DOCKERSAVE_DATE");

const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "DOCKERSAVE_USER, DOCKERSAVE_PASSWORD, DOCKERSAVE_REGISTRY",
        "Credentials, and the registry that they are for (default: the first image's).",
    ),
    (
        "DOCKER_AUTH_CONFIG",
        "Credentials in the format of Docker's config.json.",
    ),
    (
        "REGISTRY_AUTH_FILE, DOCKER_CONFIG, XDG_RUNTIME_DIR, XDG_CONFIG_HOME",
        "Where credential files are.",
    ),
    (
        "SSL_CERT_FILE, SSL_CERT_DIR",
        "Certificates to trust besides the built-in ones.",
    ),
    (
        "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY",
        "Proxies, in upper or lower case.",
    ),
    ("TERM", "If it is dumb or empty, no bar is drawn."),
];

const FILES: &[(&str, &str)] = &[
    (
        "NAME.tar.partial",
        "A partial download. The same command resumes it.",
    ),
    (
        "~/.docker/config.json, $XDG_CONFIG_HOME/containers/auth.json",
        "Credentials, and the helpers that hold them.",
    ),
    (
        "/etc/docker/certs.d/HOST[:PORT]/, /etc/containers/certs.d/HOST[:PORT]/",
        "Certificates for one registry: *.crt to trust, X.cert with X.key as client certificate.",
    ),
];

pub(super) fn page() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = format!(
        ".TH DOCKERSAVE 1 \"{}\" \"dockersave {version}\" \"User Commands\"\n\
         .nh\n.ad l\n.ss 12 0\n\
         .SH NAME\n\
         dockersave \\- download a container image from its registry as an archive\n\
         .SH SYNOPSIS\n.B dockersave\n{}\n\
         .SH DESCRIPTION\n{}\n",
        DATE,
        roff(USAGE),
        filled(WHAT)
    );
    for note in NOTES {
        let _ = writeln!(out, ".PP\n{}", filled(note));
    }
    out.push_str(".SH OPTIONS\n");
    for (number, group) in GROUPS.iter().enumerate() {
        let _ = writeln!(out, ".SS {}", roff(group));
        FLAGS
            .iter()
            .filter(|flag| flag.group == number)
            .for_each(|flag| option(&mut out, flag));
    }
    out.push_str(".SH EXIT STATUS\n");
    for (status, what) in STATUSES {
        let _ = writeln!(out, ".TP\n.B {status}\n{}", filled(what));
    }
    for (title, parts) in SECTIONS {
        let _ = writeln!(out, ".SH {title}");
        for (number, part) in parts.iter().enumerate() {
            let _ = match part {
                Part::Text(text) if number == 0 => writeln!(out, "{}", filled(text)),
                Part::Text(text) => writeln!(out, ".PP\n{}", filled(text)),
                Part::Item(name, text) => writeln!(out, ".TP\n.B {}\n{}", roff(name), filled(text)),
            };
        }
    }
    for (title, items) in [("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)] {
        let _ = writeln!(out, ".SH {title}");
        for (name, what) in items {
            let _ = writeln!(out, ".TP\n.I {}\n{}", roff(name), filled(what));
        }
    }
    out.push_str(".SH EXAMPLES\n.nf\n");
    for (command, what) in EXAMPLES {
        let line = format!("dockersave {command:<36}{what}");
        let _ = writeln!(out, "{}", roff(line.trim_end()));
    }
    out.push_str(
        ".fi\n.SH SEE ALSO\n.BR docker\\-load (1),\n.BR podman\\-load (1),\n.BR skopeo (1)\n",
    );
    out
}

fn option(out: &mut String, flag: &Flag) {
    let short = flag
        .short
        .map_or(String::new(), |short| format!("\\fB\\-{short}\\fR, "));
    let value = match flag.value {
        None => String::new(),
        // A choice is typed as it stands here.
        _ if !flag.choices.is_empty() => format!(" \\fB{}\\fR", roff(&flag.choices.join("|"))),
        Some(value) if flag.is_optional() => format!("\\fI{}\\fR", roff(value)),
        Some(value) => format!(" \\fI{}\\fR", roff(value)),
    };
    let _ = writeln!(
        out,
        ".TP\n{short}\\fB\\-\\-{}\\fR{value}\n{}.",
        roff(flag.long),
        filled(&sentence(flag))
    );
    if !flag.more.is_empty() {
        let _ = writeln!(out, "{}", filled(flag.more));
    }
}

/// A sentence begins with a capital letter, but a value as it is typed.
fn sentence(flag: &Flag) -> String {
    let line = flag.line;
    let first = line.split([':', ' ']).next().unwrap_or_default();
    if flag.choices.contains(&first) {
        return line.to_owned();
    }
    let mut chars = line.chars();
    chars.next().map_or(String::new(), |first| {
        first.to_ascii_uppercase().to_string() + chars.as_str()
    })
}

/// A paragraph in lines of at most 80 bytes, as `mandoc -T lint` requires; troff refills them.
fn filled(text: &str) -> String {
    wrap(&roff(text), 0).replace("\n.", "\n\\&.")
}

/// Escapes text for troff. Hyphens are ASCII, so that copied commands work; a period or an
/// apostrophe at the start of a line would be a request.
fn roff(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    if text.starts_with(['.', '\'']) {
        out.push_str("\\&");
    }
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '~' => out.push_str("\\(ti"),
            '^' => out.push_str("\\(ha"),
            '`' => out.push_str("\\(ga"),
            '"' => out.push_str("\\(dq"),
            '\'' => out.push_str("\\(aq"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_each_flag_and_no_other() {
        let page = page();
        let heads: Vec<&str> = page
            .lines()
            .filter_map(|line| line.split_once("\\fB\\-\\-"))
            .map(|(_, rest)| rest.split("\\fR").next().unwrap())
            .collect();
        let flags: Vec<String> = (0..GROUPS.len())
            .flat_map(|group| FLAGS.iter().filter(move |flag| flag.group == group))
            .map(|flag| roff(flag.long))
            .collect();
        assert_eq!(heads, flags);
        for (status, _) in STATUSES {
            assert!(page.contains(&format!(".TP\n.B {status}\n")));
        }
        assert!(page.is_ascii() && page.ends_with('\n'));
    }

    #[test]
    fn the_page_is_dated_and_its_lines_are_short() {
        let page = page();
        let date = DATE;
        assert!(page.starts_with(&format!(".TH DOCKERSAVE 1 \"{date}\" ")));
        assert_ne!(date, "1970-01-01");
        for line in page.lines() {
            assert!(line.len() <= 80 && !line.ends_with(' '), "{line:?}");
        }
        assert_eq!(
            filled(&format!("{} .d", "x".repeat(78))),
            format!("{}\n\\&.d", "x".repeat(78))
        );
    }

    #[test]
    fn values_are_written_as_they_are_typed() {
        let page = page();
        assert!(page.contains("\ndocker: for all loaders"), "{page}");
        assert!(page.contains("\\fB\\-\\-format\\fR \\fBdocker|oci|rootfs\\fR"));
        assert!(page.contains("\\fB\\-\\-insecure\\fR\\fI[=HOST]\\fR"));
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(roff(r"'a' \b -c .d"), r"\&\(aqa\(aq \eb \-c .d");
        assert_eq!(roff(".TH"), r"\&.TH");
    }
}
