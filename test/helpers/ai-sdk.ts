// Calls models through the interface of the AI SDK's specification.
import type { LanguageModelV4CallOptions, LanguageModelV4Prompt, LanguageModelV4StreamPart } from '@ai-sdk/provider';
import { createLlamaHeadstart } from '@llama-headstart/ai-sdk';
import { createLlamaHeadstart as createV3 } from '@llama-headstart/ai-sdk/v3';
import type { LanguageModel } from 'ai';
import type { AgentServer, ChatModel, ChatRequest } from 'llama-headstart';

/** A prompt with one message of the user. */
export const ask = (text: string): LanguageModelV4Prompt => [{ role: 'user', content: [{ type: 'text', text }] }];

/** An agent that also remembers its requests. */
export class Recorder implements ChatModel {
  readonly requests: ChatRequest[] = [];
  readonly #agent: AgentServer;

  constructor(agent: AgentServer) {
    this.#agent = agent;
  }

  get id(): string {
    return this.#agent.id;
  }

  readonly chat: ChatModel['chat'] = (request) => {
    this.requests.push(request as ChatRequest);
    return this.#agent.chat(request);
  };

  readonly countTokens: ChatModel['countTokens'] = (request) => this.#agent.countTokens(request);
}

/**
 * The model for AI SDK 6. The packages of AI SDK 6 and 7 declare version 3 of the specification slightly differently. In
 * this repository, the provider has the declaration of AI SDK 7. The tests of the published package check the types.
 */
export const modelOf = (agent: ChatModel): LanguageModel => createV3({ agent })() as unknown as LanguageModel;

/** Makes a call, and returns its request and its result. */
export async function callModel(agent: AgentServer, options: Partial<LanguageModelV4CallOptions> = {}) {
  const recorder = new Recorder(agent);
  const model = createLlamaHeadstart({ agent: recorder })();
  const result = await model.doGenerate({ prompt: ask('Hello'), maxOutputTokens: 2, ...options });
  return { request: recorder.requests[0] as ChatRequest, result };
}

/** All parts of a stream. */
export async function partsOf(
  agent: ChatModel,
  options: Partial<LanguageModelV4CallOptions>,
): Promise<LanguageModelV4StreamPart[]> {
  const model = createLlamaHeadstart({ agent })();
  const { stream } = await model.doStream({ prompt: ask('Hello'), ...options });
  const parts: LanguageModelV4StreamPart[] = [];
  for await (const part of stream) {
    parts.push(part);
  }
  return parts;
}
