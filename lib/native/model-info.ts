/** A model's vocabulary. */
export interface VocabularyInfo {
  /** The kind of tokenizer. `none`: the model takes only token ids. */
  type: 'none' | 'spm' | 'bpe' | 'wpm' | 'ugm' | 'rwkv' | 'plamo2' | 'test';
  /** The number of tokens. Their ids are 0 to size - 1. */
  size: number;
  /** The token at the beginning of a text. */
  bos: number | null;
  /** The token at the end of a text. */
  eos: number | null;
  /** The token at the end of a turn. */
  eot: number | null;
  /** The token of a line break. */
  newline: number | null;
  /** The padding token. */
  pad: number | null;
  /** The token between two texts. */
  separator: number | null;
  /** The token that replaces a masked token. */
  mask: number | null;
  /** Whether a prompt of this model starts with the BOS token. */
  addsBos: boolean;
  /** Whether a text of this model ends with the EOS token. Prompts of this package never end with the EOS token. */
  addsEos: boolean;
}

/** The description of a model, from its metadata. */
export interface ModelInfo {
  /** llama.cpp's description, for example `llama 256M Q4_1`. */
  description: string;
  /** `general.architecture` of the GGUF file. */
  architecture: string;
  /** The name of the quantization, for example `Q4_1`. */
  fileType: string;
  /** Number of weights. */
  parameters: number;
  /** Size of all tensors in bytes. */
  sizeBytes: number;
  /** The context size of the model's training, in tokens. */
  trainContextSize: number;
  /** Width of the hidden state. */
  embeddingSize: number;
  /** Number of layers. */
  layers: number;
  /** Number of attention heads in the first layer. */
  heads: number;
  /** Number of key and value heads in the first layer. */
  kvHeads: number;
  /** The attention window of sliding-window layers, in tokens. 0 if the model has no such layers. */
  slidingWindow: number;
  /** llama.cpp's number for the kind of RoPE. -1 if the model has no RoPE. */
  ropeType: number;
  /** Whether all layers are recurrent (Mamba, RWKV). No part of such a model's sequences can be removed. */
  recurrent: boolean;
  /** Whether the model has both attention and recurrent layers (Jamba, Granite hybrid). */
  hybrid: boolean;
  /** Whether the model generates by diffusion and not token by token. */
  diffusion: boolean;
  /** Whether the model has an encoder. */
  encoder: boolean;
  /** Whether the model has a decoder. */
  decoder: boolean;
  /** The model's own chat template (Jinja), or null. */
  chatTemplate: string | null;
  /** The vocabulary. */
  vocabulary: VocabularyInfo;
}
