"""The demo's architecture in one place, all of it classes that diffusers and transformers already have."""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

CLIP_WIDTH, T5_WIDTH = 96, 128


def load_tokenizers(folder):
    return CLIPTokenizer.from_pretrained(folder + "/tokenizer"), T5TokenizerFast.from_pretrained(folder + "/tokenizer_2")


def make_clip(tokenizer):
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=CLIP_WIDTH, intermediate_size=256, projection_dim=CLIP_WIDTH,
        num_hidden_layers=2, num_attention_heads=3, max_position_embeddings=tokenizer.model_max_length,
        hidden_act="quick_gelu", bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id))


def make_t5(tokenizer):
    t5 = T5EncoderModel(T5Config(
        vocab_size=256, d_model=T5_WIDTH, d_kv=32, d_ff=256, num_layers=2, num_heads=4, dropout_rate=0.0,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, is_encoder_decoder=False, use_cache=False,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=0))
    # The usual start is so near zero that training sits on a plateau where word order does not exist.
    torch.nn.init.normal_(t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight, std=1.5)
    return t5


def make_transformer():
    return FluxTransformer2DModel(
        patch_size=1, in_channels=32, num_layers=2, num_single_layers=4, attention_head_dim=32, num_attention_heads=4,
        joint_attention_dim=T5_WIDTH, pooled_projection_dim=CLIP_WIDTH, guidance_embeds=False,
        axes_dims_rope=(8, 12, 12))


def make_scheduler():
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0, use_dynamic_shifting=False)


def tokens(clip_tokenizer, t5_tokenizer, prompts, t5_length):
    """CLIP ids cut to the longest prompt (its pooled output sees nothing later), T5 ids padded to t5_length."""
    clip_ids = clip_tokenizer(prompts, padding="longest", truncation=True, return_tensors="pt").input_ids
    t5_ids = t5_tokenizer(prompts, padding="max_length", max_length=t5_length, truncation=True,
                          return_tensors="pt").input_ids
    return clip_ids, t5_ids


def save_pipeline(folder, tokenizers, clip, t5, vae, transformer, dtype=torch.bfloat16):
    parts = [m.to(dtype) for m in (clip, t5, vae, transformer)]
    FluxPipeline(scheduler=make_scheduler(), tokenizer=tokenizers[0], tokenizer_2=tokenizers[1], text_encoder=parts[0],
                 text_encoder_2=parts[1], vae=parts[2], transformer=parts[3]).save_pretrained(folder)
