import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { GrammarTrigger, RenderedPrompt } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { microModel } from '../helpers/models.js';
import { batchOf, codeOf } from '../helpers/native.js';
import { Bench } from '../helpers/sampling.js';

const TEMPLATES = new URL('../../vendor/llama.cpp/models/templates/', import.meta.url);
const FUNCTIONARY = 'meetkai-functionary-medium-v3.2.jinja';
const MUSE_GLIMMER = 'muse-glimmer.jinja';

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.open(microModel('dense'));
});
afterAll(() => bench.close());

/** Renders a conversation with a chat template whose grammar has pattern triggers. */
async function renderWith(template: string): Promise<RenderedPrompt> {
  const rendered = await bench.model.render({
    messages: [{ role: 'user', content: 'Hi' }],
    tools: [{ type: 'function', function: { name: 'weather', description: 'The weather.', parameters: {} } }],
    chatTemplate: readFileSync(fileURLToPath(new URL(template, TEMPLATES)), 'utf8'),
  });
  expect(rendered.grammarTriggers.map(({ type }) => type)).toContain('pattern');
  return rendered;
}

/** Copies the sampler options of a render() result by destructuring. */
function optionsOf({ grammar, grammarLazy, grammarTriggers, preservedTokens, generationPrompt }: RenderedPrompt) {
  return { grammar, grammarLazy, grammarTriggers, preservedTokens, generationPrompt };
}

async function refusal(grammarTriggers: unknown): Promise<unknown> {
  const sampler = bench.model.createSampler({ grammar: 'root ::= "a"', grammarLazy: true, grammarTriggers } as never);
  return sampler.then(
    () => 'accepted',
    ({ code, message }) => ({ code, message }),
  );
}

const REFUSED = { code: 'INVALID_ARGUMENT', message: expect.stringContaining('Model.render() returned') };

describe('trigger patterns of a chat template', () => {
  test('are accepted by samplers, even if the render() result was copied with a spread', async () => {
    const rendered = await renderWith(FUNCTIONARY);
    for (const options of [
      rendered,
      optionsOf(rendered),
      optionsOf({ ...rendered }),
      { ...rendered, temperature: 1 },
    ]) {
      expect(await codeOf(async () => (await bench.model.createSampler(options)).close())).toBe('none');
    }
  });

  test('start the grammar when the reply matches', async () => {
    const { grammarTriggers } = await renderWith(FUNCTIONARY);
    expect(grammarTriggers.map((trigger) => 'value' in trigger && trigger.value)).toEqual(['>>>(?!all)']);
    const grammar = 'root ::= ">>>" "no"';
    const [token, ...more] = await bench.model.tokenize('>');
    expect(more).toEqual([]);
    const logitBias = { [token as number]: 1e5 };
    const sampler = await bench.sampler({ grammar, grammarLazy: true, grammarTriggers, logitBias });
    expect(await bench.textOf((await bench.write(sampler, 8)).slice(0, -1))).toBe('>>>no');
  });

  test('cannot be changed', async () => {
    const { grammarTriggers } = await renderWith(FUNCTIONARY);
    expect(() => Object.assign(grammarTriggers[0] as object, { value: '(a+)+' })).toThrow(TypeError);
  });

  test.each([FUNCTIONARY, MUSE_GLIMMER])(
    'make a reply of more than 16 KiB fail instead of overflowing the stack: %s',
    async (template) => {
      const { model } = bench;
      const { grammarTriggers } = await renderWith(template);
      const bytes = [...bench.logits.keys()].map((token) => model.tokenToBytes(token).length);
      const longest = bytes.indexOf(Math.max(...bytes));
      const context = await model.createContext({ kvCells: 256, batchSize: 1 });
      const sampler = await model.createSampler({
        grammar: 'root ::= "x"',
        grammarLazy: true,
        grammarTriggers,
        logitBias: { [longest]: 1e6 },
      });
      let code = 'none';
      let length = 0;
      for (; code === 'none' && length < 20_000; length++) {
        await context.removeSequence(0);
        code = await codeOf(() => context.decode({ ...batchOf(0, 0, Int32Array.of(1)), samplers: [sampler] }));
      }
      expect(code).toBe('SAMPLER_FAILED');
      expect(length * Math.max(...bytes)).toBeGreaterThan(16_000);
      await context.close();
    },
  );
});

describe('a trigger pattern that render() did not return', () => {
  const pattern = { type: 'pattern', value: 'ab' };
  test.each<[string, unknown]>([
    ['a plain object', pattern],
    ['a frozen object', Object.freeze({ ...pattern })],
    ['an object with a prototype', Object.assign(Object.create({}), pattern)],
    ['a full pattern', { type: 'patternFull', value: '[\\s\\S]*?(ab)' }],
    ['an object without a value', { type: 'pattern' }],
  ])('is refused: %s', async (_, trigger) => {
    expect(await refusal([{ type: 'word', value: 'a' }, trigger])).toEqual(REFUSED);
  });

  test('is refused, even if it is a copy of a pattern that render() returned', async () => {
    const { grammarTriggers } = await renderWith(FUNCTIONARY);
    const [own] = grammarTriggers;
    expect(await refusal([{ ...own }])).toEqual(REFUSED);
    expect(await refusal([new Proxy(own as GrammarTrigger, {})])).toEqual(REFUSED);
    expect(await refusal(structuredClone(grammarTriggers))).toEqual(REFUSED);
    expect(await refusal([Object.create(own as GrammarTrigger)])).not.toBe('accepted');
  });

  test('is not used if an object changes its type after the check, because the type is read only once', async () => {
    let reads = 0;
    const changing = {
      get type() {
        return reads++ === 0 ? 'word' : 'pattern';
      },
      value: '(a+)+$',
    };
    const sampler = await bench.model.createSampler({
      grammar: 'root ::= "(a+)+$" "!"',
      grammarLazy: true,
      grammarTriggers: [changing],
    } as never);
    expect(reads).toBe(1);
    sampler.close();
  });

  test('is not used if an array returns it only after the check, because each element is read only once', async () => {
    const word = { type: 'word', value: 'a' };
    let reads = 0;
    const changing = new Proxy([word], {
      get: (target, name) => (name === '0' && reads++ > 0 ? pattern : Reflect.get(target, name)),
    });
    expect(await refusal(changing)).toBe('accepted');
    expect(reads).toBe(1);
  });
});
