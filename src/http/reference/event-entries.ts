/** What is told of event tails: a stream of server-sent events that never ends by itself. */
import { inHeader, inPath, inQuery, list, oneOf, type RouteFamily, TEXT, told } from './route-entry.ts'

export const EVENT_ROUTES: RouteFamily = {
  name: 'Events',
  description: 'What handlers emitted, as it is committed.',
  routes: [
    {
      route: 'event.tail',
      method: 'GET',
      path: '/v1/events/:stream',
      summary: 'Follow the events of a stream',
      description: 'Server-sent events, without an end. HEAD answers the headers.',
      parameters: [
        inPath('stream', 'Name of the stream.'),
        inQuery('from', 'The oldest event that is kept, or what comes from now on. Not with `after`.', {
          ...oneOf('start', 'now'),
          default: 'now',
        }),
        inQuery('after', 'Go on after the event with this id.'),
        inQuery('type', 'Only events of this type; may be given several times.', list(TEXT)),
        inQuery('key', 'Only events whose command had this key.'),
        inHeader('Last-Event-ID', 'Go on after the event with this id; before `after`.'),
      ],
      answers: [
        {
          status: 200,
          description:
            'Events as they are committed; a comment while there are none; `gap` where some are missing.',
          contents: { 'text/event-stream': told(TEXT, 'With `id`, `event` and one line of JSON as `data`.') },
        },
      ],
      problems: ['malformed-request', 'not-found', 'temporary-reduced-capacity', 'internal-error'],
      scope: 'events:read',
    },
  ],
}
