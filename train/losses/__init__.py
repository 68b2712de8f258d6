"""Losses and advantages that fine-tune language models: pure functions of log-probabilities.

All take log-probabilities of tokens ``(b, t)`` and a mask that is true at tokens of the completion
(the end token included, padding not), compute in float32 or wider, and never let what is masked
out reach a value or a gradient, be it infinite. Means come in two parts (`train.step.Mean`), so
that they are right over devices and micro-batches: ``Loss(*mean)``.

>>> import jax.numpy as jnp
>>> from jaxcore.train.losses import policy
>>> lp = jnp.log(jnp.full((2, 3), 0.5))
>>> mask = jnp.array([[True, True, False], [False, False, False]])  # the second says nothing
>>> mean = policy.policy_loss(lp, lp, jnp.array([1.0, -1.0]), mask).mean
>>> round(float(mean.value()), 4)
-0.5
"""
