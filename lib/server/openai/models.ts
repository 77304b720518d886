import type { ChatModel } from '../../chat/chat-model.js';

/** The list of models, with one model. */
export function listModels({ id }: ChatModel): object {
  return { object: 'list', data: [{ id, object: 'model', created: 0, owned_by: 'llama-headstart' }] };
}
