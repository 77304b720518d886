// A stand-in for a coding agent: `node stand-in-agent.mjs NAME ARGUMENT...`. It reads the configuration that `launch`
// made, as the agent NAME does, and sends one request to the server. Then it writes what it has seen to
// `stand-in.json` in the working directory, and exits with code 7. With the argument `wait`, it waits for a signal.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const [name, ...args] = process.argv.slice(2);
const { env } = process;

/** The value after a flag. */
const after = (/** @type {string} */ flag) => args[args.indexOf(flag) + 1];
const json = (/** @type {string} */ path) => JSON.parse(readFileSync(path, 'utf8'));

const SYSTEM = 'You are a coding agent.';
const SCHEMA = { type: 'object', properties: { path: { type: 'string' } } };
const MESSAGES = [{ role: 'user', content: 'Hi' }];

function chatCompletion(
  /** @type {string} */ baseUrl,
  /** @type {string | undefined} */ key,
  /** @type {string} */ model,
) {
  const tools = [{ type: 'function', function: { name: 'read', description: 'Reads a file', parameters: SCHEMA } }];
  const messages = [{ role: 'system', content: SYSTEM }, ...MESSAGES];
  return { url: `${baseUrl}/chat/completions`, key, body: { model, messages, tools, max_tokens: 2 } };
}

/** For each agent: its request, and the context size that it was told. */
const AGENTS = {
  claude: () => ({
    request: {
      url: `${env.ANTHROPIC_BASE_URL}/v1/messages?beta=true`,
      key: env.ANTHROPIC_AUTH_TOKEN,
      body: {
        model: env.ANTHROPIC_MODEL,
        system: SYSTEM,
        messages: MESSAGES,
        tools: [{ name: 'Read', description: 'Reads a file', input_schema: SCHEMA }],
        max_tokens: 2,
      },
    },
    contextSize: Number(env.CLAUDE_CODE_MAX_CONTEXT_TOKENS),
  }),
  codex: () => {
    const settings = Object.fromEntries(
      args.flatMap((word, index) =>
        word === '-c'
          ? [
              String(args[index + 1])
                .split(/=(.*)/s)
                .slice(0, 2),
            ]
          : [],
      ),
    );
    const provider = (/** @type {string} */ field) => {
      const value = settings[`model_providers.${JSON.parse(settings.model_provider)}.${field}`];
      return value && JSON.parse(value);
    };
    const input = [
      { type: 'message', role: 'developer', content: [{ type: 'input_text', text: SYSTEM }] },
      { type: 'message', role: 'user', content: [{ type: 'input_text', text: 'Hi' }] },
    ];
    const tools = [{ type: 'function', name: 'shell', description: 'Runs a command', parameters: SCHEMA }];
    return {
      request: {
        url: `${provider('base_url')}/${provider('wire_api')}`,
        key: env[provider('env_key')],
        body: { model: JSON.parse(settings.model), input, tools, max_output_tokens: 2 },
      },
      contextSize: Number(settings.model_context_window),
    };
  },
  opencode: () => {
    const { model, provider } = JSON.parse(String(env.OPENCODE_CONFIG_CONTENT));
    const [id, name] = model.split(/\/(.*)/s);
    const { options, models } = provider[id];
    return { request: chatCompletion(options.baseURL, options.apiKey, name), contextSize: models[name].limit.context };
  },
  cline: () => {
    const path = String(env.CLINE_PROVIDER_SETTINGS_PATH);
    const id = after('--provider');
    const { baseUrl, apiKey } = json(path).providers[id].settings;
    const { contextWindow } = json(join(dirname(path), 'models.json')).providers[id].models[after('--model')];
    return { request: chatCompletion(baseUrl, apiKey, after('--model')), contextSize: contextWindow };
  },
  pi: () => {
    const [, id, text] = /registerProvider\('(\w+)', (.*)\);/.exec(readFileSync(after('--extension'), 'utf8')) ?? [];
    const { baseUrl, apiKey, models } = JSON.parse(String(text));
    const model = models.find((/** @type {{ id: string }} */ each) => each.id === after('--model'));
    if (id !== after('--provider')) throw new Error('--provider names another provider');
    return {
      request: chatCompletion(baseUrl, env[apiKey.slice(1)], model.id),
      contextSize: model.contextWindow,
    };
  },
  qwen: () => {
    const { model, modelProviders, security } = json(String(env.QWEN_CODE_SYSTEM_SETTINGS_PATH));
    const entry = modelProviders[security.auth.selectedType].find(
      (/** @type {{ id: string }} */ { id }) => id === model.name,
    );
    return {
      request: chatCompletion(entry.baseUrl, env[entry.envKey], entry.id),
      contextSize: entry.generationConfig.contextWindowSize,
    };
  },
};

const { request, contextSize } = AGENTS[/** @type {keyof typeof AGENTS} */ (name)]();
const headers = { 'content-type': 'application/json', authorization: `Bearer ${request.key}` };
const response = await fetch(request.url, { method: 'POST', headers, body: JSON.stringify(request.body) });
const reply = await response.json();
writeFileSync(
  'stand-in.json',
  JSON.stringify({ name, args, key: request.key, contextSize, status: response.status, reply }),
);
if (args.includes('wait')) {
  process.on('SIGTERM', () => process.exit(9));
  setInterval(() => undefined, 60_000);
} else {
  process.exitCode = 7;
}
