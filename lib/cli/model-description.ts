// Describes a model file for `llama-headstart models inspect`, without loading its weights.
import { Model } from '../native/model.js';
import { Renderer } from '../prompt/renderer.js';
import { kvBytesPerToken, modelBytes, numberIn, trainingLength } from './model-memory.js';

export interface ModelDescription {
  path: string;
  name: string | null;
  architecture: string;
  quantization: string;
  parameters: number;
  /** Size of all parts in bytes. */
  bytes: number;
  /** The training length in tokens; 0 if it is unknown. */
  trainContextSize: number;
  layers: number | null;
  /** The window of sliding-window layers in tokens; null if there are none. */
  slidingWindow: number | null;
  /** Whether states cannot be trimmed to any length, because the memory is recurrent or hybrid. */
  recurrent: boolean;
  /** Bytes of the KV cache for each token: an upper bound. */
  kvBytesPerToken: number;
  /** The memory for the weights and one conversation of this length, in bytes: an upper bound. */
  memory: { contextSize: number; bytes: number }[];
  vocabulary: { type: string; size: number };
  /** Null if the model has no chat template, or one that cannot be used. */
  chatTemplate: ChatTemplateDescription | null;
  /** Why the chat template cannot be used, or null. */
  problem: string | null;
}

export interface ChatTemplateDescription {
  /** The length of its text in characters. */
  length: number;
  /** Whether it describes tools. If not, the system message describes them. */
  describesTools: boolean;
  /** The format of replies with tool calls, as llama.cpp names it. */
  toolsFormat: string;
  /** Whether replies have reasoning that can be separated from their text. */
  reasoning: boolean;
  /** Whether prompts contain the date, so that a cached template is valid for one day only. */
  usesClock: boolean;
}

/** Contexts for which the memory is computed, in tokens. */
const CONTEXT_SIZES: readonly number[] = [4096, 8192, 32_768, 131_072];

/** The names of llama.cpp's quantizations (`llama_ftype`) by their numbers. */
const QUANTIZATIONS: Readonly<Record<string, string>> = Object.fromEntries(
  Object.entries({
    0: 'F32 F16 Q4_0 Q4_1',
    7: 'Q8_0 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ2_XXS IQ2_XS Q2_K_S IQ3_XS IQ3_XXS',
    24: 'IQ1_S IQ4_NL IQ3_S IQ3_M IQ2_S IQ2_M IQ4_XS IQ1_M BF16',
    36: 'TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0',
  }).flatMap(([first, names]) => names.split(' ').map((name, index) => [Number(first) + index, name])),
);

/** A tool that shows how the chat template writes tools. */
const PROBE_TOOL = {
  name: 'find_book',
  description: 'Finds a book by its title.',
  parameters: { type: 'object', properties: { title: { type: 'string' } }, required: ['title'] },
};

/** @throws HeadstartError as `Model.load`. */
export async function describeModel(path: string, signal: AbortSignal): Promise<ModelDescription> {
  const model = await Model.load({ path, vocabularyOnly: true, signal });
  try {
    const metadata = model.metadata();
    const { info } = model;
    const bytes = await modelBytes(path);
    const perToken = kvBytesPerToken(metadata);
    const trained = trainingLength(metadata);
    const sizes = CONTEXT_SIZES.filter((size) => trained === 0 || size < trained);
    return {
      path,
      name: metadata['general.name'] ?? null,
      architecture: info.architecture,
      quantization: QUANTIZATIONS[metadata['general.file_type'] ?? ''] ?? 'unknown',
      parameters: info.parameters,
      bytes,
      trainContextSize: trained,
      layers: numberIn(metadata, 'block_count') ?? null,
      slidingWindow: numberIn(metadata, 'attention.sliding_window') || null,
      recurrent: isRecurrent(metadata),
      kvBytesPerToken: perToken,
      memory: [...sizes, ...(trained === 0 ? [] : [trained])].map((contextSize) => ({
        contextSize,
        bytes: bytes + contextSize * perToken,
      })),
      vocabulary: { type: info.vocabulary.type, size: info.vocabulary.size },
      ...(await describeTemplate(model)),
    };
  } finally {
    await model.close();
  }
}

/** Whether the metadata describes recurrent layers. */
function isRecurrent(metadata: Readonly<Record<string, string>>): boolean {
  return Object.keys(metadata).some((name) => /\.(ssm\.|wkv\.|shortconv\.|token_shift_count)/.test(name));
}

async function describeTemplate(model: Model): Promise<Pick<ModelDescription, 'chatTemplate' | 'problem'>> {
  if (model.info.chatTemplate === null) {
    return { chatTemplate: null, problem: null };
  }
  try {
    const renderer = new Renderer(model);
    await renderer.requireMessages();
    const messages = [{ role: 'user' as const, content: 'Hi' }];
    const { format, supportsThinking } = await renderer.format({ tools: [PROBE_TOOL] }, messages, {});
    const chatTemplate = {
      length: renderer.chatTemplate.length,
      describesTools: await renderer.describesTools({ tools: [PROBE_TOOL] }),
      toolsFormat: format,
      reasoning: supportsThinking,
      usesClock: renderer.usesClock,
    };
    return { chatTemplate, problem: null };
  } catch (error) {
    return { chatTemplate: null, problem: (error as Error).message };
  }
}
