//! Completions in real shells, and the manual page in man, if they are installed.

use crate::cli::on_a_terminal;
use crate::util::{Dir, Run};
use std::process::Command;

/// Whether this program is installed; prints a note if not.
fn there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Files to be completed, and the shell's script; the scripts' names are out of the way.
fn place(shell: &str) -> Dir {
    let dir = Dir::new();
    let script = Run::new(&dir, &["--completions", shell]).status(0);
    assert_eq!(script.stderr, "");
    dir.write(&format!("zz/_dockersave.{shell}"), script.stdout);
    dir.write("files/cert.pem", "");
    dir.write("files/my key.pem", "");
    dir.write("a dir/x", "");
    dir
}

/// The command line after these keys, in a shell that shows it word by word.
const KEYS: &[(&str, &str)] = &[
    ("--prog\tj\t", "--progress json"),
    ("--dry\t", "--dry-run"),
    ("--progress=b\t", "--progress=bar"),
    ("--completions f\t", "--completions fish"),
    ("--authfile=fi\tc\t", "--authfile=files/cert.pem"),
    ("--key files/m\t", "--key files/my key.pem"),
    ("-o files/c\t", "-o files/cert.pem"),
    ("--working-dir a\t", "--working-dir a dir"),
    // Nothing is offered for a user, for an image, or after two hyphens.
    ("--user fi\t", "--user fi"),
    ("fi\t", "fi"),
    ("-- --dry\t", "-- --dry"),
];

/// Types each line into the shell; `begin` loads the script.
fn typed(dir: &Dir, shell: &str, begin: &str) {
    let show = "dockersave() { echo \"<$@>\"; }";
    let mut lines = format!("{begin}; {show}\n");
    for (keys, _) in KEYS {
        lines.push_str(&format!("dockersave {keys}\n"));
    }
    let Some(shown) = on_a_terminal(dir, shell, &(lines + "exit\n")) else {
        return;
    };
    let got: Vec<&str> = shown
        .lines()
        .map(|line| line.trim_matches(|c: char| c.is_control()))
        .filter_map(|line| line.split_once('<')?.1.strip_suffix('>'))
        // zsh gives a flag its value with an equals sign, and takes the slash off again.
        .filter(|line| !line.contains('$'))
        .collect();
    assert_eq!(got.len(), KEYS.len(), "{shown}");
    for (got, (keys, expected)) in got.iter().zip(KEYS) {
        let same = |text: &str| text.trim_end_matches('/').replace('=', " ");
        assert_eq!(same(got), same(expected), "{keys:?}: {shown}");
    }
}

#[test]
fn bash_completes() {
    if there("bash") {
        let begin = "source zz/_dockersave.bash";
        typed(&place("bash"), "bash --norc --noprofile -i", begin);
    }
}

#[test]
fn zsh_completes_from_a_sourced_script() {
    if there("zsh") {
        let begin = "autoload -Uz compinit; compinit -u -D; source zz/_dockersave.zsh";
        typed(&place("zsh"), "TERM=dumb zsh -f -i", begin);
    }
}

#[test]
fn zsh_completes_from_its_path() {
    if there("zsh") {
        let dir = place("zsh");
        std::fs::rename(dir.join("zz/_dockersave.zsh"), dir.join("zz/_dockersave")).unwrap();
        let begin = "fpath=($PWD/zz $fpath); autoload -Uz compinit; compinit -u -D";
        typed(&dir, "TERM=dumb zsh -f -i", begin);
    }
}

#[test]
fn fish_completes() {
    if !there("fish") {
        return;
    }
    let dir = place("fish");
    for (line, offered) in [
        ("--pro", &["--progress"][..]),
        ("--progress ", &["auto", "bar", "json", "none", "plain"]),
        ("--progress=j", &["--progress=json"]),
        ("--completions ", &["bash", "fish", "zsh"]),
        ("--authfile files/c", &["files/cert.pem"]),
        ("-o files/", &["files/cert.pem", "files/my key.pem"]),
        ("--working-dir ", &["a dir/", "files/", "zz/"]),
        ("--user ", &[]),
        ("", &[]),
    ] {
        let output = Command::new("fish")
            .args(["--no-config", "-c"])
            .arg(format!(
                "source zz/_dockersave.fish; complete -C 'dockersave {line}'"
            ))
            .env("HOME", dir.path())
            .current_dir(dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut found: Vec<String> = text
            .lines()
            .map(|line| line.split('\t').next().unwrap().replace("\\ ", " "))
            .collect();
        found.sort();
        assert_eq!(found, offered, "{line:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn the_manual_page_is_shown_without_a_warning() {
    let dir = Dir::new();
    let page = Run::new(&dir, &["--man"]).status(0);
    assert_eq!(page.stderr, "");
    dir.write("dockersave.1", page.stdout);
    let help = Run::new(&dir, &["--help"]).status(0).stdout;
    let flags: Vec<&str> = help
        .lines()
        .filter(|line| line.starts_with("  -") || line.starts_with("      --"))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")))
        .collect();
    assert!(flags.len() > 30);
    for command in [
        &["man", "--warnings", "-E", "UTF-8", "-l", "dockersave.1"][..],
        &[
            "groff",
            "-man",
            "-ww",
            "-T",
            "utf8",
            "-P",
            "-cbou",
            "dockersave.1",
        ],
    ] {
        if !there(command[0]) {
            continue;
        }
        let output = Command::new(command[0])
            .args(&command[1..])
            .env("MANWIDTH", "80")
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", dir.path())
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        for flag in &flags {
            assert!(text.contains(flag), "{flag} is not in {command:?}: {text}");
        }
        assert!(
            text.contains("EXIT STATUS") && text.lines().all(|line| line.chars().count() <= 80)
        );
    }
}
