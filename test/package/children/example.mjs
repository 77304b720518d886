// From ESM: node example.mjs MODEL
import { AgentServer } from 'llama-headstart';
import example from './example-steps.cjs';

await example(AgentServer);
