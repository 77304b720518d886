// The example of the specification. example.mjs and example.cjs import the package and pass its AgentServer.
/** @param {typeof import('llama-headstart').AgentServer} AgentServer */
module.exports = async function example(AgentServer) {
  const config = {
    model: { source: process.argv[2], batchSize: 512, nSeqMax: 4, debug: false, cacheDir: '.cache/templates' },
    systemPrompt: 'You are a helpful assistant. '.repeat(40),
    sampling: { temperature: 0 },
  };

  const agent = await AgentServer.initialize(config);
  const session1 = await agent.createSession();
  const reply = await session1.send('Hello!', { maxTokens: 8 });
  await agent.flush();
  const session2 = await agent.createSession();
  const stats = agent.getTemplateCacheStats();
  await agent.close();

  const second = await AgentServer.initialize(config);
  const session3 = await second.createSession();
  const sources = [session1, session2, session3].map((session) => session.report.source);
  await second.close();
  process.stdout.write(`${JSON.stringify({ sources, stats, text: reply.text })}\n`);
};
