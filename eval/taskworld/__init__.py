"""TaskWorld: a small video-QA world in which the paper's claims can be tested on models that train in an hour.

Clips are drawn from a seed: :mod:`world` says what happens, :mod:`render` draws it, :mod:`questions` asks about it.
"""
