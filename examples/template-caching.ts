// Template caching. The first session prefills the system prompt and the tools, and their state is cached. Later
// sessions start from the cached state, in this process and after a restart.
//
//   node template-caching.js [MODEL]
//
// MODEL is the path of a GGUF file, hf:owner/name:QUANTIZATION, or a URL.
import { availableParallelism } from 'node:os';
import { AgentServer, type ModelConfig, type Session, type Tool } from 'llama-headstart';

const model: ModelConfig = {
  source: process.argv[2] ?? {
    type: 'huggingface',
    repo: 'bartowski/Qwen2.5-Coder-1.5B-Instruct-GGUF',
    filename: 'Qwen2.5-Coder-1.5B-Instruct-Q4_K_M.gguf',
  },
  batchSize: 512,
  nSeqMax: 4,
  nThreads: availableParallelism(),
  nThreadsBatch: availableParallelism(),
  useHfParams: true,
  retryConfig: { maxRetries: 3, initialDelayMs: 1000, backoffMultiplier: 2, maxDelayMs: 30_000 },
  debug: false,
  cacheDir: '.cache/templates',
};

// Use the same system prompt and the same tools in all sessions. Any change makes a new template, even a single space.
// Put text that differs between sessions into the first message.
const systemPrompt = `You are a careful software engineer who helps a small team with its code.
Answer briefly. Say what you do not know. When a question is about a file, read it before you answer; when it is about
behavior, look for the tests first. Quote at most ten lines of code at a time, and name the file that they are from.
Never invent a function, an option or a version number.`;

const path = { type: 'string', description: 'Relative to the root of the repository' };
const tools: Tool[] = [
  {
    name: 'read_file',
    description: 'Read a text file of the repository, or some lines of it',
    inputSchema: {
      type: 'object',
      properties: { path, from: { type: 'integer' }, to: { type: 'integer' } },
      required: ['path'],
    },
  },
  {
    name: 'search',
    description: 'Search all files for a regular expression, and list the lines that match',
    inputSchema: {
      type: 'object',
      properties: { pattern: { type: 'string' }, path, ignoreCase: { type: 'boolean' } },
      required: ['pattern'],
    },
  },
  {
    name: 'run_tests',
    description: 'Run the tests, all of them or those of one file, and return what failed',
    inputSchema: { type: 'object', properties: { path } },
  },
];

const agent = await AgentServer.initialize({ model, systemPrompt, tools, onProgress: showDownload });

console.log('\nTen sessions with one template, one after the other');
const first = await agent.createSession();
show('session 1', first);
let laterMs = 0;
for (let count = 2; count <= 10; count++) {
  const session = await agent.createSession();
  laterMs += session.report.ms;
  show(`session ${count}`, session);
  await session.close();
}
const withCache = first.report.ms + laterMs;
// The cache computes `prefillMsSaved` from the time that the prefill of this template took, perhaps in an earlier run.
const { prefillMsSaved } = agent.getTemplateCacheStats();
console.log(
  `  in all ${withCache.toFixed(0)} ms; without the cache about ${(withCache + prefillMsSaved).toFixed(0)} ms`,
);
const reply = await first.send('In one sentence: what do you do before you answer?', { maxTokens: 40 });
console.log(`  session 1 says: ${JSON.stringify(reply.text)}`);
await first.close();

console.log('\nA different system prompt is a different template: ten sessions at the same time prefill it once');
const inFrench = { systemPrompt: `${systemPrompt}\nAnswer in French.` };
const together = await Promise.all(Array.from({ length: 10 }, () => agent.createSession(inFrench)));
for (const [index, session] of together.entries()) {
  show(`in French, session ${index + 1}`, session);
}
await Promise.all(together.map((session) => session.close()));

await agent.flush(); // waits for the saves in the background, so that the restarted agent finds all entries
await agent.close();

console.log('\nAfter a restart');
const restarted = await AgentServer.initialize({ model, systemPrompt, tools });
const fromDisk = await restarted.createSession();
show('session 1', fromDisk);

const stats = restarted.getTemplateCacheStats();
console.log('\nStatistics since the restart');
console.log(`  Cache entries: ${stats.entries}`);
console.log(`  Total tokens cached: ${stats.totalTokens}`);
console.log(`  Hits: ${stats.hits}`);
console.log(`  Misses: ${stats.misses}`);
console.log(`  Hit rate: ${(stats.hitRate * 100).toFixed(2)}%`);
if (stats.hitRate < 0.5) {
  console.log('  Most starts missed. templateCache.explainMiss() shows how their templates differ.');
}
await restarted.close();

function show(name: string, { report }: Session): void {
  const { source, cache, ms, waitedMs, cachedTokens, templateTokens, bytes } = report;
  const size = bytes > 0 ? `, ${(bytes / 1024 ** 2).toFixed(1)} MiB read` : '';
  const from = cache === 'hit' ? source : cache === 'prefix' ? `miss, with a prefix from ${source}` : cache;
  const waited =
    waitedMs === undefined ? '' : ` (${waitedMs.toFixed(1)} ms waiting for the prefill of another session)`;
  console.log(
    `  ${name}: ${from}, ${ms.toFixed(1)} ms${waited}, ${cachedTokens} of ${templateTokens} tokens cached${size}`,
  );
}

function showDownload({ phase, fraction, file }: { phase: string; fraction: number; file?: string }): void {
  if (process.stderr.isTTY && phase === 'download') {
    process.stderr.write(`\r${file}: ${(fraction * 100).toFixed(0)} %${fraction === 1 ? '\n' : ''}`);
  }
}
