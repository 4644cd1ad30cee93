"""A small atlas in a folder of its own: three mechanisms, two languages, the real site machinery.

Tests change its files and look at what its pages become, in fresh processes, as a build does.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
REAL = [
    f"snippets/{name}.py" for name in ("attention_domain/channel/senet", "changes", "docstrings", "lookup")
]
TOY = "snippets/weight_assignment/hard/toy.py"
HELPER = "snippets/weight_assignment/hard/helper.py"
PLAIN = "snippets/foundations/plain.py"
CATALOGUE = "snippets/catalogue.py"
STYLE = "figures/style.py"
FIGURE = "figures/attention_domain/channel/senet.py"
OVERVIEW = "attention_domain/channel/index"  # a figure without a mechanism, and its data
OVERVIEW_FIGURE = f"figures/{OVERVIEW}.py"
OVERVIEW_DATA = f"figures/{OVERVIEW}.json"

ROWS = """
CATALOGUE = _by_slug(
    [
        Mechanism(
            path="attention_domain/channel/senet",
            title="SENet: squeeze-and-excitation",
            weights=Weights.SOFT,
            domain=Domain.CHANNEL,
            chapter=Chapter.GATES,
            citation="hu2018senet",
            parameters="2*C**2/r + C/r + C",
            macs="2*B*C**2/r",
            complexity=r"O(N C + C^2 / r)",
            evidence=(Evidence.CODE, Evidence.PAPER),
            aliases=("SE", "squeeze-and-excitation", "挤压与激励"),
            related=("toy",),
        ),
        Mechanism(
            "weight_assignment/hard/toy", "Toy", Weights.HARD, Domain.CHANNEL, Chapter.SELECTION, "b2020",
            "0", "0", "O(C)",
            evidence=(Evidence.SECONDARY, Evidence.RECONSTRUCTION), drop_in="Toy()",
        ),
        Mechanism(
            "foundations/plain", "Plain", None, None, Chapter.FORMULA, "b2020", "E", "B*T*E", "O(T E)",
            evidence=(Evidence.PAPER,),
        ),
    ]
)
"""

TOY_CODE = """
from torch import nn, ones

from snippets.weight_assignment.hard import helper


class Toy(nn.Module):
    def attention(self, x):
        return (x.mean((2, 3), keepdim=True) > helper.THRESHOLD).to(x.dtype)

    def forward(self, x):
        return self.attention(x) * x


def example(B: int = 2, C: int = 3, H: int = 4, W: int = 5):
    return Toy().eval(), (ones(B, C, H, W),)
"""

PLAIN_CODE = """
from torch import nn, ones


class Plain(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)

    def attention(self, x):
        return self.score(x).softmax(1)

    def forward(self, x):
        return (self.attention(x) * x).sum(1)


def example(B: int = 2, T: int = 3, E: int = 5):
    return Plain(E).eval(), (ones(B, T, E),)
"""

RECALL = "attention_domain/set/recall"  # a mechanism to be added to those of the atlas
RECALL_ROW = """
        Mechanism(
            path="attention_domain/set/recall",
            title="Recall",
            weights=Weights.SELF,
            domain=Domain.SET,
            chapter=Chapter.CACHES,
            citation="c2021",
            parameters="0",
            macs="0",
            complexity="O(T E)",
            state=State("E", "2*E"),
            evidence=(Evidence.PAPER,),
        ),
"""

RECALL_FILES = {
    f"snippets/{RECALL}.py": """
from torch import cat, nn, ones


class Recall(nn.Module):
    def attention(self, x):
        return ones(x.shape[0], x.shape[1], x.shape[1]).tril()

    def forward(self, x):
        return x.cumsum(1)

    def step(self, x, state):
        read, total = state or (x[:, :0], x.new_zeros(x.shape[0], 2, x.shape[2]))
        y = total[:, :1] + x.cumsum(1)
        return y, (cat([read, x], 1), y[:, -1:].expand(-1, 2, -1))


def example(B: int = 2, T: int = 3, E: int = 5):
    return Recall().eval(), (ones(B, T, E),)
""",
    f"tests/{RECALL.replace('recall', 'test_recall')}.py": "",
    f"figures/{RECALL}.py": """
from figures.style import new_figure
from snippets.attention_domain.set.recall import example


def figure():
    block, (x,) = example()
    drawn, (axes,) = new_figure()
    axes.plot(block(x)[0, :, 0])
    return drawn
""",
    "docs/en/attention-domain/set/recall.md": "# Recall\n\nKeeps it all.\n\n```card\nrecall\n```",
    "docs/zh/attention-domain/set/recall.md": "# 回忆\n\n全部保留。\n\n```card\nrecall\n```",
}
RECALL_ENTRY = """
@article{c2021,
  author = {Cee, Al},
  title = {C},
  journal = {Journal},
  year = {2021},
  doi = {10.1/c},
}
"""

FIGURE_CODE = """
from figures.style import COLORS, new_figure, show_image
from snippets.attention_domain.channel.senet import example


def figure(say):
    block, (x,) = example()
    figure, (left, right) = new_figure(1, 2)
    left.bar(range(64), block.attention(x)[0].flatten().detach(), color=COLORS[0])
    left.set_xlabel(say("channel", "通道"))
    show_image(right, x[0, 0].sigmoid())
    return figure
"""

OVERVIEW_CODE = """
import json
from pathlib import Path

from figures.style import new_figure
from snippets.weight_assignment.hard import toy


def figure(say):
    blocks = json.loads(Path(__file__).with_suffix(".json").read_text())["blocks"]
    drawn, (axes,) = new_figure()
    axes.bar(list(blocks), [toy.example()[1][0].numel()] * len(blocks))
    return drawn
"""

GROWTH = """
{"setting": {"channels": 64, "torch": "2.13.0", "threads": 1, "date": "2026-11-21", "cores": 2, "rounds": 9,
             "fitted": 256},
 "blocks": {"senet": {"positions": [256, 1024, 4096], "milliseconds": [1.0, 1.25, 2.5],
                      "bytes": [1000, 2000000, 3000000],
                      "exponents": {"milliseconds": 0.5, "bytes": 1.004}},
            "toy": {"positions": [256, 1024], "milliseconds": [1, 16], "bytes": [1000000, 16000000],
                    "exponents": {"milliseconds": 2.0, "bytes": 2.0}}}}
"""

BIBLIOGRAPHY = """
@inproceedings{hu2018senet,
  author = {Hu, Jie and Shen, Li and Sun, Gang},
  title = {Squeeze-and-Excitation Networks},
  booktitle = {CVPR},
  year = {2018},
  eprint = {1709.01507},
}
@article{b2020,
  author = {Bee, Ann},
  title = {A < B},
  journal = {Journal},
  year = {2020},
  doi = {10.1/b},
}
"""

PROOFS = """
{"senet": {"torch": "2.13.0", "date": "2026-11-21", "source": "0", "tests": 20, "seconds": 4.2,
           "proofs": {
             "test_halves": [{"name": "max |Δ|", "measured": "2e-16", "limit": "≤ 1e-10"},
                             {"name": "change", "measured": "8.2", "limit": "> 0.1"}],
             "test_counts": [{"name": "", "measured": "28,071,976", "limit": "= 28,071,976"}]}}}
"""

PAGES = {
    "en/attention-domain/channel/senet.md": "# SENet: gates\n\nScales *each* [map](index.md) [@hu2018senet].",
    "zh/attention-domain/channel/senet.md": "# SENet：门控\n\n为每个通道乘以 $g_c$。",
    "en/weight-assignment/hard/toy.md": "---\ntags: [x]\n---\n# Toy\n\nKeeps or drops a channel.",
    "zh/weight-assignment/hard/toy.md": "# 玩具 {#toy}\n\n保留或丢弃一个通道。",
    "en/foundations/plain.md": "# Plain\n\nA weighted mean.",
    "zh/foundations/plain.md": "# 平均\n\n加权平均。",
    "en/foundations/index.md": "# Foundations\n\nThe start, and [a toy](../weight-assignment/hard/toy.md).",
    "zh/foundations/index.md": "# 基础\n\n| 用 |\n|---|\n| [玩具](../weight-assignment/hard/toy.md#toy) |",
    "en/attention-domain/channel/index.md": "# Channel\n\nWhich channel.",
    "zh/attention-domain/channel/index.md": "# 通道\n\n哪个通道。",
    "en/how-it-is-proved.md": "# How\n\nBy tests.\n\n## Evidence {#evidence}\n\n```evidence\n```",
    "zh/how-it-is-proved.md": "# 如何\n\n测试。\n\n## 依据 {#evidence}\n\n```evidence\n```",
    "en/comparison.md": "# Comparison\n\n```comparison\n```",
    "zh/comparison.md": "# 对比\n\n```comparison\n```",
    "en/bibliography.md": "# Bibliography\n\n```bibliography\n```",
    "zh/bibliography.md": "# 文献\n\n```bibliography\n```",
    "en/index.md": "# Home\n\n```matrix\n```",
    "zh/index.md": "# 首页\n\n```matrix\n```",
}

CONFIG = """
INHERIT: mkdocs.base.yml
site_name: Small
docs_dir: docs/{language}
site_dir: site/{prefix}
extra_css: []
extra_javascript: []
hooks: [sitekit/hooks/assets.py, sitekit/hooks/plain.py, sitekit/hooks/scripts.py, sitekit/hooks/disk.py]
theme: {{name: null, custom_dir: theme}}
plugins: []
extra: {{prefix: "{prefix}", language: {language}}}
markdown_extensions:
  sitekit.markdown.extension: {{language: {language}}}
"""


ASK = """
import json, sys
from sitekit import store
from sitekit.errors import BuildError
from snippets.catalogue import CATALOGUE
values, errors = {}, {}
for slug, row in CATALOGUE.items():
    try:
        r = store.results(row)
        values[slug] = [eval(expression) for expression in sys.argv[1:]]
    except BuildError:
        pass
for kind, name in store.current():
    try:
        store.ask(kind, name)
    except BuildError as error:
        errors[f"{kind} of {name}"] = str(error)
heavy = sorted({"torch", "sympy", "matplotlib"} & set(sys.modules))
print(json.dumps({"values": values, "errors": errors, "heavy": heavy}))
"""

ASK_KEYS = """
import json
from sitekit import store
from sitekit.kinds import KINDS
print(json.dumps({f"{kind} of {name}": KINDS[kind].key(name) for kind, name in store.current()}))
"""


@dataclass
class Answer:
    """What asking for all results gave: values by slug, errors by kind and name, heavy modules imported,
    printed lines.
    """

    values: dict[str, list[Any]]
    errors: dict[str, str]
    heavy: list[str]
    printed: list[str]


class SmallAtlas:
    """The files of a small atlas, and commands to run there."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        """Write a file of the atlas."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def replace(self, path: str, old: str, new: str) -> None:
        """Change the one place of a file where `old` stands."""
        text = (self.root / path).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
        self.write(path, text.replace(old, new))

    def add(self, path: str, text: str) -> None:
        """Write at the end of a file."""
        self.write(path, (self.root / path).read_text(encoding="utf-8") + text)

    def add_recall(self) -> None:
        """Add a mechanism in the five steps."""
        self.replace(CATALOGUE, "    ]\n)\n", RECALL_ROW.lstrip("\n") + "    ]\n)\n")
        self.add("docs/references.bib", RECALL_ENTRY)
        for path, text in RECALL_FILES.items():
            self.write(path, text)

    def environment(self) -> dict[str, str]:
        """Return the variables with which Python runs in the atlas, away from the real one."""
        environment = os.environ | {"PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}
        return environment | {"NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def python(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run Python in the atlas, away from the real one."""
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=self.root, env=self.environment(), capture_output=True, text=True, timeout=300
        )

    def results(self, *expressions: str) -> Answer:
        """Ask for all that is kept, as mkdocs does; `expressions` are those of the results `r` by slug."""
        done = self.python("-c", ASK, *expressions)
        assert done.returncode == 0, done.stderr
        return Answer(**json.loads(done.stdout), printed=done.stderr.splitlines())

    def keys(self) -> dict[str, str]:
        """Return the key of each kind and name."""
        done = self.python("-c", ASK_KEYS)
        assert done.returncode == 0, done.stderr
        found: dict[str, str] = json.loads(done.stdout)
        return found

    def build(self, language: str = "en") -> "subprocess.CompletedProcess[str]":
        """Build one language strictly."""
        return self.python("-m", "mkdocs", "build", "--strict", "-f", f"mkdocs.{language}.yml")


def create(root: Path) -> SmallAtlas:
    """Write a small atlas into an empty folder."""
    atlas = SmallAtlas(root)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "sitekit", root / "sitekit", ignore=ignored)
    shutil.copytree(ROOT / "styles", root / "styles")
    for file in ("mkdocs.base.yml", "CITATION.cff"):
        shutil.copy(ROOT / file, root)
    real = (ROOT / CATALOGUE).read_text(encoding="utf-8")
    files = {
        CATALOGUE: real[: real.index("CATALOGUE = _by_slug(")] + ROWS,
        STYLE: (ROOT / STYLE).read_text(encoding="utf-8"),
        FIGURE: FIGURE_CODE,
        **{file: (ROOT / file).read_text(encoding="utf-8") for file in REAL},
        TOY: TOY_CODE,
        HELPER: "THRESHOLD = 0\n",
        PLAIN: PLAIN_CODE,
        OVERVIEW_FIGURE: OVERVIEW_CODE,
        OVERVIEW_DATA: GROWTH,
        "docs/references.bib": BIBLIOGRAPHY,
        "docs/proofs.json": PROOFS,
        "theme/main.html": (
            '<html lang="{{ config.extra.language }}"><meta charset="utf-8">'
            "<body>{{ page.content }}</body></html>"
        ),
        "mkdocs.en.yml": CONFIG.format(language="en", prefix=""),
        "mkdocs.zh.yml": CONFIG.format(language="zh", prefix="zh/"),
    }
    for path, text in {**files, **{f"docs/{page}": text for page, text in PAGES.items()}}.items():
        atlas.write(path, text)
    return atlas
