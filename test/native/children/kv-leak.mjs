// kv-leak.mjs AS MODEL: makes a byte of a captured state JavaScript's, as an array or a string.
import { Model } from 'llama-headstart/native';
import { addon } from '../../../dist/native/addon.js';

const [as, path] = process.argv.slice(2);
const length = 20;
const tokens = new Int32Array(length).fill(5);
const positions = Int32Array.from({ length }, (_, at) => at);
const model = await Model.load({ path });
const context = await model.createContext({ kvCells: 256 });
await context.decode({ tokens, positions, sequences: new Int32Array(length), outputs: new Uint8Array(length) });
const state = await context.captureSequence(0, tokens);
process.stdout.write('captured');
addon().leakState(state.raw, as);
process.stdout.write(', and leaked');
