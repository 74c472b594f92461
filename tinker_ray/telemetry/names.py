"""The names of all spans, attributes and metrics: the one place where they are spelled.

Does not emit anything. Span names are few and never hold an id, so that a backend can group by
them; what varies is an attribute. One trace nests like this::

    rollout.group
    └─ rollout.episode
       ├─ env.step
       └─ sample                                CLIENT, one for the operation with all its retries
          ├─ permit.wait · backoff
          ├─ http.request                       CLIENT, one for each request that leaves
          │  └─ engine.request                  SERVER, in the embedded engine
          └─ http.request                       the promise, polled
    train.step                                  linked to the groups that it trained on
    └─ actor.call
       └─ forward_backward · optim_step · …     CLIENT
          ├─ turnstile.wait
          └─ http.request
             └─ engine.request
                └─ engine.queue · engine.train

``engine.queue``, ``engine.sample`` and ``engine.train`` are children of the request that submitted
the work, although they end after it.
"""

from __future__ import annotations

from typing import Final

# Spans of rollouts.
ROLLOUT_GROUP: Final = "rollout.group"
"""All episodes on one problem, from dispatch to delivery or drop."""
ROLLOUT_EPISODE: Final = "rollout.episode"
"""One environment from its first observation to its end."""
ENV_STEP: Final = "env.step"
"""One action executed by an environment."""

EXECUTOR_TASK: Final = "executor.task"
"""A function that an executor was given, as its worker executes it."""

# Spans of sampling.
SAMPLE: Final = "sample"
"""One sample operation as its caller sees it: waits, attempts, polling."""
PERMIT_WAIT: Final = "permit.wait"
"""Waiting for a dispatch permit."""
BACKOFF: Final = "backoff"
"""Waiting because the service said that it is full."""

# Spans of training and checkpoints: the operations of the service.
TRAIN_STEP: Final = "train.step"
"""One step of a training loop: its batches and its optimizer step."""
FORWARD: Final = "forward"
FORWARD_BACKWARD: Final = "forward_backward"
OPTIM_STEP: Final = "optim_step"
SAVE_STATE: Final = "save_state"
LOAD_STATE: Final = "load_state"
SAVE_WEIGHTS_FOR_SAMPLER: Final = "save_weights_for_sampler"
SAVE_WEIGHTS_EXTERNAL: Final = "save_weights_external"
CREATE_MODEL: Final = "create_model"
CREATE_SAMPLING_SESSION: Final = "create_sampling_session"
TURNSTILE_WAIT: Final = "turnstile.wait"
"""A training operation waiting for those before it."""

# Spans of transport, actors and engine.
HTTP_REQUEST: Final = "http.request"
"""One HTTP request, its retries excluded."""
ACTOR_CALL: Final = "actor.call"
"""One method call on an actor, as the actor executes it."""
ENGINE_REQUEST: Final = "engine.request"
"""One HTTP request, as the embedded engine answers it."""
ENGINE_QUEUE: Final = "engine.queue"
"""An accepted operation waiting for the model."""
ENGINE_SAMPLE: Final = "engine.sample"
"""The model generating for one sample request."""
ENGINE_TRAIN: Final = "engine.train"
"""The model executing one training operation."""

# Attributes of the OpenTelemetry GenAI conventions, as strings: the constants of the
# semantic-conventions package are marked deprecated there.
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_REQUEST_TOP_K: Final = "gen_ai.request.top_k"
GEN_AI_REQUEST_SEED: Final = "gen_ai.request.seed"
GEN_AI_REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"

GEN_AI_TEXT_COMPLETION: Final = "text_completion"
"""The value of ``gen_ai.operation.name`` on ``sample`` spans."""
GEN_AI_TINKER: Final = "tinker"
"""The value of ``gen_ai.provider.name``."""

# Attributes of the general OpenTelemetry conventions.
ERROR_TYPE: Final = "error.type"
EXCEPTION_TYPE: Final = "exception.type"
HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_REQUEST_RESEND_COUNT: Final = "http.request.resend_count"
HTTP_REQUEST_BODY_SIZE: Final = "http.request.body.size"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
HTTP_RESPONSE_BODY_SIZE: Final = "http.response.body.size"
HTTP_ROUTE: Final = "http.route"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

# Attributes of our own.
COMPONENT: Final = "tinker_ray.component"
"""What a process is (on the resource, not the span): driver, training, sampler, engine, …"""
ACTOR: Final = "tinker_ray.actor"
"""The class of the actor."""
WORKER: Final = "tinker_ray.worker"
"""The name of the worker in which a gauge was set, on the metric."""
METHOD: Final = "tinker_ray.method"
"""The method called on it."""
ATTEMPT: Final = "tinker_ray.attempt"
"""Counts from 1."""
CANCELLED: Final = "tinker_ray.cancelled"
ERROR_CATEGORY: Final = "tinker_ray.error.category"
"""``user``, ``server`` or ``unknown``: whose fault the service says it was."""
GROUP: Final = "tinker_ray.group"
"""The number of a group within its run."""
EPISODE: Final = "tinker_ray.episode"
"""The index of an episode within its group."""
TURN: Final = "tinker_ray.turn"
"""The index of a step within its episode."""
REWARD: Final = "tinker_ray.reward"
STEP: Final = "tinker_ray.step"
"""The number of a training step."""
POLICY_VERSION: Final = "tinker_ray.policy_version"
"""The training step whose weights are sampled from."""
SESSION_ID: Final = "tinker_ray.session_id"
MODEL_ID: Final = "tinker_ray.model_id"
SAMPLING_SESSION_ID: Final = "tinker_ray.sampling_session_id"
REQUEST_ID: Final = "tinker_ray.request_id"
"""The promise of an operation."""
SEQ_ID: Final = "tinker_ray.seq_id"
LOSS_FN: Final = "tinker_ray.loss_fn"
NUM_DATUMS: Final = "tinker_ray.num_datums"
NUM_TOKENS: Final = "tinker_ray.num_tokens"
NUM_REQUESTS: Final = "tinker_ray.num_requests"
"""How many items one batched call carries."""
WAIT_S: Final = "tinker_ray.wait_s"

# Metrics: names without dots or colons, as Prometheus and ``ray.util.metrics`` take them.
METRIC_SAMPLES: Final = "tinker_ray_samples_total"
METRIC_SAMPLES_IN_FLIGHT: Final = "tinker_ray_samples_in_flight"
METRIC_OUTPUT_TOKENS: Final = "tinker_ray_output_tokens_total"
METRIC_REJECTIONS: Final = "tinker_ray_rejections_total"
METRIC_PERMITS_LEASED: Final = "tinker_ray_permits_leased"
METRIC_PERMITS_IN_USE: Final = "tinker_ray_permits_in_use"
METRIC_EPISODES: Final = "tinker_ray_episodes_total"
METRIC_EVENT_LOOP_LAG_S: Final = "tinker_ray_event_loop_lag_seconds"
