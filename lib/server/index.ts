/**
 * An HTTP server for clients of OpenAI's and Anthropic's APIs.
 *
 * @packageDocumentation
 * @module llama-headstart/server
 */

export { createHandler, type Handler } from './handler.js';
export { type ListeningServer, listen } from './listen.js';
export type { ServedModel } from './served-model.js';
export type { ApiKey, HandlerOptions, ListenOptions, StoredResponsesOptions } from './server-options.js';
