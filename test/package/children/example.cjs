// node example.cjs MODEL: uses the package from CommonJS. Node.js 20.19 and newer can require() ES modules.
const { AgentServer } = require('llama-headstart');
const example = require('./example-steps.cjs');

example(AgentServer);
