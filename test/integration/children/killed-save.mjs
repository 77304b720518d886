// killed-save.mjs MODEL CACHE_DIR. Saves a conversation, and is killed just before the file gets its final name.
import fs from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';

const { rename } = fs;
fs.rename = async (from, to) => {
  if (to.includes('conversation_')) {
    process.kill(process.pid, 'SIGKILL');
  }
  return rename(from, to);
};
syncBuiltinESMExports();

const { AgentServer } = await import('llama-headstart');
const [, , source, dir] = process.argv;
const agent = await AgentServer.initialize({
  model: { source, contextSize: 512, nThreads: 1 },
  cache: { dir, minFreeDiskBytes: 0, conversations: { minSpeedup: 0, maxBytes: 1e9 } },
});
await agent.chat({ messages: [{ role: 'user', content: 'Hello' }], maxTokens: 2 }).result;
await agent.close();
