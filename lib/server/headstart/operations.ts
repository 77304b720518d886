// The endpoints of this package's own API, for the OpenAPI document.
import { z } from 'zod';
import type { DirectoryBudget } from '../../cache/disk/eviction.js';
import type { PruneReport, VerifyReport } from '../../cache/disk/operations.js';
import { CHAT_BODY } from '../openai/chat-request.js';
import { type OperationGroup, requestSchema, responseSchema } from '../openapi/operation.js';
import { CACHE_REPORT, PLACE, PLACE_FIELDS, REUSE } from '../openapi/shared-schemas.js';
import { WARM } from './templates.js';

const KEY = z.string().describe('The key of the template: 64 hex digits.');
const parameters = { key: 'The key of a template: 64 hex digits in lower case.' };

const ENTRY = {
  key: KEY,
  tokens: z.int().describe('Tokens of the template.'),
  bytes: z.int().describe("Size of the template's file. 0 if there is no file."),
  tiers: z.array(z.enum(['resident', 'memory', 'disk'])).describe('The tiers that hold the state.'),
  pinned: z.boolean().describe('Whether the template is protected from eviction.'),
  prefillMs: z.number().describe('Milliseconds of the prefill.'),
  createdAt: z.string().optional().describe('When the file was written, as ISO 8601.'),
  lastUsedAt: z.string().optional().describe('When the file was last used, as ISO 8601.'),
};

const TEMPLATE = responseSchema('Template', z.strictObject(ENTRY));

const TEMPLATE_DETAILS = responseSchema(
  'TemplateDetails',
  z.strictObject({
    ...ENTRY,
    components: z.looseObject({}).optional().describe('What the key depends on, besides the tokens.'),
  }),
);

const START_REPORT = responseSchema(
  'StartReport',
  z.strictObject({
    source: REUSE.source,
    cache: z.enum(['hit', 'prefix', 'miss', 'bypass']).describe('How much of the template was cached.'),
    tier: z.string().describe('Deprecated: use `source` and `cache`.'),
    match: z.string().describe('Deprecated: use `cache`.'),
    templateTokens: z.int().describe('Tokens of the template.'),
    cachedTokens: z.int().describe('Tokens that were reused.'),
    bytes: z.int().describe('Bytes of state that were read.'),
    ms: z.number().describe('Milliseconds of the start.'),
    waitedMs: z.number().optional().describe('Milliseconds of waiting for a prefill of the same template.'),
    key: z.string().describe('The key of the template. Empty if the cache was not used.'),
    reason: z.string().optional().describe('Why no better start was possible.'),
    notSaved: z.string().optional().describe('Why the template is not saved.'),
  }),
);

const EXPLANATION = responseSchema(
  'Explanation',
  z.strictObject({
    promptTokens: z.int().describe('Tokens of the prompt.'),
    ...REUSE,
    difference: z
      .strictObject({
        ...PLACE_FIELDS,
        before: z.string().describe('The text in front of the difference.'),
        storedText: z.string().describe('The text of the nearest stored prefix at the difference.'),
      })
      .optional(),
  }),
);

const COMPARISON = responseSchema(
  'Comparison',
  z.strictObject({
    promptTokens: z.tuple([z.int(), z.int()]).describe('Tokens of both prompts.'),
    sharedTokens: z.int().describe('Tokens that both prompts begin with.'),
    reason: z.string().describe('The result in one sentence.'),
    difference: z
      .strictObject({
        before: z.string().describe('The text in front of the difference.'),
        first: PLACE,
        second: PLACE,
      })
      .optional(),
  }),
);

const RECENT = responseSchema(
  'RecentRequests',
  z.strictObject({
    requests: z.array(
      z.strictObject({
        endedAt: z.string().describe('When the reply ended, as ISO 8601.'),
        endpoint: z.string().describe('The path of the endpoint.'),
        finishReason: z.enum(['stop', 'length', 'tool-calls', 'aborted']),
        usage: z.strictObject({
          inputTokens: z.int(),
          cachedInputTokens: z.int(),
          outputTokens: z.int(),
          reasoningTokens: z.int(),
          firstTokenMs: z.number(),
          tokensPerSecond: z.number(),
          steps: z.int(),
        }),
        cache: z.strictObject({
          ...CACHE_REPORT.shape,
          difference: PLACE.partial({ text: true })
            .optional()
            .describe(
              'Where the prompt differs from the nearest stored prefix. Has `text` only with `showPromptText`.',
            ),
        }),
      }),
    ),
  }),
);

const VERIFIED = responseSchema(
  'VerifyReport',
  z.strictObject({
    checked: z.int().describe('Entries that were read.'),
    intact: z.int().describe('Entries with a correct checksum.'),
    corrupt: z.int().describe('Damaged entries, which were set aside.'),
    foreign: z.int().describe('Entries of another format or version.'),
    bytes: z.int().describe('Bytes that were read.'),
  }),
) satisfies z.ZodType<VerifyReport>;

const PRUNED = responseSchema(
  'PruneReport',
  z.strictObject({
    entries: z.int().describe('Deleted entries.'),
    temporaryFiles: z.int().describe('Deleted temporary files.'),
    corruptFiles: z.int().describe('Deleted files that had been set aside.'),
  }),
) satisfies z.ZodType<PruneReport>;

const PRUNE = requestSchema(
  'PruneRequest',
  z.strictObject({
    maxDiskBytes: z.int().min(0).optional().describe('Maximum size of all entries, in bytes.'),
    maxEntries: z.int().min(0).optional().describe('Maximum number of entries.'),
    maxAgeMs: z.int().min(0).optional().describe('Maximum time since the last start from an entry, in ms.'),
  }),
) satisfies z.ZodType<DirectoryBudget>;

const pinned = (id: string, value: boolean) =>
  responseSchema(id, z.strictObject({ key: KEY, pinned: z.literal(value) }));

const templates = '/headstart/v1/templates';

export const HEADSTART: OperationGroup = {
  name: "This package's own endpoints",
  description: 'The template cache, and the reuse of requests.',
  operations: [
    {
      method: 'get',
      path: templates,
      summary: 'Lists the cached templates.',
      description: 'If any key has a tenant, the endpoint needs an admin key.',
      response: responseSchema('Templates', z.strictObject({ templates: z.array(TEMPLATE) })),
      refusals: [501],
    },
    {
      method: 'get',
      path: `${templates}/{key}`,
      summary: 'Shows one template.',
      description: 'If any key has a tenant, the endpoint needs an admin key.',
      parameters,
      response: TEMPLATE_DETAILS,
      refusals: [400, 404, 501],
    },
    {
      method: 'post',
      path: `${templates}/warm`,
      summary: 'Prefills and saves templates.',
      access: 'admin',
      body: requestSchema('WarmRequest', WARM),
      response: responseSchema('WarmReports', z.strictObject({ reports: z.array(START_REPORT) })),
      refusals: [429, 501],
    },
    {
      method: 'post',
      path: `${templates}/{key}/pin`,
      summary: 'Protects a template from eviction.',
      access: 'admin',
      parameters,
      response: pinned('Pinned', true),
      refusals: [400, 404, 501],
    },
    {
      method: 'post',
      path: `${templates}/{key}/unpin`,
      summary: 'Allows the eviction of a template again.',
      access: 'admin',
      parameters,
      response: pinned('Unpinned', false),
      refusals: [400, 501],
    },
    {
      method: 'delete',
      path: `${templates}/{key}`,
      summary: 'Deletes a template from every tier.',
      access: 'admin',
      parameters,
      response: responseSchema('DeletedTemplate', z.strictObject({ key: KEY, deleted: z.literal(true) })),
      refusals: [400, 404, 501],
    },
    {
      method: 'post',
      path: '/headstart/v1/verify',
      summary: 'Checks all entries of the cache directory.',
      access: 'admin',
      response: VERIFIED,
      refusals: [501],
    },
    {
      method: 'post',
      path: '/headstart/v1/prune',
      summary: 'Deletes entries that exceed a budget.',
      description: 'Without a body, the configured budgets apply.',
      access: 'admin',
      body: PRUNE,
      response: PRUNED,
      refusals: [501],
    },
    {
      method: 'post',
      path: '/headstart/v1/explain',
      summary: 'Explains what a chat completion would reuse now, or where two chat completions part.',
      body: requestSchema(
        'ExplainRequest',
        z.union([CHAT_BODY, z.object({ request: CHAT_BODY, other: CHAT_BODY.optional() })]),
      ),
      response: responseSchema('ExplainResponse', z.union([EXPLANATION, COMPARISON])),
      refusals: [501],
    },
    {
      method: 'get',
      path: '/headstart/v1/requests',
      summary: "Lists the newest requests of the key's tenant, without text of prompts.",
      response: RECENT,
    },
    {
      method: 'get',
      path: '/openapi.json',
      summary: 'Returns this description as OpenAPI.',
      response: responseSchema('OpenApi', z.looseObject({ openapi: z.literal('3.1.1') })),
    },
  ],
};
