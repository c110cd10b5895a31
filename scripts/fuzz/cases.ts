/**
 * Cases: request by request, each drawn from the seed and its own number alone, so that any of them can be made again. Only ids and
 * cursors, which must be true ones, come from the process that is asked.
 */
import { Random } from '../faults/random.ts'
import { CONTENT_TYPES, type ContentType, type Marks, mutated, pick, validBody } from './bodies.ts'
import type { Ground } from './ground.ts'
import { hostileHeader, hostileName, hostileQuery, METHODS, nearMiss } from './hostile-parts.ts'
import { type HostileRequest, headOf } from './hostile-request.ts'
import { RAW_CASES } from './raw-cases.ts'
import { type FuzzedRoute, ROUTES } from './routes.ts'

export interface FuzzCase {
  readonly index: number
  readonly kind: Kind
  readonly route: FuzzedRoute
  /** Label of the content type; `-` where there is no body. */
  readonly contentType: string
  readonly marks: Marks
  readonly request: HostileRequest
}

const KINDS = ['valid', 'body', 'header', 'name', 'query', 'method', 'framing', 'raw', 'known'] as const
export type Kind = (typeof KINDS)[number]
/** Cumulative shares, in the order of the kinds. */
const SHARES = [0.2, 0.45, 0.6, 0.72, 0.8, 0.85, 0.9, 0.95, 1]
const SENDING_SHARE = 0.4
/** One of so many waits in vain for a view, which takes as long as the product allows. */
const PATIENT_EVERY = 5000
const PATIENT = 777
const JSON_TYPE: readonly ContentType[] = CONTENT_TYPES.filter(({ label }) => label === 'json')
const BULK_BYTES = 9_000_000

const VIEW = ROUTES.find(({ path }) => path.endsWith('/:key')) as FuzzedRoute
const SENDING = ROUTES.filter(({ takes }) => takes === 'command' || takes === 'bulk')

export function makeCase(seed: number, index: number, ground: Ground): FuzzCase {
  const random = new Random(seed).fork(`case ${index}`)
  // The first draws of forks that lie near each other do.
  random.next()
  const isPatient = index % PATIENT_EVERY === PATIENT
  const drawnRoute = random.next() < SENDING_SHARE ? pick(random, SENDING) : pick(random, ROUTES)
  const drawn = random.next()
  const route = isPatient ? VIEW : drawnRoute
  const kind = isPatient ? 'known' : (KINDS[SHARES.findIndex((share) => drawn < share)] ?? 'valid')
  const canary = `canary-${random.whole(0, 2 ** 31).toString(36)}${random.whole(0, 2 ** 31).toString(36)}`
  const marks = { mark: `fz${index}_`, canary }
  const isPlain = kind === 'known' || kind === 'raw' || kind === 'framing' || random.next() < 0.4
  const type = pick(random, isPlain ? JSON_TYPE : CONTENT_TYPES)
  const contentType = route.takes === 'nothing' ? '-' : type.label
  const right = rightRequest(route, type, { marks, random, ground })
  const request = CHANGES[kind](right, { route, marks, random, ground, index })
  return { index, kind, route, contentType, marks, request }
}

interface Drawing {
  readonly marks: Marks
  readonly random: Random
  readonly ground: Ground
}

function rightRequest(
  route: FuzzedRoute,
  type: ContentType,
  { marks, random, ground }: Drawing,
): HostileRequest {
  const target = route.path.replace(
    /:(\w+)/g,
    (text, name: string) => trueName(route, name, { marks, random, ground }) ?? text,
  )
  const base = {
    method: route.method,
    target,
    headers: [],
    body: undefined,
    sending: 'whole',
    raw: undefined,
  } as const
  if (route.takes === 'nothing') return base
  return {
    ...base,
    headers: type.header === undefined ? [] : [['Content-Type', type.header]],
    body: validBody(route.takes, type.form, marks, random),
  }
}

/** Undefined for what is no name, such as `:purge`. */
function trueName({ path }: FuzzedRoute, name: string, { random, ground }: Drawing): string | undefined {
  switch (name) {
    case 'type':
      return pick(random, ['kept.note', 'kept.note', 'kept.note', 'kept.sum'])
    case 'id':
      if (path.includes('dead-letters')) return pick(random, ground.dead)
      if (path.includes('keys')) return pick(random, ground.keys)
      if (path.includes('operations')) return pick(random, ground.operations)
      return pick(random, random.next() < 0.8 ? ground.ended : ground.waiting)
    case 'projection':
      return 'counts'
    case 'key':
      return pick(random, ground.viewKeys)
    case 'stream':
      return 'worked'
    case 'name':
      if (path.includes('problems')) return 'malformed-request'
      return path.includes('schedules') ? 'nightly' : 'kept'
    case 'purge':
    case 'redrive':
      return undefined
    default:
      return 'x'
  }
}

interface Change extends Drawing {
  readonly route: FuzzedRoute
  readonly index: number
}

const CHANGES: { readonly [Name in Kind]: (request: HostileRequest, change: Change) => HostileRequest } = {
  valid: (request, { route, random }) => withTrueQuery(request, route, random),
  body: (request, { random }) => {
    if (request.body === undefined) return { ...request, body: mutated(Buffer.from('{"a":1}'), random) }
    return { ...request, body: mutated(request.body, random) }
  },
  header: (request, { random }) => {
    const more = Array.from({ length: random.whole(1, 4) }, () => hostileHeader(random))
    if (random.next() < 0.2 && more[0] !== undefined) more.push(more[0])
    return { ...request, headers: [...request.headers, ...more] }
  },
  name: (request, { random }) => {
    const segments = request.target.split('/')
    const at = random.next() < 0.8 ? segments.length - 1 : random.whole(1, segments.length - 1)
    const name = segments[at] ?? ''
    segments[at] = random.next() < 0.5 ? hostileName(random) : nearMiss(name, random)
    if (random.next() < 0.1) segments.splice(at, 0, pick(random, ['', '.', '..', '%2e%2e', 'x']))
    return { ...request, target: segments.join('/').replace(/^(?!\/)/, '/') }
  },
  query: (request, { route, random, ground }) => {
    const cursor = route.path.includes('dead') ? ground.deadCursor : ground.viewCursor
    if (!route.query.includes('cursor') || random.next() < 0.5)
      return { ...request, target: request.target + hostileQuery(route.query, random) }
    const near = random.next() < 0.3 ? cursor : nearMiss(cursor, random)
    return { ...request, target: `${request.target}?cursor=${encodeURIComponent(near)}` }
  },
  method: (request, { random }) => ({ ...request, method: pick(random, METHODS) }),
  framing: (request, { random }) => {
    const body = request.body ?? Buffer.from('{}')
    const sending = pick(random, [
      'chunked',
      'cut',
      'cut',
      'chunked cut',
      'short length',
      'long length',
    ] as const)
    return { ...request, body, sending }
  },
  raw: (request, { random, marks, ground }) => rawRequest(request, { random, marks, ground }),
  known: knownRequest,
}

function withTrueQuery(
  request: HostileRequest,
  { takes, query }: FuzzedRoute,
  random: Random,
): HostileRequest {
  if (query.length === 0 || random.next() < 0.6) return request
  const at = new Date(Date.UTC(2090, 0, 1)).toISOString()
  const pairs: Readonly<Record<string, readonly string[]>> = {
    command: [
      'delayMs=86400000',
      `deliverAt=${at}`,
      `expiresAt=${at}`,
      'expiresInMs=86400000&delayMs=3600000',
    ],
    bulk: ['atomic=false', 'atomic=true', 'atomic'],
  }
  const names: Readonly<Record<string, string>> = {
    limit: 'limit=3',
    verbose: 'verbose',
    stream: 'stream=worked',
  }
  const known = pairs[takes] ?? query.flatMap((name) => names[name] ?? [])
  return known.length === 0 ? request : { ...request, target: `${request.target}?${pick(random, known)}` }
}

function rawRequest(request: HostileRequest, { random, marks, ground }: Drawing): HostileRequest {
  const body = JSON.stringify({ mark: marks.mark, any: { canary: marks.canary } })
  const type = CONTENT_TYPES[0] as ContentType
  const post = (mark: string, more: string): string => {
    const target = '/v1/commands/kept.note'
    return (
      headOf({
        ...request,
        method: 'POST',
        target,
        headers: [
          ['Content-Type', String(type.header)],
          ['X-Mark', mark],
        ],
      }) + more
    )
  }
  const inner = JSON.stringify({ mark: `sm${marks.mark.slice(2)}` })
  const smuggled = post('inner', `Content-Length: ${inner.length}\r\n\r\n${inner}`)
  const name = pick(random, Object.keys(RAW_CASES))
  const raw = RAW_CASES[name]?.({ head: post('outer', ''), body, smuggled }, random) ?? ''
  void ground
  return { ...request, body: undefined, sending: 'raw', raw: { name, bytes: Buffer.from(raw, 'latin1') } }
}

/** Aimed at one class of answer each, where chance alone would take long. */
function knownRequest(request: HostileRequest, { route, random, ground, index }: Change): HostileRequest {
  const withHeader = (name: string, value: string): HostileRequest => ({
    ...request,
    headers: [...request.headers, [name, value]],
  })
  if (index % PATIENT_EVERY === PATIENT) {
    return withHeader('Millrace-After', ground.behind)
  }
  if (route.takes === 'command' || route.takes === 'bulk') {
    if (random.next() < 0.3) return { ...request, body: Buffer.alloc(BULK_BYTES), sending: 'head alone' }
    return withHeader('Idempotency-Key', `"reused ${random.whole(0, 20)}"`)
  }
  if (route.takes === 'plan') return { ...request, body: Buffer.alloc(BULK_BYTES), sending: 'head alone' }
  if (route.listener === 'admin') return withHeader('Sec-Fetch-Site', 'cross-site')
  if (route.method === 'DELETE') return request
  return withHeader('If-None-Match', pick(random, ['*', 'W/"x", *', '*']))
}
