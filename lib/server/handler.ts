// The HTTP handler: lets clients in, finds the endpoint, and turns errors into responses of the dialect.
import { type Context, Hono } from 'hono';
import { cors } from 'hono/cors';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { forgivingLogger, type Logger } from '../logger.js';
import { parseOptions } from '../parse-options.js';
import { anthropicError } from './anthropic/error.js';
import { countMessageTokens, readMessages } from './anthropic/messages.js';
import { addHeadstart } from './headstart/endpoints.js';
import { RecentRequests } from './headstart/recent-requests.js';
import { AccessControl, type Client } from './http/access.js';
import { Admission } from './http/admission.js';
import { answer } from './http/answer.js';
import { HttpError, httpErrorOf } from './http/http-error.js';
import { readJson } from './http/json-body.js';
import type { ErrorBody, FinishedReply, ReplyRequest } from './http/reply-events.js';
import { addHealth, addLlamaServer } from './llama-server/endpoints.js';
import { Metrics } from './llama-server/metrics.js';
import type { WantedRules } from './normalizers/normalizer.js';
import { addOpenAi } from './openai/endpoints.js';
import { openAiError } from './openai/error.js';
import { Responses } from './responses/responses.js';
import type { ServedModel } from './served-model.js';
import { HANDLER_OPTIONS, type HandlerOptions, type ResolvedHandlerOptions } from './server-options.js';

/** Answers HTTP requests, in the manner of the Fetch API. */
export interface Handler {
  /** Answers a request. Never rejects. */
  (request: Request): Promise<Response>;
  /** Whether every request needs an API key. */
  readonly needsKey: boolean;
}

/** The status of endpoints that the model does not support. The server does not log this status as a failure. */
const NOT_IMPLEMENTED = 501;

/** What the endpoints of a handler share. */
export interface Services {
  model: ServedModel;
  options: ResolvedHandlerOptions;
  admission: Admission;
  metrics: Metrics;
  /** The reports of answered requests. */
  recent: RecentRequests;
}

/** The variables of a request. */
export interface RequestVariables {
  client: Client;
}

/** The app of a handler. */
export type App = Hono<{ Variables: RequestVariables }>;

/** What an endpoint knows about a request besides its body. */
export interface RequestDetails {
  model: ServedModel;
  headers: Headers;
  client: Client;
  /** Aborts when the client leaves. */
  signal: AbortSignal;
  /** Which rules for known clients apply. */
  wantedRules: WantedRules;
}

/** Reads the body of a request for a reply. */
export type ReadReplyRequest = (body: unknown, details: RequestDetails) => ReplyRequest;

/**
 * Creates a handler that serves a model to clients of other APIs.
 *
 * @param model the model, for example an `AgentServer`
 * @throws HeadstartError `CONFIG_INVALID`.
 */
export function createHandler(model: ServedModel, options: HandlerOptions = {}): Handler {
  const parsed = parseOptions(HANDLER_OPTIONS, options, { where: 'the options of `createHandler`' });
  const { allowedOrigins = [], maxRequests, apiKeys } = parsed;
  const logger = parsed.logger && forgivingLogger(parsed.logger);
  const admission = new Admission(maxRequests);
  const metrics = new Metrics(model, admission);
  const services = { model, options: { ...parsed, logger }, admission, metrics, recent: new RecentRequests(parsed) };
  const access = new AccessControl(parsed);
  const app: App = new Hono();
  if (allowedOrigins.length > 0) {
    app.use(cors({ origin: [...allowedOrigins] }));
  }
  app.use(async (context, next) => {
    await next();
    metrics.onStatus(context.res.status);
  });
  addHealth(app, services);
  app.use(async (context, next) => {
    context.set('client', access.admit(context.req.raw));
    await next();
  });
  addOpenAi(app, services);
  app.post('/v1/messages', replyEndpoint(services, readMessages));
  app.post('/v1/messages/count_tokens', jsonEndpoint(services, countMessageTokens));
  const responses = new Responses(parsed);
  app.post('/v1/responses', replyEndpoint(services, responses.read));
  app.post('/v1/responses/input_tokens', jsonEndpoint(services, responses.countTokens));
  app.get('/v1/responses/:id', (context) =>
    context.json(responses.find(context.req.param('id'), context.get('client'))),
  );
  app.delete('/v1/responses/:id', (context) =>
    context.json(responses.delete(context.req.param('id'), context.get('client'))),
  );
  addLlamaServer(app, services);
  addHeadstart(app, services);
  app.get('/openapi.json', async (context) => {
    const { openApiDocument } = await import('./openapi/document.js'); // most servers never need the document
    return context.json(openApiDocument());
  });
  app.notFound(() => {
    throw new HttpError(404, 'not_found', 'This server has no such endpoint');
  });
  app.onError((error, context) => {
    const failure = httpErrorOf(error);
    logFailure(logger, context, error);
    return context.json(
      errorBodyOf(context.req.path)(failure),
      failure.status as ContentfulStatusCode,
      failure.headers,
    );
  });
  const handle = async (request: Request) => app.fetch(request);
  return Object.assign(handle, { needsKey: apiKeys !== undefined });
}

/** The endpoint that answers requests for a reply in one dialect. */
export function replyEndpoint(services: Services, read: ReadReplyRequest) {
  const { model, options, admission, metrics, recent } = services;
  return async (context: Context): Promise<Response> => {
    const { raw } = context.req;
    const leave = admission.enter();
    try {
      const body = await readJson(raw, options.maxBodyBytes);
      const details = detailsOf(context, model, options);
      const request = read(body, details);
      const onReply = (reply: FinishedReply) => {
        metrics.onReply(reply);
        recent.add(reply, context.req.path, details.client);
      };
      const onStreamError = (error: unknown) => {
        metrics.onStatus(httpErrorOf(error).status);
        logFailure(options.logger, context, error);
      };
      return await answer(context, request, {
        model,
        keepAliveMs: options.keepAliveMs,
        onReply,
        onStreamError,
        onEnd: leave,
      });
    } catch (error) {
      leave();
      throw error;
    }
  };
}

/** The endpoint that answers a JSON body with JSON, and does not count as a request in progress. */
export function jsonEndpoint(
  { model, options }: Services,
  answerJson: (body: unknown, details: RequestDetails) => Promise<object>,
) {
  return async (context: Context): Promise<Response> => {
    const body = await readJson(context.req.raw, options.maxBodyBytes);
    return context.json(await answerJson(body, detailsOf(context, model, options)));
  };
}

function detailsOf(context: Context, model: ServedModel, wantedRules: ResolvedHandlerOptions): RequestDetails {
  const { headers, signal } = context.req.raw;
  return { model, headers, signal, client: context.get('client'), wantedRules };
}

/** Writes a line for a failure of the server. The client gets a general message instead. */
function logFailure(logger: Logger | undefined, { req: { method, path } }: Context, error: unknown): void {
  const { status } = httpErrorOf(error);
  if (status >= 500 && status !== NOT_IMPLEMENTED) {
    logger?.('error', `${method} ${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** The form of errors on a path. */
function errorBodyOf(path: string): ErrorBody {
  return path.startsWith('/v1/messages') ? anthropicError : openAiError;
}
