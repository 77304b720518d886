// Samples from the same row of logits again and again, so that the result depends only on the sampler.
import { type Context, Model, type Sampler, type SamplerOptions } from 'llama-headstart/native';
import { batchOf, someTokens } from './native.js';

export class Bench {
  readonly model: Model;
  readonly context: Context;
  readonly prompt: Int32Array;
  /** The most likely token after the prompt. */
  readonly greedy: number;
  /** The logits after the prompt. */
  readonly logits: Float32Array;

  private constructor(model: Model, context: Context, prompt: Int32Array, greedy: number, logits: Float32Array) {
    this.model = model;
    this.context = context;
    this.prompt = prompt;
    this.greedy = greedy;
    this.logits = logits;
  }

  static async open(path: string, text?: string): Promise<Bench> {
    const model = await Model.load({ path });
    const context = await model.createContext({ kvCells: 1024, batchSize: 128, maxSequences: 4, nThreads: 1 });
    const prompt =
      text === undefined
        ? someTokens(24, model.info.vocabulary.size)
        : await model.tokenize(text, { parseSpecial: true });
    const [greedy = -1] = await context.decode(batchOf(0, 0, prompt));
    return new Bench(model, context, prompt, greedy, await context.logits(prompt.length - 1));
  }

  sampler(options: SamplerOptions = {}): Promise<Sampler> {
    return this.model.createSampler(options);
  }

  /** Lets `sampler` choose a token after the prompt, `times` times from the same logits. */
  async draw(sampler: Sampler, times = 1): Promise<number[]> {
    const drawn: number[] = [];
    const position = this.prompt.length - 1;
    for (let time = 0; time < times; time++) {
      await this.context.removeSequence(0, position);
      const [token = -1] = await this.context.decode({
        ...batchOf(0, position, this.prompt.subarray(position)),
        samplers: [sampler],
      });
      drawn.push(token);
    }
    return drawn;
  }

  async drawWith(options: SamplerOptions, times = 1): Promise<number[]> {
    return this.draw(await this.sampler(options), times);
  }

  /** Generates up to `count` tokens after the prompt with `sampler`. Stops earlier if generation ends. */
  async write(sampler: Sampler | null, count: number): Promise<number[]> {
    const written: number[] = [];
    let position = this.prompt.length - 1;
    await this.context.removeSequence(0, position);
    let next = this.prompt.subarray(position);
    while (written.length < count) {
      const [token = -1] = await this.context.decode({ ...batchOf(0, position, next), samplers: [sampler] });
      written.push(token);
      if (this.model.isEndOfGeneration(token)) break;
      position++;
      next = Int32Array.of(token);
    }
    return written;
  }

  async textOf(tokens: readonly number[]): Promise<string> {
    return new TextDecoder().decode(await this.model.detokenize(Int32Array.from(tokens)));
  }

  /** Returns all token ids. The most likely token comes first. */
  ranked(): number[] {
    return [...this.logits.keys()].sort((a, b) => (this.logits[b] as number) - (this.logits[a] as number));
  }

  /** Returns the probability of every token, indexed by token id. */
  probabilities(): number[] {
    const highest = Math.max(...this.logits);
    const weights = [...this.logits].map((logit) => Math.exp(logit - highest));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return weights.map((weight) => weight / sum);
  }

  async close(): Promise<void> {
    await this.model.close();
  }
}
