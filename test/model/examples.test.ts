// Runs the examples as a reader would: compiled, with the built package, on a real model.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
// @ts-expect-error: scripts are plain JavaScript
import { compileExamples } from '../../scripts/examples.mjs';
import { temporaryDirectory } from '../helpers/agents.js';
import { ONE_CORE, requireFreshDist } from '../helpers/children.js';
import { testModel } from '../helpers/models.js';

let examples: Record<string, string> = {};
const tested = new Set<string>();

beforeAll(async () => {
  requireFreshDist();
  examples = await compileExamples();
});

/** Runs an example and returns its output. The example must exit with 0 and write nothing to stderr. */
async function run(name: string, ...args: string[]): Promise<string> {
  tested.add(name);
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    [examples[name] as string, testModel() as string, ...args],
    { cwd: await temporaryDirectory(), env: ONE_CORE },
  );
  expect(stderr).toBe('');
  return stdout;
}

describe.skipIf(testModel() === undefined)('the example', () => {
  it('template-caching shows a miss, then hits, in this process and after a restart', async () => {
    const printed = await run('template-caching');
    expect(printed).toMatch(/^ {2}session 1: miss, [\d.]+ ms, 0 of \d+ tokens cached/m);
    expect(printed.match(/^ {2}session \d+: resident, /gm)).toHaveLength(9);
    expect(printed.match(/in French, session \d+: miss, /g)).toHaveLength(1);
    expect(printed.match(/in French, session \d+: resident, /g)).toHaveLength(9);
    expect(printed).toMatch(/session 1: disk, [\d.]+ ms, (\d+) of \1 tokens cached, [\d.]+ MiB read/);
    expect(printed).toMatch(/Hits: 1\n\s+Misses: 0\n\s+Hit rate: 100.00%/);
    expect(printed).toMatch(/in all \d+ ms; without the cache about \d+ ms/);
  });

  it('many-sessions finishes more sessions than there are sequences, and closes all sessions', async () => {
    const printed = await run('many-sessions', '5');
    expect(printed).toMatch(/5 sessions, \d+ tokens in/);
    expect(printed).toMatch(/0 sessions open, 0 sequences held/);
  });

  it('streaming streams a reply, aborts another reply, and stops reading a third reply', async () => {
    const printed = await run('streaming');
    expect(printed).toMatch(/> Why is the sky blue\?\n.{40,}/s);
    expect(printed).toMatch(/\[(length|stop): \d+ prompt tokens, \d+ of them cached/);
    expect(printed).toMatch(/\[aborted\]/);
    expect(printed).toMatch(/\[2 messages in the conversation\]/);
  });

  it('tools calls a function, and continues with its result', async () => {
    const printed = await run('tools');
    expect(printed).toMatch(/-> get_stock\(\{"article":"(apples|pears)"\}\)/);
    expect(printed).toMatch(/<- \{"article":"(apples","count":12|pears","count":0)\}/);
    expect(printed).toMatch(/\[\S+ after 2 replies\]/);
  });

  it('structured-output prints objects that follow their schema', async () => {
    const printed = await run('structured-output');
    expect(printed.match(/^(positive|mixed|negative), [1-5] stars: .+ \(\d+ tokens\)$/gm)).toHaveLength(2);
  });

  it('mcp calls a tool of a server that is a child process', async () => {
    const printed = await run('mcp');
    expect(printed).toMatch(/Tools: time_in \(of clock\)\n> What time is it in Tokyo\?\n/);
    expect(printed).toMatch(/time_in: \d+:\d\d [AP]M/);
  });

  it('ai-sdk runs a loop with a tool, of which the second step prefills only what is new, and makes an object', async () => {
    const printed = await run('ai-sdk');
    expect(printed).toMatch(/^stock\(\{"article":"(apples|pears)"\}\) is \{"article":"\1","count":\d+\}$/m);
    expect(printed).toMatch(/\[tool-calls: \d+ tokens cached, \d+ prefilled\]/);
    expect(printed).toMatch(/\[(stop|length): \d{2,} tokens cached, \d{1,2} prefilled\]/);
    expect(printed).toMatch(/\{ apples: -?\d+, pears: -?\d+ \}\n$/);
  });

  it('low-level continues a state from a file three times', async () => {
    const printed = await run('low-level');
    expect(printed).toMatch(/\d+ tokens, \d+ KiB of state/);
    expect(printed.match(/^\d\. (First,|Whales|Salt).+$/gm)).toHaveLength(3);
  });

  it('in each file of the folder examples/ has a test', () => {
    expect([...tested].sort()).toEqual(Object.keys(examples).sort());
  });
});
