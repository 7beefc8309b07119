"""Which class takes which checkpoint, by the `model_type` in its config.json."""

FAMILIES = {
    "qwen2_5_vl": "mgpo.policy.families.qwen2_5_vl.Qwen25VL",
    "qwen3_vl": "mgpo.policy.families.qwen3_vl.Qwen3VL",
    "qwen3_vl_moe": "mgpo.policy.families.qwen3_vl.Qwen3VL",
    "qwen3_5": "mgpo.policy.families.qwen3_5.Qwen35",
    "qwen3_5_moe": "mgpo.policy.families.qwen3_5.Qwen35",
    "gemma3": "mgpo.policy.families.gemma3.Gemma3",
}
