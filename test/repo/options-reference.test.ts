// docs/reference/options.md matches the schemas. `npm run docs` generates the page again.

import {
  AGENT_OPTIONS,
  BUDGET_OPTIONS,
  CACHE_OPTIONS,
  COMPACT_OPTIONS,
  COMPACTION_OPTIONS,
  COMPLETION_OPTIONS,
  DRY_OPTIONS,
  expectedBy,
  LORA_OPTIONS,
  MCP_SERVER_OPTIONS,
  MIROSTAT_OPTIONS,
  MODEL_OPTIONS,
  REPETITION_GUARD_OPTIONS,
  RESOLVE_OPTIONS,
  RETRY_CONFIG,
  SAMPLING_OPTIONS,
  SAVE_OPTIONS,
  SEND_OPTIONS,
  SESSION_OPTIONS,
  SOURCES,
  TOOL_OPTIONS,
  VERIFY_OPTIONS,
  WARM_OPTIONS,
  XTC_OPTIONS,
} from 'llama-headstart/internal';
import { expect, it } from 'vitest';
import { type OptionsGroup, optionsReference } from '../../scripts/options-reference.mjs';

/** The groups of options, in the order of the page. */
const GROUPS: OptionsGroup[] = [
  { title: 'Agent', shape: 'AGENT', schema: AGENT_OPTIONS, about: 'Of `AgentServer.initialize(options)`.' },
  { title: 'model', shape: 'MODEL', schema: MODEL_OPTIONS, about: 'The model and its context, in `initialize`.' },
  {
    title: 'A local model',
    shape: 'LOCAL',
    schema: SOURCES.local,
    about: 'A `source` of this type. Its short form is the path.',
  },
  {
    title: 'A model of the Hugging Face Hub',
    shape: 'HUGGING_FACE',
    schema: SOURCES.huggingface,
    about:
      'A `source` of this type. Its short form is `hf:owner/name`, `hf:owner/name:Q8_0` or `hf:owner/name/file.gguf`.',
  },
  {
    title: 'A model at an address',
    shape: 'URL_SOURCE',
    schema: SOURCES.url,
    about: 'A `source` of this type. Its short form is the address.',
  },
  { title: 'retryConfig', shape: 'RETRY', schema: RETRY_CONFIG, about: 'In `model`, and of `resolveModel`.' },
  {
    title: 'loras',
    shape: 'LORA',
    schema: LORA_OPTIONS,
    about: 'Each of `loras` in `model`, and of `agent.setLoras(loras)`.',
  },
  { title: 'cache', shape: 'CACHE', schema: CACHE_OPTIONS, about: 'The template cache, in `initialize`.' },
  {
    title: 'sampling',
    shape: 'SAMPLING',
    schema: SAMPLING_OPTIONS,
    about:
      'In `initialize`, `createSession`, `send` and `complete`, and of `model.createSampler` in `llama-headstart/native`.',
  },
  { title: 'dry', shape: 'DRY', schema: DRY_OPTIONS, about: 'In `sampling`.' },
  { title: 'xtc', shape: 'XTC', schema: XTC_OPTIONS, about: 'In `sampling`.' },
  { title: 'mirostat', shape: 'MIROSTAT', schema: MIROSTAT_OPTIONS, about: 'In `sampling`.' },
  {
    title: 'tools',
    shape: 'TOOL',
    schema: TOOL_OPTIONS,
    about: 'Each of `tools` in `initialize` and `createSession`.',
  },
  {
    title: 'An MCP server that is a child process',
    shape: 'STDIO',
    schema: MCP_SERVER_OPTIONS.stdio,
    about: 'One of `mcpServers`.',
  },
  {
    title: 'An MCP server at an address',
    shape: 'HTTP',
    schema: MCP_SERVER_OPTIONS.http,
    about: 'One of `mcpServers`.',
  },
  {
    title: 'Session',
    shape: 'SESSION',
    schema: SESSION_OPTIONS,
    about: 'Of `agent.createSession(options)`, and without `messages` of `agent.restoreSession(path, options)`.',
  },
  { title: 'compaction', shape: 'COMPACTION', schema: COMPACTION_OPTIONS, about: 'In `createSession`.' },
  { title: 'Compact', shape: 'COMPACT', schema: COMPACT_OPTIONS, about: 'Of `session.compact(options)`.' },
  {
    title: 'Turn',
    shape: 'SEND',
    schema: SEND_OPTIONS,
    about: 'Of `session.send(message, options)` and `session.stream`.',
  },
  {
    title: 'repetitionGuard',
    shape: 'REPETITION_GUARD',
    schema: REPETITION_GUARD_OPTIONS,
    about: 'In `send`, `stream` and `complete`.',
  },
  { title: 'Save', shape: 'SAVE', schema: SAVE_OPTIONS, about: 'Of `session.save(path, options)`.' },
  {
    title: 'Completion',
    shape: 'COMPLETION',
    schema: COMPLETION_OPTIONS,
    about: 'Of `agent.complete(prompt, options)` and `agent.streamComplete`.',
  },
  { title: 'Warm', shape: 'WARM', schema: WARM_OPTIONS, about: 'Of `agent.templateCache.warm(templates, options)`.' },
  { title: 'Verify', shape: 'VERIFY', schema: VERIFY_OPTIONS, about: 'Of `agent.templateCache.verify(options)`.' },
  { title: 'Prune', shape: 'BUDGET', schema: BUDGET_OPTIONS, about: 'Of `agent.templateCache.prune(budget)`.' },
  {
    title: 'Resolve',
    shape: 'RESOLVE',
    schema: RESOLVE_OPTIONS,
    about: 'Of `resolveModel(source, options)`.',
  },
];

it('the reference page of all options matches their schemas and doc comments', async () => {
  await expect(optionsReference(GROUPS, expectedBy)).toMatchFileSnapshot('../../docs/reference/options.md');
});
