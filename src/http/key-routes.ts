/**
 * API keys for operators: make, list, show, rotate, revoke. A key is told once, in the answer to the call that made it.
 *
 * A web page that a browser on this machine shows must not make keys: what changes keys is refused when it comes with an
 * `Origin`, which browsers send and programs don't.
 */
import type { Hono } from 'hono'
import { MillraceError } from '../contracts/errors.ts'
import type { ApiKeyReport } from '../identity/api-key-record.ts'
import type { ApiKeys, IssuedApiKey, KeyExpiry } from '../identity/api-keys.ts'
import { type Answers, jsonResponse, type RouteContext } from './answers.ts'
import type { BodyReader } from './body-reader.ts'
import { timeOf } from './delivery.ts'
import type { HttpEnv } from './http-env.ts'
import { malformed, readFields, readJsonBody } from './json-fields.ts'
import { readQuery, readWhole } from './query.ts'
import { linkHeader } from './view-routes.ts'

export interface KeyRouteParts {
  readonly keys: ApiKeys
  readonly bodies: BodyReader
  readonly answers: Answers
}

const NO_STORE = { 'cache-control': 'no-store' }
const CREATE_FIELDS = ['label', 'tenant', 'scopes', 'expiresAt', 'expiresInMs'] as const
const ROTATE_FIELDS = ['oldExpiresAt', 'oldExpiresInMs'] as const
const EXPIRES_IN_MS_MAX = 100 * 366 * 86_400_000

export function addKeyRoutes(app: Hono<HttpEnv>, { keys, bodies, answers }: KeyRouteParts): void {
  app.get(
    '/v1/keys',
    answers.on('key.list', async (c) => {
      const { url } = c.req.raw
      const { limit, cursor } = readQuery(url, ['limit', 'cursor'])
      const { data, next } = await keys.page({ limit: readWhole('limit', limit, 1, 500), cursor })
      const body = { data: data.map(told), page: { next: next ?? null, prev: null } }
      return jsonResponse(body, 200, { ...NO_STORE, ...linkHeader(url, { next, prev: undefined }) })
    }),
  )
  app.post(
    '/v1/keys',
    answers.on('key.create', async (c) => {
      refuseBrowsers(c)
      const fields = readFields(await readJsonBody(c, bodies), CREATE_FIELDS)
      const { expiresAt, expiresInMs } = fields
      const issued = await keys.create({
        label: textField(fields, 'label'),
        tenant: textField(fields, 'tenant'),
        scopes: readScopes(fields['scopes']),
        ...readExpiry('expires', expiresAt, expiresInMs),
      })
      return jsonResponse(toldOnce(issued), 201, { ...NO_STORE, location: `/v1/keys/${issued.id}` })
    }),
  )
  app.get(
    '/v1/keys/:id',
    answers.on('key.show', async (c) => {
      readQuery(c.req.raw.url, [])
      return jsonResponse(told(await keys.get(idOf(c))), 200, NO_STORE)
    }),
  )
  app.post(
    '/v1/keys/:id/rotate',
    answers.on('key.rotate', async (c) => {
      refuseBrowsers(c)
      const { oldExpiresAt, oldExpiresInMs } = readFields(
        (await readJsonBody(c, bodies)) ?? {},
        ROTATE_FIELDS,
      )
      const issued = await keys.rotate(idOf(c), readExpiry('oldExpires', oldExpiresAt, oldExpiresInMs))
      return jsonResponse(toldOnce(issued), 201, NO_STORE)
    }),
  )
  app.delete(
    '/v1/keys/:id',
    answers.on('key.revoke', async (c) => {
      refuseBrowsers(c)
      const { secret } = readQuery(c.req.raw.url, ['secret'])
      if (secret !== undefined && secret !== 'old')
        throw malformed('Query parameter "secret" can only be "old".')
      await keys.revoke(idOf(c), secret ?? 'key')
      return new Response(null, { status: 204 })
    }),
  )
}

function idOf(c: RouteContext): string {
  return c.req.param('id') ?? ''
}

function refuseBrowsers(c: RouteContext): void {
  if (!c.req.raw.headers.has('origin')) return
  throw new MillraceError(
    'identity.forbidden',
    'Keys are not changed from a web page. Use `millrace keys`, or curl.',
  )
}

function textField(fields: Readonly<Record<string, unknown>>, name: 'label' | 'tenant'): string | undefined {
  const value = fields[name]
  if (value === undefined || typeof value === 'string') return value
  throw malformed(`"${name}" is a text.`)
}

function readScopes(value: unknown): string[] {
  if (Array.isArray(value) && value.every((each) => typeof each === 'string')) return value
  throw malformed('"scopes" is a list of texts, such as ["commands:write:orders", "views:read"].')
}

function readExpiry(name: 'expires' | 'oldExpires', at: unknown, inMs: unknown): KeyExpiry {
  const expiresAtMs = timeOf(at)
  if (at !== undefined && expiresAtMs === undefined)
    throw malformed(`"${name}At" is a time such as "2030-01-31T08:00:00Z" (RFC 3339).`)
  if (inMs === undefined) return { expiresAtMs }
  if (typeof inMs === 'number' && Number.isInteger(inMs) && inMs >= 1 && inMs <= EXPIRES_IN_MS_MAX)
    return { expiresAtMs, expiresInMs: inMs }
  throw malformed(`"${name}InMs" is a whole number of milliseconds, 1 or more.`)
}

/** Times as people and programs read them. */
function told({
  id,
  label,
  tenant,
  scopes,
  createdAtMs,
  expiresAtMs,
  secrets,
  lastUsedAtMs,
}: ApiKeyReport): object {
  return {
    ...{ id, label, tenant, scopes },
    createdAt: timeText(createdAtMs),
    expiresAt: timeText(expiresAtMs),
    lastUsedAt: timeText(lastUsedAtMs),
    secrets: secrets.map((each) => ({
      createdAt: timeText(each.createdAtMs),
      expiresAt: timeText(each.expiresAtMs),
    })),
  }
}

function toldOnce(issued: IssuedApiKey): object {
  return { key: issued.key, ...told(issued) }
}

function timeText(ms: number | undefined): string | null {
  return ms === undefined ? null : new Date(ms).toISOString()
}
