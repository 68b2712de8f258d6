"""CausalMM: decoding against counterfactual attention; see README.md beside this file.

Zhou et al. 2025, "Mitigating modality prior-induced hallucinations in multimodal large language
models via deciphering attention causality".
"""

from jaxcore.estimators.causalmm.baselines import (
    DoLaConfig,
    PAIConfig,
    TextOnlyConfig,
    VCDConfig,
    contrast,
    dola,
    noised,
    pai,
    regular,
    without_pictures,
)
from jaxcore.estimators.causalmm.branches import Decoder, Prompt, Start, Text, stack, start
from jaxcore.estimators.causalmm.combine import combine_logits, plausibility_mask
from jaxcore.estimators.causalmm.config import CausalMMConfig, LanguageEdit, VisionEdit
from jaxcore.estimators.causalmm.decoding import causalmm, language_edit
from jaxcore.estimators.causalmm.effects import Effect, causal_effect
from jaxcore.estimators.causalmm.maps import attention_maps, attention_picture, on_picture

__all__ = [
    "CausalMMConfig",
    "Decoder",
    "DoLaConfig",
    "Effect",
    "LanguageEdit",
    "PAIConfig",
    "Prompt",
    "Start",
    "Text",
    "TextOnlyConfig",
    "VCDConfig",
    "VisionEdit",
    "attention_maps",
    "attention_picture",
    "causal_effect",
    "causalmm",
    "combine_logits",
    "contrast",
    "dola",
    "language_edit",
    "noised",
    "on_picture",
    "pai",
    "plausibility_mask",
    "regular",
    "stack",
    "start",
    "without_pictures",
]
