// Each setting that changes the KV state changes the cache key. The order in which MCP servers list tools does not.
import { describe, expect, it } from 'vitest';
import { type AgentSettings, startAgent, startOn, temporaryDirectory } from '../helpers/agents.js';
import { Lab, type LabOptions, someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { TOOLS } from '../helpers/prompts.js';

const DATED = "{{ 'Today is ' + strftime_now('%Y-%m-%d') + '.\\n' }}";
const CHAT_TEMPLATE = `${DATED}{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}`;

describe('a cached template is not used', () => {
  it.each([
    ['for another model of the same shape', {}, { name: 'dense-other' }],
    ['for another quantization', {}, { name: 'dense-quantised' }],
    ['with another K cache type', {}, { keyType: 'q8_0' }],
    ['with another V cache type', { flashAttention: true }, { flashAttention: true, valueType: 'q8_0' }],
    ['in another KV layout', {}, { kvLayout: 'split' }],
    ['with another number of split streams', { kvLayout: 'split' }, { kvLayout: 'split', nSeqMax: 3 }],
    ['with flash attention off', { flashAttention: true }, { flashAttention: false }],
    ['with scaled RoPE', {}, { ropeScaling: 'yarn', ropeFrequencyScale: 0.5 }],
    [
      'with another RoPE scaling method',
      { ropeScaling: 'linear', ropeFrequencyScale: 0.5 },
      { ropeScaling: 'yarn', ropeFrequencyScale: 0.5 },
    ],
    ['with another RoPE base', {}, { ropeFrequencyBase: 500_000 }],
    ['with another chat template', {}, { chatTemplate: CHAT_TEMPLATE }],
    ['for a tenant if it was made without a tenant', {}, { tenant: 'b' }],
    ['without a tenant if it was made for a tenant', { tenant: 'a' }, {}],
    ['for another tenant', { tenant: 'a' }, { tenant: 'b' }],
    [
      'if the number of KV cells selects other RoPE factors',
      { name: 'long-rope', contextSize: 512, kvCells: 1024 },
      { name: 'long-rope', contextSize: 512, kvCells: 2048 },
    ],
    ['with `fullSlidingWindow`', { name: 'sliding-window' }, { name: 'sliding-window', fullSlidingWindow: true }],
  ] as [string, AgentSettings, AgentSettings][])('%s', async (_, one, other) => {
    const directory = await temporaryDirectory();
    const first = await startOn(directory, one);
    const second = await startOn(directory, other);
    expect([first.cache, second.cache]).toEqual(['miss', 'miss']);
    expect(second.key).not.toBe(first.key);
    expect((await startOn(directory, one)).source).toBe('disk');
    expect((await startOn(directory, other)).source).toBe('disk');
  });

  it.each([
    { llamaVersion: 'v0.5.1' },
    { ropeFrequencyBase: 12_345 },
    { ropeFrequencyScale: 0.5 },
    { rotationDisabled: '1' },
  ])('as a whole or in part if a component of the key differs: %o', async (components) => {
    const directory = await temporaryDirectory();
    const tokens = someTokens(80, 1);
    const options: LabOptions = { path: microModel('dense'), directory, cache: { reuse: 'nearest' } };
    for (const cache of ['miss', 'hit']) {
      for (const configuration of [options, { ...options, components }]) {
        const lab = await Lab.open(configuration);
        expect(await lab.start(tokens)).toMatchObject({ cache });
        await lab.close();
      }
    }
  });

  it('even in part for another tenant', async () => {
    const directory = await temporaryDirectory();
    const agent = await startAgent({ cacheDir: directory, reuse: 'nearest' });
    await agent.createSession({ tenant: 'a' });
    await agent.flush();
    const other = await agent.createSession({ tenant: 'b', tools: TOOLS });
    expect(other.report).toMatchObject({ cache: 'miss', cachedTokens: 0 });
    const same = await agent.createSession({ tenant: 'a', tools: TOOLS });
    expect(same.report.cache).toBe('prefix');
  });
});

describe('a template with a date', () => {
  it('is rendered again on the next local calendar day', async () => {
    const zone = process.env.TZ;
    const directory = await temporaryDirectory();
    const settings = { cacheDir: directory, chatTemplate: CHAT_TEMPLATE };
    try {
      process.env.TZ = 'Etc/GMT+12'; // 26 hours behind Etc/GMT-14, so the dates of the two zones always differ
      const agent = await startAgent(settings); // renders its template in this time zone
      const [west, again] = [await agent.createSession(), await agent.createSession()];
      process.env.TZ = 'Etc/GMT-14';
      const east = await agent.createSession();
      expect([west, again, east].map(({ report }) => report.source)).toEqual(['prefill', 'resident', 'prefill']);
      expect(east.report.key).not.toBe(west.report.key);
      const { usage } = await east.send('Hello', { maxTokens: 1 });
      expect(usage.cachedInputTokens).toBe(east.report.templateTokens);
      expect(agent.getTemplateCacheStats().prefixMismatches).toBe(0);
      await agent.close();
      // The boundary that the first agent remembered is still correct.
      const restarted = await startAgent(settings);
      expect((await restarted.createSession()).report).toMatchObject({ source: 'disk', key: east.report.key });
    } finally {
      process.env.TZ = zone;
      if (zone === undefined) {
        delete process.env.TZ;
      }
    }
  });
});

describe('a template with tools of MCP servers', () => {
  const listed = ['find', 'add', 'list'].map((name) => ({ name, description: `To ${name}`, server: 'notes' }));
  const other = { name: 'now', description: 'The time', server: 'clock' };

  it('is the same for each order in which the servers list their tools', async () => {
    const agent = await startAgent();
    const one = await agent.createSession({ tools: [...TOOLS, ...listed, other] });
    const two = await agent.createSession({ tools: [other, ...TOOLS, ...[...listed].reverse()] });
    expect(two.report).toMatchObject({ source: 'resident', key: one.report.key });
    const { usage } = await two.send('Hello', { maxTokens: 1 });
    expect(usage.cachedInputTokens).toBe(two.report.templateTokens);
  });

  it('depends on the listed order with `stableTools: false`, and always on the order of local tools', async () => {
    const agent = await startAgent({ stableTools: false });
    const one = await agent.createSession({ tools: [...listed, other] });
    expect((await agent.createSession({ tools: [other, ...listed] })).report.key).not.toBe(one.report.key);
    const stable = await startAgent();
    const inOrder = await stable.createSession({ tools: TOOLS });
    expect((await stable.createSession({ tools: [...TOOLS].reverse() })).report.key).not.toBe(inOrder.report.key);
  });
});
