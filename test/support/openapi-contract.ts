/**
 * Answers held against an OpenAPI document: each must have a status, a content type, headers and a body that the document
 * tells of, and no member that it does not.
 */

import { Validator } from '@seriousme/openapi-schema-validator'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'

type Json = Record<string, unknown>

interface DocumentedAnswer extends Json {
  readonly $ref?: string
  readonly headers?: Json
  readonly content?: Record<string, { readonly schema: Json }>
}

export interface DocumentedOperation extends Json {
  readonly operationId: string
  readonly responses: Record<string, DocumentedAnswer>
  readonly parameters?: { readonly in: string; readonly name: string; readonly schema: Json }[]
  readonly requestBody?: { readonly content: Record<string, { readonly schema: Json }> }
  readonly security?: unknown
}

export interface OpenApi {
  readonly paths: Record<string, Record<string, DocumentedOperation>>
  readonly components: { readonly schemas: Record<string, Json>; readonly responses: Record<string, Json> }
}

/** Headers that every answer may have. */
const ALWAYS = [
  ...['cache-control', 'content-encoding', 'content-length', 'content-type', 'date', 'vary'],
  ...['x-accel-buffering', 'x-content-type-options'],
]
const PAGE_ONLY = ['content-security-policy', 'referrer-policy']

export class Contract {
  readonly document: OpenApi
  /** `command.send.order.place 202`, of what was seen. */
  readonly seen = new Set<string>()

  readonly #ajv = new Ajv2020({ strict: false, allErrors: true })
  readonly #validators = new Map<string, ValidateFunction>()

  constructor(document: OpenApi) {
    this.document = document
    addFormats(this.#ajv)
    const { schemas } = document.components
    this.#ajv.addSchema({ $id: 'document', components: { schemas: strictly(schemas) } })
  }

  get operations(): DocumentedOperation[] {
    return Object.values(this.document.paths).flatMap((methods) => Object.values(methods))
  }

  /** What is wrong with an answer; empty when the document tells of all of it. */
  async complaints(method: string, path: string, response: Response): Promise<string[]> {
    const operation = this.#find(method, new URL(path, 'http://x').pathname)
    if (operation === undefined) return [`${method} ${path} is not in the document`]
    const { status, headers } = response
    const what = `${operation.operationId} ${status}`
    this.seen.add(what)
    const answer = this.#answer(operation, status)
    if (answer === undefined) return [`${what} is not in the document`]
    const told = Object.keys(answer.headers ?? {}).map((name) => name.toLowerCase())
    const unknown = [...headers.keys()].filter((name) => ![...told, ...ALWAYS, ...PAGE_ONLY].includes(name))
    const complaints = unknown.map((name) => `${what}: header ${name} is not in the document`)
    const text = await response.text()
    if (answer.content === undefined) return text === '' ? complaints : [...complaints, `${what} has a body`]
    const isMinimal = headers.get('preference-applied')?.includes('return=minimal') === true
    if (text === '' && isMinimal) return complaints
    const type = headers.get('content-type')?.split(';', 1)[0] ?? ''
    const schema = answer.content[type]?.schema
    if (schema === undefined) return [...complaints, `${what}: ${type} is not in the document`]
    const body: unknown = type.endsWith('json') ? JSON.parse(text) : text
    return [...complaints, ...this.mistakes(schema, body).map((mistake) => `${what}: ${mistake}`)]
  }

  /** Where a value is not what a schema of the document says. */
  mistakes(schema: Json, value: unknown): string[] {
    const validate = this.#validatorOf(JSON.stringify(strictly(schema)).replaceAll('"#/', '"document#/'))
    if (validate(value)) return []
    return (validate.errors ?? []).map(
      ({ instancePath, message, params }) => `${instancePath} ${message} ${JSON.stringify(params)}`,
    )
  }

  #validatorOf(text: string): ValidateFunction {
    const known = this.#validators.get(text)
    if (known !== undefined) return known
    const validate = this.#ajv.compile(JSON.parse(text) as Json)
    this.#validators.set(text, validate)
    return validate
  }

  #find(method: string, path: string): DocumentedOperation | undefined {
    const exact = this.document.paths[path]?.[method.toLowerCase()]
    if (exact !== undefined) return exact
    for (const [template, methods] of Object.entries(this.document.paths)) {
      const segments = template
        .split('/')
        .map((part) => (part.startsWith('{') ? '[^/]+' : RegExp.escape(part)))
      const found = methods[method.toLowerCase()]
      if (found !== undefined && new RegExp(`^${segments.join('/')}$`).test(path)) return found
    }
    return undefined
  }

  #answer({ responses }: DocumentedOperation, status: number): DocumentedAnswer | undefined {
    const answer = responses[status]
    const name = answer?.$ref?.split('/').at(-1)
    return name === undefined ? answer : (this.document.components.responses[name] as DocumentedAnswer)
  }
}

/** What an object is told to have is all it has. */
function strictly<Schema extends Json>(schema: Schema): Schema {
  const tighten = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(tighten)
    if (typeof value !== 'object' || value === null) return value
    const members = Object.fromEntries(Object.entries(value).map(([key, member]) => [key, tighten(member)]))
    const isClosed = members['type'] === 'object' && typeof members['properties'] === 'object'
    return isClosed ? { additionalProperties: false, ...members } : members
  }
  return tighten(schema) as Schema
}

const openapi = new Validator()
const jsonSchema = new Ajv2020({ strict: false })

/** What is wrong with a document as OpenAPI 3.1, with the schemas in it, and with references that lead nowhere. */
export async function documentMistakes(document: OpenApi): Promise<string[]> {
  const { valid, errors } = await openapi.validate(structuredClone(document) as never)
  const schemas = Object.entries(document.components.schemas)
  return [
    ...(valid ? [] : [JSON.stringify(errors)]),
    ...schemas.filter(([, schema]) => jsonSchema.validateSchema(schema) !== true).map(([name]) => name),
    ...brokenReferences(document),
  ]
}

/** References of a document that lead nowhere. */
function brokenReferences(document: unknown): string[] {
  const broken: string[] = []
  const visit = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return
    for (const [key, member] of Object.entries(value)) {
      if (key === '$ref' && typeof member === 'string' && !leadsSomewhere(document, member))
        broken.push(member)
      else visit(member)
    }
  }
  visit(document)
  return broken
}

function leadsSomewhere(document: unknown, pointer: string): boolean {
  if (!pointer.startsWith('#/')) return false
  let at: unknown = document
  for (const part of pointer.slice(2).split('/')) {
    const key = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~')
    at = (at as Json | undefined)?.[key]
  }
  return at !== undefined
}
