// Tiny LoRA adapters for the micro model `dense`.
import { join } from 'node:path';
// @ts-expect-error: scripts are plain JavaScript
import { layoutGguf, writeGguf } from '../fixtures/micro-models/gguf-writer.mjs';
import { seededRandom } from './native.js';

export interface LoraFile {
  /** @default 2 */
  rank?: number;
  /** Length of a row of the adapted weight. @default the parameter `embedding` of {@link writeLora} */
  inputs?: number;
  outputs?: number;
  /** The adapted weight. @default 'blk.0.attn_q.weight' */
  weight?: string;
  seed?: number;
  /** The value of every element of both tensors. @default random values */
  value?: number;
  metadata?: [key: string, type: string, value: unknown][];
  /** The tensor to leave out. */
  without?: 'a' | 'b';
  /** The rank of the second tensor. @default `rank` */
  rankB?: number;
  /** Additional dimensions of both tensors. */
  extra?: number[];
}

/** Writes an adapter into `directory` and returns its path. @param embedding the default length of a row */
export async function writeLora(directory: string, name: string, file: LoraFile, embedding: number) {
  const { rank = 2, rankB = rank, weight = 'blk.0.attn_q.weight', seed = 1, extra = [] } = file;
  const { inputs = embedding, outputs = embedding } = file;
  const random = seededRandom(seed);
  const tensor = (part: 'a' | 'b', shape: number[]) => ({
    name: `${weight}.lora_${part}`,
    shape: [...shape, ...extra],
    type: 'f32' as const,
    values: () =>
      Float32Array.from({ length: [...shape, ...extra].reduce((a, b) => a * b) }, () => file.value ?? random() - 0.5),
  });
  const tensors = [
    ...(file.without === 'a' ? [] : [tensor('a', [inputs, rank])]),
    ...(file.without === 'b' ? [] : [tensor('b', [rankB, outputs])]),
  ];
  const metadata = file.metadata ?? LORA_METADATA;
  const path = join(directory, `${name}.gguf`);
  await writeGguf(path, layoutGguf(metadata, tensors));
  return path;
}

export const LORA_METADATA: [key: string, type: string, value: unknown][] = [
  ['general.type', 'string', 'adapter'],
  ['general.architecture', 'string', 'qwen2'],
  ['general.name', 'string', 'a micro adapter'],
  ['adapter.type', 'string', 'lora'],
  ['adapter.lora.alpha', 'float32', 4],
];
