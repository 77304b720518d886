// With every chat template of llama.cpp, the next prompt of a conversation begins with the current prompt up to the end
// of the last message.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ChatMessage } from 'llama-headstart';
import { isPrefix, MessageEnds, Renderer } from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { variants } from '../helpers/soak.js';

const MODELS_DIRECTORY = fileURLToPath(new URL('../../vendor/llama.cpp/models', import.meta.url));
const CHAT_TEMPLATES = readdirSync(join(MODELS_DIRECTORY, 'templates')).filter((name) => name.endsWith('.jinja'));

/** These chat templates attach text to the newest user message. The next prompt has this text in another place. */
const MOVES_TEXT = ['CohereForAI-c4ai-command-r-plus-tool_use.jinja', 'mistralai-Mistral-Nemo-Instruct-2407.jinja'];

const SOURCE = { systemPrompt: 'Be brief.' };
const USER: ChatMessage = { role: 'user', content: 'Do you have chains and brakes in stock' };
/** The line breaks of this reply merge with a line break of the generation prompt. */
const REPLY: ChatMessage = { role: 'assistant', content: '\n\nFour.', reasoning: 'There are four.' };
/** A part of the message in {@link USER} that no merge of tokens can change. */
const UNMERGED_PART = 'Do you have';

let model: Model;

beforeAll(async () => {
  model = await Model.load({ path: join(MODELS_DIRECTORY, 'ggml-vocab-qwen2.gguf'), vocabularyOnly: true });
});

afterAll(() => model.close());

describe('a prompt up to the end of its last message', () => {
  // `npm test` runs every second chat template. prompt-spans.test.ts runs the others.
  const isTested = (file: string, index: number) => index % 2 === 0 || MOVES_TEXT.includes(file);
  it.each(variants(CHAT_TEMPLATES, isTested))(
    'is a prefix of the next prompt, with the chat template %s',
    async (file) => {
      const chatTemplate = readFileSync(join(MODELS_DIRECTORY, 'templates', file), 'utf8');
      const renderer = new Renderer(model, chatTemplate);
      const ends = new MessageEnds(model, renderer);
      for (const reasoning of chatTemplate.includes('thinking') ? [true, false] : [true]) {
        const prompt = await renderer.prompt(SOURCE, [USER], { reasoning });
        const head = prompt.tokens.subarray(0, await ends.in(prompt, { reasoning }));
        const next = await renderer.prompt(SOURCE, [USER, REPLY, USER], { reasoning });
        expect(isPrefix(head, next.tokens)).toBe(!MOVES_TEXT.includes(file));
        expect(new TextDecoder().decode(await model.detokenize(head, { special: true }))).toContain(UNMERGED_PART);
      }
    },
  );
});
