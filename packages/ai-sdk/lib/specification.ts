// The part of the AI SDK's specification for language models that this package reads and writes. The types fit both
// version 3 and version 4. So one implementation serves both versions. The compiler checks in v3.ts and index.ts that
// the types fit.
import type {
  LanguageModelV3CallOptions,
  LanguageModelV3FinishReason,
  LanguageModelV3Reasoning,
  LanguageModelV3Text,
  LanguageModelV3ToolCall,
  LanguageModelV3ToolChoice,
  LanguageModelV3Usage,
  SharedV3ProviderMetadata,
  SharedV3ProviderOptions,
  SharedV3Warning,
} from '@ai-sdk/provider';

export type FinishReason = LanguageModelV3FinishReason;
export type ProviderMetadata = SharedV3ProviderMetadata;
export type ProviderOptions = SharedV3ProviderOptions;
export type ToolChoice = LanguageModelV3ToolChoice;
export type Usage = LanguageModelV3Usage;
export type Warning = SharedV3Warning;

/** Anything that a program can give options for this provider. */
export interface WithOptions {
  readonly providerOptions?: ProviderOptions;
}

export interface TextPart extends WithOptions {
  readonly type: 'text' | 'reasoning';
  readonly text: string;
}

export interface ToolCallPart extends WithOptions {
  readonly type: 'tool-call';
  readonly toolCallId: string;
  readonly toolName: string;
  readonly input: unknown;
}

/** The result of a tool, in one of several forms. */
export type ToolOutput =
  | { readonly type: 'text' | 'error-text'; readonly value: string }
  | { readonly type: 'json' | 'error-json'; readonly value: unknown }
  | { readonly type: 'execution-denied'; readonly reason?: string }
  | { readonly type: 'content'; readonly value: readonly ({ type: 'text'; text: string } | OtherPart)[] };

export interface ToolResultPart extends WithOptions {
  readonly type: 'tool-result';
  readonly toolCallId: string;
  readonly toolName: string;
  readonly output: ToolOutput;
}

/** A part that a model without vision and hearing cannot read, for example a file. */
export interface OtherPart extends WithOptions {
  readonly type:
    | 'file'
    | 'reasoning-file'
    | 'custom'
    | 'tool-approval-response'
    | 'file-data'
    | 'file-url'
    | 'file-id'
    | 'file-reference'
    | 'image-data'
    | 'image-url'
    | 'image-file-id';
  readonly mediaType?: string;
}

export type Part = TextPart | ToolCallPart | ToolResultPart | OtherPart;

/** A message of a prompt. */
export type Message = WithOptions &
  (
    | { readonly role: 'system'; readonly content: string }
    | { readonly role: 'user' | 'assistant' | 'tool'; readonly content: readonly Part[] }
  );

export interface FunctionTool extends WithOptions {
  readonly type: 'function';
  readonly name: string;
  readonly description?: string;
  readonly inputSchema: object;
  readonly inputExamples?: readonly object[];
}

/** A tool that a provider has built in. */
export interface ProviderTool {
  readonly type: 'provider';
  readonly id: string;
}

type Settings = Pick<
  LanguageModelV3CallOptions,
  | 'maxOutputTokens'
  | 'temperature'
  | 'stopSequences'
  | 'topP'
  | 'topK'
  | 'presencePenalty'
  | 'frequencyPenalty'
  | 'seed'
  | 'toolChoice'
  | 'includeRawChunks'
  | 'abortSignal'
  | 'headers'
  | 'providerOptions'
>;

/** The options of one call of a model. */
export interface CallOptions extends Settings {
  prompt: readonly Message[];
  tools?: readonly (FunctionTool | ProviderTool)[];
  responseFormat?: { type: 'text' } | { type: 'json'; schema?: object; name?: string; description?: string };
  /** The effort of reasoning. Only version 4 has this option. */
  reasoning?: string;
}

/** The description of a response. */
export interface ResponseMetadata {
  id: string;
  modelId: string;
  timestamp: Date;
}

/** The end of a reply. */
export interface Ending {
  finishReason: FinishReason;
  usage: Usage;
  providerMetadata?: ProviderMetadata;
}

/** A whole reply. */
export interface GenerateResult extends Ending {
  content: (LanguageModelV3Text | LanguageModelV3Reasoning | LanguageModelV3ToolCall)[];
  warnings: Warning[];
  request: { body: unknown };
  response: ResponseMetadata;
}

/** A part of a streamed reply. */
export type StreamPart =
  | { type: 'stream-start'; warnings: Warning[] }
  | ({ type: 'response-metadata' } & ResponseMetadata)
  | { type: 'text-start' | 'text-end' | 'reasoning-start' | 'reasoning-end' | 'tool-input-end'; id: string }
  | { type: 'text-delta' | 'reasoning-delta' | 'tool-input-delta'; id: string; delta: string }
  | { type: 'tool-input-start'; id: string; toolName: string }
  | LanguageModelV3ToolCall
  | { type: 'raw'; rawValue: unknown }
  | { type: 'error'; error: unknown }
  | ({ type: 'finish' } & Ending);

/** A reply that is being generated. */
export interface StreamResult {
  stream: ReadableStream<StreamPart>;
  request: { body: unknown };
}
