// One process of the demo: starts an agent, runs sessions one after another, and prints a line of JSON for each event.
// Arguments: the model, the cache directory, the number of sessions without the cache, the number of sessions with the
// cache.

import { AgentServer } from 'llama-headstart';
import { question, replyTokens, systemPrompt, tools } from './template.mjs';

const [model = '', cacheDir = '', uncached = '0', cached = '0'] = process.argv.slice(2);
const emit = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

const agent = await AgentServer.initialize({
  model: { source: model },
  cache: { dir: cacheDir },
  systemPrompt,
  tools,
  sampling: { temperature: 0 }, // so that cached and uncached sessions give the same reply
});
try {
  await runSessions(Number(uncached), false);
  await runSessions(Number(cached), true);
  await agent.flush();
  emit({ type: 'end', stats: agent.getTemplateCacheStats() });
} finally {
  await agent.close();
}

async function runSessions(count, templateCache) {
  for (let index = 0; index < count; index++) {
    const begin = performance.now();
    const session = await agent.createSession({ templateCache });
    const ms = performance.now() - begin;
    const { text, usage } = await session.send(question, { maxTokens: replyTokens });
    await session.close();
    const { source, cache, tier, templateTokens, cachedTokens, bytes, key, reason } = session.report;
    emit({
      type: 'session',
      templateCache,
      ...{ source, cache, tier, ms, templateTokens, cachedTokens, bytes, key, reason },
      firstTokenMs: usage.firstTokenMs,
      reply: text,
    });
  }
}
