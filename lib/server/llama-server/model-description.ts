// Describes the model of the server as llama-server does, without paths of files.
import { packageVersion } from '../../native/places.js';
import { systemInfo } from '../../native/system.js';
import { hasParts, type ServedModel, withParts } from '../served-model.js';

/** llama.cpp's number of a kind of tokenizer (`llama_vocab_type`) is its index in this list. */
const VOCABULARY_TYPES: readonly string[] = ['none', 'spm', 'bpe', 'wpm', 'ugm', 'rwkv', 'plamo2', 'test'];

/** llama-server's `meta` of a model. Undefined if the model has no description. */
export function modelMeta(served: ServedModel): object | undefined {
  if (!hasParts(served, 'model')) {
    return undefined;
  }
  const { vocabulary, trainContextSize, embeddingSize, parameters, sizeBytes, fileType } = served.model.info;
  return {
    vocab_type: VOCABULARY_TYPES.indexOf(vocabulary.type),
    n_vocab: vocabulary.size,
    n_ctx: served.contextSize,
    n_ctx_train: trainContextSize,
    n_embd: embeddingSize,
    n_params: parameters,
    size: sizeBytes,
    ftype: fileType,
  };
}

/**
 * The answer to `GET /props`.
 *
 * @throws HttpError 501.
 */
export function propertiesOf(served: ServedModel): object {
  const parts = withParts(served, 'model', 'contextSize', 'chatTemplate', 'health');
  const { id, model, contextSize, chatTemplate } = parts;
  const { bos, eos } = model.info.vocabulary;
  const textOf = (token: number | null) =>
    token === null ? '' : new TextDecoder().decode(model.tokenToBytes(token, { special: true }));
  return {
    default_generation_settings: { n_ctx: contextSize, params: {} },
    total_slots: parts.health().maxSequences,
    model_alias: id,
    model_ftype: model.info.fileType,
    modalities: { vision: false, video: false, audio: false },
    endpoint_slots: false,
    endpoint_props: false,
    endpoint_metrics: true,
    chat_template: chatTemplate,
    bos_token: textOf(bos),
    eos_token: textOf(eos),
    build_info: `llama-headstart ${packageVersion}, llama.cpp ${systemInfo().llamaVersion}`,
    is_sleeping: false,
  };
}
