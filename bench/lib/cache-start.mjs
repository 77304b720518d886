// One session's start in a process of its own: `node cache-start.mjs OPTIONS`, as JSON. Prints its report.
import { argv, stdout } from 'node:process';
import { AgentServer } from '../../dist/index.js';

const agent = await AgentServer.initialize(JSON.parse(argv[2]));
const session = await agent.createSession();
stdout.write(JSON.stringify(session.report));
await agent.close();
