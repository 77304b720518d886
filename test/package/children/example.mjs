// node example.mjs MODEL: uses the package from an ES module.
import { AgentServer } from 'llama-headstart';
import example from './example-steps.cjs';

await example(AgentServer);
