// Samplers accept the reply formats of all chat templates, including the trigger patterns that this package rewrites.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Renderer } from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TOOLS } from '../helpers/prompts.js';
import { variants } from '../helpers/soak.js';

const MODELS_DIRECTORY = fileURLToPath(new URL('../../vendor/llama.cpp/models', import.meta.url));
const CHAT_TEMPLATES = readdirSync(join(MODELS_DIRECTORY, 'templates')).filter((name) => name.endsWith('.jinja'));
let model: Model;
beforeAll(async () => {
  model = await Model.load({ path: join(MODELS_DIRECTORY, 'ggml-vocab-qwen2.gguf'), vocabularyOnly: true });
});
afterAll(() => model.close());

it('a sampler accepts the reply format of every chat template', async () => {
  const patterns = new Set<string>();
  for (const [index, name] of CHAT_TEMPLATES.entries()) {
    const renderer = new Renderer(model, readFileSync(join(MODELS_DIRECTORY, 'templates', name), 'utf8'));
    // In `npm test`, every second chat template allows parallel calls.
    for (const parallelToolCalls of variants([false, true], (value) => value === (index % 2 === 1))) {
      const { format } = await renderer.prompt({ tools: TOOLS }, [{ role: 'user', content: 'Hi' }], {
        parallelToolCalls,
      });
      const { grammar, grammarLazy, grammarTriggers, preservedTokens, generationPrompt } = format;
      for (const trigger of grammarTriggers) if (trigger.type === 'pattern') patterns.add(trigger.value);
      if (grammar === '') continue;
      const options = { grammar, grammarLazy, grammarTriggers, preservedTokens, generationPrompt };
      const sampler = await model.createSampler(options).catch((cause: unknown) => {
        throw new Error(`${name}: ${JSON.stringify(grammarTriggers)}`, { cause });
      });
      sampler.close();
    }
  }
  expect(patterns.size).toBeGreaterThan(3);
});
