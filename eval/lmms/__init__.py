"""TAM models for lmms-eval 0.7.3, registered by the entry point group ``lmms_eval.models``.

``tallva`` answers on the LLaVA-NeXT host, ``tallva_onevision`` on transformers' LLaVA-OneVision. lmms-eval itself is
used as it is installed; what of it a model has to tell it at run time is in :mod:`.harness`.
"""
