"""The model classes for which vLLM 0.32 supports LoRA, from its source (`vllm/model_executor/models`).

A class supports LoRA if it derives from `SupportsLoRA`, and LoRA of embeddings if it names them in `embedding_modules`.
Classes that transformers does not have are left out here.
"""

from collections.abc import Mapping

VLLM_VERSION = "0.32"
"""The version of vLLM whose source these tables are from."""

CLASSIFIER = "ForSequenceClassification"
"""End of the names of classifiers. vLLM makes one of any `ForCausalLM`."""

_BOTH = frozenset({"embed_tokens", "lm_head"})
_NONE: frozenset[str] = frozenset()

_CAUSAL_WITH_EMBEDDINGS = """
    Apertus Ernie4_5 Exaone4 ExaoneMoe FalconH1 Granite GraniteMoe GraniteMoeHybrid GraniteMoeSWA GraniteMoeShared
    GraniteSWA HyperCLOVAX Jamba Lfm2 Lfm2Moe Llama Llama4 MiniCPM3 Mixtral Nemotron NemotronH Phi3 Qwen3 Qwen3Moe
    Qwen3_5 Qwen3_5Moe
"""
_CAUSAL = """
    AXK1 Afmoe Arcee Cwm DeepseekV2 DeepseekV3 DeepseekV32 DeepseekV4 Ernie4_5_Moe FlexOlmo GPTBigCode GPTNeoX Gemma
    Gemma2 Gemma3 Gemma4 Glm Glm4 Glm4Moe Glm4MoeLite GlmMoeDsa GptOss HYV3 HYV4 HunYuanDenseV1 HunYuanMoEV1 Jais2
    Laguna LongcatFlash Mellum MiniMaxM2 Ministral3 Mistral OPT Olmo Olmo2 Olmo3 OlmoHybrid Olmoe Phi Qwen2 Qwen2Moe
    Qwen3Next Qwen4Exp SeedOss SmolLM3 Starcoder2 VaultGemma
"""
_CONDITIONAL = """
    AudioFlamingo3 Blip2 CohereCompass Emu3 Ernie4_5_VLMoe Exaone4_5_ Gemma3 Gemma4 Gemma4Unified Glm4v Glm4vMoe
    Glm5Next GlmAsr GlmOcr Granite4Vision GraniteSpeech GraniteSpeechPlus HunYuanVL Idefics3 InternVL Lfm2Vl
    Llama4 Llava LlavaNext LlavaNextVideo MiniCPMV4_6 MiniCPMV4_7 Mistral3 Molmo2 MuseGlimmer PaliGemma
    QianfanOCR Qwen2VL Qwen2_5Omni Qwen2_5_VL Qwen3ASR Qwen3OmniMoe Qwen3VL Qwen3VLMoe Qwen3_5 Qwen3_5Moe
    Qwen4Exp SmolVLM VibeVoiceAsr Voxtral Whisper
"""

_EMBEDDINGS: Mapping[str, frozenset[str]] = {
    **{f"{stem}ForCausalLM": _BOTH for stem in _CAUSAL_WITH_EMBEDDINGS.split()},
    **{name: _BOTH for name in ("JambaForSequenceClassification", "LlamaModel", "MistralModel")},
    **{name: frozenset({"embed_tokens"}) for name in ("CohereForCausalLM", "Cohere2ForCausalLM")},
    **{f"{stem}ForCausalLM": _NONE for stem in _CAUSAL.split()},
    **{f"{stem}ForConditionalGeneration": _NONE for stem in _CONDITIONAL.split()},
    **{f"{stem}Model": _NONE for stem in ("Bert", "Gemma2", "ModernBert", "Qwen2", "Roberta", "XLMRoberta")},
    **{f"{stem}{CLASSIFIER}": _NONE for stem in ("Roberta", "XLMRoberta")},
    **{name: _NONE for name in ("ColPaliForRetrieval", "RobertaForMaskedLM")},
}
"""The embeddings that may have a LoRA (`embedding_modules`), by the name of the model's class."""


def lora_embeddings(model: str) -> frozenset[str] | None:
    """Return the last parts of the names of the embeddings and heads for which vLLM supports LoRA.

    Parameters
    ----------
    model : str
        Name of the model's class in transformers.

    Returns
    -------
    frozenset of str or None
        None if vLLM does not have the model, or supports no LoRA for it.

    Examples
    --------
    >>> sorted(lora_embeddings("LlamaForCausalLM")), lora_embeddings("GPT2LMHeadModel")
    (['embed_tokens', 'lm_head'], None)
    >>> lora_embeddings("Qwen2ForSequenceClassification")
    frozenset()
    """
    causal = model.removesuffix(CLASSIFIER) + "ForCausalLM" if model.endswith(CLASSIFIER) else model
    return _EMBEDDINGS.get(model, _EMBEDDINGS.get(causal))
