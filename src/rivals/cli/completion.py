"""Scripts by which a shell completes commands and flags, made from the command line's own help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rivals.base.registry import Registry

_BASH = """\
# rivals: completion for bash. Put it to use by: eval "$(rivals completion bash)"
_rivals() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} flags=""
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
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
    local -a commands flags
    commands=({commands})
    if (( CURRENT == 2 )); then
        compadd -a commands
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
complete -c rivals -n __fish_use_subcommand -f -a "{commands}"
{cases}
"""


def _bash(flags: Mapping[str, Sequence[str]]) -> str:
    cases = "\n".join(f'        {command}) flags="{" ".join(each)}" ;;' for command, each in flags.items())
    return _BASH.format(commands=" ".join(flags), cases=cases)


def _zsh(flags: Mapping[str, Sequence[str]]) -> str:
    cases = "\n".join(f"        {command}) flags=({' '.join(each)}) ;;" for command, each in flags.items())
    return _ZSH.format(commands=" ".join(flags), cases=cases)


def _fish(flags: Mapping[str, Sequence[str]]) -> str:
    lines = [
        f'complete -c rivals -n "__fish_seen_subcommand_from {command}" -l {flag.removeprefix("--")}'
        for command, each in flags.items()
        for flag in each
    ]
    return _FISH.format(commands=" ".join(flags), cases="\n".join(lines))


SHELLS = Registry("shell", {"bash": _bash, "zsh": _zsh, "fish": _fish})
"""What writes a script, by the shell's name, from the long flags of every command."""
