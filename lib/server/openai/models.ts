import { modelMeta } from '../llama-server/model-description.js';
import type { ServedModel } from '../served-model.js';

/** The fields of OpenAI's, Anthropic's and llama-server's lists of models. @param since when the server began, in ms */
export function describeModel(model: ServedModel, since: number): object {
  const { id } = model;
  const meta = modelMeta(model);
  return {
    id,
    object: 'model',
    created: Math.floor(since / 1000),
    owned_by: 'llama-headstart',
    ...(meta && { meta }),
    type: 'model',
    display_name: id,
    created_at: new Date(since).toISOString(),
  };
}

/** The list of models, with one model. */
export function listModels(model: ServedModel, since: number): object {
  const { id } = model;
  return { object: 'list', data: [describeModel(model, since)], has_more: false, first_id: id, last_id: id };
}
