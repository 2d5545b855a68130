//! What the READMEs say: their links lead somewhere, and the files and names they mention exist.

use std::fs;
use std::path::Path;

const READMES: [&str; 14] = [
    "README.md",
    "CHANGELOG.md",
    "src/README.md",
    "tests/README.md",
    "tests/bench/README.md",
    "cross/README.md",
    "cross/packaging/buildroot-images/README.md",
    "cross/packaging/ci/README.md",
    "cross/packaging/loader/README.md",
    "cross/packaging/openwrt-images/README.md",
    "cross/packaging/python/README.md",
    "cross/packaging/yocto/README.md",
    ".github/CONTRIBUTING.md",
    ".github/SECURITY.md",
];

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The anchor that a heading has on a page, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(kept)
        .collect::<String>()
        .replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    for readme in READMES {
        let text = read(readme);
        let here = Path::new(readme).parent().unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => readme.into(),
                file => here.join(file),
            };
            let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join(&target);
            assert!(whole.exists(), "{readme}: {link}");
            if !place.is_empty() {
                let headings = read(&target);
                let mut headings = headings.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|line| anchor(line) == place),
                    "{readme}: {link}"
                );
            }
        }
    }
}

#[test]
fn the_readme_is_short() {
    assert!(read("README.md").lines().count() <= 200);
}

/// Each answer names at most two files below `src`, each followed by names in it.
#[test]
fn the_ten_questions_are_answered_by_the_code() {
    let text = read("src/README.md");
    let (_, table) = text.split_once("| question | answer |").unwrap();
    let rows: Vec<&str> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(rows.len() >= 10);
    for row in rows {
        let answer = row.split('|').nth(2).unwrap();
        let (mut files, mut source) = (0, String::new());
        for name in code(answer) {
            if name.ends_with(".rs") {
                source = read(Path::new("src").join(name));
                files += 1;
                continue;
            }
            let name = name.rsplit("::").next().unwrap();
            let defined = ["fn ", "struct ", "enum ", "const "].iter().any(|kind| {
                source
                    .match_indices(&format!("{kind}{name}"))
                    .any(|(at, found)| {
                        let next = source[at + found.len()..].chars().next();
                        next.is_none_or(|c| !c.is_alphanumeric() && c != '_')
                    })
            });
            assert!(defined, "{row}: {name}");
        }
        assert!((1..=2).contains(&files), "{row}");
    }
}

/// The table of layers names files and directories of `src`.
#[test]
fn the_layers_exist() {
    let text = read("src/README.md");
    let (_, table) = text.split_once("| where | what |").unwrap();
    for row in table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
    {
        for name in code(row.split('|').nth(1).unwrap()) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name);
            assert!(path.exists(), "{name}");
        }
    }
}
