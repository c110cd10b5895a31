/** Compressed answers: which of them, for whom, and that conditional requests still find what they ask for. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { gunzipSync, inflateSync } from 'node:zlib'
import { z } from 'zod'
import { COMPRESSED_CHARS_MIN, compressedResponse, encodingOf } from '../src/http/compression.ts'
import { defineCommand, defineEvent, defineProjection } from '../src/index.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { packPayload } from '../src/redis/payload-codec.ts'
import { commitViews } from '../src/redis/view-store.ts'
import { type PublicServer, startPublicServer } from './support/public-server.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'

describe('Accept-Encoding', () => {
  test.each([
    [null, undefined],
    ['', undefined],
    ['gzip', 'gzip'],
    ['GZIP', 'gzip'],
    ['x-gzip', 'gzip'],
    ['deflate', 'deflate'],
    ['gzip, deflate, br, zstd', 'gzip'],
    ['deflate, gzip', 'gzip'],
    ['gzip;q=0.5, deflate;q=0.8', 'deflate'],
    ['gzip; q=0 , deflate;q=0', undefined],
    ['*', 'gzip'],
    ['*;q=0', undefined],
    ['gzip;q=0, *', 'deflate'],
    ['br', undefined],
    ['identity', undefined],
    ['identity;q=1, gzip;q=0.5', undefined],
    ['identity;q=0.5, gzip;q=1', 'gzip'],
    ['identity;q=0', undefined],
    ['gzip;q=2', undefined],
    ['gzip;q=x, deflate', 'deflate'],
  ])('%p', (header, encoding) => {
    expect(encodingOf(header)).toBe(encoding as ReturnType<typeof encodingOf>)
  })
})

describe('answers', () => {
  const note = defineCommand({ type: 'note.write', payload: z.object({ text: z.string() }) })
  const written = defineEvent({ type: 'note.written', payload: z.object({ text: z.string() }) })
  const notes = defineProjection({ name: 'notes', initial: () => ({}) }).on(
    written,
    () => 'k',
    (view) => view,
  )
  const catalogue = buildCatalogue([note, written, notes])
  const long = { text: 'words and words and '.repeat(200) }
  const short = { text: 'words' }

  let redis: TestRedis
  let api: PublicServer

  beforeAll(async () => {
    redis = await startTestRedis()
    api = await startPublicServer(redis, catalogue)
    const views = [
      { key: 'long', blob: packPayload(long) },
      { key: 'short', blob: packPayload(short) },
    ]
    await plantViews(views)
  })
  afterAll(async () => {
    await api[Symbol.asyncDispose]()
    await redis[Symbol.asyncDispose]()
  })

  const items = (count: number) =>
    Array.from({ length: count }, () => ({ type: 'note.write', payload: short }))
  /** As it is on the wire. */
  const raw = async (path: string, accepts: string | undefined, init: RequestInit = {}) => {
    const headers = { ...(init.headers as Record<string, string>), 'accept-encoding': accepts ?? 'identity' }
    const response = await api.fetch(path, { ...init, headers, decompress: false } as RequestInit)
    return { response, bytes: Buffer.from(await response.arrayBuffer()) }
  }
  const bulk = (count: number, accepts: string | undefined) =>
    raw('/v1/commands', accepts, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(items(count)),
    })

  test('a long bulk answer, as gzip and as deflate', async () => {
    for (const [accepts, decode] of [
      ['gzip', gunzipSync],
      ['deflate', inflateSync],
    ] as const) {
      const { response, bytes } = await bulk(100, accepts)
      expect(response.status).toBe(202)
      expect(response.headers.get('content-encoding')).toBe(accepts)
      expect(response.headers.get('vary')).toBe('Accept-Encoding')
      const text = decode(bytes).toString()
      expect(JSON.parse(text)).toMatchObject({ accepted: 100 })
      expect(bytes.length).toBeLessThan(text.length / 2)
    }
  })

  test('not for who does not take it, though caches learn that it matters; not when it is short', async () => {
    const plain = await bulk(100, undefined)
    expect([plain.response.headers.get('content-encoding'), plain.response.headers.get('vary')]).toEqual([
      null,
      'Accept-Encoding',
    ])
    expect(JSON.parse(plain.bytes.toString())).toMatchObject({ accepted: 100 })
    const few = await bulk(2, 'gzip')
    expect([few.response.headers.get('content-encoding'), few.response.headers.get('vary')]).toEqual([
      null,
      null,
    ])
    const problem = await raw('/v1/commands', 'gzip', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '[]',
    })
    expect(problem.response.headers.get('content-encoding')).toBeNull()
  })

  test('a page of views, and a long view, but no short one', async () => {
    const page = await raw('/v1/views/notes', 'gzip')
    expect(page.response.headers.get('content-encoding')).toBe('gzip')
    expect(page.response.headers.get('millrace-position')).not.toBeNull()
    expect(JSON.parse(gunzipSync(page.bytes).toString())).toMatchObject({
      data: [{ key: 'long' }, { key: 'short' }],
    })
    // Twice: from Redis, then from memory.
    for (let round = 0; round < 2; round++) {
      const view = await raw('/v1/views/notes/long', 'gzip')
      expect(JSON.parse(gunzipSync(view.bytes).toString())).toEqual(long)
      const small = await raw('/v1/views/notes/short', 'gzip')
      expect([small.response.headers.get('content-encoding'), small.response.headers.get('vary')]).toEqual([
        null,
        null,
      ])
      expect(JSON.parse(small.bytes.toString())).toEqual(short)
    }
  })

  test('a compressed view has a weak tag, and both tags find it unchanged, each told as it is held', async () => {
    const strong = (await raw('/v1/views/notes/long', undefined)).response.headers.get('etag') ?? ''
    const weak = (await raw('/v1/views/notes/long', 'gzip')).response.headers.get('etag')
    expect(weak).toBe(`W/${strong}`)
    for (const tag of [strong, `W/${strong}`]) {
      for (const accepts of ['gzip', undefined]) {
        const { response, bytes } = await raw('/v1/views/notes/long', accepts, {
          headers: { 'if-none-match': `"x", ${tag}` },
        })
        expect([response.status, bytes.length, response.headers.get('etag')]).toEqual([304, 0, tag])
        expect(response.headers.get('content-encoding')).toBeNull()
      }
    }
  })

  test('HEAD tells what a GET would send, and sends nothing', async () => {
    const get = await raw('/v1/views/notes', 'gzip')
    const { response, bytes } = await raw('/v1/views/notes', 'gzip', { method: 'HEAD' })
    expect([response.status, bytes.length, response.headers.get('content-encoding')]).toEqual([
      200,
      0,
      'gzip',
    ])
    expect(response.headers.get('content-length')).toBe(String(get.bytes.length))
  })

  test('what is very long is compressed aside, and the same', async () => {
    const text = JSON.stringify({ text: 'x'.repeat(3 * 1024 ** 2) })
    const answer = compressedResponse(new Headers({ 'accept-encoding': 'gzip' }), text, {
      status: 200,
      headers: new Headers(),
    })
    expect(answer).toBeInstanceOf(Promise)
    expect(gunzipSync(await (await answer).arrayBuffer()).toString()).toBe(text)
    const edge = 'x'.repeat(COMPRESSED_CHARS_MIN - 1)
    const short = compressedResponse(new Headers({ 'accept-encoding': 'gzip' }), edge, {
      status: 200,
      headers: new Headers(),
    })
    expect((await short).headers.get('content-encoding')).toBeNull()
  })

  async function plantViews(views: readonly { key: string; blob: Buffer }[]): Promise<void> {
    const link = await redis.open()
    const keys = partitionKeys('main', 0)
    await link.use('HSET', (client) => client.hset(keys.readers, 'notes@1', '0-0'))
    await commitViews(link, keys, {
      ...{ reader: 'notes@1', expected: '0-0', checkpoint: '5-0' },
      changes: { written: views.map((view) => ({ ...view, isNew: true })), deleted: [], skipped: [] },
    })
  }
})
