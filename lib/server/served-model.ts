// What endpoints need of a model besides replies.
import type { AgentHealth } from '../agent/agent-health.js';
import type { AgentServer } from '../agent/agent-server.js';
import type { TemplateCache } from '../cache/template-cache.js';
import type { ChatModel } from '../chat/chat-model.js';
import type { Model } from '../native/model.js';
import { HttpError } from './http/http-error.js';

/**
 * A model to serve. Only the parts of {@link ChatModel} are required. If an endpoint needs another part and the model
 * does not have this part, the endpoint answers with status 501. `AgentServer` has all parts.
 */
export interface ServedModel extends ChatModel {
  /** The description and the tokenizer of the loaded model. */
  readonly model?: Pick<Model, 'info' | 'tokenize' | 'detokenize' | 'tokenToBytes'>;
  /** Maximum number of tokens of a conversation. */
  readonly contextSize?: number;
  /** The chat template (Jinja). */
  readonly chatTemplate?: string;
  /** The cache of templates. */
  readonly templateCache?: TemplateCache;
  /** As `AgentServer.health`. */
  health?(): AgentHealth;
  /** As `AgentServer.renderPrompt`. */
  renderPrompt?: AgentServer['renderPrompt'];
  /** As `AgentServer.streamComplete`. */
  streamComplete?: AgentServer['streamComplete'];
  /** As `AgentServer.explain`. */
  explain?: AgentServer['explain'];
}

type OptionalPart = Exclude<keyof ServedModel, keyof ChatModel>;
type ModelWith<Part extends OptionalPart> = ServedModel & Required<Pick<ServedModel, Part>>;

/** Whether a model has these parts. */
export function hasParts<Part extends OptionalPart>(model: ServedModel, ...parts: Part[]): model is ModelWith<Part> {
  return parts.every((part) => model[part] !== undefined);
}

/** @throws HttpError 501 if the model does not have all these parts. */
export function withParts<Part extends OptionalPart>(model: ServedModel, ...parts: Part[]): ModelWith<Part> {
  if (!hasParts(model, ...parts)) {
    const missing = parts.filter((part) => model[part] === undefined);
    const names = missing.map((part) => `\`${part}\``).join(', ');
    throw new HttpError(501, 'not_implemented', `The model of this server does not offer ${names}`);
  }
  return model;
}
