// From CommonJS, with the require() of ESM that Node 20.19 has: node example.cjs MODEL
const { AgentServer } = require('llama-headstart');
const example = require('./example-steps.cjs');

example(AgentServer);
