# ---
# description: 用全部重算、缓存、窗口和潜向量续写一句话，看每一种要保留什么。
# ---

# %% [markdown]
# # 一次一个词元
#
# 一个小语言模型逐个字母往下写。四种写法，看每一种要保留什么。
#
# 模型把一段文本背得差不多，就是《Python 之禅》，
# 每个 Python 都在模块 `this` 里带着它。词元就是字母。
# 这里看的不是写得多好，而是用更少的计算写出**同样**的内容，
# 以及为此必须记住什么。

# %%
import codecs
import contextlib
import copy
import io

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snippets.weight_assignment.self_attention.kv_cache import CachedAttention
from snippets.weight_assignment.self_attention.latent import LatentAttention
from snippets.weight_assignment.self_attention.sliding_window import SlidingWindowAttention
from snippets.weight_assignment.self_attention.transformer import sinusoidal_positions

with contextlib.redirect_stdout(io.StringIO()):
    import this

torch.set_num_threads(1)
text = codecs.decode(this.s, "rot13")
letters = sorted(set(text))
known = torch.tensor([letters.index(letter) for letter in text])
print(text[:80])
print(f"{len(text)} letters, {len(letters)} different ones")

# %% [markdown]
# ## 能分步读的解码器 {#decoder}
#
# 两层，每层是一个注意力和一个小网络，结果都加到输入上。
# `forward` 一次读完整段文本；`step` 读接下来的字母，
# 各层保留的内容放在一个状态列表里带着走。
# 新字母的位置接在已读的后面，所以已读的字母数也要带着。


# %%
class Decoder(nn.Module):
    def __init__(self, attentions: list[nn.Module], width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(letters), width)
        self.attentions = nn.ModuleList(attentions)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * len(attentions)))
        self.networks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in attentions
        )
        self.guess = nn.Linear(width, len(letters))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.step(tokens, None)[0]

    def step(self, tokens: Tensor, state: tuple[int, list] | None) -> tuple[Tensor, tuple[int, list]]:
        seen, kept = state or (0, [None] * len(self.attentions))
        positions = sinusoidal_positions(seen + tokens.shape[1], 64)[seen:].float()
        x, new = self.embedding(tokens) + positions, []
        for n, attention in enumerate(self.attentions):
            y, one = attention.step(self.norms[2 * n](x), kept[n])
            x = x + y
            x = x + self.networks[n](self.norms[2 * n + 1](x))
            new.append(one)
        return self.guess(x), (seen + tokens.shape[1], new)


def train(model: Decoder, steps: int = 250) -> Decoder:
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        starts = torch.randint(len(known) - 97, (12,))
        pieces = torch.stack([known[start : start + 97] for start in starts.tolist()])
        loss = F.cross_entropy(model(pieces[:, :-1]).flatten(0, 1), pieces[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss {loss:.2f} per letter")
    return model.eval()


torch.manual_seed(0)
model = train(Decoder([CachedAttention(64, 4) for _ in range(2)]))

# %% [markdown]
# ## 每个字母都全部重算 {#anew}
#
# 最直接的办法：读全部，取最可能的下一个字母，接上，再读全部。
# 什么模型都能这样用。数一数有多少字母通过了各层。

# %%
PROMPT, LENGTH = text.index("Beautiful"), 40
prompt = known[None, PROMPT : PROMPT + 24]


def said(tokens: Tensor) -> str:
    return "".join(letters[token] for token in tokens[0].tolist()).replace("\n", " / ")


@torch.no_grad()
def write_anew(model: Decoder) -> tuple[Tensor, int]:
    tokens, passed = prompt, 0
    for _ in range(LENGTH):
        passed += tokens.shape[1]
        tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(dim=2)], dim=1)
    return tokens, passed


anew, passed = write_anew(model)
print(said(anew))
print(f"{passed} letters went through the layers")

# %% [markdown]
# ## 用缓存 {#cache}
#
# 提示词一次读完，此后每次只读一个字母。各层保留已读内容的键和值，
# 即 [KV 缓存](../weight-assignment/self-attention/kv-cache.md)。
# 写出的文本逐个字母相同：背后的数除舍入误差外都相同。
#
# `content` 把一层保留的内容并排摆开：一行是一个字母，或环的一个槽位。


# %%
def content(kept: tuple) -> Tensor:
    parts = [part[0] for part in kept if torch.is_tensor(part) and part.is_floating_point()]
    rows = [part.transpose(0, 1).flatten(1) if part.dim() == 3 else part for part in parts]
    return torch.cat(rows, dim=1)  # (slots, numbers of each)


@torch.no_grad()
def write(model: Decoder) -> tuple[Tensor, int, list[list]]:
    tokens, new, passed, state, history = prompt, prompt, 0, None, []
    for _ in range(LENGTH):
        guesses, state = model.step(new, state)
        passed += new.shape[1]
        new = guesses[:, -1:].argmax(dim=2)
        tokens = torch.cat([tokens, new], dim=1)
        history.append([content(kept) for kept in state[1]])
    return tokens, passed, history


cached, passed, full = write(model)
assert torch.equal(cached, anew)
print(f"the same text, and {passed} letters went through the layers")
print(f"kept of each letter: {sum(kept.shape[1] for kept in full[-1])} numbers")

# %% [markdown]
# ## 用窗口 {#window}
#
# [滑动窗口注意力](../weight-assignment/self-attention/sliding-window.md)
# 的权重是一样的，训练好的可以直接装进去。但每层只看 16 个字母，
# 而模型没有学过只靠这么几个字母，写出的可能不同。
# 再训练一阵，它就适应了。两种情况下，分步与一次读完都一致。

# %%
windowed = Decoder([SlidingWindowAttention(64, 4, window=16) for _ in range(2)])
windowed.load_state_dict(model.state_dict())
untrained, passed, ring = write(windowed)
assert torch.equal(untrained, write_anew(windowed)[0])
print(said(untrained))
windowed = train(copy.deepcopy(windowed), steps=100)
by_window, passed, ring = write(windowed)
assert torch.equal(by_window, write_anew(windowed)[0])
print(said(by_window))
print(f"kept: {sum(kept.numel() for kept in ring[-1]):,} numbers, however long the text")

# %% [markdown]
# ## 用潜向量 {#latent}
#
# [多头潜在注意力](../weight-assignment/self-attention/latent.md)
# 为每个字母保留一个短向量，所有头的键和值都由它生成，
# 另有几个旋转过的特征表示位置。它的权重不同，所以这个模型从头训练。

# %%
torch.manual_seed(0)
latent = train(Decoder([LatentAttention(64, 4, 16, 16, 8, 16) for _ in range(2)]))
by_latent, passed, short = write(latent)
assert torch.equal(by_latent, write_anew(latent)[0])
print(said(by_latent))
print(f"kept of each letter: {sum(kept.shape[1] for kept in short[-1])} numbers")

# %% [markdown]
# ## 保留的内容怎样增长 {#kept}
#
# 第一层在读完提示词后、中途和结束时的样子；一行是一个字母或一个槽位，
# 一列是一个数，比例尺相同。缓存往下长。
# 环在结束时与开始时一样高，只是各行被覆盖。
# 潜向量像缓存一样长，但很窄。

# %% alt="九幅图：缓存长到 63 行，环始终是 16 行，潜向量长到 63 行但很窄。"
moments = (0, LENGTH // 2, LENGTH - 1)
figure, panels = plt.subplots(3, 3, figsize=(6, 5.4), sharex=True, sharey=True)
for row, (name, history) in zip(
    panels, {"cache": full, "window": ring, "latent": short}.items(), strict=True
):
    for axes, moment in zip(row, moments, strict=True):
        axes.imshow(history[moment][0], cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto", interpolation="none")
        axes.set_xlim(-0.5, full[0][0].shape[1] - 0.5)
        axes.set_ylim(len(full[-1][0]) - 0.5, -0.5)
    row[0].set_ylabel(name)
for axes, moment in zip(panels[0], moments, strict=True):
    axes.set_title(f"{prompt.shape[1] + moment} letters read")
plt.show()

# %% [markdown]
# 负数为蓝，正数为红，小的数颜色浅。
#
# 再把两层合在一起数：每个字母都全部重算，除文本外什么也不保留，
# 代价是计算。

# %% alt="保留的数随已读字母数的变化：缓存陡升，潜向量缓升，窗口持平。"
read = [prompt.shape[1] + n for n in range(LENGTH)]
figure, axes = plt.subplots(figsize=(5, 3))
for name, history in {"cache": full, "window": ring, "latent": short}.items():
    counts = [sum(kept.numel() for kept in layers) for layers in history]
    axes.plot(read, counts)
    axes.annotate(name, (read[-1], counts[-1]), (4, 0), textcoords="offset points", va="center")
    print(f"{name:6} {counts[0]:6,} numbers after the prompt, {counts[-1]:6,} at the end")
axes.set_xlabel("letters read")
axes.set_ylabel("numbers kept")
axes.set_xlim(right=read[-1] + 9)
axes.set_ylim(bottom=0)
plt.show()

# %% [markdown]
# ## 继续 {#next}
#
# - 给两层中的一层一个与文本一样长的窗口。要保留多少？写出什么？
# - 把各层换成
#   [分组查询注意力](../weight-assignment/self-attention/grouped-query.md)，
#   键和值只用一个头。它的曲线会在哪里？
# - 从同一个提示词续写几次：状态是一个值，所以留住读完提示词后的那个。
#   再看[分页注意力](../weight-assignment/self-attention/paged.md)怎样共享它。
