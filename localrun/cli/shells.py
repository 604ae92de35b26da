"""What a shell is told so that it can complete localrun's command line: a script each for bash, zsh and fish.

Each holds the same three tables: the commands at a place, its options, and what its operands and options take as their
values; and the same walk along the words that are there, which finds the place and whether a value is due.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Option(NamedTuple):
    """The spellings of an option; what it takes, as `Place` has it; and what it does."""

    flags: tuple[str, ...]
    value: str
    about: str


class Place(NamedTuple):
    """Some words, what may follow them, and what their operands are: words, or ``:runs``, ``:files``, ``:any``, …."""

    words: str
    commands: Mapping[str, str]
    options: Sequence[Option]
    operand: str


def _values(places: Sequence[Place]) -> dict[str, str]:
    """What is taken at a place, and behind each option of it that takes something."""
    found = {place.words: place.operand for place in places if place.operand}
    return found | {
        f"{place.words} {flag}": option.value
        for place in places
        for option in place.options
        for flag in option.flags
        if option.value
    }


def _flags(place: Place) -> dict[str, str]:
    return {flag: option.about for option in place.options for flag in option.flags}


def _described(words: Mapping[str, str], mark: str) -> list[str]:
    return [f"{word}{mark}{about}" for word, about in words.items()]


def _table(form: str, rows: Mapping[str, str]) -> str:
    return "\n".join(form.format(shlex.quote(key), shlex.quote(words)) for key, words in rows.items() if words)


def _filled(template: str, **tables: str) -> str:
    """A script with its tables put in, each where its name stands between two ``@``."""
    for name, table in tables.items():
        template = template.replace(f"@{name}@", table)
    return template


_BASH = r"""# Completion of localrun's command line in bash, made by: localrun completion bash

declare -gA _localrun_commands=(
@commands@
)
declare -gA _localrun_options=(
@options@
)
declare -gA _localrun_values=(
@values@
)

_localrun() {
    local program=$1 current=${COMP_WORDS[COMP_CWORD]} place=localrun what= list= word
    [[ $current == = ]] && current=
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        if [[ $word == = ]]; then continue  # of --option=value
        elif [[ $what ]]; then what=
        elif [[ $word == -- ]]; then what=:files; break
        elif [[ $word == -* ]]; then what=${_localrun_values["$place $word"]}
        elif [[ " ${_localrun_commands[$place]} " == *" $word "* ]]; then place+=" $word"
        fi
    done
    if [[ ! $what && $current == -* ]]; then what=${_localrun_options[$place]}
    elif [[ ! $what ]]; then what=${_localrun_commands[$place]:-${_localrun_values[$place]}}
    fi
    COMPREPLY=()
    case $what in
        ''|:any) ;;
        :files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        :folders) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
        :*) mapfile -t COMPREPLY < <("$program" completion names "${what#:}" "$current" 2>/dev/null) ;;
        *) [[ $current == *,* ]] && list=${current%%,*},  # a,b
           mapfile -t COMPREPLY < <(compgen -P "$list" -W "$what" -- "${current#"$list"}") ;;
    esac
}
complete -F _localrun localrun
"""


def bash(places: Sequence[Place]) -> str:
    """The script for bash, which shows words alone."""
    table = functools.partial(_table, "    [{}]={}")
    return _filled(
        _BASH,
        commands=table({place.words: " ".join(place.commands) for place in places}),
        options=table({place.words: " ".join(_flags(place)) for place in places}),
        values=table(_values(places)),
    )


_ZSH = r"""#compdef localrun
# Completion of localrun's command line in zsh, made by: localrun completion zsh

typeset -gA _localrun_commands _localrun_options _localrun_values
_localrun_commands=(
@commands@
)
_localrun_options=(
@options@
)
_localrun_values=(
@values@
)

_localrun() {
    local place=localrun what= word
    local -a found
    for word in "${(@)words[2,CURRENT-1]}"; do
        found=(${${(f)_localrun_commands[$place]}%%:*})
        if [[ -n $what ]]; then what=
        elif [[ $word == -- ]]; then what=:files; break
        elif [[ $word == -* ]]; then what=${_localrun_values[$place $word]}
        elif (( ${found[(Ie)$word]} )); then place+=" $word"
        fi
    done
    if [[ -z $what && $PREFIX == -* ]]; then
        found=("${(@f)_localrun_options[$place]}")
        _describe -o option found
        return
    elif [[ -z $what && -n ${_localrun_commands[$place]} ]]; then
        found=("${(@f)_localrun_commands[$place]}")
        _describe command found
        return
    fi
    : ${what:=${_localrun_values[$place]}}
    case $what in
        ''|:any) _message value ;;
        :files) _files ;;
        :folders) _files -/ ;;
        :*) found=(${(f)"$($words[1] completion names ${what#:} "$PREFIX" 2>/dev/null)"}); compadd -a found ;;
        *) compset -P '*,'; compadd -- ${=what} ;;
    esac
}
if [[ $funcstack[1] == _localrun ]]; then _localrun "$@"; else compdef _localrun localrun; fi
"""


def zsh(places: Sequence[Place]) -> str:
    """The script for zsh, with what each command and option does."""
    table = functools.partial(_table, "    {} {}")
    return _filled(
        _ZSH,
        commands=table({place.words: "\n".join(_described(place.commands, ":")) for place in places}),
        options=table({place.words: "\n".join(_described(_flags(place), ":")) for place in places}),
        values=table(_values(places)),
    )


_FISH = r"""# Completion of localrun's command line in fish, made by: localrun completion fish

function __localrun_commands
    switch "$argv[1]"
@commands@
    end
end

function __localrun_options
    switch "$argv[1]"
@options@
    end
end

function __localrun_value
    switch "$argv[1]"
@values@
    end
end

function __localrun_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l place localrun
    set -l what
    for word in $words[2..-1]
        if test -n "$what"
            set what
        else if test "$word" = --
            set what :files
            break
        else if string match -q -- '-*' $word
            set what (__localrun_value "$place $word")
        else if __localrun_commands $place | string match -q -r -- "^"(string escape --style=regex -- $word)"\t"
            set place "$place $word"
        end
    end
    if test -z "$what"; and string match -q -- '-*' $current
        __localrun_options $place
        return
    else if test -z "$what"; and test -n "$(__localrun_commands $place)"
        __localrun_commands $place
        return
    else if test -z "$what"
        set what (__localrun_value $place)
    end
    switch "$what"
        case '' :any
        case :files
            __fish_complete_path $current
        case :folders
            __fish_complete_directories $current ''
        case ':*'
            $words[1] completion names (string sub -s 2 -- $what) $current 2>/dev/null
        case '*'
            set -l list (string match -r -- '^.*,' $current)
            printf '%s\n' "$list"(string split ' ' -- $what)
    end
end

complete -c localrun -f -a '(__localrun_complete)'
"""


def fish(places: Sequence[Place]) -> str:
    """The script for fish, with what each command and option does."""

    def table(rows: Mapping[str, Sequence[str]]) -> str:
        return "\n".join(
            f"        case {_in_fish(key)}\n            printf '%s\\n' {' '.join(map(_in_fish, lines))}"
            for key, lines in rows.items()
            if lines
        )

    return _filled(
        _FISH,
        commands=table({place.words: _described(place.commands, "\t") for place in places}),
        options=table({place.words: _described(_flags(place), "\t") for place in places}),
        values=table({key: [value] for key, value in _values(places).items()}),
    )


def _in_fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SCRIPTS: dict[str, Callable[[Sequence[Place]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
