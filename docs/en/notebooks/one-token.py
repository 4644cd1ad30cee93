# ---
# description: A sentence written on by full passes, a cache, a window and latents, and what each keeps.
# ---

# %% [markdown]
# # One token at a time
#
# A small language model writes on, letter by letter. Four ways to do it, and what each has to keep.
#
# The model learns one text nearly by heart, the *Zen of Python*, which every Python carries in its module
# `this`. A token is a letter. What counts here is not how well it writes, but that it writes the *same* with
# less work, and what it must remember for that.

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
# ## A decoder that can read in steps {#decoder}
#
# Two layers, each an attention and a small network, added to what comes in. `forward` reads a text at once.
# `step` reads the next letters and takes what the layers keep along as a list of states. The positions of the
# new letters follow those read before, so the number of letters read is carried, too.


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
# ## All anew, for every letter {#anew}
#
# The plain way: read everything, take the likeliest next letter, append it, and read everything again. It
# works with any model. Count the letters that go through the layers.

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
# ## With a cache {#cache}
#
# The prompt is read at once, then each letter alone. The layers keep keys and values of what they have read,
# a [KV cache](../weight-assignment/self-attention/kv-cache.md). The text is the same, letter for letter: the
# numbers behind it are the same but for rounding.
#
# `content` lays what a layer keeps side by side: a row for each letter, or for each slot of a ring.


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
# ## With a window {#window}
#
# [Sliding-window attention](../weight-assignment/self-attention/sliding-window.md) has the same weights, so
# the trained ones fit. But each layer sees 16 letters only, and the model never learned to do with so few:
# it may write something else. Trained on for a while, it copes. In both cases steps and full passes agree.

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
# ## With latents {#latent}
#
# [Multi-head latent attention](../weight-assignment/self-attention/latent.md) keeps one short vector for each
# letter, from which all heads make their keys and values, and a few rotated features for the position. Its
# weights are others, so this model is trained from the start.

# %%
torch.manual_seed(0)
latent = train(Decoder([LatentAttention(64, 4, 16, 16, 8, 16) for _ in range(2)]))
by_latent, passed, short = write(latent)
assert torch.equal(by_latent, write_anew(latent)[0])
print(said(by_latent))
print(f"kept of each letter: {sum(kept.shape[1] for kept in short[-1])} numbers")

# %% [markdown]
# ## What is kept, as it grows {#kept}
#
# The first layer after the prompt, in the middle and at the end; a row is a letter or a slot, a column a
# number, all to one scale. The cache grows downwards. The ring is as tall at the end as at the beginning, and
# its rows are overwritten. The latents grow like the cache, and are narrow.

# %% alt="Nine panels: the cache grows to 63 rows, the ring stays at 16, the latents grow to 63 narrow rows."
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
# Negative numbers are blue, positive ones red, small ones pale.
#
# Both layers together, counted: a full pass for every letter keeps nothing but the text, and pays with work.

# %% alt="Numbers kept against letters read: the cache rises steeply, latents gently, the window stays level."
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
# ## Go on {#next}
#
# - Give one of the two layers a window as long as the text. How much is kept, and what is written?
# - Replace the layers by [grouped-query attention](../weight-assignment/self-attention/grouped-query.md) with
#   one head of keys and values. Where does its line run?
# - Write several continuations of one prompt: the state is a value, so keep the one after the prompt. How is
#   it shared by [paged attention](../weight-assignment/self-attention/paged.md)?
