// Many sessions. This program runs more conversations at the same time than the KV cache has sequences. The sessions
// share each decode. An idle session loses its sequence if another session needs one. Later the idle session continues
// from its saved state, or from its template and messages.
//
//   node many-sessions.js [MODEL] [SESSIONS]
import { AgentServer } from 'llama-headstart';

const source = process.argv[2] ?? 'hf:bartowski/Qwen2.5-Coder-1.5B-Instruct-GGUF:Q4_K_M';
const count = Number(process.argv[3] ?? 16);
const cities = ['Lisbon', 'Oslo', 'Quito', 'Nairobi', 'Hanoi', 'Lima', 'Cairo', 'Perth'];

await using agent = await AgentServer.initialize({
  model: { source, nSeqMax: 4, contextSize: 1024, kvCells: 4096 },
  systemPrompt: 'You know the capitals and cities of the world. Answer in one short sentence.',
});

const watch = setInterval(() => {
  const { activeSessions, queueLength, kvCells, tokensPerSecond } = agent.health();
  console.log(
    `  ... ${activeSessions} active, ${queueLength} waiting, ${kvCells.used} of ${kvCells.total} cells, ${tokensPerSecond.toFixed(0)} tokens/s`,
  );
}, 500);

const begin = performance.now();
const replies = await Promise.all(
  Array.from({ length: count }, async (_, index) => {
    await using session = await agent.createSession();
    const city = cities[index % cities.length];
    const first = await session.send(`Where is ${city}?`, { maxTokens: 24 });
    const second = await session.send('And what is it known for?', { maxTokens: 24 });
    return {
      city,
      source: session.report.source,
      texts: [first.text, second.text],
      tokens: first.usage.outputTokens + second.usage.outputTokens,
    };
  }),
);
clearInterval(watch);

for (const { city, source, texts } of replies.slice(0, 4)) {
  console.log(`${city} (${source}): ${texts.map((text) => text.trim()).join(' / ')}`);
}
const seconds = (performance.now() - begin) / 1000;
const tokens = replies.reduce((sum, reply) => sum + reply.tokens, 0);
console.log(
  `${replies.length} sessions, ${tokens} tokens in ${seconds.toFixed(1)} s: ${(tokens / seconds).toFixed(0)} tokens per second`,
);
const { openSessions, heldSequences } = agent.health();
console.log(`${openSessions} sessions open, ${heldSequences} sequences held`);
