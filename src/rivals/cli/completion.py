"""Scripts by which a shell completes verbs and flags, made from the command line's own help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rivals.base.registry import Registry

_BASH = """\
# rivals: completion for bash. Put it to use by: eval "$(rivals completion bash)"
_rivals() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} flags=""
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "{verbs}" -- "$word"))
        return
    fi
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}}
complete -o filenames -F _rivals rivals
"""

_ZSH = """\
# rivals: completion for zsh. Put it to use by: eval "$(rivals completion zsh)"
_rivals() {{
    local -a verbs flags
    verbs=({verbs})
    if (( CURRENT == 2 )); then
        compadd -a verbs
        return
    fi
    case ${{words[2]}} in
{cases}
    esac
    if [[ ${{words[CURRENT]}} == -* ]]; then
        compadd -a flags
    else
        _files
    fi
}}
compdef _rivals rivals
"""

_FISH = """\
# rivals: completion for fish. Put it to use by: rivals completion fish | source
complete -c rivals -n __fish_use_subcommand -f -a "{verbs}"
{cases}
"""


def _bash(flags: Mapping[str, Sequence[str]]) -> str:
    cases = "\n".join(f'        {verb}) flags="{" ".join(each)}" ;;' for verb, each in flags.items())
    return _BASH.format(verbs=" ".join(flags), cases=cases)


def _zsh(flags: Mapping[str, Sequence[str]]) -> str:
    cases = "\n".join(f"        {verb}) flags=({' '.join(each)}) ;;" for verb, each in flags.items())
    return _ZSH.format(verbs=" ".join(flags), cases=cases)


def _fish(flags: Mapping[str, Sequence[str]]) -> str:
    lines = [
        f'complete -c rivals -n "__fish_seen_subcommand_from {verb}" -l {flag.removeprefix("--")}'
        for verb, each in flags.items()
        for flag in each
    ]
    return _FISH.format(verbs=" ".join(flags), cases="\n".join(lines))


SHELLS = Registry("shell", {"bash": _bash, "zsh": _zsh, "fish": _fish})
"""What writes a script, by the shell's name, from the long flags of every verb."""
