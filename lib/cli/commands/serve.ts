import { integer } from '../../option-types.js';
import { command } from '../command.js';
import { bytesOption, listOption, numberOption, textOption } from '../option.js';
import { SERVER_OPTIONS } from '../serve/server-options.js';

export const SERVE_OPTIONS = {
  ...SERVER_OPTIONS,
  host: textOption('address', 'the address to listen on; any address other than loopback needs API keys', {
    default: '127.0.0.1',
  }),
  allowedHosts: listOption('name', 'a name of this server that clients may use'),
  allowedOrigins: listOption('origin', 'the origin of web pages that may call the server'),
  maxRequests: numberOption('number', integer(1, 2 ** 16), 'the largest number of requests in progress', {
    default: 64,
  }),
  maxBodySize: bytesOption('the largest body of a request'),
};

export const serve = command({
  name: 'serve',
  summary: "serves a model to clients of OpenAI's and Anthropic's APIs",
  details: [
    'The server prints its addresses, and runs until you press Ctrl-C. It then waits for replies in progress. Conversations ' +
      'are kept on disk, so that they continue without a prefill after a restart.',
  ],
  arguments: {
    model: { about: 'a path, an address, or `hf:owner/name[:quantization]`', optional: true, completion: 'file' },
  },
  options: SERVE_OPTIONS,
  examples: [
    { line: 'serve model.gguf', about: 'Serve a model on port 8080.' },
    { line: 'serve model.gguf --port 9000 --context-size 32768', about: 'Choose the port and the context.' },
    { line: 'serve model.gguf --host 0.0.0.0 --api-key-file keys.txt', about: 'Serve other machines, too.' },
  ],
  json: {
    url: 'the address of the server',
    model: 'the name of the model',
    contextSize: 'the number of tokens that one conversation may hold',
    trainContextSize: 'the training length of the model; 0 if it is unknown',
    kvCells: 'the number of tokens that all conversations together may hold',
    kvBytes: 'the size of the KV cache in bytes',
  },
  async run(call) {
    const { runServer } = await import('../serve/run-server.js');
    await runServer(call);
  },
});
