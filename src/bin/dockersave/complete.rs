//! Shell completions from the flag table.
//!
//! The table says what to offer for a value ([`Flag::offer`]); this module writes and quotes it for
//! a shell. Images are not completed: that would query a registry at every key.

use super::flags::{FLAGS, Flag, Offer, Shell};
use std::fmt::Write as _;

pub(super) fn script(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => zsh(),
        Shell::Fish => fish(),
    }
}

/// `--long` and `-s`.
fn names(flag: &Flag) -> Vec<String> {
    let short = flag.short.map(|short| format!("-{short}"));
    short
        .into_iter()
        .chain([format!("--{}", flag.long)])
        .collect()
}

/// File names are left to readline, which handles quoting and tildes.
fn bash() -> String {
    let mut cases = String::new();
    for flag in FLAGS
        .iter()
        .filter(|flag| flag.value.is_some() && !flag.is_optional())
    {
        let offer = match flag.offer() {
            Offer::Nothing => ":".to_owned(),
            Offer::File => "compopt -o default".to_owned(),
            Offer::Directory => "compopt -o dirnames".to_owned(),
            Offer::Choices(choices) => format!(
                r#"COMPREPLY=($(compgen -W '{}' -- "$word"))"#,
                choices.join(" ")
            ),
        };
        let _ = writeln!(cases, "    {}) {offer} ;;", names(flag).join(" | "));
    }
    let all: Vec<String> = FLAGS.iter().flat_map(names).collect();
    format!(
        r#"# Completions of dockersave for bash, made by dockersave --completions bash.
_dockersave() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} flag=${{COMP_WORDS[COMP_CWORD - 1]}} at
    COMPREPLY=()
    # --flag=value comes as three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $flag == = ]]; then
        flag=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    # After --, nothing is a flag.
    for ((at = 1; at < COMP_CWORD; at++)); do
        [[ ${{COMP_WORDS[at]}} == -- ]] && return
    done
    case $flag in
{cases}    *) [[ $word == -* ]] && COMPREPLY=($(compgen -W '{}' -- "$word")) ;;
    esac
}}
complete -F _dockersave dockersave
"#,
        all.join(" ")
    )
}

/// Works as a file `_dockersave` in `fpath`, or sourced.
fn zsh() -> String {
    let mut specs = String::new();
    for flag in FLAGS {
        let text = escaped(flag.line, "\\[]:");
        let value = flag.value.filter(|_| !flag.is_optional());
        let action = value.map_or(String::new(), |value| {
            let action = match flag.offer() {
                Offer::Nothing => " ".to_owned(),
                Offer::File => "_files".to_owned(),
                Offer::Directory => "_files -/".to_owned(),
                Offer::Choices(choices) => format!("({})", choices.join(" ")),
            };
            format!(":{}:{action}", escaped(value, "\\:"))
        });
        let names = names(flag);
        // Flags that were already given are not offered again.
        let once = match (flag.repeats(), names.len()) {
            (true, _) => "*".to_owned(),
            (false, 1) => String::new(),
            (false, _) => format!("({})", names.join(" ")),
        };
        for name in &names {
            let joint = match (value, name.starts_with("--")) {
                (None, _) => "",
                (_, true) => "=",
                (_, false) => "+",
            };
            let spec = format!("{once}{name}{joint}[{text}]{action}");
            let _ = writeln!(specs, "        {} \\", single(&spec, r"'\''"));
        }
    }
    format!(
        r#"#compdef dockersave
# Completions of dockersave for zsh, made by dockersave --completions zsh.
_dockersave() {{
    _arguments -s -S : \
{specs}        '*:IMAGE:()'
}}
if [[ ${{funcstack[1]}} == _dockersave ]]; then
    _dockersave "$@"
else
    compdef _dockersave dockersave
fi
"#
    )
}

fn fish() -> String {
    let mut out = String::from(
        "# Completions of dockersave for fish, made by dockersave --completions fish.\n\
         complete -c dockersave -f\n",
    );
    for flag in FLAGS {
        let short = flag
            .short
            .map_or(String::new(), |short| format!(" -s {short}"));
        let value = match (flag.value, flag.offer()) {
            (None, _) => String::new(),
            _ if flag.is_optional() => String::new(),
            (_, Offer::Nothing) => " -x".to_owned(),
            (_, Offer::File) => " -r -F".to_owned(),
            (_, Offer::Directory) => " -x -a '(__fish_complete_directories)'".to_owned(),
            (_, Offer::Choices(choices)) => format!(" -x -a '{}'", choices.join(" ")),
        };
        let text = single(&escaped(flag.line, "\\"), r"\'");
        let _ = writeln!(
            out,
            "complete -c dockersave{short} -l {}{value} -d {text}",
            flag.long
        );
    }
    out
}

/// With a backslash before each of these characters.
fn escaped(text: &str, special: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if special.contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// In single quotes, with quotes escaped for the shell.
fn single(text: &str, quote: &str) -> String {
    format!("'{}'", text.replace('\'', quote))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The long names that a script offers, in its order.
    fn offered(shell: Shell) -> Vec<String> {
        let script = script(shell);
        let name = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_lowercase() && c != '-');
            text[..end.unwrap_or(text.len())].to_owned()
        };
        match shell {
            Shell::Bash => {
                let line = script.lines().find(|line| line.contains("*) [[")).unwrap();
                let words = line.split('\'').nth(1).unwrap().split(' ');
                words
                    .filter_map(|word| Some(name(word.strip_prefix("--")?)))
                    .collect()
            }
            Shell::Zsh => script
                .lines()
                .filter_map(|line| line.trim().strip_prefix('\''))
                .map(|spec| spec.trim_start_matches('*'))
                .map(|spec| {
                    spec.split_once(')')
                        .filter(|_| spec.starts_with('('))
                        .map_or(spec, |s| s.1)
                })
                .filter_map(|spec| Some(name(spec.strip_prefix("--")?)))
                .collect(),
            Shell::Fish => script
                .lines()
                .filter_map(|line| Some(name(line.split_once(" -l ")?.1)))
                .collect(),
        }
    }

    #[test]
    fn completions_hold_each_flag_and_no_other() {
        let flags: Vec<&str> = FLAGS.iter().map(|flag| flag.long).collect();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            assert_eq!(offered(shell), flags, "{shell:?}");
        }
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(single("it's", r"'\''"), r"'it'\''s'");
        assert_eq!(escaped(r"a[b]:\", r"\[]:"), r"a\[b\]\:\\");
    }
}
