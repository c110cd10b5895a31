/** Views: one by key, or a page of them. */
import {
  DECLARED,
  inHeader,
  inPath,
  inQuery,
  json,
  list,
  object,
  oneOf,
  type RouteFamily,
  TEXT,
  told,
} from './route-entry.ts'

const projection = inPath('projection', 'Name of the projection, as the application declares it.')

/** Where a page of anything continues. */
const PAGE = object({
  next: told({ type: ['string', 'null'] }, 'Cursor of the next page.'),
  prev: { type: ['string', 'null'] },
})

export const VIEW_ROUTES: RouteFamily = {
  name: 'Views',
  description: 'What projections make of events, one view under each key.',
  routes: [
    {
      route: 'view.read',
      method: 'GET',
      path: '/v1/views/:projection/:key',
      each: 'projection',
      summary: 'Read one view',
      parameters: [
        projection,
        inPath('key', 'Key of the view, percent-encoded.'),
        inHeader(
          'Millrace-After',
          'Id of a command: the answer waits, for a bounded time, until the view has passed its effects.',
        ),
        inHeader('If-None-Match', 'ETag of the view that is known.'),
      ],
      answers: [
        {
          status: 200,
          description: 'The view.',
          headers: ['ETag', 'Millrace-Position', 'Millrace-After-Status'],
          contents: json(DECLARED.view),
        },
        { status: 304, description: 'Nothing changed.', headers: ['ETag', 'Millrace-Position'] },
      ],
      problems: [
        'malformed-request',
        'projection-not-over-stream',
        'not-found',
        'unknown-projection',
        'view-not-there-yet',
        'temporary-reduced-capacity',
        'projection-stopped',
        'internal-error',
      ],
      problemHeaders: { 404: ['Millrace-Position', 'Millrace-After-Status'] },
      scope: 'views:read',
    },
    {
      route: 'view.page',
      method: 'GET',
      path: '/v1/views/:projection',
      each: 'projection',
      summary: 'Read a page of views',
      description: 'In the order of their keys. A cursor belongs to its prefix and direction.',
      parameters: [
        projection,
        inQuery('limit', 'Views on a page.', { type: 'integer', minimum: 1, maximum: 500, default: 50 }),
        inQuery('cursor', '`next` or `prev` of another page.'),
        inQuery('prefix', 'Only keys that begin with it.'),
        inQuery('direction', 'From the first key, or from the last.', {
          ...oneOf('forward', 'backward'),
          default: 'forward',
        }),
      ],
      answers: [
        {
          status: 200,
          description: 'The page.',
          headers: ['Link', 'Millrace-Position'],
          contents: json(
            object({ data: list(object({ key: TEXT, value: DECLARED.view, etag: TEXT })), page: PAGE }),
          ),
        },
      ],
      problems: ['malformed-request', 'unknown-projection', 'temporary-reduced-capacity', 'internal-error'],
      scope: 'views:read',
    },
  ],
}
