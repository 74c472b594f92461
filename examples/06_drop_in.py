"""A script of the upstream SDK's, unchanged: install() puts this package in its place.

Run: python examples/06_drop_in.py

A script of your own needs no edit either:

    python -c 'import runpy, tinker_ray; tinker_ray.install(); runpy.run_path("mine.py")'
"""

# ruff: noqa: E402 - what follows install() is the script

import tinker_ray

tinker_ray.install()

import tinker  # type: ignore[import-not-found] # made by install()
from tinker import types

with tinker.ServiceClient(base_url="embedded") as service_client:
    training_client = service_client.create_lora_training_client("tinker-ray/tiny-adder", rank=8)
    tokenizer = training_client.get_tokenizer()
    tokens = tokenizer.encode("7+5=12<|eos|>")
    datum = types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": tokens[1:], "weights": [0.0] * 3 + [1.0] * 3},
    )
    for _ in range(3):
        forward_backward = training_client.forward_backward([datum], "cross_entropy")
        training_client.optim_step(types.AdamParams(learning_rate=1e-3))
        print("loss", forward_backward.result().metrics["loss:sum"])
    saved = training_client.save_state("final").result()

    rest_client = service_client.create_rest_client()
    listed = rest_client.list_checkpoints(training_client.model_id).result()
    print("saved", [checkpoint.checkpoint_id for checkpoint in listed.checkpoints])
    print(f"by {tinker.__name__} {tinker.__version__}, which is {tinker.ServiceClient.__module__}")
