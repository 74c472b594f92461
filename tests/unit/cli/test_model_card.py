from __future__ import annotations

from tinker_ray.cli import model_card
from tinker_ray.cli.model_card import Adapter


def test_a_page_names_what_it_describes() -> None:
    path = "tinker://s:train:0/weights/a"
    page = model_card.render(Adapter(path, "org/tiny", 8, ("attn", "mlp")), "me/repo")
    assert page.startswith("---\nbase_model: org/tiny\nlibrary_name: peft\n")
    assert "- base_model:adapter:org/tiny\n" in page
    assert "Adapted: attn, mlp" in page
    assert '"me/repo"' in page
    assert path == model_card.source_of(page)


def test_a_page_of_somebody_else_names_no_checkpoint() -> None:
    assert model_card.source_of("# A model\n") is None
