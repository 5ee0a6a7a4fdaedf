"""Every recipe of docs/curvature.md runs as it stands."""

import re

import pytest
from small_runs import ROOT

pytestmark = pytest.mark.slow  # half a minute of compilation and more: `make test-all`

TEXT = (ROOT / "docs" / "curvature.md").read_text(encoding="utf-8")
RECIPES = {
    re.sub(r"\W+", " ", title.splitlines()[-1]).strip()[:40]: code
    for title, code in re.findall(r"([^\n]+)\n\n```python\n(.*?)```", TEXT, re.S)
}


def test_all_frameworks_are_there():
    assert len(RECIPES) == TEXT.count("```python") == 6


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name, capsys):
    exec(compile(RECIPES[name], name, "exec"), {"__name__": "recipe"})
    printed = capsys.readouterr().out
    assert printed.strip() and "nan" not in printed
