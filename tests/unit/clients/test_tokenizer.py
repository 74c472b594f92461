from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tinker_ray.clients.tokenizer import load_tokenizer, tokenizer_source
from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

LLAMA = "thinkingmachineslabinc/meta-llama-3-instruct-tokenizer"


@pytest.fixture(autouse=True)
def nothing_cached() -> Iterator[None]:
    load_tokenizer.cache_clear()
    yield
    load_tokenizer.cache_clear()


def put(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:  # noqa: ANN401
    """Put a module into the place of one that is not installed."""
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(
    "model,tokenizer_id,expected",
    [
        ("Qwen/Qwen3-8B", None, ("Qwen/Qwen3-8B", None)),
        ("Qwen/Qwen3-8B:peft:131072", None, ("Qwen/Qwen3-8B", None)),
        ("Qwen/Qwen3-8B/variant", None, ("Qwen/Qwen3-8B", None)),
        ("meta-llama/Llama-3.1-8B", None, (LLAMA, None)),
        ("meta-llama/Llama-3.1-8B", "own/tokenizer:1", ("own/tokenizer", None)),
        ("meta-llama/Llama-2-7b", None, ("meta-llama/Llama-2-7b", None)),
        (
            "moonshotai/Kimi-K2.5-Text-Only",
            None,
            ("moonshotai/Kimi-K2.5", "4d01dfe0332d63057c186e0b262165819efb6611"),
        ),
        (
            "any",
            "moonshotai/Kimi-K3",
            ("moonshotai/Kimi-K3", "f831ab66814297da540d832a5235f8e904f29d06"),
        ),
    ],
)
def test_the_tokenizer_is_where_upstream_looks_for_it(
    model: str, tokenizer_id: str | None, expected: tuple[str, str | None]
) -> None:
    assert expected == tokenizer_source(model, tokenizer_id)


def test_a_shipped_model_has_its_tokenizer_here() -> None:
    name, revision = tokenizer_source("tinker-ray/tiny-adder", "elsewhere")
    assert ("model", "tiny_adder", None) == (Path(name).name, Path(name).parent.name, revision)


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "with:colon"
    folder.mkdir()
    assert (str(folder), None) == tokenizer_source("any", str(folder))


def test_only_a_pinned_revision_may_run_code(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[str, dict[str, Any]]] = []

    def from_pretrained(name: str, **options: Any) -> object:  # noqa: ANN401
        loaded.append((name, options))
        return name

    put(monkeypatch, "transformers", AutoTokenizer=SimpleNamespace(from_pretrained=from_pretrained))
    revision = "612681931a8c906ddb349f8ad0f582cb552189cd"
    load_tokenizer("moonshotai/Kimi-K2-Thinking")
    load_tokenizer("Qwen/Qwen3-8B")
    load_tokenizer("Qwen/Qwen3-8B")
    assert [
        ("moonshotai/Kimi-K2-Thinking", {"trust_remote_code": True, "revision": revision}),
        ("Qwen/Qwen3-8B", {}),
    ] == loaded


def test_models_with_a_tokenizer_package_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tml_tokenizers.tinker_tokenizers", None)
    with pytest.raises(ConfigurationError, match="tml-renderers"):
        load_tokenizer("thinkingmachines/one")
    put(monkeypatch, "tml_tokenizers")
    put(
        monkeypatch,
        "tml_tokenizers.tinker_tokenizers",
        get_tinker_tokenizer=lambda name: f"of {name}",
    )
    assert "of TML/one" == load_tokenizer("TML/one")


def test_transformers_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigurationError, match="pip install"):
        load_tokenizer("Qwen/Qwen3-8B")
