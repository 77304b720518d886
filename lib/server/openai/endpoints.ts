// The endpoints of OpenAI's API.
import { type App, replyEndpoint, type Services } from '../handler.js';
import { HttpError } from '../http/http-error.js';
import { readChatCompletion } from './chat-completions.js';
import { readCompletion } from './completions.js';
import { describeModel, listModels } from './models.js';

/** What this server does not make, by the beginning of the path. */
const MISSING = {
  '/v1/embeddings': 'embeddings',
  '/v1/images/*': 'images',
  '/v1/audio/*': 'speech and transcriptions',
};

export function addOpenAi(app: App, services: Services): void {
  const { model } = services;
  const since = Date.now();
  app.post('/v1/chat/completions', replyEndpoint(services, readChatCompletion));
  app.post('/v1/completions', replyEndpoint(services, readCompletion));
  for (const path of ['/v1/models', '/models']) {
    app.get(path, (context) => context.json(listModels(model, since)));
  }
  // The only model answers requests for any name, so this endpoint describes it under any name.
  app.get('/v1/models/:name{.+}', (context) => context.json(describeModel(model, since)));
  for (const [path, what] of Object.entries(MISSING)) {
    app.all(path, () => {
      throw new HttpError(501, 'not_implemented', `This server makes no ${what}: it serves a model that writes text`);
    });
  }
}
