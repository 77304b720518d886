// samplers.mjs MODEL: creates and uses samplers that would end the process if the addon did not refuse them.
import assert from 'node:assert/strict';
import { HeadstartError, jsonSchemaToGrammar, Model } from 'llama-headstart/native';

const deep = `${'('.repeat(20_000)}"a"${')'.repeat(20_000)}`;
const alternatives = Array.from({ length: 40 }, (_, i) => `r${i} ::= r${i + 1} "a" | r${i + 1} "b"`).join('\n');

const options = [
  { grammar: '%llguidance {}\nstart: "a"' },
  { grammar: `root ::= ${deep}` },
  { grammar: `root ::= "${'a'.repeat(3000)}"{2000}` },
  { grammar: 'root ::= "a"{5,2}' },
  { grammar: 'root ::= x root "b" | "a"\nx ::= y\ny ::= "" | "q"' },
  { grammar: `root ::= r0\n${alternatives}\nr40 ::= "x"` },
  { grammar: 'root ::= "a"', ignoreEos: true },
  { grammar: 'root ::= "a"', ignoreEos: true, temperature: 1, mirostat: { version: 1 } },
  { grammar: 'root ::= "a"', ignoreEos: true, temperature: 1, mirostat: { version: 2 } },
  { grammar: 'root ::= "a"', ignoreEos: true, temperature: 1, topK: 5, topP: 0.5, typicalP: 0.5, minP: 0.5 },
  { grammar: 'root ::= "a"', ignoreEos: true, temperature: 1, xtc: { probability: 1, threshold: 0 } },
  { grammar: 'root ::= "a" "\\x00"' },
  { grammar: 'root ::= "a"', generationPrompt: '<|im_end|>' },
  { grammar: 'root ::= "a"', grammarLazy: true, grammarTriggers: [{ type: 'pattern', value: '('.repeat(1e6) }] },
  { grammar: 'root ::= "a"', grammarLazy: true, grammarTriggers: [{ type: 'word', value: '('.repeat(1e6) }] },
  { mirostat: { version: 7 }, temperature: 1 },
  { temperature: Number.NaN },
  { temperature: 1e-30, topP: Number.POSITIVE_INFINITY },
  { logitBias: { 1e9: 1 } },
];

const model = await Model.load({ path: process.argv[2] });
const context = await model.createContext({ kvCells: 256 });

async function use(samplerOptions) {
  const sampler = await model.createSampler(samplerOptions);
  await context.clear();
  for (let position = 0; position < 8; position++) {
    await context.decode({
      tokens: Int32Array.of(1),
      positions: Int32Array.of(position),
      sequences: Int32Array.of(0),
      outputs: Uint8Array.of(1),
      samplers: [sampler],
    });
  }
}

for (const bad of options) {
  await assert.rejects(use(bad), (error) => HeadstartError.isInstance(error), JSON.stringify(bad).slice(0, 100));
}
const endless = { $ref: '#/$defs/a', $defs: { a: { allOf: [{ $ref: '#/$defs/b' }] }, b: { $ref: '#/$defs/b' } } };
await assert.rejects(jsonSchemaToGrammar(endless), (error) => HeadstartError.isInstance(error, 'SCHEMA_INVALID'));

// The process must end even if samplers are never closed.
for (const grammar of ['root ::= [a-z]+', 'root ::= "yes"']) await model.createSampler({ grammar });
console.log('all answered');
