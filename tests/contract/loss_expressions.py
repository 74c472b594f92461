"""What custom losses compute, one expression each: traced by upstream, run by the engine.

``l`` are logprobs and ``a`` advantages, both ``(T,)``; ``m`` is ``(T, K)``, ``i`` holds indices
below T, ``b`` is a scalar. Imports nothing but torch and the standard library.
"""

from __future__ import annotations

import linecache
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody uses

RANKS = {"logprobs": 1, "advantages": 1, "matrix": 2, "indices": 1, "scalar": 0}

EXPRESSIONS = """
l * a
-l / 2 + a - b
2 ** l
l ** 2
l.detach() // 0.5
l % 0.3
abs(l)
+l
l @ a
m.T @ a
torch.matmul(l, m)
torch.outer(l, a)
torch.einsum("t,tk->k", l, m)
torch.exp(l - a).clamp(max=2.0) * a
torch.exp(l - a).clamp(min=0.8, max=math.inf)
torch.clamp(l, -1.0, -0.1)
torch.clip(l, max=-0.5)
torch.minimum(l, a) + torch.maximum(l, a)
torch.where(l > a, l, 0.0)
torch.where((l > -1) & ~(a > 0), l, a)
((l > -1) | (a > 0)).float() * l
(l != 0).to(torch.float32) * l
(l == a).long() + l
l[..., 1:] * a[:-1]
l[0] + l[-1]
l[l > -1]
l[i]
m[:, 0] * l
m[:, None, 1:]
torch.masked_select(l, l > -1)
l.masked_fill(a > 0, 0.0)
l.gather(0, i)
m[i] * m[:, i.clamp(max=2)].sum()
l.sum(dim=-1, keepdim=True) * a
torch.sum(l * a, dtype=torch.float64)
l.mean() + l.var() + l.std(unbiased=False)
torch.var(m, dim=1)
l.max() - l.min()
torch.max(m, dim=1).values + torch.min(m, dim=1)[0]
torch.amax(m, dim=(0, 1))
m.sort(dim=1, descending=True)[0]
torch.topk(m, 2, dim=-1)[0]
torch.quantile(l, 0.5)
l.median()
torch.cumsum(l, dim=0)
l.flip(0).cumsum(0).flip(0)
torch.logcumsumexp(l, 0)
torch.logsumexp(m, dim=-1)
torch.softmax(m, -1)
F.softmax(m, dim=-1)
F.log_softmax(m, dim=1)
m.log_softmax(-1)
torch.diff(l)
torch.roll(l, 1)
torch.cat([l, a])
torch.stack((l, a), dim=1)
l.unsqueeze(-1) * m
l.view(-1, 1).expand(-1, 3)
l[:, None].expand_as(m) * m
m.reshape(-1)
m.flatten()
m.transpose(0, 1)
m.permute(1, 0).contiguous()
torch.broadcast_tensors(l[:, None], m)[0]
l.repeat(2)
torch.repeat_interleave(l, 2)
torch.tile(l, (2,))
F.pad(l, (1, 0))
torch.chunk(l, 2)[0]
l.split(2)[1]
m.unbind(1)[0]
torch.tril(m)
l * math.sqrt(l.shape[0])
l / l.size(0) + l.numel()
l / math.log(l.shape[0] + 1)
l * torch.arange(l.shape[0])
l + torch.zeros(l.shape[0]) + torch.ones(l.shape)
l * torch.full_like(l, 2.0) + torch.zeros_like(l)
l.new_zeros(3).sum() + l
l * l.ndim
l.to(a.dtype)
l.double()
l.type_as(a)
l.detach() * l
l.clone()
torch.sigmoid(l) + l.tanh()
torch.special.expm1(l)
torch.special.xlogy(a, -l)
torch.special.entr(-l)
torch.log1p(l.exp())
torch.logaddexp(l, a)
torch.lerp(l, a, 0.5)
torch.addcmul(l, l, a, value=0.5)
torch.nan_to_num(l / a, nan=0.0, posinf=1.0)
torch.square(l).sqrt()
torch.atan2(l, a)
torch.erf(l)
torch.norm(l)
l.norm(p=1)
torch.linalg.vector_norm(l)
F.relu(l + 1)
F.softplus(l)
F.logsigmoid(l)
F.gelu(l)
F.silu(l)
F.elu(l)
F.leaky_relu(l)
F.hardtanh(l)
F.mish(l)
F.softsign(l)
F.threshold(l, -1.0, 0.0)
F.normalize(l, dim=0)
F.mse_loss(l, a)
F.l1_loss(l, a, reduction="sum")
F.smooth_l1_loss(l, a, reduction="none")
F.huber_loss(l, a, delta=0.5)
F.kl_div(l, a.abs(), reduction="sum")
F.binary_cross_entropy_with_logits(l, a.sigmoid())
F.binary_cross_entropy(l.exp(), a.sigmoid())
F.cosine_similarity(l, a, dim=0)
F.margin_ranking_loss(l, a, torch.sign(a))
F.soft_margin_loss(l, torch.sign(a))
torch.scatter_add(torch.zeros_like(l), 0, i, l)
l.index_add(0, i, a)
torch.dot(l, a)
torch.mean(m, dim=(0, 1), keepdim=True)
torch.count_nonzero(l > -1) * l
torch.prod(l.exp())
l.isfinite().float() * l
torch.cummax(l, dim=0)[0]
l.squeeze().unsqueeze(0).squeeze(0)
torch.div(l, a, rounding_mode="floor") + l
""".strip().splitlines()

REFUSED = {
    "torch.randn_like(l) * l": "function 'torch.randn_like'",
    "F.dropout(l)": "function 'torch.nn.functional.dropout'",
    "torch.autograd.grad(l.sum(), l)[0]": "function 'torch.autograd.grad'",
    "l.exp_()": "method 'exp_'",
    "l.requires_grad_()": "method 'requires_grad_'",
    "l.data_ptr() * l": "method 'data_ptr'",
    "torch.unique(l)": "function 'torch.functional.unique'",
    "l.grad_fn": "'grad_fn' is not allowed",
    "l << 1": "function 'operator.lshift'",
    "F.relu(l, inplace=True)": "keyword inplace=True",
    "torch.empty_like(l)": "function 'torch.empty_like'",
    "l.to('cuda')": "'cuda' is not allowed",
    "torch.load(l)": "cannot be traced",
}
"""What the engine does not run, and how it says so."""


def loss_of(expression: str) -> Callable[..., Any]:
    """Make a loss that sums an expression, and the logprobs, so that it has a gradient."""
    source = (
        "def loss(logprobs, advantages, matrix, indices, scalar):\n"
        "    l, a, m, i, b = logprobs, advantages, matrix, indices, scalar\n"
        f"    value = {expression}\n"
        "    return value.sum() + l.sum(), {'custom/value:mean': value.sum()}\n"
    )
    names = {"torch": torch, "math": math, "F": F}
    linecache.cache[expression] = (len(source), None, source.splitlines(keepends=True), expression)
    exec(compile(source, expression, "exec"), names)  # noqa: S102 - the list above
    return names["loss"]  # type: ignore[return-value]  # the function that was just made
