// kv-leak.mjs TYPE MODEL: copies a byte of a captured state into a JavaScript array or string. The addon must detect
// the copy.
import { addon } from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';

const [type, path] = process.argv.slice(2);
const length = 20;
const tokens = new Int32Array(length).fill(5);
const positions = Int32Array.from({ length }, (_, index) => index);
const model = await Model.load({ path });
const context = await model.createContext({ kvCells: 256 });
await context.decode({ tokens, positions, sequences: new Int32Array(length), outputs: new Uint8Array(length) });
const state = await context.captureSequence(0, tokens);
process.stdout.write('captured');
addon().leakState(state.raw, type);
process.stdout.write(', and leaked');
