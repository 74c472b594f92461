"""Sample from a model: an engine starts on this machine, no account is needed."""

import tinker_ray as tinker

with tinker.ServiceClient(base_url="embedded") as service:
    training = service.create_lora_training_client(base_model="tinker-ray/tiny-adder", rank=8)
    tokenizer = training.get_tokenizer()
    sampler = training.save_weights_and_get_sampling_client()

    question = "12+34="
    response = sampler.sample(
        prompt=tinker.ModelInput.from_ints(tokenizer.encode(question)),
        num_samples=8,
        sampling_params=tinker.SamplingParams(max_tokens=8),
    ).result()
    for sequence in response.sequences:
        print(question, tokenizer.decode(sequence.tokens), sequence.stop_reason)
