"""Make one ES module of several: anywidget takes a single string, but the sources stay separate."""

import re
from pathlib import Path

_IMPORT = re.compile(r'^import\s+\{[^}]*\}\s+from\s+"\./[\w.]+";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?!default\b)", re.MULTILINE)
_NOT_RUN = re.compile(r"^\s*//.*\n|  // .*$|^\s+", re.MULTILINE)


def source(name: str) -> str:
    """Return the text of a file in the folder of this one."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def bundle(*names: str) -> str:
    """Join local ES modules, each after those it imports, into the text of one module.

    ``import { a } from "./b.js";`` is left out and ``export`` is stripped, except
    ``export default``. All top-level names therefore share one scope and must differ. Comments
    (beside code, those after two spaces) and indentation are left out, because a page carries the
    text.

    Example:
        >>> "export default" in bundle("engine.js", "kit.js", "mixing.js")
        True
    """
    module = "\n".join(_EXPORT.sub("", _IMPORT.sub("", source(name))) for name in names)
    return _NOT_RUN.sub("", module)
