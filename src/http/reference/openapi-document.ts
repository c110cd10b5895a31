/** OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1) of a listener's operations, as plain data. */
import type { JsonSchema } from '../../contracts/json-schema.ts'
import { PROBLEM_KINDS, problemType } from '../problem.ts'
import { ANSWER_HEADERS, type AnswerHeader } from './answer-headers.ts'
import type { DocumentOptions } from './document-options.ts'
import type { Operation, Operations } from './operations.ts'
import { limitHeaders, type ProblemAnswer, problemAnswers } from './problem-answers.ts'
import type { AnswerEntry, Contents, Parameter, Scope } from './route-entry.ts'

export interface OpenApiDocument {
  readonly openapi: '3.1.1'
  readonly info: { readonly title: string; readonly version: string; readonly description: string }
  readonly paths: Readonly<Record<string, Readonly<Record<string, object>>>>
  readonly components: {
    readonly schemas: Readonly<Record<string, JsonSchema>>
    readonly responses: Readonly<Record<string, object>>
  }
  readonly [field: string]: unknown
}

const PROBLEM_TYPE = 'application/problem+json'

export function openApiDocument(
  { table, operations, schemas }: Operations,
  options: DocumentOptions,
): OpenApiDocument {
  const paths: Record<string, Record<string, object>> = {}
  const responses: Record<string, object> = {}
  for (const operation of operations) {
    paths[operation.path] ??= {}
    Object.assign(paths[operation.path] ?? {}, {
      [operation.method.toLowerCase()]: describeOperation(operation, options, responses),
    })
  }
  return {
    openapi: '3.1.1',
    info: { title: table.title, version: options.version, description: table.description },
    servers: [{ url: '/' }],
    tags: table.families.map(({ name, description }) => ({ name, description })),
    ...(options.credentials ? {} : { security: [] }),
    paths,
    components: {
      schemas,
      responses,
      ...(options.credentials ? { securitySchemes: { bearer: BEARER } } : {}),
    },
  }
}

const BEARER = {
  type: 'http',
  scheme: 'bearer',
  description: 'An API key (`mr_…`) or a token of an issuer that the operator trusts.',
}

/** Adds to `responses` the problems that it shares with other operations. */
function describeOperation(
  operation: Operation,
  options: DocumentOptions,
  responses: Record<string, object>,
): object {
  const { operationId, family, subject, summary, parameters, body, answers, scope } = operation
  const description = [operation.description ?? '', ...operation.notes].join(' ').trim()
  const told: Record<string, object> = {}
  for (const answer of answers) told[answer.status] = describeAnswer(answer, limitHeaders(operation, options))
  for (const answer of problemAnswers(operation, options)) {
    // A status that is told already, such as that of health, has a body of its own.
    if (told[answer.status] !== undefined) continue
    const name = [answer.status, ...answer.names, ...(operation.problemHeaders?.[answer.status] ?? [])].join(
      '.',
    )
    responses[name] ??= describeProblems(answer)
    told[answer.status] = { $ref: `#/components/responses/${name}` }
  }
  return {
    operationId,
    tags: [family],
    summary: subject === undefined ? summary : `${summary}: ${subject}`,
    ...(description === '' ? {} : { description }),
    ...(options.credentials ? { security: securityOf(scope) } : {}),
    ...(parameters === undefined || parameters.length === 0
      ? {}
      : { parameters: parameters.map(describeParameter) }),
    ...(body === undefined
      ? {}
      : {
          requestBody: {
            ...(body.description === undefined ? {} : { description: body.description }),
            required: body.required,
            content: describeContents(body.contents),
          },
        }),
    responses: told,
  }
}

function securityOf(scope: Scope | undefined): object[] {
  return scope === undefined ? [] : [{ bearer: scope === 'known' ? [] : [scope] }]
}

function describeParameter({ in: place, name, description, schema, required }: Parameter): object {
  return { in: place, name, description, ...(required ? { required } : {}), schema }
}

function describeContents(contents: Contents): object {
  return Object.fromEntries(Object.entries(contents).map(([type, schema]) => [type, { schema }]))
}

function describeHeaders(headers: readonly AnswerHeader[] = []): object {
  return headers.length === 0
    ? {}
    : { headers: Object.fromEntries(headers.map((name) => [name, ANSWER_HEADERS[name]])) }
}

function describeAnswer(
  { description, headers = [], contents }: AnswerEntry,
  more: readonly AnswerHeader[],
): object {
  return {
    description,
    ...describeHeaders([...headers, ...more]),
    ...(contents === undefined ? {} : { content: describeContents(contents) }),
  }
}

function describeProblems({ names, headers }: ProblemAnswer): object {
  const lines = names.map((name) => `- [${name}](/problems/${name}): ${PROBLEM_KINDS[name].title}.`)
  const types: JsonSchema = { properties: { type: { enum: names.map(problemType) } } }
  const schema: JsonSchema = { allOf: [{ $ref: '#/components/schemas/Problem' }, types] }
  return {
    description: lines.join('\n'),
    ...describeHeaders(headers),
    content: { [PROBLEM_TYPE]: { schema } },
  }
}
