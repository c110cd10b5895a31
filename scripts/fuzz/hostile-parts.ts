/** Headers, names, queries and methods as strangers write them. */
import type { Random } from '../faults/random.ts'
import { pick } from './bodies.ts'

export type Header = readonly [name: string, value: string]

const LONG = 'a'.repeat(3000)
const KEY_FORMS = [
  '"quoted key"',
  'bare-key',
  '"open',
  '""',
  'two words',
  'x'.repeat(255),
  'x'.repeat(256),
  '"a\\"b"',
  '\u00ff',
  'k, k',
  "';--",
  '{}',
]
const ID_FORMS = [
  '',
  'x',
  'kept.0.e1-0.aaaaaaaaaaa',
  'kept.999.e0-0.AAAAAAAAAAA',
  '}x{victim.0.e1-1.AAAAAAAAAAA',
  'kept.0.x1.AAAAAAAAAAA',
  '*',
  '__proto__',
  LONG,
]
const TAGS = ['*', '"x"', 'W/"x"', '"', 'W/', `"${LONG}"`, '"a", "b", *', `${'"'.repeat(500)}`, ',,,,']

/** One hostile header: known ones in wrong forms, and some that nobody should listen to. */
export function hostileHeader(random: Random): Header {
  const choose = (name: string, values: readonly string[]): Header => [name, pick(random, values)]
  return pick(random, [
    choose('Idempotency-Key', KEY_FORMS),
    choose('Millrace-After', ID_FORMS),
    choose('If-None-Match', TAGS),
    choose('traceparent', [
      '00-0-0-0',
      '00-00000000000000000000000000000000-0000000000000000-00',
      LONG,
      '\u00ff\u00fe',
      '{"a":1}',
      '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
    ]),
    choose('tracestate', [LONG, 'a=b,'.repeat(300), '=']),
    choose('Prefer', [
      'wait=0',
      'wait=-1',
      'wait=NaN',
      'respond-async',
      'return=minimal',
      'wait="1"',
      ',;=',
      LONG,
    ]),
    choose('Range', ['bytes=0-1', 'bytes=-1', 'bytes=1-0,0-', 'items=0-']),
    choose('Accept', ['*/*;q=0', 'application/openmetrics-text', 'text/html', LONG, ';;;']),
    choose('Accept-Encoding', ['gzip', 'br', '*;q=0', 'identity;q=0', 'gzip;q=1e9', LONG]),
    choose('Content-Encoding', ['gzip', 'identity', 'br', 'x'.repeat(500)]),
    choose('X-Request-Id', [
      'ok-1',
      '<script>alert(1)</script>',
      LONG,
      '{"level":60}',
      '%0d%0aX-Injected:1',
      '\u00e9',
    ]),
    choose('Last-Event-ID', ['0-0', '99999999999999999999-1', LONG, '$']),
    choose('Authorization', ['Bearer mr_x_y', 'Bearer eyJhbGciOiJub25lIn0.e30.', 'Basic Og==', LONG]),
    choose('Origin', ['https://evil.example', 'null', LONG]),
    choose('Sec-Fetch-Site', ['cross-site', 'same-site', 'none', 'x']),
    choose('Host', [
      '',
      'a b',
      'evil.example',
      '[::1',
      'a:b',
      'x@y:99999',
      'a/..',
      '127.0.0.1, evil.example',
      'a?b',
    ]),
    choose('X-Forwarded-For', [LONG, '127.0.0.1']),
    choose('X-HTTP-Method-Override', ['DELETE']),
    choose('Cookie', [LONG]),
    choose('Expect', ['100-continue', '200-ok']),
    choose('Connection', ['close', 'keep-alive, Content-Length', 'Upgrade']),
    choose('Upgrade', ['websocket', 'h2c']),
    choose('TE', ['trailers', 'chunked']),
    choose('ce-specversion', ['1.0', '2', '']),
    choose('ce-type', ['kept.note', '__proto__', LONG]),
    choose('X-Tenant', ['}x{victim', '../../x', LONG]),
  ])
}

const NAMES = [
  '',
  '.',
  '..',
  '%2e%2e%2f',
  '%00',
  '%0d%0aX-Injected:%201',
  '%ff%fe',
  '%zz',
  '%',
  '%25',
  '__proto__',
  'constructor',
  '}x{',
  '{kept.0}:c',
  '*',
  'a:b',
  'a%2Fb',
  'Ünïcode',
  '%F0%9F%92%A9',
  'KEPT.NOTE',
  'kept.not',
  "';FLUSHALL",
  '$(id)',
  '\\',
  ';a=b',
  'x'.repeat(300),
  'y'.repeat(9000),
]

export function hostileName(random: Random): string {
  return pick(random, NAMES)
}

/** A true name or id with one character changed, doubled or left out; or of another stream or partition. */
export function nearMiss(name: string, random: Random): string {
  const at = random.whole(0, Math.max(0, name.length - 1))
  const other = pick(random, [...'abcXYZ019-_.'])
  return pick(random, [
    name.slice(0, at) + other + name.slice(at + 1),
    name.slice(0, at) + name.slice(at + 1),
    name.slice(0, at) + other + name.slice(at),
    name.replace(/\.(\d+)\./, (_, part: string) => `.${Number(part) + 1}.`),
    name.replace(/^[a-z]+/, (stream) => (stream === 'kept' ? 'worked' : 'kept')),
    `${name} `.replace(' ', '%20'),
    name.toUpperCase(),
    `${name}${name}`,
  ])
}

const VALUES = [
  '',
  '0',
  '-1',
  '1',
  '500',
  '501',
  '1e3',
  'NaN',
  'Infinity',
  '9'.repeat(30),
  '0x10',
  '1.5',
  ' 1',
  'true',
  'TRUE',
  'null',
  '%00',
  '%ff',
  '[]',
  '2030-01-31T08:00:00Z',
  '2030-13-45T99:00:00Z',
  '10000',
  'x'.repeat(2000),
  '}x{',
  'backward',
]

/** Unknown, repeated, negative and senseless parameters. */
export function hostileQuery(known: readonly string[], random: Random): string {
  const names = [...known, ...known, 'nope', '__proto__', 'limit', 'a[]', '']
  const pairs = Array.from(
    { length: random.whole(1, 3) },
    () => `${pick(random, names)}=${pick(random, VALUES)}`,
  )
  if (random.next() < 0.2 && pairs[0] !== undefined) pairs.push(pairs[0])
  return `?${pairs.join(pick(random, ['&', '&', ';', '&&', '?']))}${pick(random, ['', '', '', '#fragment'])}`
}

export const METHODS: readonly string[] = [
  'GET',
  'HEAD',
  'POST',
  'PUT',
  'PATCH',
  'DELETE',
  'OPTIONS',
  'TRACE',
  'CONNECT',
  'get',
  'BREW',
  'PROPFIND',
  'QUERY',
]
