"""Shell completion: `concise-rl completion bash` prints a script, which asks `concise-rl completion words` what fits.

Light: recipes are found by their file names and fields by parsing, so that a key press waits for no import of torch.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from concise_rl.errors import UserError
from concise_rl.methods.registry import FOLDERS, RECIPES, SHELVES, recipe_names

PACKAGE = Path(__file__).parents[1]
KINDS = {"train": SHELVES.keys() - {"selector"}, "select": {"selector"}}
"""A command's kinds of component; the others have none."""

SETTINGS = {"train": ("trainer", "trainer/grpo_config.py", "GRPOConfig")}
SETTINGS |= {"tune": ("tuning", "trainer/sft_config.py", "SFTConfig")}
"""Where a command's overrides of TRL's settings begin, and the file and class in trl that have them."""

SCRIPTS = {
    "bash": """\
_concise_rl() {
    local line="${COMP_LINE:0:COMP_POINT}" word
    word="${line##* }"
    COMPREPLY=()
    local found
    while IFS= read -r found; do
        # bash takes = and : for ends of words, and replaces only what comes behind them
        [[ "$word" == *[=:]* ]] && found="${found#"${word%"${word##*[=:]}"}"}"
        COMPREPLY+=("$found")
    done < <(concise-rl completion words "$line" 2>/dev/null)
    [[ "${COMPREPLY[0]}" == *[=.] ]] && compopt -o nospace
}
complete -o default -F _concise_rl concise-rl
""",
    "zsh": """\
_concise_rl() {
    local -a found
    found=("${(@f)$(concise-rl completion words "${LBUFFER}" 2>/dev/null)}")
    compadd -S '' -- $found
    _files
}
compdef _concise_rl concise-rl
""",
    "fish": """\
complete -c concise-rl -a '(concise-rl completion words (commandline -cp) 2>/dev/null)'
""",
}

COMPOSED = {"train": "train", "plan": "train", "predict": "train", "replay": "train", "eval": "eval"}
COMPOSED |= {"merge": "eval"} | {name: name for name in ("sample", "select", "tune")}
"""Commands that take overrides, and the file of defaults that says which there are."""


def script(shell: str) -> str:
    """What a shell evaluates to complete `concise-rl`.

    Raises:
        UserError: another shell.
    """
    if shell not in SCRIPTS:
        raise UserError(f"completion {shell}: choose one of {', '.join(SCRIPTS)}")
    return SCRIPTS[shell]


def words(line: str, commands: Iterable[str]) -> list[str]:
    """What may stand for the last word of a line that begins with `concise-rl`."""
    *before, last = line.split(" ")
    typed = [word for word in before if word][1:]
    if not typed:
        return _fitting(last, [*commands, "--help", "--version"])
    command = typed[0]
    if command in ("methods", "components"):
        names = recipe_names("method") if command == "methods" else {n for shelf in SHELVES.values() for n in shelf}
        return _fitting(last, names)
    if command == "completion":
        return _fitting(last, SCRIPTS)
    if command == "pipeline":
        return _fitting(last, [*(f"recipe={name}" for name in recipe_names("pipeline")), "dir=", "from=", "--list"])
    found = _overrides(last, COMPOSED[command]) if command in COMPOSED else []
    return found + (_fitting(last, recipe_names("method")) if command == "replay" else [])


def _overrides(last: str, config: str) -> list[str]:
    key, equals, _ = last.partition("=")
    groups = {path.name for path in RECIPES.iterdir() if path.is_dir()}
    if equals:
        return _fitting(last, (f"{key}={name}" for name in recipe_names(key))) if key in groups else []
    content = yaml.safe_load((RECIPES / f"{config}.yaml").read_text())
    keys = {f"{name}=" for name in _flat(content) if not name.startswith(("hydra", "defaults"))}
    keys |= {f"{group}=" for group in _groups(content)}
    head, _, rest = key.partition(".")
    kinds, (settings, *home) = KINDS.get(config, set()), SETTINGS.get(config, ("",))
    if head == settings:
        keys |= {f"{head}.{name}=" for name in trl_fields(*home)}
    elif head in kinds and "." in rest:
        keys |= {f"{head}.{rest.partition('.')[0]}.{name}=" for name in component_fields(head, rest.partition(".")[0])}
    elif head in kinds:
        keys |= {f"{head}.{name}." for name in SHELVES[head]}
    else:
        keys |= {f"{kind}." for kind in kinds}
    return _fitting(last, keys)


def _groups(content: dict) -> set[str]:
    chosen = [entry for entry in content["defaults"] if isinstance(entry, dict)]
    return {name for entry in chosen for name in entry if not name.startswith("override")}


def _flat(node: dict, prefix: str = "") -> list[str]:
    found = []
    for name, value in node.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return found


def component_fields(kind: str, name: str) -> list[str]:
    """The fields of a registered component, read from its file."""
    if name not in SHELVES[kind]:
        return []
    return _annotated(PACKAGE / "methods" / FOLDERS[kind] / f"{name}.py", SHELVES[kind][name])


def trl_fields(file: str, cls: str) -> list[str]:
    """The fields of a configuration of trl, read from the files that define them."""
    found = []
    for package, inside, name in (("trl", file, cls), ("transformers", "training_args.py", "TrainingArguments")):
        home = importlib.util.find_spec(package)
        if home is not None and home.submodule_search_locations:
            found += _annotated(Path(next(iter(home.submodule_search_locations))) / inside, name)
    return found


def _annotated(path: Path, cls: str) -> list[str]:
    """Names with an annotation in a class's body."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == cls:
            lines = [line for line in node.body if isinstance(line, ast.AnnAssign)]
            return [
                line.target.id
                for line in lines
                if isinstance(line.target, ast.Name) and "ClassVar" not in ast.dump(line.annotation)
            ]
    return []


def _fitting(last: str, candidates: Iterable[str]) -> list[str]:
    return sorted(candidate for candidate in set(candidates) if candidate.startswith(last))


def main(arguments: Sequence[str], commands: Iterable[str]) -> str:
    """The answer to `concise-rl completion SHELL` and to `concise-rl completion words LINE`."""
    if arguments and arguments[0] == "words":
        return "".join(f"{word}\n" for word in words(" ".join(arguments[1:]), commands))
    return script(arguments[0] if arguments else "(no shell)")
