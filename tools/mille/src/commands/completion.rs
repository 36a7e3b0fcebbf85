//! `mille completion`: the script that makes a shell ask `mille` what may follow.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{Arity, Verb};
use crate::arguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// The command.
pub(crate) static VERB: Verb = Verb {
    name: "completion",
    usage: "bash|zsh|fish",
    about: "Generate the autocompletion script for the specified shell",
    arity: Arity::Exactly(1),
    flags_first: false,
    flags: |command| command,
    run,
};

const BASH: &str = r#"# source <(mille completion bash), or keep it as /etc/bash_completion.d/mille
_mille() {
    local line words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    COMPREPLY=()
    # A colon is a word of its own to bash: bb : latest
    local at joined=()
    for at in "${words[@]}"; do
        if ((${#joined[@]})) && [[ $at == : || ${joined[-1]} == *: ]]; then joined[-1]+=$at; else joined+=("$at"); fi
    done
    local last=${joined[-1]} head=
    [[ $last == *:* && $COMP_WORDBREAKS == *:* ]] && head=${last%"${last##*:}"}
    while IFS= read -r line; do
        if [[ $line == :files ]]; then
            compopt -o filenames
            mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$last")
        else
            COMPREPLY+=("${line#"$head"}")
        fi
    done < <("${COMP_WORDS[0]}" __complete "${joined[@]}" 2>/dev/null)
}
complete -F _mille mille
"#;

const ZSH: &str = r#"#compdef mille
# source <(mille completion zsh), or keep it as _mille in a directory of $fpath
_mille() {
    local -a found names
    found=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    names=("${(@)found:#(:files|)}")
    (( ${#names} )) && compadd -- "${names[@]}"
    [[ ${found[-1]} == :files ]] && _files
}
compdef _mille mille
"#;

const FISH: &str = r#"# mille completion fish | source, or keep it as ~/.config/fish/completions/mille.fish
function __mille_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] __complete $words[2..-1] 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c mille -f -a '(__mille_complete)'
"#;

fn run(_: &Context, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let words = arguments::words(matches);
    let script = match words.first().map(String::as_str) {
        Some("bash") => BASH,
        Some("zsh") => ZSH,
        Some("fish") => FISH,
        other => {
            let shell = other.unwrap_or_default();
            return Err(Failure::plain(format!(
                "mille: unknown shell {shell:?}: bash, zsh or fish"
            )));
        }
    };
    output::emit(script).map(|()| ExitCode::SUCCESS)
}
