// `node cache-start.mjs OPTIONS`: starts one session in a new process and prints its report. OPTIONS is JSON.
import { argv, stdout } from 'node:process';
import { AgentServer } from 'llama-headstart';

const agent = await AgentServer.initialize(JSON.parse(argv[2]));
const session = await agent.createSession();
stdout.write(JSON.stringify(session.report));
await agent.close();
