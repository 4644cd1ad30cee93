# ---
# description: 把 transformers 的一层搬进图谱再搬回去；每个错都先犯一遍，再用一个数找出来。
# ---

# %% [markdown]
# # 移植一层，不必赔上一天
#
# 权重载入了，什么错也没报，输出却不对。十来种错里，是哪一种？
#
# 移植的错误不出声：形状都对得上，只有数字会说话。这里把 transformers 的一层
# 搬成直白的代码，再搬回去。途中把常见的错逐一故意犯一遍，
# 每个都由一个别的错给不出的数找到。赶时间的话，
# 只看[表](#stages)、[数](#numbers)和[规矩](#rules)。
#
# ## 他们的层，和里面的探子 {#theirs}
#
# Qwen3-Next 的注意力样样都有：键的头比查询的头少，有归一化，旋转一部分特征，
# 有门，需要时还有偏置。我们这一层很小，准备时守三条规矩。
# **所有权重都随机而且够大，归一化和偏置的也一样**：新建的它们是 0 或 1，
# 下面的错会被遮住一半。**所有尺寸各不相同**，弄反了就会报错。
# **一律用 float64**，对就是 $10^{-15}$。
#
# 在 transformers 里，注意力本身是一个函数，而函数可以注册。
# 这里注册的函数记下收到的东西，再调用平常的那个。加上两个钩子，
# 每个阶段都看得见，他们的代码一行也不用改。

# %%
import sys

sys.modules["torchvision"] = None  # not needed, and its wheel does not load beside a CPU build of torch

# %%
from functools import partial

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache, Qwen3NextConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextAttention

from snippets.foundations.rotary import angles, rotate

E, H, K, D, TURNED, T = 20, 6, 2, 8, 4, 9  # width, heads of queries, of keys, features, turned ones, tokens
BASE, EPS = 10_000.0, 1e-6
noted = {}


def spy(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest, **options):
    read, weights = sdpa_attention_forward(module, query, key, value, *rest, **options)
    noted.update(turned=query, read=read, scale=options["scaling"])
    return read, weights


AttentionInterface.register("spy", spy)


class Theirs:
    """The layer of transformers; `look` returns all its stages."""

    def __init__(self) -> None:
        config = Qwen3NextConfig(
            hidden_size=E,
            num_attention_heads=H,
            num_key_value_heads=K,
            head_dim=D,
            rms_norm_eps=EPS,
            attention_bias=True,
            attn_implementation="spy",
        )
        self.layer = Qwen3NextAttention(config, layer_idx=0).double().eval().requires_grad_(False)
        for weight in self.layer.parameters():
            nn.init.normal_(weight, std=0.7)
        self.layer.q_norm.register_forward_hook(
            lambda module, inputs, output: noted.update(projected=inputs[0], normed=output)
        )
        self.layer.o_proj.register_forward_hook(lambda module, inputs, output: noted.update(gated=inputs[0]))

    def look(self, x: Tensor, first: int = 0, cache: DynamicCache | None = None) -> dict:
        angle = angles(torch.arange(first, first + x.shape[1]), TURNED, BASE, x.dtype).repeat(1, 1, 2)
        output, _ = self.layer(x, (angle.cos(), angle.sin()), None, past_key_values=cache)
        return noted | {"output": output}

    def last(self, x: Tensor) -> dict:
        """The stages of the last token, which comes alone; the others are in a cache."""
        cache = DynamicCache()
        self.look(x[:, :-1], cache=cache)
        return self.look(x[:, -1:], x.shape[1] - 1, cache)


torch.manual_seed(0)
theirs = Theirs()
x = torch.randn(2, T, E, dtype=torch.float64)
print("transformers", transformers.__version__)
for name, weight in theirs.layer.state_dict().items():
    print(f"{name:14} {tuple(weight.shape)}")

# %% [markdown]
# ## 移植 {#port}
#
# 凡是会出错的地方各写一个方法，这样一个错也就是一个方法。
# 旋转用[图谱的](../foundations/rotary.md)；头、归一化和门的写法见
# [分组查询](../weight-assignment/self-attention/grouped-query.md)、
# [有界分数](../weight-assignment/self-attention/bounded-logits.md)和
# [带门的输出](../weight-assignment/self-attention/output-gate.md)各页。


# %%
class Port:
    eps, base, scale = EPS, BASE, D**-0.5

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.w = weights

    def project(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.w[f"{name}_proj.weight"], self.w[f"{name}_proj.bias"])

    def unpack(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and gates alternate, head by head."""
        return packed.unflatten(2, (H, 2, D)).unbind(dim=3)

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * (1 + weight)

    def turn(self, x: Tensor, first: int) -> Tensor:
        angle = angles(torch.arange(first, first + x.shape[2]), TURNED, self.base, x.dtype)
        return rotate(x, angle.cos(), angle.sin())

    def prepare(self, x: Tensor, weight: Tensor, first: int) -> Tensor:
        return self.turn(self.norm(x, weight).transpose(1, 2), first)

    def share(self, heads: Tensor) -> Tensor:
        """Give each head of keys or values to its queries, which are neighbours."""
        return heads.repeat_interleave(H // K, dim=1)

    def visible(self, new: int, tokens: int) -> Tensor:
        """Which of all tokens the last ones see."""
        return torch.ones(new, tokens, dtype=torch.bool).tril(tokens - new)

    def open(self, gate: Tensor) -> Tensor:
        return gate.sigmoid()

    def look(self, x: Tensor, first: int = 0, kept: tuple[Tensor, Tensor] | None = None) -> dict:
        query, gate = self.unpack(self.project("q", x))
        key, value = (self.project(name, x).unflatten(2, (K, D)) for name in "kv")
        turned = self.prepare(query, self.w["q_norm.weight"], first)
        keys, values = self.prepare(key, self.w["k_norm.weight"], first), value.transpose(1, 2)
        if kept is not None:
            keys, values = (torch.cat(pair, dim=2) for pair in zip(kept, (keys, values), strict=True))
        scores = turned @ self.share(keys).mT * self.scale
        weights = scores.masked_fill(~self.visible(*scores.shape[2:]), -torch.inf).softmax(dim=-1)
        read = (weights @ self.share(values)).transpose(1, 2)
        gated = (read * self.open(gate)).flatten(2)
        return {
            "projected": query,
            "normed": self.norm(query, self.w["q_norm.weight"]),
            "turned": turned,
            "read": read,
            "gated": gated,
            "output": self.project("o", gated),
            "scale": self.scale,
            "kept": (keys, values),
        }

    def last(self, x: Tensor) -> dict:
        return self.look(x[:, -1:], x.shape[1] - 1, self.look(x[:, :-1])["kept"])


STAGES = ("projected", "normed", "turned", "read", "gated", "output")


def apart(port: Port) -> dict[str, float]:
    """How far the port is off, at each stage and for a token that comes after a cache."""
    pairs = {name: (port.look(x)[name], theirs.look(x)[name]) for name in STAGES}
    pairs["next token"] = port.last(x)["output"], theirs.last(x)["output"]
    return {name: (ours - expected).abs().max().item() for name, (ours, expected) in pairs.items()}


weights = theirs.layer.state_dict()
for name, difference in apart(Port(weights)).items():
    print(f"{name:10} {difference:.0e}")

# %% [markdown]
# ## 是舍入吗？ {#dtype}
#
# 从归一化开始只是差不多对：$10^{-6}$。可能是舍入，也可能是一个小错；
# 下面就有一个错，大不了多少。不要猜。transformers 的归一化不管收到什么，
# 都用 float32 计算，所以换上一个不这么做的。若是我们的错，换了它还在。


# %%
def exact(module: nn.Module, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + module.eps) * (1 + module.weight)


for norm in (theirs.layer.q_norm, theirs.layer.k_norm):
    norm.forward = partial(exact, norm)
for name, difference in apart(Port(weights)).items():
    print(f"{name:10} {difference:.0e}")

# %% [markdown]
# 各个阶段都对了，刚才的确是舍入。到了半精度，数据类型还有一个坑：Llama 与 Qwen3 在乘权重**之前**舍入到
# bfloat16，Gemma 与 Qwen3-Next 在**之后**。用错了种类，四个数里就有一个差末位一个单位，
# 尽管所有权重都放对了地方。

# %%
half = torch.randn(1000, D).bfloat16()
weight = torch.randn(D).bfloat16()
scaled = half.float() * torch.rsqrt(half.float().square().mean(dim=-1, keepdim=True) + EPS)
before, after = weight * scaled.bfloat16(), (weight.float() * scaled).bfloat16()
units = ((before.float() - after.float()) / after.float()).abs()
print(f"{(before != after).float().mean():.0%} differ, by {units.max():.4f} of their size at most")

# %% [markdown]
# ## 十二个错 {#mistakes}
#
# 它们全都能载入，一声不响，没有一个会报错。


# %%
class GatesBehind(Port):
    def unpack(self, packed):  # all queries, then all gates
        return packed.unflatten(2, (2, H, D)).unbind(dim=2)


class NoBias(Port):
    def project(self, name, x):  # as load_state_dict(..., strict=False) has it
        return F.linear(x, self.w[f"{name}_proj.weight"])


class NoOne(Port):
    def norm(self, x, weight):  # w instead of 1 + w
        return super().norm(x, weight - 1)


class OtherEps(Port):
    eps = 1e-5


class NormLast(Port):
    def prepare(self, x, weight, first):
        return self.norm(self.turn(x.transpose(1, 2), first), weight)


class OtherPairs(Port):
    def turn(self, x, first):  # (2i, 2i + 1) instead of (i, i + width / 2)
        angle = angles(torch.arange(first, first + x.shape[2]), TURNED, self.base, x.dtype)
        return rotate(x, angle.cos(), angle.sin(), mode="interleaved")


class OtherBase(Port):
    base = 500_000.0


class Tiled(Port):
    def share(self, heads):  # 0 1 0 1 0 1 instead of 0 0 0 1 1 1
        return heads.repeat(1, H // K, 1, 1)


class OtherScale(Port):
    scale = (E / H) ** -0.5  # what a head would have if the heads shared the width of the tokens


class SiluGate(Port):
    def open(self, gate):
        return F.silu(gate)


class TopLeft(Port):
    def visible(self, new, tokens):  # as is_causal=True in scaled_dot_product_attention
        return torch.ones(new, tokens, dtype=torch.bool).tril()


class FromZero(Port):
    def last(self, x):  # the new token is turned as if it were the first
        return self.look(x[:, -1:], 0, self.look(x[:, :-1])["kept"])


MISTAKES = {
    "gates behind all queries": GatesBehind,
    "biases left out": NoBias,
    "weight of norm without its 1": NoOne,
    "other eps": OtherEps,
    "norm after rotation": NormLast,
    "other pairs rotated": OtherPairs,
    "other base": OtherBase,
    "heads of keys tiled": Tiled,
    "other scale": OtherScale,
    "gate with SiLU": SiluGate,
    "mask top-left": TopLeft,
    "position from zero": FromZero,
}

# %% [markdown]
# ## 最先出现差别的阶段 {#stages}
#
# 一行是一个错，一列是一个阶段；颜色表示两者最多差多少。

# %% alt="十二行、七个阶段：每一行在出错的阶段之前是暗的，从那里开始变亮。"
differences = {name: apart(mistake(weights)) for name, mistake in MISTAKES.items()}
table = torch.tensor([list(found.values()) for found in differences.values()])
figure, axes = plt.subplots(figsize=(4.6, 4.4))
picture = axes.imshow(table.clamp(min=1e-16).log10(), cmap="magma", vmin=-16, vmax=1, aspect="auto")
axes.set_xticks(range(7), [*STAGES, "next token"], rotation=35, ha="left", rotation_mode="anchor")
axes.xaxis.tick_top()
axes.set_yticks(range(len(MISTAKES)), MISTAKES)
bar = figure.colorbar(picture, ax=axes, ticks=[-15, -10, -5, 0])
bar.ax.set_yticklabels(["$10^{-15}$", "$10^{-10}$", "$10^{-5}$", "1"])
plt.show()

# %% [markdown]
# 每一行从左往右读：第一个亮格子点出两三个嫌疑，它右边的都不说明什么。
# eps 不对是最小的一个，在 float32 里会被当成舍入。
# 最后两行在一次读完时全对；不带缓存的测试找不到它们。
#
# ## 每个嫌疑一个数 {#numbers}
#
# 同一阶段的嫌疑之间，由一个数来定。它不需要旁边有一份正确的移植：
# 只凭进去的和出来的，就能在一个层上**量**出来，不论是他们的还是我们的。
#
# - **rows of heads**：每个头的第一个特征由 `q_proj` 的哪一行算出。
# - **for zeros**：全零的词元投影出什么：只有偏置。
# - **eps** 与 **one**：归一化除以 $\sqrt{m + \epsilon}$，其中 $m$ 是均方，再乘以
#   $a + w$。所以 $(x / y)^2$ 是 $m$ 的一条直线：斜率给出 $a$，零处的高度给出 $\epsilon$。
# - **pairs** 与 **angles**：让所有词元的特征相同。真正成对的两个特征就沿一个圆走，
#   每个词元转同一个角度。若 $(i, i + 2)$ 和 $(2i, 2i + 1)$ 都不走圆，
#   旋转之后必定还有别的东西。
# - **scale**：交给注意力本身的那个数。
# - **readers**：改动第一个键值头的值，看哪些查询头读到的变了。
# - **gate**：过门之后除以过门之前，最小和最大的比值。
# - **sees** 与 **stands at**：缓存之后的一个词元，受多少个词元影响，又被旋转到哪个位置。


# %%
def norm_line(stages: dict) -> tuple[float, float]:
    """The eps of a norm, and what it adds to its weight."""
    before, after = stages["projected"].flatten(0, 2), stages["normed"].flatten(0, 2)  # (N, D)
    square = before.square().mean(dim=1)
    line = torch.stack([square, torch.ones_like(square)], dim=1)
    slope, height = torch.linalg.lstsq(line, (before / after).square()).solution  # (D) each
    factor = slope**-0.5 * (after / before)[0].sign()
    return (height / slope).median().item(), (factor - weights["q_norm.weight"]).median().item()


def circles(layer: Theirs | Port) -> tuple[str, str]:
    """Which features run around a circle together, and by how much from token to token."""
    turned = layer.look(x[:, :1].expand(-1, T, -1))["turned"][0, 0, :, :TURNED]  # (T, r), all tokens alike
    layouts = {
        "half": torch.complex(*turned.unflatten(1, (2, -1)).unbind(dim=1)),  # (T, r / 2)
        "interleaved": torch.complex(*turned.unflatten(1, (-1, 2)).unbind(dim=2)),
    }
    for name, pairs in layouts.items():
        if torch.allclose(pairs.abs(), pairs[0].abs()):
            return name, " ".join(f"{angle:.4f}" for angle in (pairs[1] / pairs[0]).angle().tolist())
    return "neither", "none"


def readers(layer: Theirs | Port) -> list[int]:
    """The heads of queries that read something else if the first head of values changes."""
    before = layer.look(x)["read"]
    weights["v_proj.weight"][:D] += 1
    after = layer.look(x)["read"]
    weights["v_proj.weight"][:D] -= 1
    return [head for head in range(H) if not torch.allclose(after[:, :, head], before[:, :, head])]


def sees(layer: Theirs | Port) -> int:
    """How many tokens change what the last one reads behind a cache."""
    before, count = layer.last(x)["read"], 0
    for token in range(T):
        other = x.clone()
        other[:, token] += 1
        count += not torch.allclose(layer.last(other)["read"], before)
    return count


def measure(layer: Theirs | Port) -> dict[str, str]:
    """Return the numbers of a layer."""
    stages, last = layer.look(x), layer.last(x)
    packed = F.linear(x, weights["q_proj.weight"])  # (B, T, 2 H D)
    free = stages["projected"] - layer.look(0 * x)["projected"]  # without bias
    rows = [(packed - free[:, :, head, :1]).abs().amax(dim=(0, 1)).argmin().item() for head in range(H)]
    eps, one = norm_line(stages)
    pairs, turns = circles(layer)
    gate = stages["gated"] / stages["read"].flatten(2)
    whole = layer.look(x[:, -1:].expand(-1, T, -1))["turned"]  # the last token at all positions
    place = (whole - last["turned"]).abs().amax(dim=(0, 1, 3)).argmin().item()
    return {
        "rows of heads": str(rows),
        "for zeros": f"{layer.look(0 * x)['projected'].abs().max():.1f}",
        "eps": f"{eps:.0e}",
        "one": f"{one:.2f}",
        "pairs": pairs,
        "angles": turns,
        "scale": f"{stages['scale']:.3f}",
        "readers": str(readers(layer)),
        "gate": f"{gate.min():.1f} to {gate.max():.1f}",
        "sees": str(sees(layer)),
        "stands at": str(place),
    }


right = measure(theirs)
for name, number in right.items():
    print(f"{name:14} {number}")

# %% [markdown]
# 现在轮到那些错。每个错只打印与他们不同的数。

# %%
lines = {}
for name, mistake in MISTAKES.items():
    found = measure(mistake(weights))
    lines[name] = "; ".join(f"{key} {number}" for key, number in found.items() if number != right[key])
    print(f"{name:29}", lines[name])
assert all(lines.values())
assert len(set(lines.values())) == len(lines)  # no two are alike
assert measure(Port(weights)) == right

# %% [markdown]
# 没有两行相同，而正确的移植与他们的数全都一样。圆值得看一眼：一个查询的特征 $(0, 2)$，依次放在九个位置上。

# %% alt="九个点：原层的点在圆上，换了配对、或旋转之后才归一化的不在。"
figure, panels = plt.subplots(1, 3, figsize=(6, 2.3), sharey=True)
layers = {"theirs": theirs, "other pairs": OtherPairs(weights), "norm after rotation": NormLast(weights)}
for axes, (name, layer) in zip(panels, layers.items(), strict=True):
    points = layer.look(x[:, :1].expand(-1, T, -1))["turned"][0, 0, :, [0, TURNED // 2]]  # (T, 2)
    axes.add_patch(plt.Circle((0, 0), points[0].norm().item(), fill=False, color="#808080"))
    axes.plot(*points.T, "o")
    axes.set(title=name, xlim=(-1, 1), ylim=(-1, 1), xticks=(-1, 0, 1), yticks=(-1, 0, 1), aspect="equal")
plt.show()

# %% [markdown]
# ## 再搬回去 {#back}
#
# 图谱把查询和门放在各自的矩阵里，归一化存的就是所乘的数，
# [今天的层](../weight-assignment/self-attention/transformer.md#today)就是这样。
# 拆开再装回去什么也不丢，可以要求一位不差。例外是归一化的那个 1：在浮点数里，
# $(w + 1) - 1$ 不等于 $w$。归一化的权重至少用 float32 来换算，决不要在 bfloat16 里一来一回。


# %%
def to_atlas(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {name.replace("o_proj", "out_proj"): weight for name, weight in state.items()}
    for kind in ("weight", "bias"):
        query, gate = found[f"q_proj.{kind}"].unflatten(0, (H, 2, D)).unbind(dim=1)
        found |= {f"q_proj.{kind}": query.flatten(0, 1), f"gate_proj.{kind}": gate.flatten(0, 1)}
    return {name: weight + 1 if "norm" in name else weight for name, weight in found.items()}


def to_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {name.replace("out_proj", "o_proj"): weight for name, weight in state.items()}
    for kind in ("weight", "bias"):
        both = [found.pop(f"{name}.{kind}").unflatten(0, (H, D)) for name in ("q_proj", "gate_proj")]
        found[f"q_proj.{kind}"] = torch.stack(both, dim=1).flatten(0, 2)
    return {name: weight - 1 if "norm" in name else weight for name, weight in found.items()}


for dtype in (torch.float64, torch.float32, torch.bfloat16):
    there = {name: weight.to(dtype) for name, weight in weights.items()}
    back = to_transformers(to_atlas(there))
    same = [name for name in there if torch.equal(back[name], there[name])]
    norms = max((back[name] - there[name]).abs().max().item() for name in there if "norm" in name)
    print(f"{dtype}: {len(same)} of {len(there)} to the last bit; norms off by {norms:.0e}")

expected = theirs.look(x)["output"]
theirs.layer.load_state_dict(to_transformers(to_atlas(weights)))
print(f"output after the journey: off by {(theirs.look(x)['output'] - expected).abs().max():.0e}")

# %% [markdown]
# ## 规矩 {#rules}
#
# 1. **先准备**：权重随机而且够大，归一化和偏置也一样；尺寸各不相同；用 float64；
#    他们的归一化不要转成 float32。
# 2. **用 `strict=True` 载入。** 用 `strict=False`，偏置丢了也没有声音。
# 3. **比较阶段，不比较输出。** 最先不同的阶段点出嫌疑；后面的一概不看。
# 4. **比较缓存之后的一个词元**，再比较一次来几个的：有些掩码和位置的错只在那里出现。
# 5. **要量，不要猜。** 两个层的差定不了的事，在一个层上量出的数能定。
# 6. **半精度放在最后**，容差另定，等 float64 已经符合到 $10^{-14}$ 再说。
# 7. **还要搬回去**：只是换了摆法的，回来必须一位不差。
#
# ## 接着做 {#next}
#
# - `measure` 只要 `look` 和 `last`：给你的层写上这两个，就能读出它的数。
# - 把一半特征的旋转改成全部旋转。哪个数会说出来？
# - 给移植加上一个[汇点](../weight-assignment/self-attention/sink.md)。用哪个数能发现它？
