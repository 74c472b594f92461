"""Signed links: archives, exported files, and what they refuse."""

from __future__ import annotations

import email.utils
import hashlib
import io
import tarfile
import time
import warnings
from typing import TYPE_CHECKING

import peft
import pyrage
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.fakes import engine as fakes
from tests.fakes.running_engine import prompt_logprobs, save, step, train

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.engine import EngineClient
    from tests.fakes.running_engine import Running


async def saved(client: EngineClient, kind: str = "save_weights", **more: object) -> str:
    model_id = await client.create_model()
    await train(client, model_id, 1)
    await step(client, model_id, 2)
    return await save(client, model_id, 3, "a", kind, **more)


def checkpoint(path: str) -> str:
    run, _, checkpoint_id = path.removeprefix("tinker://").partition("/")
    return f"training_runs/{run}/checkpoints/{checkpoint_id}"


async def archive_link(client: EngineClient, path: str, prefix: str = "") -> str:
    headers = {"Accept": "application/gzip"}
    url = f"{prefix}/api/v1/{checkpoint(path)}/archive"
    response = await client.http.get(url, headers=headers)
    assert (302, b"") == (response.status_code, response.content)
    expires = email.utils.parsedate_to_datetime(response.headers["expires"])
    assert 800 < expires.timestamp() - time.time() < 1000
    link: str = response.headers["location"]
    return link


@pytest.mark.parametrize("kind", ["save_weights", "save_weights_for_sampler"])
async def test_an_archive_is_what_peft_loads(
    client: EngineClient, tmp_path: Path, kind: str
) -> None:
    path = await saved(client, kind)
    link = await archive_link(client, path)
    response = await client.http.get(link, headers={"X-API-Key": ""})
    assert response.status_code == 200
    assert int(response.headers["content-length"]) == len(response.content)
    digest = hashlib.sha256(response.content).hexdigest()
    assert response.headers["x-checksum-sha256"] == digest
    with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
        assert archive.getnames() == ["adapter_config.json", "adapter_model.safetensors"]
        archive.extractall(tmp_path / "adapter", filter="data")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's own
        base = AutoModelForCausalLM.from_pretrained(fakes.write_model(tmp_path / "base"))
        model = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    with torch.no_grad():
        logits = model(torch.tensor([[5, 6, 7]])).logits[0].log_softmax(-1)
    expected = await prompt_logprobs(client, await client.sampler(model_path=path))
    assert [logits[0, 6].item(), logits[1, 7].item()] == pytest.approx(expected, abs=1e-4)


async def test_a_link_goes_through_the_prefix_that_the_client_uses(client: EngineClient) -> None:
    path = await saved(client)
    link = await archive_link(client, path, prefix="/services/tinker")
    assert link.startswith("http://engine/services/tinker/api/v1/downloads/")
    assert (await client.http.get(link)).status_code == 200


@pytest.mark.parametrize(
    "header,start,end",
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-1999", 100, 2000),
        ("bytes=500-", 500, None),
        ("bytes=-700", -700, None),
        ("bytes=0-99999999999", 0, None),
        ("bytes=-99999999999", 0, None),
    ],
)
async def test_a_download_is_resumed(
    client: EngineClient, header: str, start: int, end: int | None
) -> None:
    link = await archive_link(client, await saved(client))
    whole = (await client.http.get(link)).content
    part = await client.http.get(link, headers={"Range": header})
    assert (206, whole[start:end]) == (part.status_code, part.content)
    first = start % len(whole)
    last = first + len(part.content) - 1
    assert part.headers["content-range"] == f"bytes {first}-{last}/{len(whole)}"


@pytest.mark.parametrize("header", ["bytes=9-5", "bytes=-", "lines=1-2", "bytes=0-1,4-5", "x"])
async def test_a_range_that_is_not_understood_is_answered_with_the_whole(
    client: EngineClient, header: str
) -> None:
    link = await archive_link(client, await saved(client))
    whole = await client.http.get(link)
    answer = await client.http.get(link, headers={"Range": header})
    assert (200, whole.content) == (answer.status_code, answer.content)


async def test_ranges_are_checked_against_size_and_version(client: EngineClient) -> None:
    link = await archive_link(client, await saved(client))
    head = await client.http.head(link)
    size = int(head.headers["content-length"])
    assert (head.content, head.headers["accept-ranges"]) == (b"", "bytes")
    beyond = await client.http.get(link, headers={"Range": f"bytes={size}-"})
    assert (416, f"bytes */{size}") == (beyond.status_code, beyond.headers["content-range"])
    ranged = {"Range": "bytes=1-2"}
    same = await client.http.get(link, headers={**ranged, "If-Range": head.headers["etag"]})
    other = await client.http.get(link, headers={**ranged, "If-Range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)


async def test_a_link_works_for_a_quarter_of_an_hour(
    running: Running, client: EngineClient
) -> None:
    link = await archive_link(client, await saved(client))
    running.skew_s = 899
    assert (await client.http.get(link)).status_code == 200
    running.skew_s = 901
    expired = await client.http.get(link)
    assert (403, True) == (expired.status_code, "expired" in expired.json()["detail"])


async def test_a_link_that_was_changed_is_refused(client: EngineClient) -> None:
    link = await archive_link(client, await saved(client))
    start, _, token = link.rpartition("/")
    purpose, payload, signature = token.split(".")
    for changed in (
        f"file.{payload}.{signature}",
        f"trace.{payload}.{signature}",
        f"{purpose}.{payload}A.{signature}",
        f"{purpose}.{payload}.{signature[:-2]}AA",
        f"{purpose}.{payload}.",
        f"{purpose}.{payload}.ä",
        purpose,
        "x",
    ):
        answer = await client.http.get(f"{start}/{changed}")
        assert (403, "token") == (answer.status_code, answer.json()["field"])


async def test_a_link_ends_with_its_checkpoint(client: EngineClient) -> None:
    model_id = await client.create_model()
    path = await save(client, model_id, 1, "a")
    link = await archive_link(client, path)
    await save(client, model_id, 2, "a", overwrite=True)
    assert (await client.http.get(link)).status_code == 404
    link = await archive_link(client, path)
    assert (await client.http.delete(f"/api/v1/{checkpoint(path)}")).status_code == 200
    assert (await client.http.get(link)).status_code == 404


async def test_exported_weights_are_downloaded_file_by_file(client: EngineClient) -> None:
    path = await saved(client, "save_weights_external")
    assert path.endswith("/external_weights/a")
    told = await client.get(f"{checkpoint(path)}/external_weights_urls")
    assert sorted(told["urls"]) == ["adapter_config.json", "adapter_model.safetensors"]
    (listed,) = (await client.get("checkpoints"))["checkpoints"]
    contents = {name: (await client.http.get(url)).content for name, url in told["urls"].items()}
    assert listed["checkpoint_type"] == "external"
    assert listed["size_bytes"] == sum(map(len, contents.values()))
    assert b'"peft_type": "LORA"' in contents["adapter_config.json"]


async def test_exports_are_neither_loaded_nor_sampled_nor_archived(client: EngineClient) -> None:
    path = await saved(client, "save_weights_external")
    run = path.removeprefix("tinker://").partition("/")[0]
    load = {"model_id": run, "path": path, "optimizer": False, "seq_id": 4}
    assert (await client.post("load_weights", load, status=400))["field"] == "path"
    opened = {
        "session_id": client.session_id,
        "sampling_session_seq_id": 0,
        "model_path": path,
    }
    answer = await client.post("create_sampling_session", opened, status=400)
    assert answer["field"] == "model_path"
    await client.get(f"{checkpoint(path)}/archive", status=400)
    other = await save(client, run, 5, "b")
    await client.get(f"{checkpoint(other)}/external_weights_urls", status=400)


async def test_an_export_is_encrypted_to_those_who_are_named(
    running: Running, client: EngineClient
) -> None:
    anna, bela = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    keys = [str(anna.to_public()), str(bela.to_public())]
    path = await saved(client, "save_weights_external", age_encryption_recipients=keys)
    told = await client.get(f"{checkpoint(path)}/external_weights_urls")
    assert sorted(told["urls"]) == ["adapter_config.json.age", "adapter_model.safetensors.age"]
    content = (await client.http.get(told["urls"]["adapter_config.json.age"])).content
    assert b"peft_type" not in content
    for identity in (anna, bela):
        assert b'"peft_type": "LORA"' in pyrage.decrypt(content, [identity])
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(content, [pyrage.x25519.Identity.generate()])
    files = [file.name for file in (running.data / "checkpoints").rglob("*") if file.is_file()]
    assert all(name.endswith(".age") for name in files)


@pytest.mark.parametrize(
    "recipients,status",
    [
        (["age1nonsense"], 400),
        (["ssh-ed25519 AAAA"], 400),
        ([""], 400),
        (["x"] * 11, 422),
        ([5], 422),
    ],
)
async def test_what_is_no_recipient_is_named(
    client: EngineClient, recipients: list[object], status: int
) -> None:
    body = {
        "model_id": await client.create_model(),
        "path": "a",
        "seq_id": 1,
        "age_encryption_recipients": recipients,
    }
    answer = await client.post("save_weights_external", body, status=status)
    assert answer["field"].startswith("age_encryption_recipients")
