// Several programs load random prompts that share prefixes, continue them, abort, fork, copy and close. They share an
// engine that has too few sequences, cells and bytes for all. Each prompt gives the same logits as in an empty engine.
import { ConversationSequence, type Engine } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';
import { EXACT } from '../helpers/agents.js';
import { type Lab, type LabOptions, someTokens } from '../helpers/lab.js';
import { type MicroModelName, microModel } from '../helpers/models.js';
import { codeOf, seededRandom } from '../helpers/native.js';
import { openLab } from '../helpers/open-lab.js';
import { variants } from '../helpers/soak.js';

// To try other random prompts:
// LLAMA_HEADSTART_RANDOM_SEED=7 LLAMA_HEADSTART_RANDOM_STEPS=200 npm test -- random-prompts
const seed = Number(process.env.LLAMA_HEADSTART_RANDOM_SEED ?? 1);
const steps = Number(process.env.LLAMA_HEADSTART_RANDOM_STEPS ?? 6);

const PROGRAMS = 3;
const MAX_DEPTH = 5;
const MAX_CONVERSATIONS = 2;
const TENANTS = [undefined, 'other'];
/** Other sequences in a batch and other places in the KV cache change logits by less than this. */
const NOISE = 0.05;
const QUANTIZED_NOISE = 0.5;

type Settings = Partial<LabOptions> & { name: MicroModelName };

const LABS: [title: string, settings: Settings][] = [
  ['a dense model', { name: 'dense', sessions: 3, residents: 1, kvCells: 1024 }],
  ['a dense model, little memory', { name: 'dense', sessions: 2, residents: 0, cache: { maxMemoryBytes: 200_000 } }],
  ['a dense model, split', { name: 'dense', layout: 'split', sessions: 2 }],
  ['a quantized model', { name: 'dense-quantised', sessions: 2, residents: 1, kvCells: 768 }],
  ['a sliding-window model', { name: 'sliding-window', sessions: 3, residents: 1 }],
  [
    'a sliding-window model, little memory',
    { name: 'sliding-window', sessions: 2, residents: 1, cache: { maxMemoryBytes: 300_000 } },
  ],
  ['a sliding-window model, split', { name: 'sliding-window', layout: 'split', sessions: 2 }],
  [
    'all cells of a sliding window',
    { name: 'sliding-window', sessions: 2, residents: 1, context: { fullSlidingWindow: true } },
  ],
  [
    'all cells of a sliding window, split',
    { name: 'sliding-window', layout: 'split', sessions: 2, context: { fullSlidingWindow: true } },
  ],
  ['a recurrent model', { name: 'recurrent', sessions: 2, residents: 1 }],
  ['a hybrid model', { name: 'hybrid', sessions: 3, residents: 1, kvCells: 1024 }],
  ['a hybrid model, little memory', { name: 'hybrid', sessions: 2, residents: 0, cache: { maxMemoryBytes: 300_000 } }],
  ['a hybrid model, split', { name: 'hybrid', layout: 'split', sessions: 1 }],
  ['no memory', { name: 'hybrid', sessions: 2, residents: 1, cache: { maxMemoryBytes: 0 } }],
];
const REPRESENTATIVES = ['a dense model', 'all cells of a sliding window', 'a hybrid model, little memory'];

function concat(...parts: Int32Array[]): Int32Array {
  return Int32Array.from(parts.flatMap((part) => [...part]));
}

/** Templates that share their first tokens. */
const TEMPLATES = [1, 2, 3, 4].map((seed) =>
  concat(someTokens(25, 77), someTokens(20, seed >> 1), someTokens(15, seed)),
);
const part = (depth: number, branch: number) =>
  someTokens(10 + ((depth * 31 + branch * 17) % 50), depth * 10 + branch + 1);

interface Shared {
  lab: Lab;
  noise: number;
  logitsOf: (text: Int32Array) => Promise<Float32Array>;
  counts: { compared: number; aborted: number };
}

class Program {
  readonly #shared: Shared;
  readonly #random: () => number;
  readonly #tenant: string | undefined;
  readonly #open: ConversationSequence[] = [];
  readonly #templates = new Map<ConversationSequence, Int32Array>();

  constructor(shared: Shared, index: number) {
    this.#shared = shared;
    this.#random = seededRandom(seed * 1000 + index);
    this.#tenant = TENANTS[index % TENANTS.length];
  }

  async run(): Promise<void> {
    const actions = [
      this.#prompt,
      this.#prompt,
      this.#prompt,
      this.#prompt,
      this.#abort,
      this.#fork,
      this.#copy,
      this.#close,
      this.#abandon,
    ];
    for (let step = 0; step < steps; step++) {
      const action = actions[this.#below(actions.length)] as () => Promise<void>;
      await action.call(this);
    }
    for (const conversation of this.#open) {
      conversation.close();
    }
  }

  async #prompt(signal = new AbortController().signal): Promise<void> {
    const conversation = this.#any();
    const path = Array.from({ length: 1 + this.#below(MAX_DEPTH) }, (_, depth) => part(depth, this.#below(2)));
    const template = (this.#below(8) > 0 && this.#templates.get(conversation)) || new Int32Array();
    const prompt = concat(template, ...path, someTokens(1 + this.#below(5), 99));
    const ends = path.map((_, depth) => concat(template, ...path.slice(0, depth + 1)).length);
    conversation.setBusy(true);
    try {
      await conversation.align(prompt, signal);
      if (conversation.wantsCheckpoints && this.#below(3) > 0) {
        await conversation.keepCheckpoint(
          prompt.subarray(0, ends[this.#below(ends.length)]),
          this.#below(2) > 0,
          signal,
        );
      }
      let text = prompt;
      for (let length = this.#below(6); length >= 0; length--) {
        const { logits } = await conversation.decode((position) => text.subarray(position), {
          signal,
          logits: length === 0,
        });
        if (logits !== undefined) {
          expect(distance(logits, await this.#shared.logitsOf(text))).toBeLessThan(this.#shared.noise);
          this.#shared.counts.compared++;
        } else {
          text = concat(text, someTokens(1, this.#below(3)));
        }
        if (this.#below(4) === 0) {
          conversation.makeEvictable();
          await new Promise(setImmediate);
          conversation.setBusy(true);
        }
      }
    } catch (error) {
      conversation.afterFailure();
      throw error;
    } finally {
      conversation.setBusy(false);
    }
  }

  async #abort(): Promise<void> {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), this.#random() * 8);
    const code = await codeOf(() => this.#prompt(controller.signal));
    expect(['none', 'ABORTED']).toContain(code);
    this.#shared.counts.aborted += code === 'ABORTED' ? 1 : 0;
  }

  async #fork(): Promise<void> {
    const source = this.#any();
    const child = this.#create();
    source.setBusy(true);
    await child.forkFrom(source);
    source.setBusy(false);
    this.#add(child);
  }

  async #copy(): Promise<void> {
    const source = this.#any();
    source.setBusy(true);
    const copy = await source.captureCheckpoint();
    source.setBusy(false);
    if (copy !== undefined) {
      const child = this.#create();
      child.adopt(copy);
      this.#add(child);
    }
  }

  async #close(): Promise<void> {
    this.#open.shift()?.close();
  }

  /**
   * Abandons a conversation, so that other prompts may reuse its tokens. With odd seeds, closes the conversation
   * instead, so that the engine holds nothing at the end without `discardSessions()`.
   */
  async #abandon(): Promise<void> {
    const conversation = this.#open.shift();
    if (seed % 2 === 0) {
      conversation?.abandon();
    } else {
      conversation?.close();
    }
  }

  #any(): ConversationSequence {
    if (this.#open.length === 0) {
      this.#add(this.#create());
    }
    return this.#open[this.#below(this.#open.length)] as ConversationSequence;
  }

  #add(conversation: ConversationSequence): void {
    conversation.setBusy(false);
    this.#open.push(conversation);
    if (this.#open.length > MAX_CONVERSATIONS) {
      this.#open.shift()?.close();
    }
  }

  #create(): ConversationSequence {
    const { engine, prefixCache: cache } = this.#shared.lab;
    const template = TEMPLATES[this.#below(TEMPLATES.length)] as Int32Array;
    const created = new ConversationSequence({ engine, cache, template, useCache: true, tenant: this.#tenant });
    this.#templates.set(created, template);
    return created;
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }
}

const distance = (a: Float32Array, b: Float32Array): number =>
  a.reduce((most, value, index) => Math.max(most, Math.abs(value - (b[index] as number))), 0);

/** Returns a function that computes the logits after a text in an empty engine. */
async function coldLogits(name: MicroModelName): Promise<(text: Int32Array) => Promise<Float32Array>> {
  const { engine } = await openLab({
    path: microModel(name),
    sessions: 1,
    residents: 0,
    flashAttention: false,
    context: F32,
  });
  const sequence = engine.createSequence();
  await engine.sessions.lease(sequence);
  const known = new Map<string, Promise<Float32Array>>();
  let last: Promise<unknown> = Promise.resolve();
  const compute = async (tokens: Int32Array) => {
    await sequence.clear();
    return (await engine.decode({ sequence, tokens, logits: true })).logits as Float32Array;
  };
  return (text) => {
    const key = text.join();
    const logits = known.get(key) ?? last.then(() => compute(text));
    if (!known.has(key)) {
      known.set(key, logits);
      last = logits;
    }
    return logits;
  };
}

const F32 = { keyType: EXACT.keyType, valueType: EXACT.valueType };

/** Expects that the KV cache holds as many tokens of each sequence as the sequence says. */
async function expectConsistent({ context, sessions, residents }: Engine): Promise<void> {
  for (const sequence of [...sessions.leased, ...residents.leased]) {
    expect((await context.positionRange(sequence.id)).last).toBe(sequence.length - 1);
  }
}

describe.each(variants(LABS, ([title]) => REPRESENTATIVES.includes(title)))('with %s', (_, { name, ...settings }) => {
  it(`random prompts give the same logits as in an empty engine (seed ${seed})`, { timeout: 600_000 }, async () => {
    const context = { ...F32, ...settings.context };
    const cache = { reuse: 'nearest', ...settings.cache } as const;
    const path = microModel(name);
    const lab = await openLab({ path, flashAttention: false, kvCells: 1536, ...settings, context, cache });
    const counts = { compared: 0, aborted: 0 };
    const noise = name === 'dense-quantised' ? QUANTIZED_NOISE : NOISE;
    const shared = { lab, counts, noise, logitsOf: await coldLogits(name) };
    await Promise.all(Array.from({ length: PROGRAMS }, (_unused, index) => new Program(shared, index).run()));
    await expectConsistent(lab.engine);
    expect(counts.compared).toBeGreaterThan(steps / 2);
    if (seed % 2 === 0) {
      lab.engine.discardSessions(); // the sequences of abandoned conversations are still idle
    }
    expect(lab.engine.status()).toMatchObject({ queueLength: 0, heldSequences: 0, savedBytes: 0 });
  });
});
