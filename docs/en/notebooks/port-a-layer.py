# ---
# description: A layer of transformers to the atlas and back; each mistake is made, and found by a number.
# ---

# %% [markdown]
# # Port a layer without losing a day
#
# The weights load, nothing is raised, and the output is wrong. Which of a dozen mistakes is it?
#
# Errors of porting are silent: the shapes agree, so only numbers tell. Here a layer of transformers goes to
# plain code and back. On the way each of the usual mistakes is made on purpose, and found by a number that
# fits no other. In a hurry? Take [the table](#stages), [the numbers](#numbers) and [the rules](#rules).
#
# ## Their layer, and a spy in it {#theirs}
#
# The attention of Qwen3-Next has it all: fewer heads of keys than of queries, norms, a rotation of some of
# the features, a gate, and biases if asked for. Ours is tiny, and prepared by three rules. **All weights
# are random and large, those of norms and biases too**: fresh ones are 0 or 1 and hide half of what
# follows. **All sizes differ**, so that what is swapped fails. **Everything is float64**, where right means
# $10^{-15}$.
#
# In transformers the attention proper is a function, and functions can be registered. This one notes what it
# is handed and calls the usual one. With two hooks all stages can be seen, and no line of theirs is touched.

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
# ## The port {#port}
#
# One method for each thing that can go wrong, so that a mistake is one method, too. Rotation is that of
# [the atlas](../foundations/rotary.md); heads, norms and gate are written as on the pages of
# [grouped queries](../weight-assignment/self-attention/grouped-query.md),
# [bounded scores](../weight-assignment/self-attention/bounded-logits.md) and the
# [output gate](../weight-assignment/self-attention/output-gate.md).


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
# ## Is that rounding? {#dtype}
#
# From the norms on it is nearly right: $10^{-6}$. That may be rounding, or a small mistake; below there is
# one that is hardly larger. Do not guess. Norms of transformers compute in float32, whatever they are given,
# so one that does not is put in their place. A mistake of ours would stay.


# %%
def exact(module: nn.Module, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + module.eps) * (1 + module.weight)


for norm in (theirs.layer.q_norm, theirs.layer.k_norm):
    norm.forward = partial(exact, norm)
for name, difference in apart(Port(weights)).items():
    print(f"{name:10} {difference:.0e}")

# %% [markdown]
# Right, at every stage; it was rounding. The dtype is a trap once more in half precision: Llama and Qwen3
# round to bfloat16 *before* they multiply by the weight, Gemma and Qwen3-Next after it. With the norm of the
# other kind one number in four is off by one unit in its last place, though all weights are in their places.

# %%
half = torch.randn(1000, D).bfloat16()
weight = torch.randn(D).bfloat16()
scaled = half.float() * torch.rsqrt(half.float().square().mean(dim=-1, keepdim=True) + EPS)
before, after = weight * scaled.bfloat16(), (weight.float() * scaled).bfloat16()
units = ((before.float() - after.float()) / after.float()).abs()
print(f"{(before != after).float().mean():.0%} differ, by {units.max():.4f} of their size at most")

# %% [markdown]
# ## Twelve mistakes {#mistakes}
#
# All of them load without a word, and none raises anything.


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
# ## The first stage that differs {#stages}
#
# A row is a mistake, a column a stage; the colour says how far the two are apart at most.

# %% alt="Twelve rows, seven stages: each row is dark up to the stage of its mistake, bright from there on."
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
# Read a row from the left: the first bright cell names two or three suspects, and what is to the right of it
# says nothing. A wrong eps is the small one: in float32 it would pass for rounding. The last two rows are
# right in every full pass; a test without a cache does not find them.
#
# ## A number for each suspect {#numbers}
#
# Among the suspects of a stage, a number decides that needs no right port beside it: it is *measured* on a
# layer, theirs or ours, from what goes in and what comes out.
#
# - **rows of heads**: the row of `q_proj` that makes the first feature of each head.
# - **for zeros**: what is projected out of tokens of zeros: biases, nothing else.
# - **eps** and **one**: a norm divides by $\sqrt{m + \epsilon}$, where $m$ is the mean square, and multiplies
#   by $a + w$. So $(x / y)^2$ is a straight line in $m$: its slope gives $a$, its height at zero $\epsilon$.
# - **pairs** and **angles**: give all tokens the same features. Then two features that are a pair run around
#   a circle, by one angle from token to token. If neither $(i, i + 2)$ nor $(2i, 2i + 1)$ does, something
#   came behind the rotation.
# - **scale**: as it was handed to the attention proper.
# - **readers**: change the values of the first head of keys; which heads of queries read something else?
# - **gate**: what was gated over what was read, the least and the largest.
# - **sees** and **stands at**: how many tokens change one behind a cache, and where that one was turned to.


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
# Now the mistakes. Of each, all numbers that differ from theirs are printed.

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
# No two lines are alike, and the right port has all numbers of theirs. The circle is worth a look: features
# $(0, 2)$ of a query that stands at nine positions, one after the other.

# %% alt="Nine points: theirs lie on a circle, those of other pairs and of a norm after the rotation do not."
figure, panels = plt.subplots(1, 3, figsize=(6, 2.3), sharey=True)
layers = {"theirs": theirs, "other pairs": OtherPairs(weights), "norm after rotation": NormLast(weights)}
for axes, (name, layer) in zip(panels, layers.items(), strict=True):
    points = layer.look(x[:, :1].expand(-1, T, -1))["turned"][0, 0, :, [0, TURNED // 2]]  # (T, 2)
    axes.add_patch(plt.Circle((0, 0), points[0].norm().item(), fill=False, color="#808080"))
    axes.plot(*points.T, "o")
    axes.set(title=name, xlim=(-1, 1), ylim=(-1, 1), xticks=(-1, 0, 1), yticks=(-1, 0, 1), aspect="equal")
plt.show()

# %% [markdown]
# ## And back {#back}
#
# The atlas keeps queries and gates in matrices of their own, and norms as what they multiply by: so does
# [today's block](../weight-assignment/self-attention/transformer.md#today). To unpack and to pack again
# loses nothing, and this can be asked for to the last bit. The 1 of the norms is the exception: in floating
# point $(w + 1) - 1$ is not $w$. Convert norms in float32 at least, never in bfloat16 there and back.


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
# ## The rules {#rules}
#
# 1. **Prepare**: weights random and large, norms and biases too; all sizes different; float64; their norms
#    without the cast to float32.
# 2. **Load with `strict=True`.** With `strict=False` a bias disappears without a word.
# 3. **Compare stages, not outputs.** The first one that differs names the suspects; ignore all later ones.
# 4. **Compare a token behind a cache**, and a few at once: some masks and positions err only there.
# 5. **Measure, do not guess.** A number taken from one layer settles what a difference of two cannot.
# 6. **Half precision last**, with its own tolerance, when float64 agrees to $10^{-14}$.
# 7. **And back**: what is only rearranged must return to the last bit.
#
# ## Go on {#next}
#
# - `measure` wants `look` and `last` alone: give your layer both, and read off its numbers.
# - Rotate all features instead of half of them. Which of the numbers tells?
# - Add a [sink](../weight-assignment/self-attention/sink.md) to the port. Which number finds one?
