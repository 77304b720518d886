// The boundary search finds the template: the tokens of the system prompt and the tools. With every chat template of
// llama.cpp, each conversation begins with these tokens.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type Boundary,
  findBoundary,
  findBoundaryWithHint,
  isPrefix,
  Renderer,
  type TemplateSource,
  Templates,
} from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { temporaryDirectory } from '../helpers/agents.js';
import { SYSTEM_PROMPT, TOOLS } from '../helpers/prompts.js';
import { rounds, variants } from '../helpers/soak.js';

const MODELS_DIRECTORY = fileURLToPath(new URL('../../vendor/llama.cpp/models', import.meta.url));
const CHAT_TEMPLATES = readdirSync(join(MODELS_DIRECTORY, 'templates')).filter((name) => name.endsWith('.jinja'));

/**
 * Messages that the search does not use as probes. A tokenizer may merge the beginning of a message with the text in
 * front of the message, so these messages begin with different kinds of characters.
 */
const MESSAGES = variants(
  ['Where is it?', '\n\nTwo\nlines', '1234567', '\u{1F6B2} hm', '', "'s"],
  (_, index) => index % 2 === 1,
);

/**
 * Chat templates that put the system prompt into the user's turn, without a control token after it. The search then
 * drops the last tokens of the system prompt, because they may merge with the message.
 */
const SYSTEM_PROMPT_IN_USER_TURN = ['google-gemma-2-2b-it.jinja', 'mistralai-Mistral-Nemo-Instruct-2407.jinja'];

/** With these chat templates, a prompt without a system prompt and tools begins with the user's message. */
const NOTHING_SHARED_WITHOUT_SYSTEM_PROMPT = ['Reka-Edge.jinja'];

/** The number of tests below that can run with each chat template. */
const TESTS = 4;

/**
 * The chat templates for test `number`. In `npm test`, the chat templates of the two lists above are in all tests, and
 * each other chat template is in only one.
 */
const templatesFor = (number: number) =>
  variants(
    CHAT_TEMPLATES,
    (file, index) =>
      index % TESTS === number ||
      [...SYSTEM_PROMPT_IN_USER_TURN, ...NOTHING_SHARED_WITHOUT_SYSTEM_PROMPT].includes(file),
  );

let model: Model;

beforeAll(async () => {
  const path = join(MODELS_DIRECTORY, 'ggml-vocab-qwen2.gguf');
  model = await Model.load({ path, vocabularyOnly: true });
});

afterAll(() => model.close());

const rendererFor = (file: string) =>
  new Renderer(model, readFileSync(join(MODELS_DIRECTORY, 'templates', file), 'utf8'));

const textOf = async ({ tokens }: Boundary) =>
  new TextDecoder().decode(await model.detokenize(tokens, { special: true }));

/** Finds the boundary and compares it with conversations of one message. */
async function checkBoundary(renderer: Renderer, source: TemplateSource): Promise<Boundary> {
  const boundary = await findBoundary(renderer, source, model.controlTokens());
  for (const content of MESSAGES) {
    const { tokens } = await renderer.prompt(source, [{ role: 'user', content }]);
    expect(isPrefix(boundary.tokens, tokens), JSON.stringify(content)).toBe(true);
    expect(tokens.length).toBeGreaterThan(boundary.tokens.length);
  }
  if (boundary.hint !== undefined) {
    const again = await findBoundaryWithHint(renderer, source, model.controlTokens(), boundary.hint);
    expect(again.tokens, 'with the remembered boundary').toEqual(boundary.tokens);
  }
  return boundary;
}

describe('a chat template that puts the system prompt into the first user turn', () => {
  it('allows caching all of a long system prompt, even if the boundary was remembered for a short one', async () => {
    const chatTemplate =
      '{% for m in messages %}{% if m.role == "user" %}<|im_start|>{% if loop.index0 == 1 %}{{ messages[0].content }}\n\n{% endif %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}';
    const renderer = new Renderer(model, chatTemplate);
    const short = await findBoundary(renderer, { systemPrompt: 'Hi' }, model.controlTokens());
    const long = { systemPrompt: 'Be careful and say why. '.repeat(50) };
    const probed = await findBoundary(renderer, long, model.controlTokens());
    expect(probed.tokens.length).toBeGreaterThan(250);
    const hint = short.hint ?? { controlTokens: 1, tokens: 6 };
    expect((await findBoundaryWithHint(renderer, long, model.controlTokens(), hint)).tokens).toEqual(probed.tokens);
  });
});

describe('a remembered boundary that is wrong', () => {
  it('is not used after forget(), even if the next search starts before the hint file is deleted', async () => {
    const directory = await temporaryDirectory();
    const templates = new Templates(model, rendererFor('Qwen-Qwen2.5-7B-Instruct.jinja'), 'fingerprint', directory);
    const source = { systemPrompt: SYSTEM_PROMPT };
    const { tokens } = await templates.find(source);
    const [name = ''] = readdirSync(directory);
    const hint = JSON.parse(readFileSync(join(directory, name), 'utf8'));
    const afterMessage = { ...hint, controlTokens: 0, tokens: (await model.tokenize('assistant\n')).length };
    for (let round = 0; round < rounds(5, 20); round++) {
      templates.forget(source);
      await templates.find(source); // writes the hint again
      writeFileSync(join(directory, name), JSON.stringify(afterMessage));
      templates.forget(source);
      expect((await templates.find(source)).tokens).toEqual(tokens);
    }
  });
});

describe('the chat templates of llama.cpp', () => {
  it('are at least 70', () => {
    expect(CHAT_TEMPLATES.length).toBeGreaterThanOrEqual(70);
  });

  it.each(templatesFor(0))(
    '%s: all conversations begin with the template, which contains system prompt and tools',
    async (file) => {
      const renderer = rendererFor(file);
      const boundary = await checkBoundary(renderer, { systemPrompt: SYSTEM_PROMPT, tools: TOOLS });
      const text = await textOf(boundary);
      expect(text).toContain(SYSTEM_PROMPT.slice(0, SYSTEM_PROMPT_IN_USER_TURN.includes(file) ? -20 : undefined));
      for (const { name } of TOOLS) {
        expect(text).toContain(name);
      }
    },
  );

  it.each(templatesFor(1))('%s: the template contains a system prompt without tools', async (file) => {
    const text = await textOf(await checkBoundary(rendererFor(file), { systemPrompt: SYSTEM_PROMPT }));
    expect(text).toContain(SYSTEM_PROMPT.slice(0, SYSTEM_PROMPT_IN_USER_TURN.includes(file) ? -20 : undefined));
  });

  it.each(templatesFor(2))('%s: the template contains tools without a system prompt', async (file) => {
    const text = await textOf(await checkBoundary(rendererFor(file), { tools: TOOLS }));
    for (const { name } of TOOLS) {
      expect(text).toContain(name);
    }
  });

  it.each(templatesFor(3))(
    '%s: without system prompt and tools, the template has tokens or a reason why it has none',
    async (file) => {
      const { tokens, reason } = await checkBoundary(rendererFor(file), {});
      if (NOTHING_SHARED_WITHOUT_SYSTEM_PROMPT.includes(file)) {
        expect(tokens).toHaveLength(0);
        expect(reason).toBe('conversations do not begin with the same token');
      } else {
        expect(tokens.length).toBeGreaterThan(0);
      }
    },
  );
});

describe('tools', () => {
  it('are described in the system message if the chat template omits them, even a tool named "user"', async () => {
    const chatml =
      "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
    const renderer = new Renderer(model, chatml);
    const source = {
      systemPrompt: 'Say what the user wants.',
      tools: [{ name: 'user', description: 'Names the user' }],
    };
    const { text } = await renderer.prompt(source, [{ role: 'user', content: 'hi' }]);
    expect(text).toContain('"description":"Names the user"');
    expect(text).toContain('<tool_call>');
  });

  it('are described only once if the chat template describes them', async () => {
    const renderer = rendererFor('Qwen-Qwen2.5-7B-Instruct.jinja');
    const { text } = await renderer.prompt({ systemPrompt: 'Hm.', tools: TOOLS }, [{ role: 'user', content: 'hi' }]);
    expect(text.split('find_part')).toHaveLength(2);
  });
});
