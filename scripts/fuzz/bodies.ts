/** Bodies: valid ones in each content type, and what strangers make of them. Everything is drawn from the case's own chance. */
import { pack } from 'msgpackr'
import type { Random } from '../faults/random.ts'
import type { Takes } from './routes.ts'

export interface ContentType {
  readonly label: string
  /** Undefined: no such header. */
  readonly header: string | undefined
  readonly form: 'json' | 'lines' | 'msgpack' | 'event' | 'events'
}

const type = (label: string, header: string | undefined, form: ContentType['form']): ContentType => ({
  ...{ label, header, form },
})

export const CONTENT_TYPES: readonly ContentType[] = [
  type('json', 'application/json', 'json'),
  type('json+charset', 'Application/JSON; charset="UTF-8"; x=y', 'json'),
  type('ndjson', 'application/x-ndjson', 'lines'),
  type('jsonl', 'application/jsonl', 'lines'),
  type('msgpack', 'application/vnd.msgpack', 'msgpack'),
  type('ce-structured', 'application/cloudevents+json', 'event'),
  type('ce-batch', 'application/cloudevents-batch+json', 'events'),
  type('none', undefined, 'json'),
  type('other', 'text/plain', 'json'),
  type('other charset', 'application/json; charset=utf-16', 'json'),
  type('hostile', `application/json;${' '.repeat(200)}charset=\t"utf-8`, 'json'),
]

/** What a command says, and what no answer may repeat. */
export interface Marks {
  readonly mark: string
  readonly canary: string
}

/** A body that is right for what the route takes, if the content type is. */
export function validBody(takes: Takes, form: ContentType['form'], marks: Marks, random: Random): Buffer {
  if (takes === 'redrive') return encode(random.next() < 0.5 ? {} : { payload: { n: 1 } }, form)
  if (takes === 'key') {
    return encode({ label: 'fuzzed', scopes: ['commands:write'], expiresInMs: 60_000 }, form)
  }
  if (takes === 'rotation') return encode({ oldExpiresInMs: random.whole(1, 60_000) }, form)
  if (takes === 'plan')
    return encode({ filter: { to: '2001-01-01T00:00:00Z' }, dryRun: random.next() < 0.9 }, form)
  const payloads = Array.from({ length: takes === 'bulk' ? random.whole(1, 5) : 1 }, () =>
    payloadOf(marks, random),
  )
  const data = payloads[0]
  const event = { specversion: '1.0', id: marks.mark, source: '/fuzz', type: 'kept.note', data }
  if (form === 'event') return encode(event, 'json')
  if (form === 'events') return encode([event], 'json')
  if (takes === 'command') return encode(data, form)
  const commands = payloads.map((payload) => ({ type: 'kept.note', payload }))
  if (form !== 'lines') return encode(commands, form)
  return Buffer.from(
    commands.map((command) => JSON.stringify(command)).join(random.next() < 0.2 ? '\r\n\n' : '\n'),
  )
}

function encode(value: unknown, form: ContentType['form']): Buffer {
  return form === 'msgpack' ? Buffer.from(pack(value)) : Buffer.from(JSON.stringify(value))
}

function payloadOf({ mark, canary }: Marks, random: Random): object {
  const any = pick(random, [
    1,
    null,
    'ü€😀',
    [1, [2, [3]]],
    { a: { b: [true] } },
    -0.5e-7,
    '',
    'x'.repeat(random.whole(0, 600)),
  ])
  return { mark, any: { canary, any } }
}

export function pick<Item>(random: Random, items: readonly Item[]): Item {
  return items[random.whole(0, items.length - 1)] as Item
}

type Mutation = (body: Buffer, random: Random) => Buffer

const splice = (body: Buffer, at: number, removed: number, inserted: Buffer | string): Buffer =>
  Buffer.concat([body.subarray(0, at), Buffer.from(inserted as string), body.subarray(at + removed)])
const somewhere = (body: Buffer, random: Random): number => random.whole(0, body.length)
/** Behind the first brace: what it holds gets one more member, in front. */
const member =
  (text: string): Mutation =>
  (body) =>
    splice(body, body.indexOf('{') + 1, 0, text)
/** In place of the first number, or at the end. */
const value =
  (text: string): Mutation =>
  (body) => {
    const found = /:(\d+|null|true|"[^"]{0,20}")/.exec(body.toString('latin1'))
    return found === null
      ? splice(body, body.length, 0, text)
      : splice(body, found.index + 1, found[0].length - 1, text)
  }
const whole =
  (bytes: (random: Random) => Buffer | string): Mutation =>
  (_, random) =>
    Buffer.from(bytes(random) as string)

const MUTATIONS: readonly Mutation[] = [
  (body, random) => {
    const copy = Buffer.from(body)
    for (let i = random.whole(1, 4); i > 0 && copy.length > 0; i--) {
      const at = random.whole(0, copy.length - 1)
      copy[at] = (copy[at] ?? 0) ^ (1 << random.whole(0, 7))
    }
    return copy
  },
  (body, random) => body.subarray(0, somewhere(body, random)),
  (body, random) => splice(body, somewhere(body, random), random.whole(1, 8), ''),
  (body, random) => splice(body, somewhere(body, random), 0, body.subarray(somewhere(body, random))),
  (body, random) =>
    splice(
      body,
      somewhere(body, random),
      0,
      pick(
        random,
        [[0], [0xff], [0xc0, 0xaf], [0xed, 0xa0, 0x80]].map((bytes) => Buffer.from(bytes)),
      ),
    ),
  (body) => Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), body]),
  (body) => Buffer.from(body.toString('utf8'), 'utf16le'),
  (body) => Bun.gzipSync(new Uint8Array(body)) as Buffer,
  member('"__proto__":{"admin":true},'),
  member('"constructor":{"prototype":{"x":1}},'),
  member('"mark":1,"mark":"again","type":"kept.sum","type":7,'),
  member(`"${'k'.repeat(3000)}":1,`),
  member('"toJSON":1,"then":{},"valueOf":null,"length":-1,'),
  member('"\\u0000\\r\\nX-Injected: 1":1,'),
  value('1e999'),
  value('-0'),
  value(`1${'0'.repeat(400)}`),
  value('"\\ud800"'),
  value('"\\u0000\\u001b[31m\\r\\n{\\"level\\":60}"'),
  value('['.repeat(40) + ']'.repeat(40)),
  value('{"a":'.repeat(33) + '1' + '}'.repeat(33)),
  value('['.repeat(20_000)),
  value(`[${'{},'.repeat(5000)}1]`),
  value('NaN'),
  whole(() => ''),
  whole(() => 'null'),
  whole(() => '[]'),
  whole(() => '[[[{"type":"kept.note"}]]]'),
  whole(() => '"x"\n{}\n'),
  whole((random) => Buffer.from(Array.from({ length: random.whole(1, 200) }, () => random.whole(0, 255)))),
  whole(() => Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff])),
  whole(() => Buffer.from([0xdf, 0x7f, 0xff, 0xff, 0xff, 0xa1, 0x61])),
  whole(() => Buffer.from([0xc6, 0xff, 0xff, 0xff, 0xff])),
  whole((random) => Buffer.from([0x81, 0xa1, 0x61, 0xc7, 4, random.whole(0, 255), 1, 2, 3, 4])),
  whole((random) =>
    Buffer.from([0x91, 0xd4 + random.whole(0, 4), random.whole(0, 255), ...Array<number>(16).fill(1)]),
  ),
  whole(() => Buffer.concat([Buffer.alloc(100_000, 0x91), Buffer.from([0xc0])])),
  whole(() => Buffer.from([0x81, 0xac, 0xc1, 0xa3, ...Buffer.from('onstructor'), 1])),
]

/** Seldom: they cost both sides. */
const HEAVY: readonly Mutation[] = [
  whole(() => '['.repeat(1_000_000)),
  whole(() => Buffer.alloc(1_000_000, 0x91)),
  whole(() => `[${'{},'.repeat(600_000)}1]`),
  whole(() => '"x"\n'.repeat(12_000)),
  whole(() => `[${'{"type":"kept.nope"},'.repeat(3000)}{}]`),
  whole(() => 'x'.repeat(300_000)),
]
const HEAVY_SHARE = 1 / 400

export function mutated(body: Buffer, random: Random): Buffer {
  if (random.next() < HEAVY_SHARE) return pick(random, HEAVY)(body, random)
  const once = pick(random, MUTATIONS)(body, random)
  return random.next() < 0.25 ? pick(random, MUTATIONS)(once, random) : once
}
