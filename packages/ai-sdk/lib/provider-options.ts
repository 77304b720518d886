// Reads the options of this provider: `providerOptions.headstart` of a call, of a message or its parts, and of a tool.
import { type CacheHint, HeadstartError } from 'llama-headstart';
import type { CallOptions, FunctionTool, Message, Warning, WithOptions } from './specification.js';

/** The name of the provider in `providerOptions` and `providerMetadata`. */
export const PROVIDER = 'headstart';

/** The options of a call, in `providerOptions.headstart`. These options override those of messages. */
export interface LlamaHeadstartCallOptions {
  /** The tenant of the request. Different tenants never share cached tokens. @default none */
  tenant?: string;
  /**
   * The program's name for the conversation. If several earlier conversations share equally many tokens with the
   * prompt, the request continues the one with this name. @default none
   */
  affinity?: string;
  /** A grammar (GBNF) that the reply must follow. The model then calls no tools. @default none */
  grammar?: string;
  /** Whether one reply may have several tool calls. @default true */
  parallelToolCalls?: boolean;
}

/** The options of a message or of one of its parts, in `providerOptions.headstart`. */
export interface LlamaHeadstartMessageOptions extends LlamaHeadstartCallOptions {
  /**
   * Whether later requests probably have the same prompt up to the end of this message. Tools have this option too.
   * `ttlMs` is the time that the pin of the template lasts, in ms. @default false
   */
  cacheBoundary?: boolean | { ttlMs?: number };
}

type Options = Readonly<Record<string, unknown>>;

const OF_CALL = ['tenant', 'affinity', 'grammar', 'parallelToolCalls'];
const OF_TOOL = ['cacheBoundary'];
const OF_MESSAGE = [...OF_CALL, ...OF_TOOL];

/** The largest number of boundaries in one request, see `ChatRequest.cacheHints`. */
const MAX_BOUNDARIES = 8;

/**
 * Reads the options that concern the whole call. The options of the call override those of messages, and newer messages
 * override older ones. The grammar of a message counts only for the reply to this message.
 *
 * @throws HeadstartError `INVALID_ARGUMENT` if a call names two tenants.
 */
export function readCallOptions(call: CallOptions, warnings: Warning[]): LlamaHeadstartCallOptions {
  const { prompt } = call;
  const lastReply = prompt.findLastIndex(({ role }) => role === 'assistant');
  const layers = prompt.flatMap((message, index) =>
    optionsOf(message).map(({ grammar, ...options }) => (index > lastReply ? { grammar, ...options } : options)),
  );
  const ofCall = ownOptions(call);
  warnAboutUnknown([ofCall], OF_CALL, 'the call', warnings);
  const all = [...layers, ofCall];
  requireOneTenant(all);
  const entries = OF_CALL.map((name) => [name, all.findLast((options) => options[name] !== undefined)?.[name]]);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined));
}

/** @throws HeadstartError `INVALID_ARGUMENT`. */
function requireOneTenant(layers: readonly Options[]): void {
  const tenants = new Set(layers.flatMap(({ tenant }) => (tenant === undefined ? [] : [tenant])));
  if (tenants.size > 1) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected one tenant in \`providerOptions.${PROVIDER}\` of a call and its messages, got ${tenants.size}. Send the ` +
        'messages of each tenant in a call of their own.',
    );
  }
}

/** The cache boundaries of tools. The index is that of a tool in `tools`. */
export function boundariesOfTools(tools: readonly FunctionTool[], warnings: Warning[]): CacheHint[] {
  return tools.flatMap((tool, index) => {
    const options = ownOptions(tool);
    warnAboutUnknown([options], OF_TOOL, `the tool "${tool.name}"`, warnings);
    return boundaryIn([options], { tool: index });
  });
}

/**
 * The cache boundary at the end of a message.
 *
 * @param index the index of the message in the request
 */
export function boundariesOfMessage(message: Message, index: number, warnings: Warning[]): CacheHint[] {
  const options = optionsOf(message);
  warnAboutUnknown(options, OF_MESSAGE, 'a message', warnings);
  return boundaryIn(options, { message: index });
}

/** Leaves out the oldest boundaries of messages if there are too many boundaries. */
export function limitBoundaries(
  ofTools: readonly CacheHint[],
  ofMessages: readonly CacheHint[],
  warnings: Warning[],
): CacheHint[] {
  const tools = ofTools.slice(-MAX_BOUNDARIES);
  const messages = ofMessages.slice(Math.max(0, ofMessages.length - (MAX_BOUNDARIES - tools.length)));
  const ignored = ofTools.length + ofMessages.length - tools.length - messages.length;
  if (ignored > 0) {
    const details = `At most ${MAX_BOUNDARIES} boundaries have an effect. The oldest ${ignored} are ignored.`;
    warnings.push({ type: 'unsupported', feature: `providerOptions.${PROVIDER}.cacheBoundary`, details });
  }
  return [...tools, ...messages];
}

/** The options of a message: first those of its parts, then its own. */
function optionsOf(message: Message): Options[] {
  const parts = typeof message.content === 'string' ? [] : message.content;
  return [...parts, message].map(ownOptions);
}

function ownOptions({ providerOptions }: WithOptions): Options {
  return providerOptions?.[PROVIDER] ?? {};
}

function boundaryIn(layers: readonly Options[], place: CacheHint): CacheHint[] {
  const boundary = layers.findLast(({ cacheBoundary }) => Boolean(cacheBoundary))?.cacheBoundary;
  return boundary === undefined ? [] : [{ ...place, ...(boundary as object) }];
}

function warnAboutUnknown(
  layers: readonly Options[],
  known: readonly string[],
  owner: string,
  warnings: Warning[],
): void {
  const unknown = new Set(layers.flatMap((options) => Object.keys(options)).filter((name) => !known.includes(name)));
  for (const name of unknown) {
    const feature = `providerOptions.${PROVIDER}.${name}`;
    const details = `The option of ${owner} is ignored. Known options are ${known.join(', ')}.`;
    warnings.push({ type: 'unsupported', feature, details });
  }
}
