// A client of chat completions that measures the times of a streamed reply.

/**
 * Sends a request and reads the reply as a stream.
 *
 * @param {string} url the address of the server
 * @param {object} body the body of the request, without `stream`
 * @returns {Promise<{ firstMs: number, endMs: number, text: string }>} the times to the first text and to the end
 */
export async function streamChat(url, body) {
  const begin = performance.now();
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...body, stream: true }),
  });
  if (!response.ok) throw new Error(`The server answered ${response.status}: ${await response.text()}`);
  let firstMs;
  let text = '';
  for await (const { choices, error } of events(response.body)) {
    if (error !== undefined) throw new Error(`The reply ended with an error: ${JSON.stringify(error)}`);
    const delta = choices?.[0]?.delta?.content ?? '';
    if (delta === '') continue;
    firstMs ??= performance.now() - begin;
    text += delta;
  }
  const endMs = performance.now() - begin;
  return { firstMs: firstMs ?? endMs, endMs, text };
}

/** Reads the JSON objects of server-sent events. */
async function* events(body) {
  let rest = '';
  for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith('data: {')) yield JSON.parse(line.slice('data: '.length));
    }
  }
}
