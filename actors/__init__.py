"""The SDK as Ray actors: plain classes over the core, one binding to Ray, handles, a runtime.

``session``, ``sampler``, ``training``, ``checkpoint`` and ``rollout`` hold the classes and know
nothing of Ray; ``binding`` turns them into actors; ``handles`` are what callers hold; ``runtime``
puts them together behind one service client and ``cluster`` connects a process to Ray.
"""
