//! Every metadata key that is read or written, named once. Keys of an architecture are functions of its name
//! (`general.architecture`). Source: the GGUF specification and llama.cpp's `LLM_KV_NAMES`.

/// Name of the architecture, such as `llama`; the prefix of its own keys.
pub const ARCHITECTURE: &str = "general.architecture";
/// Alignment of the tensor data in bytes, 32 if absent.
pub const ALIGNMENT: &str = "general.alignment";
/// What most tensors of the file are quantized to, as a number of llama.cpp's `llama_ftype`.
pub const FILE_TYPE: &str = "general.file_type";
/// Version of the block formats, 2 since their scales are half floats.
pub const QUANTIZATION_VERSION: &str = "general.quantization_version";
/// Name of the model for people.
pub const NAME: &str = "general.name";

/// Which part of a split model the file is, from 0.
pub const SPLIT_NUMBER: &str = "split.no";
/// Into how many parts the model is split.
pub const SPLIT_COUNT: &str = "split.count";
/// Tensors of all parts together.
pub const SPLIT_TENSORS: &str = "split.tensors.count";

/// Kind of tokenizer: `gpt2` (byte-level BPE) or `llama` (SentencePiece).
pub const TOKENIZER_MODEL: &str = "tokenizer.ggml.model";
/// Name of the pre-tokenizer, such as `smollm` or `llama-bpe`.
pub const TOKENIZER_PRE: &str = "tokenizer.ggml.pre";
/// The vocabulary, by token id.
pub const TOKENS: &str = "tokenizer.ggml.tokens";
/// Kind of each token: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
pub const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
/// Score of each token (SentencePiece).
pub const SCORES: &str = "tokenizer.ggml.scores";
/// Merges in order of rank, `left right` (BPE).
pub const MERGES: &str = "tokenizer.ggml.merges";
/// Beginning of a text.
pub const BOS_ID: &str = "tokenizer.ggml.bos_token_id";
/// End of a text.
pub const EOS_ID: &str = "tokenizer.ggml.eos_token_id";
/// End of a turn.
pub const EOT_ID: &str = "tokenizer.ggml.eot_token_id";
/// End of a message.
pub const EOM_ID: &str = "tokenizer.ggml.eom_token_id";
/// Stands for what the vocabulary cannot spell.
pub const UNKNOWN_ID: &str = "tokenizer.ggml.unknown_token_id";
/// Whether prompts start with the beginning-of-text token.
pub const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
/// Whether prompts end with the end-of-text token.
pub const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
/// Whether a space is put before the text (SentencePiece).
pub const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
/// Jinja template that turns messages into a prompt.
pub const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

macro_rules! architecture_keys {
    ($($(#[doc = $doc:literal])+ $name:ident = $suffix:literal;)*) => {
        $(
            $(#[doc = $doc])+
            #[doc = concat!("\n\n`{arch}.", $suffix, "`")]
            pub fn $name(arch: &str) -> String {
                format!(concat!("{}.", $suffix), arch)
            }
        )*
    };
}

architecture_keys! {
    /// Longest context that the model was trained for, in tokens.
    context_length = "context_length";
    /// Width of the residual stream.
    embedding_length = "embedding_length";
    /// Number of blocks (layers).
    block_count = "block_count";
    /// Width inside the feed-forward network.
    feed_forward_length = "feed_forward_length";
    /// Query heads per layer.
    head_count = "attention.head_count";
    /// Key and value heads per layer; as many as query heads if absent.
    head_count_kv = "attention.head_count_kv";
    /// Length of a key head; the embedding length over the query heads if absent.
    key_length = "attention.key_length";
    /// Length of a value head; as [`key_length`] if absent.
    value_length = "attention.value_length";
    /// Epsilon of the RMS norms.
    rms_epsilon = "attention.layer_norm_rms_epsilon";
    /// Factor of the attention scores; one over the root of the key length if absent.
    attention_scale = "attention.scale";
    /// Experts of the feed-forward network; none or 0 for a dense model.
    expert_count = "expert_count";
    /// Dimensions of a head that are rotated.
    rope_dimension_count = "rope.dimension_count";
    /// Base of the rotary frequencies.
    rope_freq_base = "rope.freq_base";
    /// Kind of context extension: `none`, `linear`, `yarn`, `longrope`.
    rope_scaling_type = "rope.scaling.type";
    /// Factor of the context extension.
    rope_scaling_factor = "rope.scaling.factor";
    /// Linear scale under its old name.
    rope_scale_linear = "rope.scale_linear";
    /// Context in tokens before its extension; [`context_length`] if absent.
    rope_scaling_original_context_length = "rope.scaling.original_context_length";
    /// Factor of turned queries and keys.
    rope_scaling_attn_factor = "rope.scaling.attn_factor";
    /// Base of the rotary frequencies in layers with a sliding window.
    rope_freq_base_swa = "rope.freq_base_swa";
    /// Positions that a layer with a sliding window sees; none or 0 for all.
    sliding_window = "attention.sliding_window";
    /// Which layers have a sliding window, or the number of layers of which the last has none.
    sliding_window_pattern = "attention.sliding_window_pattern";
    /// Bound of the logits; none or 0 for no bound.
    final_logit_softcapping = "final_logit_softcapping";
}
