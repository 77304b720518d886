// lost-directory.mjs MODEL CACHE_DIRS MODELS_DIRS. Both lists are JSON arrays of directories that cannot be created.
// Runs in a deleted working directory, and prints the results as JSON.
import { mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgentServer, resolveModel } from 'llama-headstart';

const [, , source, cacheDirs, modelsDirs] = process.argv;
const url = 'http://127.0.0.1:1/model.gguf'; // never requested, because the file cannot be stored
const gone = mkdtempSync(join(tmpdir(), 'headstart-gone-'));
process.chdir(gone);
rmdirSync(gone);

const outcomeOf = (work) =>
  work.then(
    () => 'done',
    (error) => error.code,
  );

const results = { caches: [], models: [] };
for (const cacheDir of JSON.parse(cacheDirs)) {
  const warnings = [];
  const agent = await AgentServer.initialize({
    model: { source, contextSize: 512, nThreads: 1 },
    cache: { dir: cacheDir, minFreeDiskBytes: 0 },
    systemPrompt: 'You are terse.',
    logger: (_, message) => warnings.push(message),
  });
  const session = await agent.createSession();
  const { text } = await session.send('Hello', { maxTokens: 4 });
  await agent.flush();
  const { failedSaves, misses } = agent.getTemplateCacheStats();
  const save = await outcomeOf(session.save('session.json'));
  await agent.close();
  const warning = warnings.find((each) => each.startsWith('template cache: not saved'));
  results.caches.push({ replied: text !== '', failedSaves, misses, save, warned: warning !== undefined });
}
for (const directory of JSON.parse(modelsDirs)) {
  const retryConfig = { maxRetries: 0 };
  results.models.push(await outcomeOf(resolveModel(url, { modelsDir: directory, retryConfig })));
}
results.relativeModel = await outcomeOf(resolveModel('model.gguf'));
process.stdout.write(JSON.stringify(results));
