// docs/reference/options.md matches the schemas. `npm run docs` generates the page again.

import {
  AGENT_OPTIONS,
  BUDGET_OPTIONS,
  CACHE_HINT_OPTIONS,
  CACHE_OPTIONS,
  CHAT_OPTIONS,
  COMPACT_OPTIONS,
  COMPACTION_OPTIONS,
  COMPLETION_OPTIONS,
  CONVERSATION_OPTIONS,
  DRY_OPTIONS,
  expectedBy,
  FORGET_OPTIONS,
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
  { title: 'Agent', shape: 'AGENT', schema: AGENT_OPTIONS, about: 'The options of `AgentServer.initialize(options)`.' },
  {
    title: 'model',
    shape: 'MODEL',
    schema: MODEL_OPTIONS,
    about: 'The option `model` of `initialize`: the model and its context.',
  },
  {
    title: 'A local model',
    shape: 'LOCAL',
    schema: SOURCES.local,
    about: 'A `source` of this type names a file. Its short form is the path.',
  },
  {
    title: 'A model of the Hugging Face Hub',
    shape: 'HUGGING_FACE',
    schema: SOURCES.huggingface,
    about:
      'A `source` of this type names a model in a repository. Its short form is `hf:owner/name`, `hf:owner/name:Q8_0` or `hf:owner/name/file.gguf`.',
  },
  {
    title: 'A model at an address',
    shape: 'URL_SOURCE',
    schema: SOURCES.url,
    about: 'A `source` of this type names an address. Its short form is the address.',
  },
  {
    title: 'retryConfig',
    shape: 'RETRY',
    schema: RETRY_CONFIG,
    about: 'The option `retryConfig` of `model` and of `resolveModel`.',
  },
  {
    title: 'loras',
    shape: 'LORA',
    schema: LORA_OPTIONS,
    about: 'The elements of `loras` in `model` and in `agent.setLoras(loras)`.',
  },
  {
    title: 'cache',
    shape: 'CACHE',
    schema: CACHE_OPTIONS,
    about: 'The option `cache` of `initialize`: the template cache.',
  },
  {
    title: 'conversations',
    shape: 'CONVERSATIONS',
    schema: CONVERSATION_OPTIONS,
    about: 'The option `conversations` of `cache`: conversations in the cache directory.',
  },
  {
    title: 'agent.forget',
    shape: 'FORGET',
    schema: FORGET_OPTIONS,
    about: 'The argument of `agent.forget`. At least one of the two is needed.',
  },
  {
    title: 'sampling',
    shape: 'SAMPLING',
    schema: SAMPLING_OPTIONS,
    about:
      'The option `sampling` of `initialize`, `createSession`, `send` and `complete`. `model.createSampler` of `llama-headstart/native` has the same options.',
  },
  { title: 'dry', shape: 'DRY', schema: DRY_OPTIONS, about: 'The option `dry` of `sampling`.' },
  { title: 'xtc', shape: 'XTC', schema: XTC_OPTIONS, about: 'The option `xtc` of `sampling`.' },
  { title: 'mirostat', shape: 'MIROSTAT', schema: MIROSTAT_OPTIONS, about: 'The option `mirostat` of `sampling`.' },
  {
    title: 'tools',
    shape: 'TOOL',
    schema: TOOL_OPTIONS,
    about: 'The elements of `tools` in `initialize` and `createSession`.',
  },
  {
    title: 'An MCP server that is a child process',
    shape: 'STDIO',
    schema: MCP_SERVER_OPTIONS.stdio,
    about: 'The elements of `mcpServers` that start a child process.',
  },
  {
    title: 'An MCP server at an address',
    shape: 'HTTP',
    schema: MCP_SERVER_OPTIONS.http,
    about: 'The elements of `mcpServers` that connect to an address.',
  },
  {
    title: 'Session',
    shape: 'SESSION',
    schema: SESSION_OPTIONS,
    about:
      'The options of `agent.createSession(options)`. `agent.restoreSession(path, options)` has the same options, except `messages`.',
  },
  {
    title: 'compaction',
    shape: 'COMPACTION',
    schema: COMPACTION_OPTIONS,
    about: 'The option `compaction` of `createSession`.',
  },
  { title: 'Compact', shape: 'COMPACT', schema: COMPACT_OPTIONS, about: 'The options of `session.compact(options)`.' },
  {
    title: 'Turn',
    shape: 'SEND',
    schema: SEND_OPTIONS,
    about: 'The options of `session.send(message, options)` and `session.stream(message, options)`.',
  },
  {
    title: 'repetitionGuard',
    shape: 'REPETITION_GUARD',
    schema: REPETITION_GUARD_OPTIONS,
    about: 'The option `repetitionGuard` of `send`, `stream` and `complete`.',
  },
  { title: 'Chat', shape: 'CHAT', schema: CHAT_OPTIONS, about: 'The options of `agent.chat(request)`.' },
  {
    title: 'cacheHints',
    shape: 'HINT',
    schema: CACHE_HINT_OPTIONS,
    about: 'The elements of `cacheHints` in `agent.chat(request)`. Each has exactly one of the first three options.',
  },
  { title: 'Save', shape: 'SAVE', schema: SAVE_OPTIONS, about: 'The options of `session.save(path, options)`.' },
  {
    title: 'Completion',
    shape: 'COMPLETION',
    schema: COMPLETION_OPTIONS,
    about: 'The options of `agent.complete(prompt, options)` and `agent.streamComplete(prompt, options)`.',
  },
  {
    title: 'Warm',
    shape: 'WARM',
    schema: WARM_OPTIONS,
    about: 'The options of `agent.templateCache.warm(templates, options)`.',
  },
  {
    title: 'Verify',
    shape: 'VERIFY',
    schema: VERIFY_OPTIONS,
    about: 'The options of `agent.templateCache.verify(options)`.',
  },
  {
    title: 'Prune',
    shape: 'BUDGET',
    schema: BUDGET_OPTIONS,
    about: 'The options of `agent.templateCache.prune(budget)`.',
  },
  {
    title: 'Resolve',
    shape: 'RESOLVE',
    schema: RESOLVE_OPTIONS,
    about: 'The options of `resolveModel(source, options)`.',
  },
];

it('the reference page of all options matches their schemas and doc comments', async () => {
  await expect(optionsReference(GROUPS, expectedBy)).toMatchFileSnapshot('../../docs/reference/options.md');
});
