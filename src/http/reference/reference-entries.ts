/** The reference itself, on both listeners: this document, the page about it, and the problems. */

import { PROBLEM_KINDS } from '../problem.ts'
import {
  type AnswerEntry,
  inHeader,
  inPath,
  json,
  object,
  oneOf,
  type RouteFamily,
  ref,
  TEXT,
  told,
} from './route-entry.ts'

const known = inHeader('If-None-Match', 'ETag of what is known.')
const unchanged: AnswerEntry = { status: 304, description: 'Nothing changed.', headers: ['ETag'] }

export const REFERENCE_ROUTES: RouteFamily = {
  name: 'Reference',
  description: 'What this listener does, for programs and for people.',
  routes: [
    {
      route: 'reference.openapi',
      method: 'GET',
      path: '/openapi.json',
      summary: 'This description, as OpenAPI 3.1',
      parameters: [known],
      answers: [
        {
          status: 200,
          description: 'The document.',
          headers: ['ETag'],
          contents: json(told({ type: 'object' }, 'OpenAPI 3.1, with JSON Schema 2020-12.')),
        },
        unchanged,
      ],
      problems: ['internal-error'],
      scope: 'known',
    },
    {
      route: 'reference.page',
      method: 'GET',
      path: '/docs',
      summary: 'This description, as a page',
      parameters: [known],
      answers: [
        { status: 200, description: 'The page.', headers: ['ETag'], contents: { 'text/html': TEXT } },
        unchanged,
      ],
      problems: ['internal-error'],
      scope: 'known',
    },
    {
      route: 'problem',
      method: 'GET',
      path: '/problems/:name',
      summary: 'What a problem means',
      parameters: [inPath('name', 'The last part of its type.', oneOf(...Object.keys(PROBLEM_KINDS)))],
      answers: [
        { status: 200, description: 'Its meaning, and what to do.', contents: json(ref('ProblemMeaning')) },
      ],
      problems: ['not-found', 'internal-error'],
      scope: undefined,
    },
  ],
  schemas: {
    ProblemMeaning: object({
      type: told(TEXT, 'What `type` of a problem holds.'),
      title: TEXT,
      status: { type: 'integer' },
      meaning: TEXT,
    }),
  },
}
