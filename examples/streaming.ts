// Streaming. This program prints a reply while the model generates it, and then the number and speed of its tokens.
// Afterwards it stops one reply with a signal, and another one with `break`.
//
//   node streaming.js [MODEL]
import { AgentServer, HeadstartError } from 'llama-headstart';

const source = process.argv[2] ?? 'hf:bartowski/Qwen2.5-Coder-1.5B-Instruct-GGUF:Q4_K_M';
await using agent = await AgentServer.initialize({
  model: { source, contextSize: 2048 },
  systemPrompt: 'You are a friendly assistant who answers in two or three sentences.',
  sampling: { temperature: 0 }, // the most likely token: the same reply every time
});
await using session = await agent.createSession();

console.log('> Why is the sky blue?');
for await (const part of session.stream('Why is the sky blue?', { maxTokens: 80 })) {
  if (part.type === 'text-delta') {
    process.stdout.write(part.text);
  } else if (part.type === 'finish') {
    const { inputTokens, cachedInputTokens, outputTokens, firstTokenMs, tokensPerSecond } = part.usage;
    console.log(`\n[${part.finishReason}: ${inputTokens} prompt tokens, ${cachedInputTokens} of them cached; `);
    console.log(
      ` first token after ${firstTokenMs.toFixed(0)} ms, ${outputTokens} tokens at ${tokensPerSecond.toFixed(0)} per second]`,
    );
  }
}

// An aborted turn adds nothing to the conversation.
const stop = new AbortController();
let words = 0;
try {
  console.log('\n> Count to one thousand.');
  for await (const part of session.stream('Count to one thousand, in words.', { signal: stop.signal })) {
    if (part.type === 'text-delta') {
      process.stdout.write(part.text);
      words++;
      if (words === 5) {
        stop.abort();
      }
    }
  }
} catch (error) {
  if (!HeadstartError.isInstance(error, 'ABORTED')) {
    throw error;
  }
  console.log('\n[aborted]');
}

// `break` aborts the turn too.
console.log('\n> And in one word?');
for await (const part of session.stream('Say one word.', { maxTokens: 10, sampling: { temperature: 0.8, seed: 7 } })) {
  if (part.type === 'text-delta' && part.text.trim() !== '') {
    console.log(part.text);
    break;
  }
}
console.log(`[${session.messages.length} messages in the conversation]`);
