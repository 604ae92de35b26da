"""Fetching the image of a run, when it isn't there: a registry that says nothing is waited for 30 seconds.

How long it takes from its first word on is the network's affair; whoever stops the run ends it.
"""

from __future__ import annotations

# The registry's first words are waited for so long, and the client's own are none of them.
_SCRIPT = """
exec 3< <(exec "$@" 2>&1)
pid=$! deadline=$((SECONDS + 30)) line=
while IFS= read -r -u 3 -t $((deadline > SECONDS ? deadline - SECONDS : 1)) line; do
    printf '%s\\n' "$line" >&2
    case $line in
        "Using default tag"*|"Trying to pull"*|"Resolv"*) ((SECONDS < deadline)) || break;;
        *) heard=1; break;;
    esac
done
if [[ ! $heard ]] && kill -0 $pid 2>/dev/null && ((SECONDS >= deadline)); then
    kill $pid
    echo 'the registry gave no answer within 30 s' >&2
    exit 124
fi
cat <&3 >&2
wait $pid
"""


def argv(program: str, image: str) -> list[str]:
    """What is executed to fetch an image with an engine's command line; all that it says goes to stderr."""
    return ["/bin/bash", "-c", _SCRIPT, "localrun", program, "pull", image]
