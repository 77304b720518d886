import { HeadstartError } from '../errors.js';
import { type Group, group, list, number, type OptionsOf, value } from '../option-types.js';
import { type ResolveModelOptions, resolveModel } from './resolve-model.js';
import type { ModelSourceInput } from './source.js';

const MAX_SCALE = 10_000;

const LORA = {
  /** The source of the adapter's GGUF file, in any form that the source of a model may have. */
  source: value<ModelSourceInput>((input) => input !== undefined, 'a model source'), // parseModelSource checks the rest
  /** Factor of the adapter's weights. @default 1 */
  scale: number(-MAX_SCALE, MAX_SCALE).optional(),
};

/** A LoRA adapter and its scale. */
export interface LoraConfig extends OptionsOf<typeof LORA> {}

export const LORA_OPTIONS: Group<LoraConfig> = group(LORA);
export const LORAS = list(LORA_OPTIONS, 'an array of { source, scale? }');

/** An adapter that is on this machine. */
export interface LoraFile {
  path: string;
  scale?: number;
}

/**
 * Downloads the adapters that are not on this machine.
 *
 * @throws HeadstartError `LORA_NOT_FOUND`, and the codes of {@link resolveModel}.
 */
export async function resolveLoras(loras: readonly LoraConfig[], options: ResolveModelOptions): Promise<LoraFile[]> {
  const files: LoraFile[] = [];
  for (const { source, scale } of loras) {
    const { path } = await resolveModel(source, options).catch((error: unknown) => {
      if (HeadstartError.isInstance(error, 'MODEL_NOT_FOUND')) {
        throw new HeadstartError('LORA_NOT_FOUND', error.message, { cause: error });
      }
      throw error;
    });
    files.push({ path, ...(scale !== undefined && { scale }) });
  }
  return files;
}
