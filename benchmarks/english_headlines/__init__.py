"""Does SmolLM2 write clickbait when it follows clicks? A demonstration in English, with one seed.

The world is that of `entangled_headlines`, put into English. Lurid headlines ("Shocking: ...", s)
lose readers, but stand in prominent places, which bring outcomes of their own; sober ones that name
a source ("experts say", a) win readers and stand where few look; fresh ones ("tonight", e) win
readers and are prominent, too. A draw that moves the place and nothing else is the instrument.
SmolLM2 learns to write all headlines; then its adapters learn to prefer, of two headlines of the
logs on one topic, the one with the better outcome: as it is (naive), adjusted by the instrument
(iv), or what the text alone does (oracle). What a headline truly does is read off its words, so
whatever a policy writes can be judged.

    python -m benchmarks.english_headlines            # SmolLM2 with 135 M parameters, one core
    python -m benchmarks.english_headlines --policies "naive gently" "iv gently"
    python -m benchmarks.english_headlines --smoke    # a tiny network with random weights

Estimates, pairs and trainings are those of the library as its users run them, with few steps; the
experiment with three seeds, reward models and policy gradients is `entangled_headlines`. Trainings
are kept below ``--work`` and go on where they were stopped; remove it after a change to the code.
"""
