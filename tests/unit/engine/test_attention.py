from __future__ import annotations

import pytest
import torch

from tinker_ray.engine.model.attention import SLOT_STEP, attend_cached, fewest_slots
from tinker_ray.engine.model.kv_cache import KeyValueShape, RowCache

SHAPES = [(4, 4, 8), (4, 2, 16), (6, 2, 32), (8, 8, 64), (14, 2, 64), (5, 1, 80), (8, 2, 128)]


def tensors(
    shape: tuple[int, int, int], rows: int, length: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    heads, key_heads, dim = shape
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(rows, heads, 1, dim, generator=generator)
    keys = torch.randn(rows, key_heads, length, dim, generator=generator)
    values = torch.randn(rows, key_heads, length, dim, generator=generator)
    return query, keys, values


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: int, length: int
) -> torch.Tensor:
    mask = torch.zeros(query.shape[0], 1, 1, length)
    mask[..., visible:] = float("-inf")
    cut = (keys[:, :, :length].contiguous(), values[:, :, :length].contiguous())
    return attend_cached(query, *cut, mask)


@pytest.mark.parametrize("shape", SHAPES)
def test_products_agree_with_scaled_dot_product_attention(shape: tuple[int, int, int]) -> None:
    query, keys, values = tensors(shape, 5, 128)
    ours = attend(query, keys, values, 70, 128)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        query, keys[:, :, :70], values[:, :, :70], scale=1.0, enable_gqa=True
    )
    torch.testing.assert_close(ours, theirs.transpose(1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("visible", [1, 20, 100, 300])
def test_a_rows_bits_depend_neither_on_length_nor_on_batch(
    shape: tuple[int, int, int], visible: int
) -> None:
    default = torch.get_num_threads()
    torch.set_num_threads(1)  # as the sampler does for small models
    query, keys, values = tensors(shape, 7, 640)
    alone = attend(query[:4], keys[:4], values[:4], visible, 640)
    for length in range(fewest_slots(shape[2]), 641, SLOT_STEP):
        if length >= visible:
            together = attend(query, keys, values, visible, length)
            assert torch.equal(alone, together[:4])
    torch.set_num_threads(default)


def make_cache(max_slots: int = 1 << 20) -> RowCache:
    shape = KeyValueShape(num_layers=1, num_heads=2, head_dim=16)
    return RowCache(shape, dtype=torch.float32, device=torch.device("cpu"), max_slots=max_slots)


def write(cache: RowCache, positions: list[int], value: float) -> torch.Tensor:
    cache.begin_step(torch.tensor(positions))
    new = torch.full((len(positions), 2, 1, 16), value)
    keys, _ = cache.update(new, new, 0)
    return keys


def test_growing_keeps_what_rows_hold() -> None:
    cache = make_cache()
    cache.fit(4, 10)
    write(cache, [3, 9, 0, 0], 7.0)
    cache.fit(40, 100)
    keys = write(cache, [4] * 40, 1.0)
    assert (40, 2, cache.length, 16) == tuple(keys.shape)
    assert keys.is_contiguous()
    assert [7.0, 7.0] == [float(keys[0, 0, 3, 0]), float(keys[1, 1, 9, 3])]


def test_capacity_doubles_in_rows_only_while_there_is_memory() -> None:
    cache = make_cache(max_slots=320)
    cache.fit(4, 32)
    cache.fit(5, 32)
    assert (8, 32) == (cache.num_rows, cache.length)
    cache.fit(9, 32)
    assert (9, 32) == (cache.num_rows, cache.length)


def test_lengths_shrink_when_half_is_not_needed() -> None:
    cache = make_cache()
    cache.fit(4, 200)
    cache.fit(4, 40)
    assert (4, 64) == (cache.num_rows, cache.length)


def test_rows_move_at_once_even_in_a_circle() -> None:
    cache = make_cache()
    cache.fit(4, 8)
    for row in range(4):
        cache._keys[0][row] = row
    cache.move([1, 2, 0], [0, 1, 2])
    assert [1.0, 2.0, 0.0, 3.0] == cache._keys[0][:, 0, 0, 0].tolist()
    cache.clear(1)
    assert [1.0, 0.0, 0.0, 3.0] == cache._keys[0][:, 0, 0, 0].tolist()
