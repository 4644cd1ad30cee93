"""The search as readers use it: what they type, in the words of either language, and what comes first."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from sitekit import pages
from snippets.catalogue import CATALOGUE
from tests.site.conftest import CHROMIUM

LANGUAGES = {"en": "", "zh": "zh/"}
SENET = "attention-domain/channel/senet/"
COORDINATE = "attention-domain/channel-spatial/coordinate/"
CBAM = "attention-domain/channel-spatial/cbam/"
SELF = "weight-assignment/self-attention/self-attention/"
MULTI_HEAD = "weight-assignment/self-attention/multi-head/"
CROSS_ATTENTION = "weight-assignment/soft/cross-attention/"
TRANSFORMER = "weight-assignment/self-attention/transformer/"
CRISS_CROSS = "attention-domain/spatial/criss-cross/"
MODELS = "models/"

TYPED = {
    "se block": SENET,
    "SE": SENET,
    "squeeze excite": SENET,
    "SEBlock": SENET,
    "SE模块": SENET,
    "SE注意力": SENET,
    "squeze": SENET,
    "squeeze": SENET,
    "cross attention": CROSS_ATTENTION,
    "交叉注意力": CROSS_ATTENTION,
    "encoder decoder attention": CROSS_ATTENTION,
    "cross-attention layer": CROSS_ATTENTION,
    "spatial attention": "attention-domain/spatial/",
    "空间注意力": "attention-domain/spatial/",
    "channel attention": "attention-domain/channel/",
    "通道注意力": "attention-domain/channel/",
    "分支注意力": "attention-domain/branch/",
    "混合注意力": "attention-domain/channel-spatial/",
    "hard attention": "weight-assignment/hard/",
    "软注意力": "weight-assignment/soft/",
    "CA": COORDINATE,
    "coord attention": COORDINATE,
    "cbma": CBAM,
    "nonlocal": "attention-domain/spatial/non-local/",
    "softmax(QK^T)": (SELF, MULTI_HEAD),
    "QK^T": (SELF, MULTI_HEAD),
    "掩膜": "foundations/masks/",
    "softmax函数": ("foundations/scores/", SELF),
    "CBAM模块": CBAM,
    "Transformer解码器": TRANSFORMER,
    "transfromer": TRANSFORMER,
    "~softmax*": "foundations/scores/",
    "通道注意力机制": "attention-domain/channel/",
    "cache calculator": MODELS,
    "缓存计算器": MODELS,
    "deepseek": MODELS,
    "模型家族": MODELS,
}
HOLDS = {"3x3": "3×3", "3 × 3": "3×3", "1×1卷积": "1×1"}  # any page with it

# Of each mechanism: an abbreviation or short name, a misspelling, a Chinese name
NAMES = {
    "general": ("f(g(x), x)", "atention in one formula", "注意力的通用公式"),
    "query_key_value": ("QKV", "three stagse", "查询键值"),
    "scores": ("bilinear attention", "aligment functions", "打分函数"),
    "saliency": ("saliency", "salincy", "显著性注意力"),
    "masks": ("attn_mask", "paddng mask", "掩码"),
    "structured_masks": ("document mask", "tree atention", "序列打包"),
    "rotary_scaling": ("YaRN", "positon interpolation", "位置插值"),
    "rotary_axes": ("M-RoPE", "multimodl rope", "多轴RoPE"),
    "position_bias": ("ALiBi", "relatve position bias", "相对位置偏置"),
    "rotary": ("RoPE", "rotray embedding", "旋转位置编码"),
    "no_position": ("NoPE", "no positonal encoding", "无位置编码"),
    "additive": ("Bahdanau", "badhanau", "加性注意力"),
    "luong_global": ("Luong attention", "multiplicatve attention", "乘性注意力"),
    "luong_local": ("local-p", "predictve alignment", "局部注意力"),
    "key_value": ("KV attention", "key-vlaue attention", "键值注意力"),
    "cross_attention": ("gated cross-attention", "cross atention", "编码器-解码器注意力"),
    "gumbel": ("ST-Gumbel", "gumble", "直通估计"),
    "structured": ("structured", "self-attentve pooling", "结构化自注意力"),
    "self_attention": ("SDPA", "intra-attenton", "自注意力"),
    "multi_head": ("MHA", "mutli-head", "多头注意力"),
    "transformer": ("pre-norm", "transfomer", "编码器与解码器"),
    "grouped_query": ("GQA", "multi-qurey attention", "分组查询注意力"),
    "sliding_window": ("SWA", "slidng window", "滑动窗口"),
    "bounded_logits": ("QK norm", "sotf cap", "有界分数"),
    "output_gate": ("gated attention", "ouput gate", "带门的输出"),
    "decayed_linear": ("RetNet", "gated linaer attention", "门控线性注意力"),
    "linear": ("Linear Transformer", "liner attention", "线性注意力"),
    "state_space_duality": ("Mamba-2", "semiseperable matrix", "状态空间对偶"),
    "delta_rule": ("DeltaNet", "detla rule", "增量规则"),
    "kimi_delta": ("KDA", "kimi detla", "Kimi 增量注意力"),
    "gated_delta": ("Gated DeltaNet", "gated detla", "门控增量规则"),
    "differential": ("DIFF Transformer", "diferential attention", "差分注意力"),
    "random_features": ("Performer", "randm features", "随机特征"),
    "hopfield": ("associative memory", "hopfeild", "联想记忆"),
    "forgetting": ("FoX", "forgeting attention", "遗忘注意力"),
    "sink": ("StreamingLLM", "atention sink", "注意力汇点"),
    "paged": ("vLLM", "block tabel", "分页注意力"),
    "kv_cache": ("KV cache", "incremental decodng", "KV缓存"),
    "latent": ("MLA", "latent atention", "多头潜在注意力"),
    "online_softmax": ("flash attention", "FlashAtention", "在线softmax"),
    "ring": ("context parallelism", "ring atention", "环形注意力"),
    "kv_sharing": ("YOCO", "cross-layer atention", "共享键值"),
    "senet": ("SE", "squeez-and-excitation", "挤压与激励"),
    "eca": ("ECA", "effcient channel attention", "高效通道注意力"),
    "srm": ("SRM", "stlye pooling", "风格重标定"),
    "gsop": ("GSoP", "gospnet", "全局二阶池化"),
    "non_local": ("NL", "non-locla", "非局部模块"),
    "self_attention_2d": ("SAGAN", "sagna", "空间自注意力"),
    "augmented_convolution": ("AAConv", "augmentd convolution", "注意力增强卷积"),
    "disentangled_non_local": ("DNL", "disentangeld", "解耦非局部模块"),
    "attention_factors": ("E1 E2 E3 E4", "generalised attention", "广义注意力"),
    "criss_cross": ("CCA", "cris-cross", "十字交叉注意力"),
    "asymmetric_non_local": ("ANN", "asymetric", "非对称非局部模块"),
    "em_attention": ("EMA", "expectaton-maximization", "期望最大化注意力"),
    "hamburger": ("HamNet", "hambuger", "矩阵分解"),
    "glore": ("GloRe", "golre", "全局推理单元"),
    "global_context": ("GC", "gcnte", "全局上下文"),
    "psanet": ("PSA", "psante", "逐点空间注意力"),
    "gather_excite": ("GE", "gahter-excite", "聚集与激励"),
    "stochastic": ("Show, Attend and Tell", "stochatsic", "随机硬注意力"),
    "ram": ("RAM", "recurrent atention model", "循环注意力模型"),
    "ra_cnn": ("RACNN", "attention propsal network", "注意力建议网络"),
    "multi_granularity": ("MGD", "multiple granularty", "多粒度描述子"),
    "blstm_attention": ("BLSTM", "blsmt", "双向LSTM注意力"),
    "temporal_adaptive": ("TAM", "adaptve temporal kernel", "时间自适应模块"),
    "global_local": ("GLTR", "gltrr", "全局局部时间表示"),
    "sknet": ("SK", "selectve kernel", "选择性卷积核"),
    "highway": ("highway", "higway", "高速公路网络"),
    "condconv": ("CondConv", "condcnov", "条件卷积"),
    "dynamic_convolution": ("DY-CNN", "dynamci convolution", "动态卷积"),
    "cbam": ("CBAM", "cabm", "卷积块注意力模块"),
    "bam": ("BAM", "botleneck attention", "瓶颈注意力模块"),
    "coordinate": ("CoordAtt", "coordiante", "坐标注意力"),
    "canet": ("CANet", "caent", "拼接注意力"),
    "sta": ("STA", "inter-frame regularisaton", "时空注意力"),
}
SHARED = {"Attention", "Additive"}  # classes: several modules have the first, the second is also a slug

pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ,
        reason="no Chromium found: install one to test the site in it",
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        yield context.new_page()


def first(page: Page, typed: str) -> str:
    """Type into the field of an open page; return where the first result leads, from the language's root."""
    field = page.get_by_role("combobox")
    field.fill("")
    expect(page.get_by_role("option")).to_have_count(0)
    field.fill(typed)
    option = page.get_by_role("option").first
    expect(option).to_be_attached()
    root = page.evaluate("new URL('.', location).href")
    return str(option.evaluate("link => link.href")).removeprefix(root).partition("#")[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_typed_leads_to_what_is_meant(page: Page, address: str, language: str) -> None:
    page.goto(address + LANGUAGES[language])
    found = {typed: first(page, typed) for typed in TYPED}
    assert not {typed: url for typed, url in found.items() if url not in TYPED[typed] or not url}


@pytest.mark.parametrize("language", LANGUAGES)
def test_signs_and_numbers_are_text(page: Page, address: str, language: str) -> None:
    page.goto(address + LANGUAGES[language])
    for typed, text in HOLDS.items():
        first(page, typed)
        expect(page.get_by_role("option").first).to_contain_text(text)


RANKED = """async ([module, index, queries]) => {
  const { load, search } = await import(module)
  const pages = await load(index)
  return queries.map((query) => search(pages, query).found[0].page.url)
}"""


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_mechanism_is_found_by_all_it_is_called(page: Page, address: str, language: str) -> None:
    page.goto(address)
    index = f"{address}{LANGUAGES[language]}search.json"
    known = {entry["url"]: entry for entry in page.request.get(index).json()}
    wanted: list[tuple[str, str]] = []
    for slug, row in CATALOGUE.items():
        url = pages.page(row).removesuffix(".md") + "/"
        called = {slug, row.title, *row.aliases, *known[url]["classes"], *NAMES[slug]} - SHARED
        wanted += [(name, url) for name in sorted(called)]
    module = address + "assets/javascripts/ranking.js"
    found = page.evaluate(RANKED, [module, index, [name for name, _ in wanted]])
    assert not [(*pair, url) for pair, url in zip(wanted, found, strict=True) if url != pair[1]]


def test_nothing_is_fetched_until_the_reader_turns_to_the_search(page: Page, address: str) -> None:
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(address + SENET, wait_until="networkidle")
    assert not [url for url in fetched if "search.json" in url or "ranking.js" in url]
    page.keyboard.press("/")
    expect(page.get_by_role("combobox")).to_be_focused()
    page.keyboard.insert_text("cbam")
    expect(page.get_by_role("option").first).to_contain_text("CBAM")
    assert len([url for url in fetched if url == address + "search.json"]) == 1


def test_the_keyboard_goes_through_what_was_found(page: Page, address: str) -> None:
    page.goto(address)
    page.keyboard.press("s")
    field = page.get_by_role("combobox")
    field.press_sequentially("criss cross row")
    options = page.get_by_role("option")
    expect(options.nth(1)).to_be_visible()
    expect(field).to_have_attribute("aria-expanded", "true")
    for key, place in [("ArrowDown", 0), ("ArrowDown", 1), ("ArrowUp", 0)]:
        field.press(key)
        expect(options.nth(place)).to_have_attribute("aria-selected", "true")
        expect(field).to_have_attribute("aria-activedescendant", f"atlas-found-{place}")
    field.press("Escape")
    expect(field).not_to_be_focused()
    expect(options.first).to_be_hidden()
    page.keyboard.press("/")
    field.press("Enter")
    page.wait_for_url(f"{address}{CRISS_CROSS}*")


def test_a_result_says_where_it_stands_and_leads_to_the_section(page: Page, address: str) -> None:
    page.goto(address + "zh/")
    assert first(page, "音量旋钮") == SENET
    option = page.get_by_role("option").first
    expect(option).to_contain_text("作用于哪个域 › 通道")
    expect(option.locator("mark")).to_have_text("音量旋钮")
    first(page, "砖墙")
    option.click()
    page.wait_for_url(f"{address}zh/**#*")


@pytest.mark.parametrize("language", LANGUAGES)
def test_text_that_comes_without_a_key_is_searched(page: Page, address: str, language: str) -> None:
    page.goto(f"{address}{LANGUAGES[language]}?q=squeze")
    expect(page.get_by_role("combobox")).to_have_value("squeze")
    expect(page.get_by_role("option").first).to_contain_text("SENet")
    expect(page.locator(".atlas-search [role=status]")).to_contain_text("squeeze")


@pytest.mark.parametrize(
    ("language", "typed", "said"),
    [
        ("en", "hyena", "Not here yet: “hyena”"),
        ("en", "flashinfer kernel", "Not here yet: “flashinfer”"),
        ("en", "quantised attention", "No page has this name"),
        ("en", "zebra rows", "Not here yet: “zebra”"),
        ("zh", "鬣狗", "图谱尚未收录“鬣狗”"),
        ("zh", "量化注意力", "没有以此为名的页面"),
    ],
)
def test_what_the_atlas_does_not_hold_is_said(
    page: Page, address: str, language: str, typed: str, said: str
) -> None:
    page.goto(address + LANGUAGES[language])
    first(page, typed)
    expect(page.locator(".atlas-search [role=status]")).to_contain_text(said)


def test_a_missing_index_is_said_and_tried_again(page: Page, address: str) -> None:
    page.goto(address)
    page.route("**/search.json", lambda route: route.abort())
    field = page.get_by_role("combobox")
    field.fill("cbam")
    expect(page.locator(".atlas-search [role=status]")).to_contain_text("could not be loaded")
    page.unroute("**/search.json")
    field.fill("cbam ")
    expect(page.get_by_role("option").first).to_contain_text("CBAM")


def test_results_cover_the_page_of_a_phone(browser: Browser, address: str) -> None:
    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        page = context.new_page()
        page.goto(address)
        page.locator("label.md-header__button[for=__search]").click()
        page.get_by_role("combobox").fill("attention")
        expect(page.get_by_role("option").nth(3)).to_be_in_viewport()


def test_the_search_is_hidden_without_javascript(browser: Browser, address: str) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(address)
        expect(page.locator(".md-search, label[for=__search]").filter(visible=True)).to_have_count(0)


TIMED = """async (queries) => {
  const field = document.querySelector(".atlas-search input")
  const list = document.querySelector(".atlas-search [role=listbox]")
  const times = []
  for (const query of queries) {
    const start = performance.now()
    const shown = new Promise((done) => new MutationObserver((_, seen) => { seen.disconnect(); done() })
      .observe(list, { childList: true }))
    field.value = query
    field.dispatchEvent(new Event("input"))
    await shown
    times.push(performance.now() - start)
  }
  return times
}"""


def test_results_come_at_once_on_a_slow_machine(page: Page, address: str) -> None:
    """The median of several texts counts: other work on this machine may take longer than all."""
    page.goto(address)
    assert first(page, "cbam") == CBAM
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": 4})
    times = sorted(page.evaluate(TIMED, ["e", "softmax(QK^T)", "transfromer", "mamba", "channel attention"]))
    assert times[2] < 100, times
